"""Errors that a person can put right; every command prints them in one line."""


class RunFolderError(ValueError):
    """Means that a run folder cannot be trusted; the message names the file and what to do."""


class NotComparableError(ValueError):
    """Means that evaluations have no common ground; the message says which."""


class OutputError(ValueError):
    """Means that output can't be written where it was asked for; the message names the path and says why."""
