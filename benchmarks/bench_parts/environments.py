"""The environments of what is measured beside ours and isn't installed with it; the Makefile sets them up."""

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench_parts.work import ROOT, run


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
        """Returns the package with its version, "trl 1.16.0"."""
        code = f"from importlib.metadata import version; print(version({self.package!r}))"
        return f"{self.package} {run([str(self.python), '-c', code]).stdout.strip()}"


TRL = Environment(".venv-bench", "bench-env", "trl")  # transformers' Trainer has all it needs there too
VLLM = Environment(".venv-vllm", "install-vllm", "vllm")
