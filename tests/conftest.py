"""The order of tests, what one must not leave for the next, and no deadline that a busy machine misses by chance."""

import pytest
from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

LONG = (
    "test_learning.py",
    "test_kill.py",
    "test_run.py",
    "test_many_machines.py",
    "test_sandbox.py",
    "test_analysis_report.py",
)


def pytest_collection_modifyitems(items):
    """Long tests first: otherwise one process works through the last of them while the others have nothing to do."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True)
def errors_in_one_line(monkeypatch):
    """Forgets HYDRA_FULL_ERROR, which a command sets for its process: with it the next test gets tracebacks."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # so that it is put back afterwards
    monkeypatch.delenv("HYDRA_FULL_ERROR")
