"""Programs that try to escape, cheat or break the sandbox, and a runner for all of them.

    python sandbox_attacks.py bubblewrap [name ...]    # or namespaces, limits; prints JSON

Standard library and klear_lab.sandbox.pool only, so that another interpreter can run it as another user.
"""

import ctypes
import json
import os
import platform
import queue
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import klear_lab.sandbox.pool as sandbox_module
from klear_lab.sandbox.isolation import BUBBLEWRAP, FIRST_USER, LIMITS, NAMESPACES
from klear_lab.sandbox.pool import CaseResult, Job, SandboxPool

ISOLATIONS = {isolation.name: isolation for isolation in (BUBBLEWRAP, NAMESPACES, LIMITS)}
LANES = 4
SECONDS = 0.5
MEMORY_MB = 128
SLACK_SECONDS = 5.0  # beyond the time for its tests, an attack may hold its sandbox for this long
PR_SET_CHILD_SUBREAPER = 36

TOOLS = """
import ctypes, os, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result
def attempt(name, do, *arguments):
    try:
        got = do(*arguments)
    except (OSError, ValueError) as error:
        print(name, "refused", type(error).__name__, flush=True)
    else:
        print(name, "succeeded", repr(got)[:100], flush=True)
"""

# In every text: $FOLDER, $FILE (writable by all, its contents a secret), $PORT, $STREAM, $DATAGRAM, $ABSTRACT (sockets
# that listen), $CANARY (a process), $EVERY (all processes), $TOP (all files), $MARK (the names of files left behind).
Check = Callable[[list[CaseResult]], str]
ANSWER = "answer-" + secrets.token_hex(16)  # what the tests expect; no program is told
QUESTION = "question-" + secrets.token_hex(16)
STDIN_TEST = {"stdin": QUESTION, "expected_stdout": ANSWER}
CALL_TEST = {"call": "solve", "args": [QUESTION], "expected": ANSWER}


@dataclass(frozen=True)
class Attack:
    program: str
    allowed: tuple[str, ...] = ("failed",)
    tests: tuple[dict[str, Any], ...] = (STDIN_TEST,)
    seconds: float | None = None
    check: Check | None = None  # says what is wrong, nothing if nothing is
    needs_private_files: bool = False
    machines: tuple[str, ...] = ("x86_64", "aarch64")

    def seconds_a_test(self) -> float:
        """Few where it may run out of them, many where it ends by itself on a busy machine too."""
        return self.seconds or (SECONDS if "timeout" in self.allowed else 5.0)


def refused(count: int) -> Check:
    def check(results: list[CaseResult]) -> str:
        lines = results[0].output.splitlines()
        bad = [line for line in lines if " refused " not in line]
        return "" if len(lines) == count and not bad else f"{len(lines)} of {count} attempts reported; {bad}"

    return check


def says(pattern: str, where: str = "output") -> Check:
    def check(results: list[CaseResult]) -> str:
        text = getattr(results[0], where)
        return "" if re.search(pattern, text) else f"{where} lacks {pattern!r}: {text[-300:]!r}"

    return check


def short(results: list[CaseResult]) -> str:
    longest = max(len(text) for r in results for text in (r.output, r.message))
    return "" if longest <= 2000 else f"{longest} characters are shown"


def found_only_the_question(results: list[CaseResult]) -> str:
    output = results[0].output
    return "" if "question-" in output and "answer-" not in output else f"it found {output!r}"


def attempts(*lines: str, before: str = "") -> str:
    return TOOLS + before + "\n" + "\n".join(f"attempt({line})" for line in lines)


def refusals(*lines: str, before: str = "", **more: Any) -> Attack:
    return Attack(attempts(*lines, before=before), check=refused(len(lines)), **more)


SCAN = """
import re, sys, gc
pattern = re.compile(r"(?:question|answer)-[0-9a-f]{32}")
found = set()
def look(text):
    if isinstance(text, (bytes, bytearray, memoryview)):
        text = bytes(text).decode("latin-1")
    found.update(pattern.findall(text))
"""

