"""The sandbox withstands every attack of sandbox_attacks.py, and runs ordinary programs as Python does."""

import json
import logging
import os
import platform
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock
from sandbox_attacks import ATTACKS, ISOLATIONS, descendants, suitable

import klear_lab.sandbox.pool as sandbox_module
from klear_lab.sandbox.isolation import BUBBLEWRAP, LIMITS, NAMESPACES, find_isolation, interpreter
from klear_lab.sandbox.pool import CaseResult, Job, Sandbox, SandboxPool, SandboxUnavailable, run_tests
from klear_lab.sandbox.system_calls import AUDIT_ARCH, OWN_PID, system_call_filter

ROOT = Path(__file__).parents[3]
ATTACKS_FILE = Path(__file__).with_name("sandbox_attacks.py")
SYSTEM_PYTHON = "/usr/bin/python3"
NOBODY = 65534
RUNS = [
    ("root", "bubblewrap"),
    ("ordinary", "bubblewrap"),
    ("ordinary", "namespaces"),
    ("ordinary", "limits"),
    ("root", "namespaces"),
    ("root", "limits"),
]
AS_ROOT = os.geteuid() == 0
# The fast tests attack the sandbox that this user has, and the weakest one.
FAST = {("root" if AS_ROOT else "ordinary", "bubblewrap"), ("ordinary", "limits")}

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in AUDIT_ARCH,
    reason="the sandbox needs Linux on x86_64 or aarch64",
)
needs_bubblewrap = pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")


