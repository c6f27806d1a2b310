"""The system calls that a model-written program is refused: a seccomp filter, installed in the process itself.

What it keeps out would escape the other limits: new processes, signals and orders to others, sockets, memory that
isn't address space, namespaces. Loaded by worker.py inside the sandbox, so the standard library alone.
"""

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Iterator

# Numbers of system calls (asm/unistd_64.h, asm-generic/unistd.h).
X86_64 = (
    "open 2, ioctl 16, shmget 29, shmat 30, socket 41, socketpair 53, clone 56, fork 57, vfork 58, "
    "execve 59, kill 62, semget 64, msgget 68, fcntl 72, truncate 76, rename 82, mkdir 83, rmdir 84, "
    "creat 85, link 86, unlink 87, symlink 88, chmod 90, fchmod 91, chown 92, fchown 93, lchown 94, "
    "ptrace 101, rt_sigqueueinfo 129, utime 132, mknod 133, setpriority 141, sched_setparam 142, "
    "sched_setscheduler 144, pivot_root 155, prctl 157, chroot 161, mount 165, umount2 166, setxattr 188, "
    "lsetxattr 189, fsetxattr 190, removexattr 197, lremovexattr 198, fremovexattr 199, tkill 200, "
    "sched_setaffinity 203, tgkill 234, utimes 235, mq_open 240, add_key 248, request_key 249, keyctl 250, "
    "ioprio_set 251, migrate_pages 256, openat 257, mkdirat 258, mknodat 259, fchownat 260, futimesat 261, "
    "unlinkat 263, renameat 264, linkat 265, symlinkat 266, fchmodat 268, unshare 272, move_pages 279, "
    "utimensat 280, rt_tgsigqueueinfo 297, perf_event_open 298, prlimit64 302, setns 308, "
    "process_vm_readv 310, process_vm_writev 311, kcmp 312, sched_setattr 314, renameat2 316, "
    "memfd_create 319, bpf 321, execveat 322, userfaultfd 323, pidfd_send_signal 424, io_uring_setup 425, "
    "open_tree 428, move_mount 429, fsopen 430, fsconfig 431, fsmount 432, fspick 433, clone3 435, "
    "openat2 437, pidfd_getfd 438, process_madvise 440, mount_setattr 442, memfd_secret 447, "
    "process_mrelease 448, fchmodat2 452, setxattrat 463, removexattrat 466"
)
AARCH64 = (
    "setxattr 5, lsetxattr 6, fsetxattr 7, removexattr 14, lremovexattr 15, fremovexattr 16, fcntl 25, "
    "ioctl 29, ioprio_set 30, mknodat 33, mkdirat 34, unlinkat 35, symlinkat 36, linkat 37, renameat 38, "
    "umount2 39, mount 40, pivot_root 41, truncate 45, chroot 51, fchmod 52, fchmodat 53, fchownat 54, "
    "fchown 55, openat 56, utimensat 88, unshare 97, ptrace 117, sched_setparam 118, sched_setscheduler 119, "
    "sched_setaffinity 122, kill 129, tkill 130, tgkill 131, rt_sigqueueinfo 138, setpriority 140, "
    "prctl 167, mq_open 180, msgget 186, semget 190, shmget 194, shmat 196, socket 198, socketpair 199, "
    "add_key 217, request_key 218, keyctl 219, clone 220, execve 221, migrate_pages 238, move_pages 239, "
    "rt_tgsigqueueinfo 240, perf_event_open 241, prlimit64 261, setns 268, process_vm_readv 270, "
    "process_vm_writev 271, kcmp 272, sched_setattr 274, renameat2 276, memfd_create 279, bpf 280, "
    "execveat 281, userfaultfd 282, pidfd_send_signal 424, io_uring_setup 425, open_tree 428, "
    "move_mount 429, fsopen 430, fsconfig 431, fsmount 432, fspick 433, clone3 435, openat2 437, "
    "pidfd_getfd 438, process_madvise 440, mount_setattr 442, memfd_secret 447, process_mrelease 448, "
    "fchmodat2 452, setxattrat 463, removexattrat 466"
)
NUMBERS = {
    machine: {name: int(number) for name, number in (pair.split() for pair in table.split(", "))}
    for machine, table in (("x86_64", X86_64), ("aarch64", AARCH64))
}
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_CALLS = 0x40000000  # x86-64's second numbering of every call begins here

