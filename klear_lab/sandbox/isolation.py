"""How a sandbox is kept apart from this machine: the best isolation that works here, and its command line.

1. bubblewrap, where it is installed: namespaces of its own, no network, an empty read-only file system but for the
   system's libraries and Python, and a /tmp that goes with it. For root also a user that owns nothing.
2. Otherwise namespaces over the machine's file system (`unshare`), or none. Files can then be read, though not
   changed, which `Isolation.lacks` says and a warning repeats. `sandbox=required` refuses.

What worker.py does holds in all of them: limits on time, memory, file size and threads, and a filter that
refuses other processes, signals to them, sockets, and memory outside the limits.
"""

import functools
import importlib.util
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("worker.py")
WORKER_FILES = (WORKER, *(WORKER.with_name(f"{part}.py") for part in ("child", "streams", "system_calls")))
THREADS = 64
TMP_BYTES = 64 << 20
# Where bubblewrap's programs find the files behind /dev/stdin, /dev/stdout and /dev/stderr: see streams.py.
STREAMS, STREAMS_BYTES = "/streams", 128 << 20
PROBE_SECONDS = 60.0
SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
FIRST_USER = 1_000_000_000  # for root: sandboxes run as users from here on, one each, since limits count by user


class SandboxUnavailable(RuntimeError):
    """No sandbox can be had here; the message says why, and what to do."""


@dataclass(frozen=True)
class Isolation:
    """How a sandbox is kept apart. `lacks`: what it can't guarantee, None for nothing."""

    name: str
    lacks: str | None


BUBBLEWRAP = Isolation("bubblewrap", None)
NAMESPACES = Isolation("namespaces", "programs can read this machine's files, the tests' data among them")
LIMITS = Isolation(
    "limits",
    "programs can read this machine's files, the tests' data among them, and see its processes; memory alone "
    "bounds their threads",
)


@functools.cache
def find_isolation(sandbox: str = "auto") -> Isolation:
    """The best isolation that works here. Raises `SandboxUnavailable` where none is good enough."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise SandboxUnavailable(
            f"model-written code runs on Linux only (x86_64, aarch64), not on {sys.platform} {platform.machine()}"
        )
    if shutil.which("bwrap"):
        found, why = BUBBLEWRAP, try_command(bubblewrap_command(None))
        if not why:
            return found
        why = f"bubblewrap doesn't work here ({why})"
    else:
        why = "bubblewrap is not installed (apt-get install bubblewrap)"
    if sandbox == "required":
        raise SandboxUnavailable(f"sandbox=required: {why}")
    found = NAMESPACES if not try_command(unshare_command()) else LIMITS
    log.warning("%s: %s. sandbox=required refuses to run without it", why, found.lacks)
    return found


def try_command(prefix: list[str]) -> str:
    """What is wrong with a way to start a process; empty for nothing."""
    try:
        done = subprocess.run(
            [*prefix, interpreter(), "-S", "-c", ""],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


def interpreter() -> str:
    """This Python, without its virtual environment."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def numpy_folder() -> Path | None:
    """Where numpy is installed: the one package, beside the standard library, that programs may import."""
    spec = importlib.util.find_spec("numpy")
    return Path(spec.origin).parent if spec and spec.origin else None


def bubblewrap_command(packages: Path | None) -> list[str]:
    """Starts a command in an empty file system, in namespaces of its own. `packages`: numpy's folder."""
    as_root = os.geteuid() == 0
    command = ["bwrap", "--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
    command += ["--setenv", "PYTHONHASHSEED", "0", "--setenv", "OPENBLAS_NUM_THREADS", "1"]
    command += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if as_root:  # no user namespace: the worker becomes a user of its own, whose threads the kernel counts
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user"]
    shown = {path: path for path in SYSTEM_LIBRARIES if Path(path).is_dir() and not Path(path).is_symlink()}
    library = sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix})
    own = (interpreter(), str(Path(sys.base_prefix, "lib")), library)
    shown |= {path: path for path in own if not path.startswith(SYSTEM_LIBRARIES)}
    shown |= {f"/worker/{file.name}": str(file) for file in WORKER_FILES}
    if packages is not None:
        shown["/packages/numpy"] = str(packages)
        if (libraries := packages.with_name("numpy.libs")).is_dir():
            shown["/packages/numpy.libs"] = str(libraries)
    for path, source in shown.items():
        for parent in reversed(Path(path).parents):  # bubblewrap would make them for root alone
            command += ["--perms", "0755", "--dir", str(parent)]
        command += ["--ro-bind", source, path]
    for path in SYSTEM_LIBRARIES:
        if Path(path).is_symlink():
            command += ["--symlink", str(Path(path).readlink()), path]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    if (site_packages := Path(library, "site-packages")).is_dir():
        command += ["--tmpfs", str(site_packages), "--remount-ro", str(site_packages)]
    command += [
        "--dev",
        "/dev",
        "--remount-ro",
        "/dev",
        "--perms",
        "1777",
        "--size",
        str(TMP_BYTES),
        "--tmpfs",
        "/tmp",
        "--perms",
        "1777",
        "--size",
        str(STREAMS_BYTES),
        "--tmpfs",
        STREAMS,
    ]
    for folder in ("/proc", "/proc/self", "/proc/self/fd"):  # no real one: it tells of processes
        command += ["--perms", "0755", "--dir", folder]
    for number in ("0", "1", "2"):
        command += ["--symlink", f"{STREAMS}/{number}", f"/proc/self/fd/{number}"]
    return [*command, "--remount-ro", "/", "--chdir", "/tmp", "--"]


def unshare_command() -> list[str]:
    """Starts a command in namespaces of its own, over the machine's file system."""
    command = ["unshare", "--pid", "--net", "--ipc", "--uts", "--mount-proc", "--fork", "--kill-child"]
    return command if os.geteuid() == 0 else [*command, "--user", "--map-current-user"]


def worker_command(isolation: Isolation, number: int, info_fd: int) -> list[str]:
    """Starts the `number`-th worker of this process in an isolation.

    bubblewrap writes the process id of its worker to `info_fd`, as JSON.
    """
    as_root, bubblewrap = os.geteuid() == 0, isolation is BUBBLEWRAP
    numpy = numpy_folder()
    packages = [] if numpy is None else ["/packages" if bubblewrap else str(numpy.parent)]
    own_user = FIRST_USER + os.getpid() % (1 << 22) * 256 + number % 256
    options = {
        "user": own_user if as_root else None,
        "packages": packages,
        "writable": "/tmp" if bubblewrap else None,
        "streams": STREAMS if bubblewrap else None,
        # Counted by user and user namespace, so only where no other process of this machine counts.
        "threads": THREADS if as_root or isolation is not LIMITS else None,
        "read_only": not bubblewrap,
    }
    if bubblewrap:
        prefix = [*bubblewrap_command(numpy)[:-1], "--info-fd", str(info_fd), "--"]
    else:
        prefix = unshare_command() if isolation is NAMESPACES else []
    script = f"/worker/{WORKER.name}" if bubblewrap else str(WORKER)
    return [*prefix, interpreter(), "-P", "-s", "-S", "-B", "-X", "utf8", script, json.dumps(options)]