class Machine:
    """Runs Python files beside klear_lab as a user, in an isolation."""

    def __init__(self, user, isolation):
        if user == "root" and not AS_ROOT:
            pytest.skip("the tests don't run as root")
        self.other_user = (
            {"user": NOBODY, "group": NOBODY, "extra_groups": []} if AS_ROOT and user != "root" else {}
        )
        self.isolation = isolation
        self.skip_if_impossible()
        self.copy = None
        if AS_ROOT and (user, isolation) != ("root", "bubblewrap"):  # other users can't read /root
            check = "import sys; sys.exit(sys.version_info < (3, 11))"
            if not shutil.which(SYSTEM_PYTHON) or self.run([SYSTEM_PYTHON, "-c", check]).returncode:
                pytest.skip(f"{SYSTEM_PYTHON}, which other users can run, isn't Python 3.11 or later")
            self.python, self.copy = SYSTEM_PYTHON, Path(tempfile.mkdtemp(prefix="sandbox-copy-"))
            package = self.copy / "klear_lab"
            shutil.copytree(Path(sandbox_module.__file__).parent, package / "sandbox")
            (package / "__init__.py").touch()
            shutil.copy(ATTACKS_FILE, self.copy)
            for path in (self.copy, *self.copy.rglob("*")):
                path.chmod(0o755)
            paths = [self.copy]
        else:
            self.python, paths = sys.executable, [ROOT, ATTACKS_FILE.parent]
        self.environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, paths))}

    def skip_if_impossible(self):
        ordinary = bool(self.other_user) or not AS_ROOT
        if self.isolation == "bubblewrap":
            probe = ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"]
        elif self.isolation == "namespaces":
            probe = ["unshare", "--pid", "--net", "--ipc", "--uts", "--mount-proc", "--fork"]
            probe += ["--user", "--map-current-user"] * ordinary + ["true"]
        else:
            return
        if not shutil.which(probe[0]):
            pytest.skip(f"{probe[0]} is not installed")
        if (done := self.run(probe)).returncode:
            pytest.skip(f"{probe[0]} doesn't work for this user: {done.stderr.decode().strip()}")

    def run(self, command):
        return subprocess.run(command, capture_output=True, timeout=60, cwd="/", **self.other_user)

    def start(self, *arguments):
        return subprocess.Popen(
            [self.python, "-B", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=self.environment,
            **self.other_user,
        )

    def close(self):
        if self.copy is not None:
            shutil.rmtree(self.copy)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """A function from user and isolation to what all attacks did; each runs once a session, in whichever worker."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    seen = {}

    def record(user, isolation):
        file = folder / f"attacks-{user}-{isolation}.json"
        with FileLock(folder / f"{file.name}.lock"):
            if not file.exists():
                machine = Machine(user, isolation)
                try:
                    script = (machine.copy or ATTACKS_FILE.parent) / ATTACKS_FILE.name
                    output, errors = machine.start(script, isolation).communicate(timeout=300)
                finally:
                    machine.close()
                file.write_text(json.dumps({"output": output, "errors": errors}))
        if file not in seen:
            said = json.loads(file.read_text())
            assert said["output"], said["errors"]
            seen[file] = json.loads(said["output"])
        return seen[file]

    return record


def run_or_slow(run, *more):
    return pytest.param(*run, *more, marks=() if run in FAST else pytest.mark.slow)


each_attack = pytest.mark.parametrize(
    ("user", "isolation", "attack"), [run_or_slow(run, attack) for run in RUNS for attack in suitable(run[1])]
)
each_run = pytest.mark.parametrize(("user", "isolation"), [run_or_slow(run) for run in RUNS])


@each_attack
def test_attack_does_no_harm_and_gets_no_verdict_but_its_own(recorded, user, isolation, attack):
    record, expected = recorded(user, isolation)["attacks"][attack], ATTACKS[attack]
    assert record["wrong"] == ""
    statuses = [result["status"] for result in record["results"]]
    assert len(statuses) == len(expected.tests)
    assert set(statuses) <= set(expected.allowed), record["results"]
    assert record["harm"] == []
    assert record["check"] == ""


@each_attack
def test_next_program_finds_a_clean_place(recorded, user, isolation, attack):
    run = recorded(user, isolation)
    assert run["attacks"][attack]["witness"] == run["fresh"]


@each_run
def test_witness_sees_a_fresh_place(recorded, user, isolation):
    wrong, fresh = recorded(user, isolation)["fresh"]
    assert (wrong, fresh["status"], fresh["message"]) == ("", "failed", "")
    report = json.loads(fresh["output"])
    assert report["threads"] == [1, 1]
    assert report["cwd"] == ("/tmp" if isolation == "bubblewrap" else "/")
    if isolation == "bubblewrap":
        assert (report["tmp"], report["writes"], report["processes"]) == ([[], "0o41777", []], None, 2)
        assert report["streams"] == [["0", "1", "2"], "0o41777", [], [], [], []]
    else:
        assert report["writes"] == 1  # EPERM


@each_run
def test_nothing_is_left_of_the_attacks(recorded, user, isolation):
    run = recorded(user, isolation)
    assert run["left"] == {"processes": [], "files": [], "mounts": [], "threads": []}
    assert set(run["attacks"]) == set(suitable(isolation))
    assert (run["user"] == 0) == (user == "root")


def test_only_an_honest_program_may_pass():
    assert {name for name, attack in ATTACKS.items() if "passed" in attack.allowed} == {"exit_after_right_output"}


# Which isolation


@pytest.fixture
def search():
    """The search for an isolation, without what earlier ones found."""
    find_isolation.cache_clear()
    yield find_isolation
    find_isolation.cache_clear()


def test_required_without_bubblewrap_says_what_to_do(search, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SandboxUnavailable, match=r"required.*bubblewrap is not installed.*apt-get install bubblewrap"
    ):
        run_tests("", [{"stdin": "", "expected_stdout": ""}], sandbox="required")


def test_required_with_a_bubblewrap_that_fails_says_why(search, monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho no namespaces here >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="bubblewrap doesn't work here.*no namespaces here"):
        search("required")


@pytest.mark.parametrize("isolation", [NAMESPACES, LIMITS], ids=lambda isolation: isolation.name)
def test_auto_warns_of_what_is_not_guaranteed(search, monkeypatch, tmp_path, caplog, isolation):
    if isolation is NAMESPACES:
        Machine("root" if AS_ROOT else "ordinary", "namespaces").close()
        (tmp_path / "unshare").symlink_to(shutil.which("unshare"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert search("auto") is isolation
    assert isolation.lacks in caplog.text
    assert "read this machine's files" in caplog.text
    assert "bubblewrap is not installed" in caplog.text
    assert "sandbox=required refuses" in caplog.text


@needs_bubblewrap
def test_bubblewrap_is_found_and_lacks_nothing(search, caplog):
    assert search("auto") is BUBBLEWRAP
    assert search("required") is BUBBLEWRAP
    assert BUBBLEWRAP.lacks is None
    assert not caplog.records


@pytest.mark.parametrize("system, machine", [("darwin", "x86_64"), ("linux", "riscv64")])
def test_other_machines_are_refused(search, monkeypatch, system, machine):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(SandboxUnavailable, match=f"Linux only.*{system} {machine}"):
        search("auto")


@pytest.mark.parametrize("isolation", [NAMESPACES, LIMITS], ids=lambda isolation: isolation.name)
def test_root_with_a_python_that_others_cannot_read_is_refused(monkeypatch, isolation):
    if not AS_ROOT:
        pytest.skip("the tests don't run as root")
    if all(folder.stat().st_mode & stat.S_IXOTH for folder in Path(interpreter()).parents):
        pytest.skip("other users can read this Python")
    Machine("root", isolation.name).close()
    monkeypatch.setattr(sandbox_module, "find_isolation", lambda _: isolation)
    with pytest.raises(SandboxUnavailable, match="another user can't read .*install bubblewrap, or Python where"):
        run_tests("", [{"stdin": "", "expected_stdout": ""}])


# Ordinary programs


@pytest.fixture(scope="module")
def pool():
    if not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    with SandboxPool(1) as pool:
        yield pool


def text(stdin, expected, **more):
    return {"stdin": stdin, "expected_stdout": expected, **more}


def called(function, args, expected, **more):
    return {"call": function, "args": args, "expected": expected, **more}


def results(pool, program, *tests, **more):
    return pool.run([Job(program, tests, **{"seconds": 20.0, **more})])[0]


def statuses(*arguments, **more):
    return [result.status for result in results(*arguments, **more)]


RIGHT = {
    "input": ("a, b = map(int, input().split())\nprint(a + b)", text("3 4\n", "7")),
    "input_after_input": ("print(input())\nprint(input())", text("a\nb", "a\nb")),
    "stdin_read": ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", text("1\n2\n3", "6")),
    "stdin_lines": ("import sys\nfor line in sys.stdin:\n    print(line.strip()[::-1])", text("ab\ncd\n", "ba\ndc")),
    "open_0": ("print(len(open(0).read()))", text("abcd", "4")),
    "stdin_buffer": (
        "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read().upper())",
        text("abc", "ABC"),
    ),
    "os_read": ("import os\nos.write(1, os.read(0, 100))", text("abc", "abc")),
    "main": ("def main():\n    print(input())\nif __name__ == '__main__':\n    main()", text("x", "x")),
    "class_solution": (
        "class Solution:\n    def add(self, a: int, b: int) -> int:\n        return a + b",
        called("add", [1, 2], 3),
    ),
    "function": ("def add(a, b):\n    return a + b", called("add", [1, 2], 3)),
    "function_beside_solution": (
        "class Solution:\n    pass\ndef add(a, b):\n    return a + b",
        called("add", [1, 2], 3),
    ),
    "named_arguments": ("def add(a, b):\n    return a - b", called("add", [], 1, kwargs={"b": 2, "a": 3})),
    "fresh_solution": (
        "class Solution:\n    seen = 0\n    def __init__(self):\n        self.x = []\n"
        "    def f(self, x):\n        self.x.append(x)\n        return self.x",
        called("f", [1], [1]),
    ),
    "none": ("def f():\n    pass", called("f", [], None)),
    "tuple": ("def f():\n    return (1, [2], (3,))", called("f", [], [1, [2], [3]])),
    "deque_and_range": ("def f():\n    return [deque([1, 2]), range(2)]", called("f", [], [[1, 2], [0, 1]])),
    "numpy_value": ("import numpy as np\ndef f():\n    return np.arange(3), np.float64(0.5)", called("f", [], [[0, 1, 2], 0.5])),
    "numpy": ("import numpy as np\nprint(np.array([[1, 2], [3, 4]]) @ np.ones(2))", text("", "[3. 7.]")),
    "prelude": (
        "from typing import *\nq = deque([3, 1])\nheapq.heapify(x := list(q))\nd: List[int] = [bisect_left([1, 2], 2)]\n"
        "c = Counter('aab')\nprint(heappop(x), d[0], c['a'], math.gcd(4, 6), gcd(9, 6), inf, list(accumulate([1, 2])),"
        " reduce(lambda a, b: a * b, [2, 3]), defaultdict(int)[0], cache is not None, Optional[int] is not None)",
        text("", "1 1 2 2 3 inf [1, 3] 6 0 True True"),
    ),
    "prelude_in_annotations": (
        "class Solution:\n    def f(self, x: Optional[List[int]]) -> Dict[str, int]:\n        return {str(n): n for n in x}",
        called("f", [[1]], {"1": 1}),
    ),
    "builtins_win": ("print(pow(2, 10, 1000), open is not None, sum([1.5]))", text("", "24 True 1.5")),
    "sys_exit": ("import sys\nprint(1)\nsys.exit()", text("", "1")),
    "sys_exit_with_a_code": ("import sys\nprint(1)\nsys.exit(1)", text("", "1")),
    "exit": ("print(1)\nexit()", text("", "1")),
    "quit": ("print(1)\nquit()", text("", "1")),
    "atexit": ("import atexit\natexit.register(print, 'last')\nprint('first')", text("", "first\nlast")),
    "output_without_newline": ("print(1, end='')", text("", "1")),
    "output_in_order": (
        "import os, sys\nfor i in range(3):\n    print(i, flush=True)\n    os.write(1, b'x\\n')\n    sys.stdout.write('y\\n')",
        text("", "0\nx\ny\n1\nx\ny\n2\nx\ny"),
    ),
    "errors_are_no_output": ("import sys\nprint('debug', file=sys.stderr)\nprint(1)", text("", "1")),
    "thread": (
        "import threading, time\ndef late():\n    time.sleep(0.2)\n    print('late')\nthreading.Thread(target=late).start()",
        text("", "late"),
    ),
    "thread_of_a_thread": (
        "import threading, time\ndef late():\n    time.sleep(0.2)\n    print('late')\ndef first():\n    time.sleep(0.1)\n"
        "    threading.Thread(target=late).start()\nthreading.Thread(target=first).start()",
        text("", "late"),
    ),
    "recursion_in_a_thread": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 27)\n"
        "def f(n):\n    return n and 1 + f(n - 1)\nt = threading.Thread(target=lambda: print(f(30000)))\nt.start()\nt.join()",
        text("", "30000"),
    ),
    "recursion": ("def f(n):\n    return n and 1 + f(n - 1)\nprint(f(40000))", text("", "40000")),
    "thread_pool": (
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as pool:\n"
        "    print(*pool.map(abs, [-1, 2]))",
        text("", "1 2"),
    ),
    "thread_pool_left_open": (
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\n"
        "print(pool.submit(abs, -1).result())",
        text("", "1"),
    ),
    "asyncio": ("import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    print(1)\nasyncio.run(f())", text("", "1")),
    "stdout_detached": ("import sys\nout = sys.stdout.detach()\nout.write(b'1')", text("", "1")),
    "stdout_detached_twice": ("import sys\nout = sys.stdout.detach().detach()\nout.write(b'1')", text("", "1")),
    "stdout_detached_after_output": (
        "import sys\nprint(1)\nsys.stdout.flush()\nsys.stdout.detach()",
        text("", "1"),
    ),
    "buffer_detached": ("import sys\nraw = sys.stdout.buffer.detach()\nraw.write(b'1')", text("", "1")),
    "stdout_wrapped": (
        "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='utf-8')\nprint('\u00fc')",
        text("", "\u00fc"),
    ),
    "stdout_of_codecs": (
        "import codecs, sys\nsys.stdout = codecs.getwriter('utf-8')(sys.stdout.detach())\nprint(1)",
        text("", "1"),
    ),
    "stdout_that_cannot_flush": (
        "import sys\nclass Out:\n    def write(self, text):\n        sys.__stdout__.write(text)\nsys.stdout = Out()\nprint(1)",
        text("", "1"),
    ),
    "no_stdout_at_the_end": ("import sys\nprint(1, flush=True)\nsys.stdout = None", text("", "1")),
    "stdin_detached": ("import sys\nprint(sys.stdin.detach().read().decode())", text("1 2", "1 2")),
    "stdin_wrapped": (
        "import io, sys\nsys.stdin = io.TextIOWrapper(sys.stdin.detach(), encoding='utf-8')\nprint(input())",
        text("\u00fc", "\u00fc"),
    ),
    "dev_stdin": ("print(open('/dev/stdin').read())", text("a\nb", "a\nb")),
    "dev_stdin_by_lines": ("for line in open('/dev/stdin'):\n    print(line.strip()[::-1])", text("ab\ncd", "ba\ndc")),
    "dev_stdin_as_stdin": (
        "import sys\nsys.stdin = open('/dev/stdin')\nprint(input())\nprint(sys.stdin.read())",
        text("a\nb", "a\nb"),
    ),
    "dev_stdin_by_its_descriptor": (
        "import os\nprint(os.read(os.open('/dev/stdin', os.O_RDONLY), 99).decode())",
        text("ab", "ab"),
    ),
    "dev_stdin_as_a_path": (
        "from pathlib import Path\np = Path('/dev/stdin')\nprint(p.exists(), p.read_bytes().decode())",
        text("ab", "True ab"),
    ),
    "dev_fd_0": ("print(open('/dev/fd/0').read(), open('/proc/self/fd/0').read())", text("ab", "ab ab")),
    "dev_stdin_of_fileinput": (
        "import fileinput\nprint(*(line.strip() for line in fileinput.input(['/dev/stdin'])))",
        text("a\nb", "a b"),
    ),
    "dev_stdout": (
        "with open('/dev/stdout', 'w') as out:\n    out.write(open('/dev/stdin').read())\nopen('/dev/stderr', 'w').write('x')",
        text("ab", "ab"),
    ),
    "dev_stdin_of_numpy": (
        "import numpy as np\nprint(np.loadtxt('/dev/stdin').sum(), np.fromfile('/dev/stdin', sep=' ').max())",
        text("1\n2", "3.0 2.0"),
    ),
    "arguments": ("import sys\nprint(sys.argv, len(sys.orig_argv), argv)", text("", "['program.py'] 1 ['program.py']")),
    "argument_parser": (
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--n', type=int, default=3)\n"
        "print(parser.parse_args().n)",
        text("", "3"),
    ),
    "arguments_changed": (
        "import sys\nsys.argv.append('x')\nprint(len(sys.argv))",
        text("", "2"),
    ),
    "own_file": ("import os\nprint(os.path.basename(__file__))", text("", "program.py")),
    "fileinput": ("import fileinput\nprint(sum(map(int, fileinput.input())))", text("1\n2", "3")),
    "fileinput_left_open": ("import fileinput\nprint(fileinput.input().readline())", text("1\n2", "1")),
    "long_number": ("print(10**5000 + 1)", text("", "1" + "0" * 4999 + "1")),
    "long_number_read": ("print(int(input()) + 1)", text("9" * 6000, "1" + "0" * 6000)),
    "long_number_in_the_source": (f"print(len(str({'7' * 6000})))", text("", "6000")),
    "long_number_formatted": ("print(f'{10**5000:d}'[:2], '%d' % 1 * 2)", text("", "10 11")),
    "long_number_by_json": ("import json\nprint(json.loads(input()) + 1)", text("1" * 5000, "1" * 4999 + "2")),
    "long_number_returned": ("def f():\n    return [10**5000]", called("f", [], [10**5000])),
    "long_number_as_argument": ("def f(x):\n    return x + 1", called("f", [10**5000], 10**5000 + 1)),
    "long_number_among_arguments": (
        "def f(x, y):\n    return len(str(x['a'][0])) + y",
        called("f", [{"a": [10**50_000]}], 50_002, kwargs={"y": 1}),
    ),
    "name_imported": ("from math import gcd", called("gcd", [4, 6], 2)),
    "name_imported_as_another": ("from math import gcd as f", called("f", [4, 6], 2)),
    "names_imported": ("from operator import *", called("add", [2, 3], 5)),
    "module_imported": ("import math", called("math.gcd", [4, 6], 2)),
    "name_assigned": ("f = sorted", called("f", [[2, 1]], [1, 2])),
    "built_in_name_assigned": ("sorted = sorted", called("sorted", [[2, 1]], [1, 2])),
    "name_made_by_exec": ("exec('def f(): return 1')", called("f", [], 1)),
    "name_of_globals": ("globals()['f'] = lambda: 1", called("f", [], 1)),
    "name_of_the_prelude_defined": ("def gcd(a, b):\n    return 7", called("gcd", [4, 6], 7)),
    "prelude_inside_of_a_function": ("def f(x):\n    return gcd(x, 4)", called("f", [6], 2)),
    "dotted_call": ("class S:\n    def f(self, x):\n        return x", called("S().f", [2], 2)),
    "call_of_what_a_call_returns": ("def make(n):\n    return lambda x: x + n", called("make(3)", [2], 5)),
    "call_with_a_name_of_the_prelude": (
        "class S:\n    def __init__(self, q):\n        self.q = q\n    def f(self):\n        return list(self.q)",
        called("S(deque([1])).f", [], [1]),
    ),
    "inherited_method": (
        "class Base:\n    def f(self, x):\n        return x\nclass Solution(Base):\n    pass",
        called("f", [2], 2),
    ),
    "static_method": ("class Solution:\n    @staticmethod\n    def f(x):\n        return x", called("f", [2], 2)),
    "truth": ("import re\ndef f(x):\n    return re.match('a', x)", called("f", ["ab"], True, truth=True)),
    "truth_of_a_set": ("def f(x):\n    return {x}", called("f", [0], True, truth=True)),
    "truth_of_nothing": ("def f():\n    return []", called("f", [], False, truth=True)),
    "exact_text": ("print('0011 1.10 ')", text("", "0011 1.10", exact=True)),
    "exact_value": ("def f():\n    return [1.0, True, '1']", called("f", [], [1.0, True, "1"], exact=True)),
    "stdout_closed": ("import sys\nprint(1)\nsys.stdout.close()", text("", "1")),
    "stdout_replaced": (
        "import io, sys\nsys.stdout = io.StringIO()\nprint('hidden')\nsys.__stdout__.write('shown')",
        text("", "shown"),
    ),
    "stdout_redirected": (
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as f:\n    print('a')\nprint(f.getvalue() * 2)",
        text("", "a\na"),
    ),
    "another_print": (
        "import sys\nprint = lambda *x: sys.stdout.write(' '.join(map(str, x)) + '\\n')\nprint(1, 2)",
        text("", "1 2"),
    ),
    "tmp": ("with open('/tmp/x', 'w') as f:\n    f.write('kept')\nprint(open('/tmp/x').read())", text("", "kept")),
    "pickle_of_own_class": (
        "import pickle\nclass A:\n    x = 1\nprint(pickle.loads(pickle.dumps(A())).x)",
        text("", "1"),
    ),
    "dataclass": (
        "from dataclasses import dataclass\n@dataclass(order=True)\nclass A:\n    x: 'int'\nprint(max(A(1), A(2)).x)",
        text("", "2"),
    ),
    "tolerance": ("print(1.01)", text("", "1.0", tolerance=0.1)),
    "tolerance_of_a_call": ("def f():\n    return [1.01]", called("f", [], [1.0], tolerance=0.1)),
    "wrapped": ("def f():\n    return 5", called("f", [], [5], wrapped=True)),
    "unicode": ("print(input()[::-1])", text("h\u00e9llo \u4e16\u754c \U0001f600", "\U0001f600 \u754c\u4e16 oll\u00e9h")),
    "unicode_call": ("def f(x):\n    return {x: x * 2}", called("f", ["\U0001f600\u00e9"], {"\U0001f600\u00e9": "\U0001f600\u00e9" * 2})),
    "unicode_names": ("\u00fc = 'gr\u00fc\u00dfe'\nprint(\u00fc)", text("", "gr\u00fc\u00dfe")),
    "timed": ("import time\ntime.sleep(0.1)\nprint(time.perf_counter() > 0)", text("", "True")),
    "deadline": ("import signal\nsignal.alarm(5)\nprint(1)", text("", "1")),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_right_program_passes(pool, name):
    program, test = RIGHT[name]
    if "numpy" in name:
        pytest.importorskip("numpy")
    got = results(pool, program, test, test, seconds=5.0)
    assert [r.status for r in got] == ["passed", "passed"], got


N_PLUS_1 = "print(int(input()) + 1)"
LEAVE_SOMETHING = {
    "event_loop": (
        "import asyncio\nasync def main():\n    print(int(input()) + 1)\nloop = asyncio.get_event_loop()\n"
        "loop.run_until_complete(main())\nloop.close()"
    ),
    "log_handler": (
        "import logging, sys\nlog = logging.getLogger('x')\nlog.addHandler(logging.StreamHandler(sys.stdout))\n"
        "log.warning(int(input()) + 1)"
    ),
    "precision": (
        "from decimal import Decimal, getcontext\nn = int(input())\nassert getcontext().prec == 28\n"
        "getcontext().prec = 2\nprint(n + 1)"
    ),
    "numpy_errors": "import numpy as np\nassert np.geterr()['divide'] == 'warn'\nnp.seterr(all='ignore')\n"
    + N_PLUS_1,
    "folder": "import os\nos.mkdir('work')\n" + N_PLUS_1,
    "deep_folder": "import os\nfor _ in range(50):\n    os.mkdir('d')\n    os.chdir('d')\n" + N_PLUS_1,
    "file": "with open('a.txt', 'a') as f:\n    f.write('x')\nassert open('a.txt').read() == 'x'\n" + N_PLUS_1,
    "hidden_file": "from pathlib import Path\nPath('.a').touch(exist_ok=False)\n" + N_PLUS_1,
    "patched_function": (
        "import random\nassert random.randint(3, 3) == 3\nrandom.randint = lambda a, b: 0\n" + N_PLUS_1
    ),
    "patched_by_name": "import math\nassert math.gcd(4, 6) == 2\nsetattr(math, 'gcd', max)\n" + N_PLUS_1,
    "patched_built_in": "import builtins\nassert len([]) == 0\nbuiltins.len = lambda x: 1\n" + N_PLUS_1,
    "recursion_limit": (
        "import sys\nassert sys.getrecursionlimit() == 50000\nsys.setrecursionlimit(1000)\n" + N_PLUS_1
    ),
    "environment": "import os\nassert 'A' not in os.environ\nos.environ['A'] = '1'\n" + N_PLUS_1,
    "warnings": "import warnings\nassert not [f for f in warnings.filters if f[0] == 'error']\n"
    "warnings.simplefilter('error')\n" + N_PLUS_1,
    "large_stack": (
        "import threading\nassert threading.stack_size() == 0\nthreading.stack_size(1 << 28)\n"
        f"thread = threading.Thread(target=lambda: {N_PLUS_1})\nthread.start()\nthread.join()"
    ),
}


@pytest.mark.parametrize("name", LEAVE_SOMETHING)
def test_no_test_finds_what_another_one_left(pool, name):
    if "numpy" in name:
        pytest.importorskip("numpy")
    tests = [text(f"{n}\n", f"{n + 1}\n") for n in range(5)]
    got = results(pool, LEAVE_SOMETHING[name], *tests, seconds=10.0)
    assert [r.status for r in got] == ["passed"] * 5, got


WRONG = {
    "wrong_output": ("print(1)", text("", "2"), "failed"),
    "no_output": ("pass", text("", "2"), "failed"),
    "wrong_value": ("def f():\n    return 1", called("f", [], 2), "failed"),
    "wrapped_without_asking": ("def f():\n    return 5", called("f", [], [5]), "failed"),
    "exception": ("1 / 0", text("", "1"), "error"),
    "exception_after_right_output": ("print(1)\n1 / 0", text("", "1"), "error"),
    "exception_of_the_stream": (
        "import sys\nclass Out:\n    def flush(self):\n        1 / 0\nsys.stdout = Out()",
        text("", ""),
        "error",
    ),
    "prelude_answers": ("pass", called("add", [2, 3], 5), "error"),
    "prelude_module_answers": ("pass", called("math.gcd", [4, 6], 2), "error"),
    "prelude_class_answers": ("pass", called("Counter('aab').most_common", [1], [["a", 2]]), "error"),
    "built_in_answers": ("def g(x):\n    return x", called("sorted", [[2, 1]], [1, 2]), "error"),
    "prelude_answers_beside_solution": ("class Solution:\n    pass", called("gcd", [4, 6], 2), "error"),
    "object_answers": ("class Solution:\n    pass", called("__eq__", [1], False), "error"),
    "module_name_answers": ("pass", called("__name__.upper", [], "SOLUTION"), "error"),
    "built_ins_answer": ("pass", called("__builtins__['add']", [2, 3], 5), "error"),
    "name_never_reached": ("if False:\n    gcd = 1", called("gcd", [4, 6], 2), "error"),
    "name_deleted": ("gcd = 1\ndel gcd", called("gcd", [4, 6], 2), "error"),
    "name_inside_of_a_function": ("def g():\n    from math import gcd", called("gcd", [4, 6], 2), "error"),
    "name_in_another_module": ("import math", called("gcd", [4, 6], 2), "error"),
    "digits_with_a_zero_less": ("print(11)", text("", "0011"), "failed"),
    "fraction_with_a_zero_less": ("print(1.1)", text("", "1.10"), "failed"),
    "exact_text_missed": ("print(1.0)", text("", "1", exact=True), "failed"),
    "exact_value_missed": ("def f():\n    return 1", called("f", [], True, exact=True), "failed"),
    "long_number_by_one": ("print(10**5000)", text("", "1" + "0" * 4999 + "1"), "failed"),
    "long_value_by_one": ("def f():\n    return 10**5000", called("f", [], 10**5000 + 1), "failed"),
    "truth_missed": ("def f():\n    return []", called("f", [], True, truth=True), "failed"),
    "no_truth_of_one": ("def f():\n    return 1", called("f", [], False, truth=True), "failed"),
    "no_such_function": ("def g():\n    return 1", called("f", [], 1), "error"),
    "wrong_arguments": ("def f(x):\n    return 1", called("f", [], 1), "error"),
    "no_json": ("def f():\n    return {1, 2}", called("f", [], [1, 2]), "error"),
    "end_of_input": ("input()\ninput()", text("x\n", ""), "error"),
    "exit_code": ("import os\nprint(1, flush=True)\nos._exit(1)", text("", "1"), "error"),
    "memory_error": ("raise MemoryError", text("", ""), "memory"),
    "memory": ("x = [0] * 10**10", text("", ""), "memory"),
    "memory_in_a_call": ("def f():\n    return bytearray(10**12)", called("f", [], 1), "memory"),
    "sandbox_modules": ("import klear_lab", text("", ""), "error"),
    "other_packages": ("import torch", text("", ""), "error"),
    "pytest_is_not_there": ("import pytest", text("", ""), "error"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_program_does_not_pass(pool, name):
    program, test, status = WRONG[name]
    assert statuses(pool, program, test) == [status]


def test_program_that_reads_too_slowly_is_timed_out(pool):
    got = results(pool, "import time\ntime.sleep(60)", text("", ""), seconds=0.3)
    assert [r.status for r in got] == ["timeout"]


def test_seconds_are_for_each_test(pool):
    program = "import time\ntime.sleep(0.4)\nprint(1)"
    assert statuses(pool, program, *[text("", "1")] * 4, seconds=1.2) == ["passed"] * 4


def test_processor_time_is_for_each_test_too(pool):
    program = (
        "import time\nstart = time.process_time()\nwhile time.process_time() < start + 0.45:\n    pass\nprint(1)"
    )
    assert statuses(pool, program, *[text("", "1")] * 8, seconds=1.4) == ["passed"] * 8


WAITS = "import time\nn = float(input())\ntime.sleep(n)\nprint(n)"
QUICK, MIDDLING, SLOW = (text(str(n), str(n)) for n in (0.0, 0.9, 9.0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_passes_does_not_depend_on_the_order_of_tests(pool, seed):
    numbers = random.Random(seed)
    for slow, passes in ((1, {"0.0", "0.9"}), (2, {"0.0"}), (4, {"0.0"})):
        tests = [QUICK, MIDDLING, QUICK, *[SLOW] * slow]
        numbers.shuffle(tests)
        got = results(pool, WAITS, *tests, seconds=1.5, max_timeouts=2)
        expected = ["passed" if test["stdin"] in passes else "timeout" for test in tests]
        assert [r.status for r in got] == expected, (tests, got)


@pytest.mark.slow
def test_a_program_out_of_time_has_less_of_it_for_every_other_test(pool):
    started = time.monotonic()
    got = results(pool, WAITS, *[SLOW] * 20, seconds=2.0)
    assert [r.status for r in got] == ["timeout"] * 20
    assert time.monotonic() - started < 3 * 2.0 + 17 * 0.5 + 5.0


def test_a_result_that_came_too_late_for_a_program_out_of_time_says_so(pool):
    got = results(pool, WAITS, MIDDLING, SLOW, seconds=1.5, max_timeouts=1)
    assert [r.status for r in got] == ["timeout"] * 2
    assert got[0].message == "a program that ran out of time in 1 tests or more has 0.5 s for each"


def test_tests_before_max_timeouts_are_run(pool):
    program = "if input() == 'slow':\n    while True:\n        pass\nprint('quick')"
    tests = [text("slow", ""), text("quick", "quick"), text("slow", ""), text("quick", "quick")]
    assert statuses(pool, program, *tests, seconds=0.4, max_timeouts=3) == ["timeout", "passed"] * 2


def test_jobs_that_differ_in_max_timeouts_are_not_the_same(pool):
    jobs = [Job(WAITS, [MIDDLING, SLOW], 1.5, max_timeouts=n) for n in (1, 3)]
    assert [[r.status for r in got] for got in pool.run(jobs)] == [["timeout"] * 2, ["passed", "timeout"]]


def test_a_test_without_memory_leaves_the_others_alone(pool):
    program = "if input() == 'much':\n    x = [0] * 10**10\nprint(1)"
    tests = [text("little", "1"), text("much", "1"), text("little", "1")]
    assert statuses(pool, program, *tests) == ["passed", "memory", "passed"]


def test_memory_mb_is_the_programs_own(pool):
    program = "x = bytearray(int(input()) << 20)\nprint(len(x) >> 20)"
    tests = [text("80", "80"), text("300", "300")]
    assert statuses(pool, program, *tests, memory_mb=100) == ["passed", "memory"]
    assert statuses(pool, program, *tests, memory_mb=400) == ["passed", "passed"]


def test_memory_is_the_same_after_a_large_job(pool):
    program = "x = bytearray(int(input().split()[0]) << 20)\nprint(len(x) >> 20)"
    assert statuses(pool, program, text("1 " + "x" * (20 << 20), "1"), memory_mb=200) == ["passed"]
    assert statuses(pool, program, text("80", "80"), memory_mb=100) == ["passed"]


def test_tests_do_not_see_each_others_globals(pool):
    program = "try:\n    print(seen)\nexcept NameError:\n    print('new')\nseen = 1"
    assert statuses(pool, program, *[text("", "new")] * 3) == ["passed"] * 3


def test_tests_do_not_see_each_others_arguments(pool):
    program = "def f(x):\n    x.append(1)\n    return len(x)"
    assert statuses(pool, program, *[called("f", [[]], 1)] * 3) == ["passed"] * 3


def test_unread_input_is_not_the_next_tests(pool):
    tests = [text("a\nb\nc", "a"), text("d\ne", "d"), text("", "end")]
    program = "try:\n    print(input())\nexcept EOFError:\n    print('end')"
    assert statuses(pool, program, *tests) == ["passed"] * 3


def test_output_of_one_test_is_not_the_next_ones(pool):
    tests = [text("long", "x" * 10000), text("short", "y")]
    program = "print('x' * 10000 if input() == 'long' else 'y')"
    assert statuses(pool, program, *tests) == ["passed"] * 2


def test_random_is_reproducible(pool):
    program = "import random\nprint(random.random(), hash('x'), list({'a', 'b', 'c'}))"
    one = results(pool, program, text("", "?"), text("", "?"))
    with SandboxPool(1) as other:
        two = results(other, program, text("", "?"), text("", "?"))
    assert len({r.output for r in (*one, *two)}) == 1
    assert one[0].output.startswith("0.")


def test_no_tests_give_no_results(pool):
    assert results(pool, "print(1)") == []
    assert pool.run([]) == []


def test_right_program_among_wrong_ones(pool):
    programs = [
        "print(2)",
        "while True:\n    pass",
        "print(int(input()) + 1)",
        "def f(:",
        "1 / 0",
        "x = [0] * 10**10",
    ]
    got = pool.run([Job(program, [text("1", "2")], 0.5) for program in [*programs, *reversed(programs)]])
    found = [r.status for (r,) in got]
    assert found[:6] == ["passed", "timeout", "passed", "error", "error", "memory"]
    assert found[6:] == found[:6][::-1]


def test_syntax_error_fails_every_test_and_says_why(pool):
    got = results(pool, "def f(:", *[text("", "")] * 3)
    assert [r.status for r in got] == ["error"] * 3
    assert all("SyntaxError" in r.message for r in got)


def test_message_is_the_end_of_the_traceback(pool):
    (got,) = results(pool, "def f():\n    raise ValueError('the reason')\nf()", text("", ""))
    assert got.message.strip().endswith("ValueError: the reason")
    assert 'File "program.py", line 2, in f' in got.message
    assert "sandbox" not in got.message


def test_outputs_and_messages_in_results_are_cut(pool):
    program = "import sys\nprint('o' * 5000)\nsys.stderr.write('first' + 'e' * 5000 + 'last')"
    (got,) = results(pool, program, text("", "?"))
    assert got.output == "o" * 2000
    assert len(got.message) == 2000
    assert got.message.endswith("last")


def test_large_inputs_and_outputs(pool):
    large = "\n".join("0123456789 abcdefghi" for _ in range(200_000))
    assert statuses(pool, "import sys\nsys.stdout.write(sys.stdin.read())", text(large, large)) == ["passed"]
    assert statuses(pool, "def f(x):\n    return x", called("f", [large], large)) == ["passed"]
    assert statuses(pool, f"x = {large!r}\nprint(len(x))", text("", str(len(large)))) == ["passed"]


def test_many_tests(pool):
    tests = [text(str(n), str(n * 2)) for n in range(500)]
    assert statuses(pool, "print(int(input()) * 2)", *tests) == ["passed"] * 500


@pytest.mark.parametrize(
    "test",
    [
        {},
        {"stdin": "x"},
        {"expected_stdout": "x"},
        {"stdin": "x", "expected_stdout": "x", "seconds": 1},
        {"stdin": 1, "expected_stdout": "x"},
        {"stdin": "x", "expected_stdout": None},
        {"stdin": "x", "expected_stdout": ["x"]},
        {"call": "f", "args": []},
        {"call": "f", "expected": 1},
        {"call": "f", "args": {"a": 1}, "expected": 1},
        {"call": None, "args": [], "expected": 1},
        {"stdin": "x", "expected_stdout": "x", "call": "f", "args": [], "expected": 1},
        {"input": "x", "output": "y"},
        {"call": "'a'.upper", "args": [], "expected": "A"},
        {"call": "(lambda: 1)", "args": [], "expected": 1},
        {"call": "[1].count", "args": [1], "expected": 1},
        {"call": "", "args": [], "expected": 1},
        {"call": "f(", "args": [], "expected": 1},
        {"call": "f", "args": [{1}], "expected": 1},
        {"stdin": "x", "expected_stdout": "x", "truth": True},
    ],
)
def test_wrong_form_of_a_test_names_its_index(pool, test):
    with pytest.raises(ValueError, match=r"test 1\b"):
        results(pool, "", text("", ""), test)


def test_results_are_in_the_order_of_jobs():
    program = "import time\nn = float(input())\ntime.sleep(n)\nprint(n)"
    waits = [0.3, 0.0, 0.2, 0.1]
    with SandboxPool(3) as pool:
        got = pool.run([Job(program, [text(str(n), "?")]) for n in waits])
    assert [float(r.output) for (r,) in got] == waits


@pytest.fixture
def runs(monkeypatch):
    """The programs that sandboxes were given."""
    given, run = [], Sandbox.run

    def counting(self, job):
        if job.program != sandbox_module.KNOWN_GOOD[0]:
            given.append(job.program)
        return run(self, job)

    monkeypatch.setattr(Sandbox, "run", counting)
    return given


@needs_bubblewrap
def test_identical_jobs_run_once(runs):
    same, other = Job("print(1)", [text("", "1")]), Job("print(1)", [text("", "2")])
    with SandboxPool(2) as pool:
        got = pool.run([same, other, same, Job("print(1)", (text("", "1"),)), same])
    assert [r.status for (r,) in got] == ["passed", "failed", "passed", "passed", "passed"]
    assert runs == ["print(1)"] * 2


@needs_bubblewrap
def test_run_tests_is_a_pool_of_its_own():
    before = set(descendants(os.getpid()))
    assert run_tests("print(int(input()) * 2)", [text("4", "8")], sandbox="required") == [
        CaseResult("passed", "8\n")
    ]
    assert not set(descendants(os.getpid())) - before


@needs_bubblewrap
def test_pool_runs_programs_side_by_side():
    jobs = [Job(f"import time\ntime.sleep(1)\nprint({n})", [text("", str(n))]) for n in range(4)]
    with SandboxPool(4) as pool:
        pool.run([Job(f"print({n})", [text("", "")]) for n in range(8)])
        started = time.monotonic()
        assert {r.status for (r,) in pool.run(jobs)} == {"passed"}
    assert time.monotonic() - started < 3.5


# Sandboxes that die


def poll(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return value


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def worker_and_program(pool):
    """Their process ids, once the pool's only sandbox runs a program."""

    def found():
        return [below for s in list(pool.open) if len(below := sorted(descendants(s.process.pid))) > 1]

    running = poll(found)
    assert running, "no program runs"
    return running[0][-2:]


@needs_bubblewrap
def test_death_of_a_worker_costs_one_retry_and_nothing_else(runs):
    slow = Job("import time\ntime.sleep(1)\nprint(input())", [text("x", "x")] * 2)
    quick = Job("print(1)", [text("", "1")])
    with SandboxPool(1) as pool, ThreadPoolExecutor(1) as thread:
        future = thread.submit(pool.run, [slow, quick])
        os.kill(worker_and_program(pool)[0], signal.SIGKILL)
        got = future.result(timeout=30)
    assert [[r.status for r in each] for each in got] == [["passed", "passed"], ["passed"]]
    assert runs == [slow.program, slow.program, quick.program]


@needs_bubblewrap
def test_death_of_bubblewrap_costs_a_retry_at_most_and_leaves_nothing(runs):
    job = Job("import time\ntime.sleep(3)\nprint(input())", [text("x", "x")])
    with SandboxPool(1) as pool, ThreadPoolExecutor(1) as thread:
        future = thread.submit(pool.run, [job])
        pids = worker_and_program(pool)
        next(iter(pool.open)).process.kill()
        assert future.result(timeout=30)[0][0].status == "passed"
    # As root the worker is another user's process, which a dying bubblewrap may not signal: it finishes its job.
    assert len(runs) == (1 if AS_ROOT else 2)
    assert poll(lambda: not any(map(alive, pids)), 2.0)


@needs_bubblewrap
def test_a_closed_pool_ends_workers_whose_bubblewrap_is_gone():
    job = Job("while True: pass", [text("x", "x")], seconds=60.0)
    with SandboxPool(1) as pool, ThreadPoolExecutor(1) as thread:
        thread.submit(pool.run, [job])
        pids = worker_and_program(pool)
        next(iter(pool.open)).process.kill()
        pool.__exit__()
        assert poll(lambda: not any(map(alive, pids)), 2.0)


ADOPTER = """
import ctypes, json, os, sys
from pathlib import Path
import klear_lab.sandbox.pool as sandbox_module
from klear_lab.sandbox.pool import Job, SandboxPool
from sandbox_attacks import ISOLATIONS, PR_SET_CHILD_SUBREAPER
sandbox_module.find_isolation = lambda _: ISOLATIONS[sys.argv[1]]
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
def children():
    found = [path.read_text().rpartition(")")[2].split()[:2] for path in Path("/proc").glob("[0-9]*/stat")]
    return [state for state, parent in found if int(parent) == os.getpid()]
slow = [{"stdin": "", "expected_stdout": ""}]
before = set()
counts = []
with SandboxPool(1) as pool:
    for number in range(10):
        results = pool.run([Job(f"while True: {number}", slow, 0.1)])
        assert results[0][0].status == "timeout"
        before |= {sandbox.process.pid for sandbox in pool.open}
        counts.append(children().count("Z"))
print(json.dumps({"discarded": len(before), "zombies": counts, "left": children()}))
"""


@each_run
def test_discarded_sandboxes_leave_no_zombies_to_the_process_that_inherits_them(user, isolation):
    machine = Machine(user, isolation)
    try:
        output, errors = machine.start("-c", ADOPTER, isolation).communicate(timeout=60)
    finally:
        machine.close()
    assert output, errors
    assert json.loads(output) == {"discarded": 10, "zombies": [0] * 10, "left": []}


def a_worker(*lines):
    script = "\n".join(
        [
            "import json, os, sys",
            "def send(answer):",
            "    content = json.dumps({**answer, 'bytes': {}}).encode()",
            "    os.write(1, len(content).to_bytes(8, 'big') + content)",
            *lines,
        ]
    )
    return lambda *_: [sys.executable, "-S", "-c", script]


@pytest.mark.parametrize(
    "after_the_request",
    [
        "sys.exit(1)",
        "os.kill(os.getpid(), 9)",
        "os.close(1)\nos.close(0)\nsys.exit()",
        "os.write(1, b'12')\nsys.exit()",
    ],
)
def test_sandboxes_that_keep_dying_are_reported(monkeypatch, after_the_request):
    monkeypatch.setattr(sandbox_module, "find_isolation", lambda _: LIMITS)
    monkeypatch.setattr(sandbox_module, "worker_command", a_worker("send({})", "os.read(0, 8)", after_the_request))
    with pytest.raises(SandboxUnavailable, match=r"limits.*keep dying"):
        run_tests("print(1)", [text("", "1")])


@pytest.mark.parametrize(
    ("worker", "why"),
    [
        (
            lambda *_: [sys.executable, "-c", "import sys; sys.exit('no such thing')"],
            "doesn't start: no such thing",
        ),
        (a_worker("send({'failed': 'the reason'})"), "doesn't start: the reason"),
    ],
)
def test_sandbox_that_does_not_start_says_why(monkeypatch, worker, why):
    monkeypatch.setattr(sandbox_module, "find_isolation", lambda _: LIMITS)
    monkeypatch.setattr(sandbox_module, "worker_command", worker)
    with pytest.raises(SandboxUnavailable, match=why):
        run_tests("print(1)", [text("", "1")])


def test_sandbox_that_fails_a_right_program_is_reported_before_any_other_runs(monkeypatch):
    wrong = "send({'ended': 'ended', 'output': 'x'})\nsend({'clean': True})"
    monkeypatch.setattr(sandbox_module, "find_isolation", lambda _: LIMITS)
    monkeypatch.setattr(sandbox_module, "worker_command", a_worker(f"send({{}})\nos.read(0, 8)\n{wrong}"))
    with pytest.raises(SandboxUnavailable, match="fail a program that is right"):
        SandboxPool(1)


HOST = """
import json, os, sys, threading, time
import klear_lab.sandbox.pool as sandbox_module
from klear_lab.sandbox.pool import Job, SandboxPool
from sandbox_attacks import ISOLATIONS, descendants
sandbox_module.find_isolation = lambda _: ISOLATIONS[sys.argv[1]]
tests = [{"stdin": "", "expected_stdout": ""}]
pool = SandboxPool(2)
jobs = [Job(program, tests, 60.0) for program in ("import time\\ntime.sleep(1e6)", "while True:\\n    pass")]
threading.Thread(target=pool.run, args=[jobs], daemon=True).start()
layers = {"bubblewrap": 2, "namespaces": 2, "limits": 1}[sys.argv[1]]
while [len(descendants(s.process.pid)) for s in list(pool.open)] != [layers] * 2:
    time.sleep(0.02)
time.sleep(0.3)
print(json.dumps(sorted(descendants(os.getpid()))), flush=True)
sys.stdin.readline()
started = time.monotonic()
pool.__exit__()
print(time.monotonic() - started, flush=True)
"""


@pytest.fixture
def host(tmp_path):
    """A function that starts a process which runs two endless programs, and returns it with all processes below."""
    opened = []

    def start(user, isolation):
        machine = Machine(user, isolation)
        process = machine.start("-c", HOST, isolation)
        lines = []
        reader = threading.Thread(target=lambda: lines.append(process.stdout.readline()))
        reader.start()
        reader.join(30)
        opened.append((machine, process, json.loads(lines[0]) if lines and lines[0] else []))
        assert opened[-1][2], process.stderr.read() if process.poll() is not None else "no programs run"
        return process, opened[-1][2]

    yield start
    for machine, process, pids in opened:
        for pid in (process.pid, *pids):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
        machine.close()


@each_run
def test_closing_a_pool_ends_its_programs(host, user, isolation):
    process, pids = host(user, isolation)
    process.stdin.write("close\n")
    process.stdin.flush()
    assert poll(lambda: not any(map(alive, pids)), 5.0), [pid for pid in pids if alive(pid)]
    output, errors = process.communicate(timeout=20)
    assert float(output) < 5.0, errors


@each_run
def test_killing_the_host_ends_its_programs(host, user, isolation):
    process, pids = host(user, isolation)
    process.kill()
    assert poll(lambda: not any(map(alive, pids)), 5.0), [pid for pid in pids if alive(pid)]


# The filter


ALLOW, REFUSE, ABSENT, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
MACHINES = pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
READ_ONLY = pytest.mark.parametrize("read_only", [False, True])


def instructions(machine, read_only):
    content = system_call_filter(read_only, machine).replace(OWN_PID, struct.pack("I", 1234))
    return [struct.unpack_from("HBBI", content, at) for at in range(0, len(content), 8)]


def verdict(code, architecture, number, *arguments):
    """What the kernel would answer: classic BPF over `struct seccomp_data`."""
    arguments = [a % 2**64 for a in (*arguments, *[0] * 6)[:6]]
    data = struct.pack("<IIQ6Q", number % 2**32, architecture, 0, *arguments)
    at, accumulator = 0, 0
    while True:
        operation, if_true, if_not, operand = code[at]
        if operation == 0x06:
            return operand
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
            continue
        holds = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}[
            operation
        ]
        at += if_true if holds else if_not