ATTACKS: dict[str, Attack] = {
    # Processes
    "fork_loop": Attack(
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass", ("timeout",)
    ),
    "fork_in_any_way": refusals(
        '"fork", os.fork',
        '"forkpty", os.forkpty',
        '"libc fork", call, "fork"',
        '"vfork", call, "vfork"',
        '"process", multiprocessing.get_context("fork").Process(target=print).start',
        '"spawned process", multiprocessing.get_context("spawn").Process(target=print).start',
        '"pool", multiprocessing.get_context("fork").Pool, 2',
        '"executor", lambda: concurrent.futures.ProcessPoolExecutor(1).submit(print).result()',
        '"run", subprocess.run, [sys.executable or "/bin/sh", "-c", ""]',
        '"popen", os.popen, "true"',
        '"posix_spawn", os.posix_spawn, sys.executable, ["python"], {}',
        '"execv", os.execv, sys.executable, ["python", "-c", ""]',
        '"clone3", call, "syscall", 435, ctypes.create_string_buffer(88), 88',
        before="import multiprocessing, subprocess, concurrent.futures",
    ),
    "system": Attack("import os\nprint(os.system('true') == 0)", check=says("^False")),
    "thread_bomb": Attack(
        "import threading, time\nwhile True:\n    try:\n"
        "        threading.Thread(target=time.sleep, args=(1e6,)).start()\n    except RuntimeError:\n        pass",
        ("timeout", "memory"),
    ),
    "fork_from_threads": Attack(
        "import os, threading\ndef loop():\n    while True:\n        try:\n            os.fork()\n"
        "        except OSError:\n            pass\nthreading.stack_size(1 << 16)\n"
        "for _ in range(2):\n    threading.Thread(target=loop).start()\nloop()",
        ("timeout", "memory"),
    ),
    # Time
    "endless_loop": Attack("while True:\n    pass", ("timeout",)),
    "endless_sleep": Attack("import time\nwhile True:\n    time.sleep(1e6)", ("timeout",)),
    "loop_that_ignores_signals": Attack(
        "import signal\nfor number in signal.valid_signals() - {9, 19}:\n    try:\n"
        "        signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
        ("timeout",),
    ),
    "loop_without_byte_code": Attack("print(pow(7, 10 ** 8) > 0)", ("timeout", "memory")),
    "regular_expression": Attack("import re\nre.match('(a+)+$', 'a' * 60 + 'b')", ("timeout",)),
    "stopped": Attack("import signal\nsignal.raise_signal(signal.SIGSTOP)", ("timeout",)),
    "waiting_for_input_elsewhere": Attack("import os\nos.read(os.pipe()[0], 1)", ("timeout",)),
    # Memory
    "list": Attack("x = []\nwhile True:\n    x.append([0] * 100000)", ("memory",)),
    "bytearray": Attack("x = bytearray(4 << 30)", ("memory",)),
    "memory_in_spite_of_errors": Attack(
        "x = []\nwhile True:\n    try:\n        x.append(bytearray(1 << 20))\n    except MemoryError:\n        pass",
        ("timeout", "memory"),
    ),
    "mmap": Attack(
        "import mmap\nx = [mmap.mmap(-1, 64 << 20) for _ in range(64)]", ("memory", "error"), check=short
    ),
    "mmap_of_the_output": Attack(
        "import mmap, os\nos.ftruncate(1, 8 << 20)\nx = [mmap.mmap(1, 8 << 20) for _ in range(999)]",
        ("memory", "error"),
    ),
    "memory_that_is_no_address_space": refusals(
        '"memfd", os.memfd_create, "x"',
        '"libc memfd", call, "memfd_create", b"x", 0',
        '"shared", multiprocessing.shared_memory.SharedMemory, "$MARK", True, 1 << 20',
        '"shmget", call, "shmget", 0, 1 << 20, 0o1600',
        '"msgget", call, "msgget", 0, 0o1600',
        '"secret", call, "syscall", 447, 0',
        before="import multiprocessing.shared_memory",
    ),
    "files": Attack(
        "i = 0\nwhile True:\n    with open(f'/tmp/$MARK{i}', 'wb') as file:\n        file.write(bytes(8 << 20))\n    i += 1",
        ("error", "timeout"),
        check=short,
    ),
    "one_huge_file": Attack(
        "import os\nwith open('/tmp/$MARK', 'wb') as file:\n    os.posix_fallocate(file.fileno(), 0, 1 << 30)",
        ("error",),
        check=says("OSError|PermissionError", "message"),
    ),
    "empty_files": Attack(
        "i = 0\nwhile True:\n    open(f'/tmp/$MARK{i}', 'w').close()\n    i += 1", ("timeout", "error")
    ),
    "pipes": Attack(
        "import fcntl, os\nwhile True:\n    ours, theirs = os.pipe()\n    fcntl.fcntl(theirs, 1031, 1 << 20)\n"
        "    os.write(theirs, bytes(1 << 20))",
        ("error", "timeout"),
        check=short,
    ),
    # Output
    "printing": Attack("while True:\n    print('x' * 1000)", ("error", "timeout"), check=short),
    "writing_on_in_spite_of_errors": Attack(
        "import os\nwhile True:\n    for to in (1, 2):\n        try:\n            os.write(to, b'x' * 100000)\n"
        "        except OSError:\n            pass",
        ("timeout",),
        check=short,
    ),
    "errors_without_end": Attack(
        "import os\nwhile True:\n    os.write(2, b'x' * 100000)", ("error", "timeout"), check=short
    ),
    "a_hole_as_output": Attack(
        "import os\nfor size in (1 << 40, 1 << 30, 1 << 24):\n    try:\n        os.ftruncate(1, size)\n        break\n"
        "    except OSError:\n        pass",
        check=short,
    ),
    "a_huge_message": Attack("raise Exception('x' * (8 << 20))", ("error",), check=short),
    "a_huge_value": Attack(
        "def solve(x):\n    return 'x' * (17 << 20)", ("error", "failed"), (CALL_TEST,), check=short
    ),
    # Files
    "reading_files": refusals(
        *(
            f'"{path}", {how}, "{path}"'
            for path, how in {
                "/etc/passwd": "read",
                "/etc/shadow": "read",
                "/etc/hostname": "read",
                "$FILE": "read",
                "$FOLDER": "os.listdir",
                "$SOURCE": "read",
                "$REPOSITORY": "os.listdir",
                "/root/.bashrc": "read",
                "/home": "os.listdir",
                "/var": "os.listdir",
                "/sys": "os.listdir",
                "/proc/self/maps": "read",
                "/proc/1/cmdline": "read",
                "/proc/self/environ": "read",
                "/dev/sda": "read",
                "/dev/mem": "read",
            }.items()
        ),
        before="def read(path):\n    return open(path, 'rb').read(100)",
        needs_private_files=True,
    ),
    "reading_the_folder_above": refusals(
        '"up", read, "../../../../../../$FILE"',
        '"handle", call, "open_by_handle_at", 3, ctypes.create_string_buffer(64), 0',
        '"worker folder", lambda: [n for n in os.listdir("/worker") if n not in ("worker.py", "child.py", "streams.py", "system_calls.py")].remove("")',
        before="def read(path):\n    return open(path, 'rb').read(100)",
        needs_private_files=True,
    ),
    "changing_a_file": refusals(
        '"write", open, "$FILE", "w"',
        '"append", open, "$FILE", "a"',
        '"update", open, "$FILE", "r+"',
        '"remove", os.remove, "$FILE"',
        '"rename", os.rename, "$FILE", "$FILE.$MARK"',
        '"truncate", os.truncate, "$FILE", 0',
        '"link", os.link, "$FILE", "$FILE.$MARK"',
        '"symlink", os.symlink, "/", "$FILE.$MARK"',
        '"create", open, "$FOLDER/$MARK", "w"',
        '"mkdir", os.mkdir, "$FOLDER/$MARK"',
        '"mkfifo", os.mkfifo, "$FOLDER/$MARK"',
        '"chmod", os.chmod, "$FILE", 0',
        '"chown", os.chown, "$FILE", 0, 0',
        '"utime", os.utime, "$FILE", (0, 0)',
        '"xattr", os.setxattr, "$FILE", "user.x", b"y"',
        '"openat2", call, "syscall", 437, -100, b"$FILE", ctypes.create_string_buffer(bytes([2]) + bytes(23), 24), 24',
    ),
    "changing_a_file_by_its_descriptor": Attack(
        TOOLS
        + "import mmap\ntry:\n    fd = os.open('$FILE', os.O_RDONLY)\nexcept OSError:\n    fd = -1\n"
        + "\n".join(
            f"attempt({line})"
            for line in (
                '"fchmod", os.fchmod, fd, 0o640',
                '"fchown", os.fchown, fd, os.getuid(), os.getgid()',
                '"utime", os.utime, fd, (0, 0)',
                '"fsetxattr", os.setxattr, fd, "user.x", b"y"',
                '"ftruncate", os.ftruncate, fd, 0',
                '"mmap", lambda: mmap.mmap(fd if fd >= 0 else 255, 4)',
            )
        ),
        check=refused(6),
    ),
    "deleting_everything": Attack(
        "import shutil\nshutil.rmtree('$TOP', ignore_errors=True)", ("failed", "error", "timeout")
    ),
    "deleting_the_sandbox": refusals(
        '"worker", os.remove, "/worker/worker.py"',
        '"library", os.remove, os.__file__',
        '"lib", os.rename, "/lib", "/lub"',
        '"new", open, "/$MARK", "w"',
        '"worker folder", open, "/worker/$MARK", "w"',
        '"packages", open, "/packages/$MARK", "w"',
        '"dev", open, "/dev/$MARK", "w"',
        '"shm", open, "/dev/shm/$MARK", "w"',
        '"run", open, "/run/$MARK", "w"',
        '"usr", open, "/usr/lib/$MARK", "w"',
    ),
    "links_in_tmp": Attack(
        "import os\nfor target, name in (('/', 'root'), ('$MARK-loop', 'loop'), ('..', 'up'), ('/etc/passwd', 'p')):\n"
        "    try:\n        os.symlink(target, '/tmp/$MARK-' + name)\n    except OSError:\n        pass",
    ),
    "deep_folders_in_tmp": Attack(
        "import os\nos.chdir('/tmp')\nfor _ in range(3000):\n    os.mkdir('$MARK')\n    os.chdir('$MARK')",
        ("failed", "error"),
    ),
    "odd_files_in_tmp": Attack(
        "import os\nfor make in (lambda: os.mkdir('/tmp/$MARK-closed', 0), lambda: os.mkfifo('/tmp/$MARK-fifo'),\n"
        "             lambda: open(b'/tmp/$MARK\\xff\\xfe', 'w').close(), lambda: open('/tmp/.$MARK', 'w').close()):\n"
        "    try:\n        make()\n    except OSError:\n        pass",
    ),
    "a_file_left_in_tmp": Attack(
        "try:\n    open('/tmp/$MARK', 'w').write('for the next one')\nexcept OSError:\n    pass"
    ),
    "closing_tmp": Attack("import os\ntry:\n    os.chmod('/tmp', 0)\nexcept OSError:\n    pass"),
    "making_tmp_read_only": Attack("import os\ntry:\n    os.chmod('/tmp', 0o555)\nexcept OSError:\n    pass"),
    "a_name_on_tmp": Attack(
        "import os\ntry:\n    os.setxattr('/tmp', 'user.$MARK', b'x')\nexcept OSError:\n    pass"
    ),
    "a_file_left_among_the_streams": Attack(
        "try:\n    open('/streams/$MARK', 'w').write('for the next one')\nexcept OSError:\n    pass",
        tests=(STDIN_TEST,) * 2,
    ),
    "streams_replaced": Attack(
        "import os\nfor name, make in (('0', lambda: os.symlink('/worker/worker.py', '/streams/0')),\n"
        "                   ('1', lambda: os.mkdir('/streams/1')), ('2', lambda: os.mkfifo('/streams/2'))):\n"
        "    try:\n        os.remove('/streams/' + name)\n        make()\n    except OSError:\n        pass\n"
        "os._exit(0)",
        tests=(STDIN_TEST,) * 3,
    ),
    "streams_removed": Attack("import shutil\nshutil.rmtree('/streams', True)", tests=(STDIN_TEST,) * 2),
    "closing_the_streams": Attack(
        "import os\ntry:\n    os.chmod('/streams', 0)\nexcept OSError:\n    pass\nos._exit(0)",
        ("failed", "error"),
        (STDIN_TEST,) * 2,
    ),
    "a_name_on_the_streams": Attack(
        "import os\nfor path in ('/streams', '/streams/0', '/dev/stdin'):\n    try:\n"
        "        os.setxattr(path, 'user.$MARK', b'x')\n    except OSError:\n        pass",
        tests=(STDIN_TEST,) * 2,
    ),
    "streams_filled": Attack(
        "i = 0\nwhile True:\n    with open(f'/streams/$MARK{i}', 'wb') as file:\n        file.write(bytes(8 << 20))\n    i += 1",
        ("error", "timeout"),
        (STDIN_TEST,) * 2,
        check=short,
    ),
    "input_rewritten": Attack(
        "open('/dev/stdin', 'w').write('answer-')\nprint(open('/dev/stdin').read())",
        ("failed", "error"),
        (STDIN_TEST,) * 2,
    ),
    "output_by_name": Attack(
        "while True:\n    open('/dev/stdout', 'a').write('x' * 100000)", ("error", "timeout"), check=short
    ),
    "looking_for_processes": refusals(
        *(f'"{path}", os.listdir, "{path}"' for path in ("/proc/1", "/proc/self/task", "/proc/self/map_files")),
        '"maps", open, "/proc/self/maps"',
        '"another", open, "/proc/self/fd/64"',
        '"new", open, "/proc/self/fd/$MARK", "w"',
        '"link", os.remove, "/proc/self/fd/0"',
        needs_private_files=True,
    ),
    # Network
    "sockets": refusals(
        '"tcp", socket.create_connection, ("127.0.0.1", $PORT), 0.2',
        '"udp", lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", $PORT))',
        '"listen", socket.create_server, ("127.0.0.1", 0)',
        '"unix", lambda: socket.socket(socket.AF_UNIX).connect("$STREAM")',
        '"abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0$ABSTRACT")',
        '"raw", socket.socket, socket.AF_PACKET, socket.SOCK_RAW',
        '"netlink", socket.socket, socket.AF_NETLINK, socket.SOCK_RAW',
        '"vsock", socket.socket, 40, socket.SOCK_STREAM',
        '"dns", socket.getaddrinfo, "one.one.one.one", 80',
        '"http", urllib.request.urlopen, "http://127.0.0.1:$PORT", None, 0.2',
        '"io_uring", call, "syscall", 425, 8, ctypes.create_string_buffer(120)',
        before="import socket, urllib.request",
    ),
    "datagrams_from_a_pair": refusals(
        '"path", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", "$DATAGRAM")',
        '"abstract", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", "\\0$ABSTRACT.d")',
        '"connect", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].connect("$DATAGRAM")',
        before="import socket",
    ),
    # Other processes
    "killing": refusals(
        '"parent", os.kill, os.getppid(), 9',
        '"first", os.kill, 1, 9',
        '"canary", os.kill, $CANARY, 9',
        '"all", os.kill, $EVERY, 9',
        '"group", os.killpg, os.getpgid(os.getppid()), 9',
        '"tgkill", call, "tgkill", os.getppid(), os.getppid(), 9',
        '"sigqueue", call, "sigqueue", $CANARY, 9, 0',
        '"pidfd", lambda: signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)',
        '"canary by pidfd", lambda: signal.pidfd_send_signal(os.pidfd_open($CANARY), 9)',
        '"stop", os.kill, os.getppid(), signal.SIGSTOP',
        '"terminate", os.kill, os.getppid(), signal.SIGTERM',
    ),
    "killing_by_input_signals": Attack(
        "import fcntl, os\nfor target in ($CANARY, os.getppid()):\n    ours, theirs = os.pipe()\n    try:\n"
        "        fcntl.fcntl(ours, fcntl.F_SETOWN, target)\n        fcntl.fcntl(ours, 10, 9)\n"
        "        fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)\n    except OSError:\n        continue\n"
        "    os.write(theirs, b'x')\nimport time\ntime.sleep(0.1)",
    ),
    "limits_of_others": refusals(
        *(
            f'"{name} of {whose}", resource.prlimit, {pid}, resource.{name}, (1000, 1000)'
            for name in ("RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_STACK")
            for whose, pid in (("parent", "os.getppid()"), ("canary", "$CANARY"))
        ),
        before="import resource",
    ),
    "a_parent_without_files": Attack(
        "import os, resource\ntry:\n    resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))\n"
        "except OSError:\n    pass",
    ),
    "scheduling_of_others": refusals(
        *(
            line
            for pid in ("os.getppid()", "$CANARY")
            for line in (
                f'"affinity", os.sched_setaffinity, {pid}, [min(os.sched_getaffinity(0))]',
                f'"idle", os.sched_setscheduler, {pid}, os.SCHED_IDLE, os.sched_param(0)',
                f'"priority", os.setpriority, os.PRIO_PROCESS, {pid}, 19',
                f'"group", os.setpgid, {pid}, 0',
            )
        ),
        '"input and output", call, "syscall", 30 if os.uname().machine == "aarch64" else 251, 1, os.getppid(), 3 << 13',
    ),
    "ptrace": refusals(
        '"attach", call, "ptrace", 16, os.getppid(), None, None',
        '"seize", call, "ptrace", 0x4206, $CANARY, None, None',
        '"me", call, "ptrace", 0, 0, None, None',
        '"read", call, "process_vm_readv", os.getppid(), None, 0, None, 0, 0',
        '"write", call, "process_vm_writev", $CANARY, None, 0, None, 0, 0',
        '"descriptor", lambda: call("syscall", 438, os.pidfd_open(os.getppid()), 0, 0)',
    ),
    "namespaces": refusals(
        '"user", call, "unshare", 0x10000000',
        '"mounts", call, "unshare", 0x00020000',
        '"mount", call, "mount", b"none", b"/tmp", b"tmpfs", 0, None',
        '"umount", call, "umount2", b"/tmp", 2',
        '"setns", call, "setns", 0, 0',
        '"chroot", os.chroot, "/tmp"',
        '"fsopen", call, "syscall", 430, b"tmpfs", 0',
        '"hostname", call, "sethostname", b"x", 1',
    ),
    "other_users": refusals(
        '"root", os.setuid, 0',
        '"group", os.setgid, 0',
        '"groups", os.setgroups, [0]',
        '"real", os.setresuid, 0, 0, 0',
        '"effective", os.seteuid, 0',
        '"nice", os.nice, -5',
        '"real time", os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1)',
    ),
    "raised_limits": refusals(
        *(
            f'"{name}", resource.setrlimit, resource.{name}, (1 << 60, 1 << 60)'
            for name in ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE")
        ),
        before="import resource",
    ),
    "other_system_call_numbers": refusals(
        '"x32", call, "syscall", 0x40000000 + 39',
        '"x32 fork", call, "syscall", 0x40000000 + 57',
        '"none", call, "syscall", -2',
        machines=("x86_64",),
    ),
    "system_calls_of_32_bits": Attack(
        "import ctypes, mmap\ncode = mmap.mmap(-1, 4096, prot=7)\n"
        "code.write(bytes.fromhex('53b802000000cd805bc3'))\n"  # fork by int 0x80
        "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))\nprint(f())",
        ("error",),
        machines=("x86_64",),
    ),
    # Ends
    "exit_before_output": Attack(
        "import os\nos._exit(0)\nprint(input())", tests=({"stdin": "x", "expected_stdout": "x"},)
    ),
    "exit_before_output_expected_empty_line": Attack("import os\nos._exit(0)"),
    "exit_after_right_output": Attack(
        "import os\nprint(input(), flush=True)\nos._exit(0)",
        ("passed",),
        ({"stdin": "x", "expected_stdout": "x"},) * 2,
    ),
    "exit_in_a_call": Attack(
        "import os\ndef solve(x):\n    os._exit(0)",
        ("error",),
        (CALL_TEST,),
        check=says("ended before", "message"),
    ),
    "sys_exit_in_a_call": Attack("import sys\ndef solve(x):\n    sys.exit(0)", ("error",), (CALL_TEST,)),
    "exit_with_a_code": Attack("import os\nos._exit(3)", ("error",)),
    "exit_in_a_thread": Attack(
        "import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()\nwhile True:\n    pass"
    ),
    "exit_without_python": Attack("import ctypes\nctypes.CDLL(None)._exit(0)"),
    "wicked_exception": Attack(
        "class Wicked(BaseException):\n    def __str__(self):\n        raise self\n    __repr__ = __str__\nraise Wicked()",
        ("error",),
    ),
    "keyboard_interrupt": Attack("raise KeyboardInterrupt", ("error",)),
    "generator_exit": Attack("raise GeneratorExit", ("error",)),
    # Comparison
    "patched_builtins": Attack(
        "import builtins, json, operator\nalways = lambda *_, **__: True\n"
        "for name in ('all', 'any', 'len', 'isinstance', 'zip'):\n    setattr(builtins, name, always)\n"
        "json.dumps = json.loads = lambda *_, **__: 'passed'\noperator.eq = always\nprint('x')",
        ("failed", "error"),
    ),
    "patched_builtins_in_a_call": Attack(
        "import builtins, json, operator\nalways = lambda *_, **__: True\n"
        "builtins.all = builtins.any = operator.eq = always\njson.loads = always\n"
        "json.dumps = lambda *_, **__: '\"passed\"'\ndef solve(x):\n    return 1",
        ("failed", "error"),
        (CALL_TEST,),
    ),
    "always_equal": Attack(
        "class Always(str):\n    __eq__ = lambda *_: True\n    __ne__ = lambda *_: False\n    __hash__ = str.__hash__\n"
        "def solve(x):\n    return Always('x')",
        tests=(CALL_TEST,),
    ),
    "always_equal_object": Attack(
        "class Always:\n    def __eq__(self, other):\n        return True\ndef solve(x):\n    return Always()",
        ("error",),
        (CALL_TEST,),
    ),
    "values_without_end": Attack(
        "class Again:\n    def tolist(self):\n        return [Again()]\ndef solve(x):\n    return Again()",
        ("error", "timeout", "memory"),
        (CALL_TEST,),
    ),
    "not_a_number": Attack(
        "def solve(x):\n    return float('nan')",
        tests=({"call": "solve", "args": [1], "expected": 0.5}, {"call": "solve", "args": [1], "expected": 1}),
    ),
    "infinity": Attack(
        "def solve(x):\n    return float('inf')",
        tests=({"call": "solve", "args": [1], "expected": 0.5}, {"call": "solve", "args": [1], "expected": 1}),
    ),
    "fake_verdict": Attack(
        'print(\'passed\')\nprint(\'{"ended": "ended", "output": "", "clean": true}\')\n'
        "print(\"CaseResult(status='passed', output='', message='')\")",
    ),
    "fake_value": Attack(
        "import os\ndef solve(x):\n    os.write(63, b'\"passed\"')\n    os._exit(0)", tests=(CALL_TEST,)
    ),
    # The result channel
    "forged_reports": Attack(
        "import os\nfor fd in range(256):\n    try:\n        os.write(fd, b'e+' * 3)\n    except OSError:\n        pass",
        ("failed", "error"),
        (STDIN_TEST,) * 3,
    ),
    "forged_reports_and_no_end": Attack(
        "import os, time\nfor fd in range(256):\n    try:\n        os.write(fd, b'e+')\n    except OSError:\n        pass\n"
        "time.sleep(1e6)",
        ("failed", "error", "timeout"),
        (STDIN_TEST,) * 2,
    ),
    "half_a_report": Attack(
        "import os, time\nfor fd in range(3, 256):\n    try:\n        os.write(fd, b'e')\n    except OSError:\n        pass\n"
        "time.sleep(1e6)",
        ("failed", "error", "timeout"),
    ),
    "unknown_reports": Attack(
        "import os, time\nfor fd in range(3, 256):\n    try:\n        os.write(fd, b'\\xff\\xfe' * 99)\n"
        "    except OSError:\n        pass\ntime.sleep(1e6)",
        ("failed", "error", "timeout"),
        (STDIN_TEST,) * 2,
    ),
    "forged_answers": Attack(
        "import json, os\nanswer = json.dumps({'ended': 'ended', 'output': 'passed', 'clean': True}).encode()\n"
        "for fd in range(256):\n    try:\n        os.write(fd, len(answer).to_bytes(8, 'big') + answer)\n"
        "    except OSError:\n        pass",
        ("failed", "error"),
        (STDIN_TEST,) * 2,
    ),
    "forged_messages_on_sockets": Attack(
        "import socket, time\nfor fd in range(256):\n    try:\n        channel = socket.socket(fileno=fd)\n"
        "        channel.send(b'e+')\n        socket.send_fds(channel, [b'e+'], [0, 1, 2])\n"
        "        channel.shutdown(socket.SHUT_RDWR)\n        channel.detach()\n"
        "    except OSError:\n        pass\ntime.sleep(1e6)",
        ("failed", "error", "timeout"),
        (STDIN_TEST,) * 2,
    ),
    "a_full_channel": Attack(
        "import os\nwhile True:\n    os.write(64, b'e-' * 10000)",
        ("failed", "error", "timeout"),
        (STDIN_TEST,) * 3,
    ),
    "all_descriptors_closed": Attack("import os\nos.closerange(0, 256)", ("failed", "error"), (STDIN_TEST,) * 2),
    "all_descriptors_closed_and_no_end": Attack(
        "import os, time\nos.closerange(0, 256)\ntime.sleep(1e6)",
        ("failed", "error", "timeout"),
        (STDIN_TEST,) * 2,
    ),
    "all_descriptors_closed_and_busy": Attack(
        "import os\nos.closerange(0, 256)\nwhile True:\n    pass", ("failed", "error", "timeout")
    ),
    "descriptors_in_disorder": Attack(
        "import fcntl, os\nfor fd in (0, 1, 2, 60, 61, 62, 63, 64):\n"
        "    for do in (lambda: os.set_blocking(fd, False), lambda: os.lseek(fd, 1 << 40, 0),\n"
        "               lambda: os.fchmod(fd, 0), lambda: fcntl.fcntl(fd, 1033, 15),\n"
        "               lambda: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK | os.O_ASYNC),\n"
        "               lambda: fcntl.flock(fd, fcntl.LOCK_EX), lambda: os.setxattr(fd, 'user.x', b'y')):\n"
        "        try:\n            do()\n        except OSError:\n            pass",
        ("failed", "error", "timeout"),
    ),
    "descriptors_exchanged": Attack(
        "import os\nfor fd in range(60, 65):\n    os.dup2(1, fd)\nprint('x')", ("failed", "error", "timeout")
    ),
    # The expected output
    "expected_in_frames": Attack(
        SCAN + "frame = sys._getframe()\nwhile frame:\n    look(repr(frame.f_locals) + repr(frame.f_globals))\n"
        "    frame = frame.f_back\nprint(*found)",
        check=found_only_the_question,
    ),
    "expected_in_objects": Attack(
        SCAN + "gc.unfreeze()\nlayer, seen = [*gc.get_objects(), *map(vars, sys.modules.values())], set()\n"
        "while layer:\n    for thing in layer:\n        if isinstance(thing, (str, bytes, bytearray)):\n            look(thing)\n"
        "    layer = [inner for inner in gc.get_referents(*layer) if id(inner) not in seen and not seen.add(id(inner))]\n"
        "print(*found)",
        check=found_only_the_question,
        seconds=5.0,
    ),
    "expected_in_memory": Attack(
        SCAN + "import ctypes, os\nlibc, (ours, theirs), size = ctypes.CDLL(None), os.pipe(), 1 << 14\n"
        "text = input()\nfor start in {id(thing) >> 24 << 24 for thing in (look, text, bytes(1 << 20), sys, [])}:\n"
        "    for page in range(start - (1 << 24), start + (1 << 25), size):\n"
        "        if libc.write(theirs, ctypes.c_void_p(page), size) > 0:\n            look(os.read(ours, size))\n"
        "print(*found)",
        check=found_only_the_question,
        seconds=5.0,
    ),
    "expected_in_the_memory_of_others": refusals(
        *(f'"{path}", read, "{path}"' for path in ("/proc/self/mem", "/proc/{parent}/mem", "/proc/$CANARY/mem")),
        *(
            f'"{path}", read, "{path}"'
            for path in ("/proc/{parent}/fd/0", "/proc/{parent}/fd/3", "/proc/$HOST/mem")
        ),
        *(f'"{path}", os.listdir, "{path}"' for path in ("/proc/$HOST/fd", "/proc/$HOST/map_files")),
        '"environment", read, "/proc/$HOST/environ"',
        before="def read(path):\n    return open(path.format(parent=os.getppid()), 'rb').read(1)",
        needs_private_files=True,
    ),
    # Signals
    "alarm_to_itself": Attack("import signal\nsignal.raise_signal(signal.SIGALRM)", ("error",)),
    "timer": Attack(
        "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\nwhile True:\n    pass", ("error",)
    ),
    "timer_for_the_next_test": Attack(
        "import signal\nsignal.setitimer(signal.ITIMER_PROF, 0.01)\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\n"
        "print('x')",
        ("failed", "error"),
        (STDIN_TEST,) * 3,
    ),
    "segmentation_fault": Attack("import ctypes\nctypes.string_at(0)", ("error",)),
    "abort": Attack("import os\nos.abort()", ("error",)),
    "kill_to_itself": Attack("import signal\nsignal.raise_signal(signal.SIGKILL)", ("error", "memory")),
    "terminate_ignored": Attack(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        "while True:\n    time.sleep(1e6)",
        ("timeout",),
    ),
    # Threads
    "daemon_thread": Attack(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()",
        tests=(STDIN_TEST,) * 2,
    ),
    "busy_daemon_thread": Attack(
        "import threading\ndef loop():\n    while True:\n        pass\n"
        "threading.Thread(target=loop, daemon=True).start()",
        tests=(STDIN_TEST,) * 2,
    ),
    "thread_without_end": Attack(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1e6,)).start()", ("timeout",)
    ),
    "bare_thread": Attack("import _thread, time\n_thread.start_new_thread(time.sleep, (1e6,))"),
    "thread_of_the_library": Attack(
        "import ctypes\nlibc = ctypes.CDLL(None)\nfor _ in range(5):\n"
        "    libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, libc.pause, None)",
        tests=(STDIN_TEST,) * 2,
    ),
    # Depth
    "deep_recursion": Attack(
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f():\n    f()\nf()", ("error", "memory", "timeout")
    ),
    "deep_recursion_in_c": Attack(
        "import sys\nsys.setrecursionlimit(10 ** 9)\nx = []\nfor _ in range(10 ** 6):\n    x = [x]\nprint(repr(x))",
        ("error", "memory", "timeout"),
    ),
    "deep_json": Attack(
        "import json, sys\nsys.setrecursionlimit(10 ** 9)\nx = json.loads('[' * 10 ** 6 + ']' * 10 ** 6)",
        ("error", "memory", "timeout"),
    ),
    "deep_value": Attack(
        "def solve(x):\n    for _ in range(20000):\n        x = [x]\n    return x",
        ("failed", "error", "memory", "timeout"),
        (CALL_TEST,),
    ),
    "deep_text_as_value": Attack(
        "import os\ndef solve(x):\n    os.write(63, b'[' * 1000000)\n    os._exit(0)", tests=(CALL_TEST,)
    ),
    "deep_pattern": Attack(
        "import re, sys\nsys.setrecursionlimit(10 ** 9)\nre.compile('(' * 10 ** 5 + ')' * 10 ** 5)",
        ("error", "memory", "timeout"),
    ),
    "deep_parentheses": Attack("(" * 100_000, ("error",), (STDIN_TEST,) * 2),
    "deep_source": Attack("x = " + "-" * 100_000 + "1", ("error", "memory"), (STDIN_TEST,) * 2),
    "deep_attributes": Attack("x = []" + ".a" * 100_000, ("error", "memory", "timeout")),
    "long_sum": Attack("x = " + "+".join(["1"] * 100_000), ("error", "memory", "timeout", "failed")),
    "huge_constants": Attack(
        "x = " + "((1 << 4000) ** 60, " * 50 + "1" + ")" * 50, ("failed", "error", "memory", "timeout")
    ),
    "long_source": Attack("x = 1\n" * 500_000, ("failed", "timeout", "memory")),
    "huge_number": Attack(
        "import sys\nsys.set_int_max_str_digits(0)\nprint(1 << (1 << 25))", ("timeout", "failed", "memory")
    ),
    # Hooks
    "hooks": Attack(
        "import atexit, gc, os, signal, sys, threading, traceback\ndef wrong(*_, **__):\n    raise SystemExit(0)\n"
        "sys.excepthook = sys.exit = sys.displayhook = sys.unraisablehook = wrong\n"
        "os.dup2 = os.fstat = gc.collect = signal.alarm = threading.enumerate = wrong\n"
        "atexit._run_exitfuncs = traceback.format_exception = wrong\nos._exit = os.write = wrong\n1 / 0",
        ("failed", "error"),
        (STDIN_TEST,) * 2,
    ),
    "standard_streams_replaced": Attack(
        "import io, sys\nsys.stdin = sys.__stdin__ = io.StringIO('x')\nsys.stdout = sys.__stdout__ = io.StringIO()\n"
        "sys.stderr = sys.__stderr__ = io.StringIO()\nprint(input())",
        tests=(STDIN_TEST,) * 2,
    ),
    "standard_streams_deleted": Attack(
        "import sys\ndel sys.stdin, sys.stdout, sys.stderr", ("failed", "error"), (STDIN_TEST,) * 2
    ),
    "the_worker_from_inside": Attack(
        "import sys\nframe = sys._getframe()\nwhile frame:\n    if 'serve_tests' in frame.f_globals:\n"
        "        for name in ('CONTROL', 'VALUE', 'INPUT', 'OUTPUT', 'ERRORS'):\n            frame.f_globals[name] = 1\n"
        "        for name in ('clean_up', 'run_test', 'report_exception'):\n"
        "            frame.f_globals[name] = lambda *_: b'e'\n    frame = frame.f_back",
        ("failed", "error", "timeout"),
        (STDIN_TEST,) * 2,
    ),
    "trace_function": Attack(
        "import sys\ndef trace(frame, event, argument):\n    raise SystemExit(0)\n"
        "sys.settrace(trace)\nsys._getframe().f_back.f_trace = trace\nsys.setprofile(trace)",
        ("failed", "error"),
    ),
    "audit_hook": Attack(
        "import sys\ndef hook(*_):\n    raise RuntimeError\nsys.addaudithook(hook)\nopen('/tmp/x')", ("error",)
    ),
    "atexit_without_end": Attack(
        "import atexit\ndef again():\n    atexit.register(again)\n    while True:\n        pass\natexit.register(again)",
        ("timeout",),
    ),
    "del_without_end": Attack(
        "class Stays:\n    def __del__(self):\n        while True:\n            pass\nstays = Stays()",
        ("timeout",),
    ),
    "del_in_a_cycle": Attack(
        "class Stays:\n    def __del__(self):\n        while True:\n            pass\nx = Stays()\nx.x = x\ndel x",
        ("timeout",),
    ),
    "modules_patched_for_the_next_program": Attack(
        "import builtins, json, random, sys, heapq\nbuiltins.print = builtins.input = builtins.open = None\n"
        "json.dumps = None\nrandom.seed = random.random = lambda *_: 0\nsys.path[:] = ['/tmp']\nheapq.heappush = None\n"
        "sys.modules.clear()\nsys.setrecursionlimit(100)",
        ("failed", "error"),
    ),
    # Text
    "null_bytes": Attack("import os\nos.write(1, bytes(5000))", check=short),
    "lone_surrogates": Attack("print('\\ud800')", ("error", "failed")),
    "lone_surrogates_as_value": Attack("def solve(x):\n    return '\\ud800'", tests=(CALL_TEST,)),
    "invalid_utf_8": Attack("import os\nos.write(1, b'\\xff\\xfe\\xed\\xa0\\x80' * 1000)\nos.write(2, b'\\xff')"),
    "surrogates_in_the_source": Attack("x = '\ud800'", ("error",)),
    "null_byte_in_the_source": Attack("print('x')\0", ("error",)),
    "empty_program": Attack(""),
    "syntax_error": Attack("def f(:", ("error",), (STDIN_TEST,) * 2, check=says("SyntaxError", "message")),
}