REFUSED = {
    "processes": "fork vfork execve execveat",
    "signals": "kill tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal",
    "other processes": "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp "
    "pidfd_getfd setpriority sched_setaffinity sched_setparam sched_setscheduler sched_setattr ioprio_set "
    "migrate_pages move_pages",
    "network": "socket",
    "memory outside the address space": "shmget shmat semget msgget mq_open memfd_create memfd_secret",
    "namespaces and mounts": "unshare setns mount umount2 pivot_root chroot "
    "open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr",
    "kernel": "add_key request_key keyctl perf_event_open bpf userfaultfd io_uring_setup",
}
# Beside them, where the file system is the host's.
CHANGES_FILES = (
    "rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat mkdir mkdirat rmdir mknod "
    "mknodat creat truncate chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes "
    "futimesat utimensat setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr setxattrat "
    "removexattrat openat2"
)
OPENS_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CLONE_THREAD = 0x10000
OTHER_SOCKETS_THAN_STREAMS = 0xE  # bits of SOCK_DGRAM and its kin: datagrams of a pair reach any address
SENDS_SIGNALS = (8, 10, 15)  # fcntl: F_SETOWN, F_SETSIG, F_SETOWN_EX, which have the kernel send one
OWNS_OR_FLAGS = (0x8901, 0x8902, 0x40086602, 0x401C5820)  # ioctl: the same for sockets, and flags of files
PDEATHSIG = 1  # prctl: with it a program would outlive its sandbox
OWN_PID = b"\xfe\xca\xfe\xca"  # stands in the filter until it is installed

LOAD, EQUAL, AT_LEAST, ANY_BIT, GIVE = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE, ABSENT, KILL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
Instruction = tuple[int, int, int, int]

libc = ctypes.CDLL(None, use_errno=True)


class FilterProgram(ctypes.Structure):
    """`struct sock_fprog` of the kernel."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def system_call_filter(read_only: bool, machine: str) -> bytes:
    """A seccomp filter (classic BPF): refuses with EPERM, lets everything else pass.

    `clone3`, whose flags a filter can't see, doesn't exist (the C library then uses `clone`). `read_only` also
    refuses whatever changes a file.
    """
    numbers = NUMBERS[machine]
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, AUDIT_ARCH[machine]), (GIVE, 0, 0, KILL), (LOAD, 0, 0, 0)]
    for name, argument, operation, values, found, otherwise in rules_for_arguments(read_only):
        if name in numbers:
            code += look_at(numbers[name], argument, operation, values, (found, otherwise))
    code += [(EQUAL, 0, 1, numbers["clone3"]), (GIVE, 0, 0, ABSENT)]
    names = " ".join([*REFUSED.values(), *([CHANGES_FILES] if read_only else [])]).split()
    refused = [numbers[name] for name in names if name in numbers]
    code += [(EQUAL, len(refused) + 1 - i, 0, number) for i, number in enumerate(refused)]
    code += [(AT_LEAST, 1, 0, X32_CALLS), (GIVE, 0, 0, ALLOW), (GIVE, 0, 0, REFUSE)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def rules_for_arguments(read_only: bool) -> Iterator[tuple[str, int, int, tuple[int, ...], int, int]]:
    """Calls that depend on an argument: name, its index, the comparison, with what, verdict if so, and if not."""
    (own_pid,) = struct.unpack("I", OWN_PID)
    yield "clone", 0, ANY_BIT, (CLONE_THREAD,), ALLOW, REFUSE
    yield "tgkill", 0, EQUAL, (own_pid,), ALLOW, REFUSE  # abort needs it
    yield "prlimit64", 0, EQUAL, (0,), ALLOW, REFUSE
    yield "socketpair", 1, ANY_BIT, (OTHER_SOCKETS_THAN_STREAMS,), REFUSE, ALLOW  # event loops need streams
    yield "fcntl", 1, EQUAL, SENDS_SIGNALS, REFUSE, ALLOW
    yield "ioctl", 1, EQUAL, OWNS_OR_FLAGS, REFUSE, ALLOW
    yield "prctl", 0, EQUAL, (PDEATHSIG,), REFUSE, ALLOW
    if read_only:
        yield "open", 1, ANY_BIT, (OPENS_TO_WRITE,), REFUSE, ALLOW
        yield "openat", 2, ANY_BIT, (OPENS_TO_WRITE,), REFUSE, ALLOW


def look_at(
    number: int, argument: int, operation: int, values: tuple[int, ...], verdicts: tuple[int, int]
) -> list[Instruction]:
    """For one system call: the first verdict where an argument compares with a value, else the second."""
    low_half = 16 + 8 * argument  # the machines supported are little-endian
    tests = [(operation, len(values) - i, 0, value) for i, value in enumerate(values)]
    body = [(LOAD, 0, 0, low_half), *tests, (GIVE, 0, 0, verdicts[1]), (GIVE, 0, 0, verdicts[0])]
    return [(EQUAL, 0, len(body), number), *body]


def refuse_system_calls(instructions: bytes) -> None:
    """For this process from here on. Raises `OSError` where the kernel has no filters."""
    instructions = instructions.replace(OWN_PID, struct.pack("I", os.getpid()))
    program = FilterProgram(len(instructions) // 8, instructions)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(
        set_seccomp, filter_mode, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "no system call filter")


def die_with_parent() -> None:
    """Forgotten at a change of user, so to be asked for after it."""
    libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