@MACHINES
@READ_ONLY
def test_every_jump_of_the_filter_stays_inside(machine, read_only):
    code = instructions(machine, read_only)
    assert 0 < len(code) <= 4096
    for at, (operation, if_true, if_not, operand) in enumerate(code):
        assert operation in (0x20, 0x15, 0x35, 0x45, 0x06)
        if operation in (0x15, 0x35, 0x45):
            assert max(if_true, if_not) <= 255
            assert at + 1 + max(if_true, if_not) < len(code)
        if operation == 0x20:
            assert operand % 4 == 0 and operand < 64
        if operation == 0x06:
            assert operand in (ALLOW, REFUSE, ABSENT, KILL)
    assert code[-1][0] == 0x06


NUMBERS = {  # x86_64, aarch64
    "read": (0, 63),
    "open": (2, None),
    "openat": (257, 56),
    "mmap": (9, 222),
    "futex": (202, 98),
    "exit_group": (231, 94),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "clone3": (435, 435),
    "tgkill": (234, 131),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "socket": (41, 198),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "truncate": (76, 45),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "linkat": (265, 37),
    "symlinkat": (266, 36),
    "mknodat": (259, 33),
    "setxattr": (188, 5),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "fremovexattr": (199, 16),
    "utimensat": (280, 88),
    "openat2": (437, 437),
}
ALWAYS = "read mmap futex exit_group socketpair".split()
CHANGES = (
    "unlink unlinkat rename renameat renameat2 mkdir mkdirat truncate chmod fchmod fchmodat fchmodat2 chown fchown "
    "fchownat linkat symlinkat mknodat setxattr fsetxattr removexattr fremovexattr utimensat openat2"
).split()
SPECIAL = "open openat clone clone3 tgkill".split()