WITNESS = """
import builtins, fcntl, hashlib, heapq, json, os, random, resource, signal, sys, threading
def short(thing):
    return hashlib.sha256(repr(thing).encode()).hexdigest()[:8]
def exists(pid):
    try:
        os.getsid(pid)
    except ProcessLookupError:
        return False
    return True
def flags(fd):
    try:
        return fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError:
        return None
def tries(do):
    try:
        return do()
    except OSError as error:
        return error.errno
patched = [json.dumps, json.loads, random.seed, heapq.heappush, print, input, open, os.write, os.dup2, sys.exit]
report = dict(
    tmp=[sorted(os.listdir("/tmp")), oct(os.stat("/tmp").st_mode), os.listxattr("/tmp")] if $PRIVATE else None,
    streams=[sorted(os.listdir("/streams")), oct(os.stat("/streams").st_mode), os.listxattr("/streams"),
             *(os.listxattr("/streams/" + name) for name in "012")] if $PRIVATE else None,
    writes=tries(lambda: open("/tmp/witness", "w").close()),
    removes=tries(lambda: os.remove("/tmp/witness")),
    cwd=os.getcwd(), stdin=sys.stdin.read(), random=random.random(), umask=os.umask(0o22),
    processes=sum(map(exists, range(1, os.getpid() + 50))) if $OWN_PROCESSES else None,
    threads=[threading.active_count(), len(sys._current_frames())],
    fds=[[fd, flags(fd)] for fd in range(128) if flags(fd) is not None], at=[os.lseek(fd, 0, 1) for fd in (1, 2)],
    functions=short([(f.__module__, f.__qualname__, type(f).__name__) for f in patched]),
    builtins=short(sorted(vars(builtins))), modules=short(sorted(sys.modules)), environment=short(sorted(os.environ)),
    path=sys.path, recursion=sys.getrecursionlimit(), trace=repr(sys.gettrace()),
    handlers=short([str(signal.getsignal(n)) for n in sorted(signal.valid_signals())]),
    blocked=len(signal.pthread_sigmask(0, [])), timer=signal.getitimer(0),
    limits=[resource.getrlimit(getattr(resource, n)) for n in sorted(dir(resource)) if n.startswith("RLIMIT_")],
    scheduling=[sorted(os.sched_getaffinity(0)), os.sched_getscheduler(0), os.getpriority(0, 0)],
)
print(json.dumps(report))
"""


