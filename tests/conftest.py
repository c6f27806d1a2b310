"""The order of tests, and no deadline for single examples: a busy machine misses it by chance."""

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