def answer(machine, read_only, name, *arguments):
    number = NUMBERS[name][["x86_64", "aarch64"].index(machine)]
    if number is None:
        pytest.skip(f"{machine} has no {name}")
    return verdict(instructions(machine, read_only), AUDIT_ARCH[machine], number, *arguments)


@MACHINES
@READ_ONLY
@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in SPECIAL])
def test_system_call(machine, read_only, name):
    allowed = name in ALWAYS or (name in CHANGES and not read_only)
    assert answer(machine, read_only, name) == (ALLOW if allowed else REFUSE)


@MACHINES
@READ_ONLY
def test_threads_are_allowed_and_processes_are_not(machine, read_only):
    assert answer(machine, read_only, "clone", 0x3D0F00) == ALLOW  # of pthread_create
    assert answer(machine, read_only, "clone", 0x10000) == ALLOW
    for flags in (17, 0, 0x4111, 0x1200011, 0x10000000, 0x20000, 0xFFFEFFFF, 0x10000 << 32):
        assert answer(machine, read_only, "clone", flags) == REFUSE
    assert answer(machine, read_only, "clone3") == ABSENT


@MACHINES
@READ_ONLY
def test_thread_signals_reach_the_own_process_alone(machine, read_only):
    assert answer(machine, read_only, "tgkill", 1234, 1234, 6) == ALLOW
    assert answer(machine, read_only, "tgkill", 1234, 1240, 6) == ALLOW
    for pid in (1, 1233, 1235, 0, -1, 1234 << 32):
        assert answer(machine, read_only, "tgkill", pid, 1234, 9) == REFUSE