class Victims:
    """What an attack could reach on this machine: a file, listening sockets, a process."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="attacked-"))
        self.folder.chmod(0o777)
        self.mark = "attack" + secrets.token_hex(8)
        self.abstract = self.mark
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.bind(self.tcp.getsockname())
        self.unix = [socket.socket(socket.AF_UNIX, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) * 2]
        names = (str(self.folder / "stream"), str(self.folder / "datagram"))
        for own, name in zip(self.unix, (*names, "\0" + self.abstract, "\0" + self.abstract + ".d"), strict=True):
            own.bind(name)
            if own.type == socket.SOCK_STREAM:
                own.listen()
        for name in names:
            Path(name).chmod(0o777)
        for listener in (self.tcp, self.udp, *self.unix):
            listener.setblocking(False)
        self.canary: subprocess.Popen[bytes] | None = None
        self.repair()

    def repair(self) -> None:
        for path in self.folder.iterdir():
            if path.name not in ("stream", "datagram"):
                path.unlink() if path.is_file() or path.is_symlink() else shutil.rmtree(path)
        self.file = self.folder / "host_file"
        self.file.write_text("kept")
        self.file.chmod(0o666)
        if self.canary is not None:
            self.canary.kill()
            self.canary.wait()
        self.canary = subprocess.Popen(["sleep", "1000"])
        self.before = self.state()

    def state(self) -> dict[str, Any]:
        assert self.canary is not None
        pid = self.canary.pid
        state: dict[str, Any] = {
            "files": sorted(path.name for path in self.folder.iterdir()),
            "canary": self.canary.poll(),
        }
        with suppress(OSError):
            status = self.file.stat()
            state["file"] = (self.file.read_text(), oct(status.st_mode), status.st_mtime_ns, status.st_nlink)
            state["names"] = os.listxattr(self.file)
        with suppress(OSError):
            state["scheduling"] = (
                sorted(os.sched_getaffinity(pid)),
                os.sched_getscheduler(pid),
                os.getpriority(os.PRIO_PROCESS, pid),
            )
            state["limits"] = Path(f"/proc/{pid}/limits").read_text()
        for listener in (self.tcp, self.unix[0], self.unix[2]):
            with suppress(BlockingIOError):
                listener.accept()
                state["connected"] = True
        for receiver in (self.udp, self.unix[1], self.unix[3]):
            with suppress(BlockingIOError):
                receiver.recv(1)
                state["received"] = True
        return state

    def harm(self) -> list[str]:
        now = self.state()
        harm = [
            f"{key}: {self.before.get(key)} became {now.get(key)}"
            for key in self.before | now
            if self.before.get(key) != now.get(key)
        ]
        if harm:
            self.repair()
        return harm

    def fill_in(self, program: str, isolation: str) -> str:
        assert self.canary is not None
        # A broken sandbox must not cost a developer their files: only users that own nothing aim at everything.
        owns_nothing = isolation == "bubblewrap" or os.geteuid() in (0, 65534)
        places = {
            "FILE": self.file,
            "FOLDER": self.folder,
            "PORT": self.tcp.getsockname()[1],
            "STREAM": self.folder / "stream",
            "DATAGRAM": self.folder / "datagram",
            "ABSTRACT": self.abstract,
            "CANARY": self.canary.pid,
            "EVERY": -1 if owns_nothing else self.canary.pid,
            "TOP": "/" if owns_nothing else self.folder,
            "MARK": self.mark,
            "SOURCE": sandbox_module.__file__,
            "REPOSITORY": Path(sandbox_module.__file__).parent,
            "HOST": os.getpid(),
        }
        return re.sub(r"\$([A-Z]+)", lambda found: str(places[found[1]]), program)

    def close(self) -> None:
        assert self.canary is not None
        self.canary.kill()
        self.canary.wait()
        for listener in (self.tcp, self.udp, *self.unix):
            listener.close()
        shutil.rmtree(self.folder)


def descendants(ancestor: int) -> dict[int, str]:
    """The living processes below one, by their command lines."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(folder.name)] = int(parent)
                names[int(folder.name)] = (folder / "cmdline").read_text(errors="replace").replace("\0", " ")[:200]
    below = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return {pid: names[pid] for pid in below - {ancestor} if pid in names}


