"""The order of tests."""

LONG = ("test_learning.py", "test_kill.py", "test_run.py", "test_sandbox.py", "test_analysis_report.py")


def pytest_collection_modifyitems(items):
    """Long tests first: otherwise one process works through the last of them while the others have nothing to do."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