@MACHINES
@pytest.mark.parametrize("name", ["open", "openat"])
def test_files_open_for_reading_alone(machine, name):
    def opened(flags, read_only=True):
        arguments = (0, flags) if name == "open" else (-100, 0, flags)
        return answer(machine, read_only, name, *arguments)

    for flags in (os.O_RDONLY, os.O_RDONLY | os.O_CLOEXEC, os.O_RDONLY | os.O_NONBLOCK | os.O_DIRECTORY):
        assert opened(flags) == ALLOW
    for flags in (
        os.O_WRONLY,
        os.O_RDWR,
        os.O_CREAT,
        os.O_TRUNC,
        os.O_APPEND,
        os.O_RDWR | os.O_CLOEXEC,
        os.O_TMPFILE | 2,
    ):
        assert opened(flags) == REFUSE
        assert opened(flags, read_only=False) == ALLOW


@READ_ONLY
@pytest.mark.parametrize("number", [0, 39, 57, 59, 520, 2**31 - 2**30 - 1])
def test_x32_numbers_are_refused(read_only, number):
    code = instructions("x86_64", read_only)
    assert verdict(code, AUDIT_ARCH["x86_64"], 0x40000000 + number) == REFUSE


@MACHINES
@READ_ONLY
@pytest.mark.parametrize("architecture", [0x40000003, 0x40000028, 0xC00000B7, 0xC000003E, 0])
def test_other_architectures_are_killed(machine, read_only, architecture):
    code = instructions(machine, read_only)
    for number in (0, 1, 57, 220):
        expected = KILL if architecture != AUDIT_ARCH[machine] else None
        got = verdict(code, architecture, number)
        assert got == expected or (expected is None and got != KILL)


def test_isolations_of_the_attacks_are_all_there_are():
    assert set(ISOLATIONS.values()) == {BUBBLEWRAP, NAMESPACES, LIMITS}