def files_left(marks: list[str]) -> list[str]:
    """Files of sandbox users, and those with the name of an attack."""
    found = []
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/"):
        for path in Path(folder).iterdir():
            with suppress(OSError):
                if path.lstat().st_uid >= FIRST_USER or any(mark in path.name for mark in marks):
                    found.append(str(path))
    return found


def mounted() -> set[str]:
    """What is mounted on this machine, but for what tests beside this one mount in their own folders."""
    return {line for line in Path("/proc/self/mounts").read_text().splitlines() if "/pytest-of-" not in line}


def witness(isolation: str) -> Job:
    program = WITNESS.replace("$PRIVATE", str(isolation == "bubblewrap"))
    program = program.replace("$OWN_PROCESSES", str(isolation != "limits"))
    return Job(program, [{"stdin": "", "expected_stdout": "?"}], 20.0)


class Watch(threading.Thread):
    """Kills the sandboxes of a pool that is late, and again those that follow."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.pools: dict[SandboxPool, float] = {}
        self.late: set[SandboxPool] = set()
        self.over = threading.Event()

    def run(self) -> None:
        below: dict[SandboxPool, set[int]] = {}
        while not self.over.wait(0.2):
            for pool, deadline in list(self.pools.items()):
                pids = below.setdefault(pool, set())
                for sandbox in list(pool.open):
                    pids |= {sandbox.process.pid, *descendants(sandbox.process.pid)}
                if time.monotonic() > deadline:
                    self.late.add(pool)
                    for pid in pids:
                        with suppress(OSError):
                            os.kill(pid, signal.SIGKILL)
                    pids.clear()

    def within(self, pool: SandboxPool, seconds: float, job: Job) -> tuple[list[CaseResult], str]:
        """The results, or what went wrong."""
        self.late.discard(pool)
        self.pools[pool] = time.monotonic() + seconds
        try:
            return pool.run([job])[0], "hung" if pool in self.late else ""
        except Exception as error:
            return [], ("hung, " if pool in self.late else "") + repr(error)
        finally:
            del self.pools[pool]


def run_attacks(isolation: str, names: list[str]) -> dict[str, Any]:
    """Every attack, and after each the witness in the same pool."""
    sandbox_module.find_isolation = lambda _: ISOLATIONS[isolation]  # type: ignore[assignment]
    sandbox_module.SPARE_SECONDS = 6.0
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    mounts = mounted()
    before = set(descendants(os.getpid()))
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    attacks: dict[str, Any] = {}
    marks: list[str] = []
    with SandboxPool(1) as pool:
        fresh = ["", asdict(pool.run([witness(isolation)])[0][0])]
    watch = Watch()
    watch.start()

    def lane() -> None:
        victims = Victims()
        marks.append(victims.mark)
        pool = SandboxPool(1)
        with suppress(queue.Empty):
            while True:
                name = waiting.get_nowait()
                attack = ATTACKS[name]
                seconds = attack.seconds_a_test()
                program = victims.fill_in(attack.program, isolation)
                job = Job(program, attack.tests, seconds, MEMORY_MB)
                results, wrong = watch.within(pool, seconds * len(attack.tests) + SLACK_SECONDS, job)
                record: dict[str, Any] = {"wrong": wrong, "results": [asdict(result) for result in results]}
                record["check"] = attack.check(results) if attack.check and results else ""
                after, wrong_after = watch.within(pool, 60.0, witness(isolation))
                record["witness"] = [wrong_after, *map(asdict, after)]
                record["harm"] = victims.harm()
                attacks[name] = record
                if record["witness"] != fresh:  # the next attack isn't to blame
                    pool.__exit__()
                    pool = SandboxPool(1)
        pool.__exit__()
        victims.close()

    with ThreadPoolExecutor(LANES) as lanes:
        for future in [lanes.submit(lane) for _ in range(LANES)]:
            future.result()
    watch.over.set()
    watch.join()
    deadline = time.monotonic() + 5.0
    while (left := set(descendants(os.getpid())) - before) and time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.05)
    processes = [name for pid, name in descendants(os.getpid()).items() if pid in left]
    for pid in left:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return {
        "isolation": isolation,
        "user": os.geteuid(),
        "fresh": fresh,
        "attacks": attacks,
        "left": {
            "processes": processes,
            "files": files_left(marks),
            "mounts": sorted(mounted() ^ mounts),
            "threads": [t.name for t in threading.enumerate() if t is not threading.main_thread()],
        },
    }


def suitable(isolation: str) -> list[str]:
    """The attacks that an isolation claims to withstand on this machine."""
    return [
        name
        for name, attack in ATTACKS.items()
        if platform.machine() in attack.machines
        and not (attack.needs_private_files and ISOLATIONS[isolation].lacks)
    ]


if __name__ == "__main__":
    print(json.dumps(run_attacks(sys.argv[1], sys.argv[2:] or suitable(sys.argv[1]))))
