"""Log lines on the console. Hydra imports this for every command, --help too: nothing heavy here."""

import logging
import sys


class ConsoleHandler(logging.StreamHandler):
    """Writes to whatever sys.stderr is now: a live progress display takes it over to print above its bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Looks the stream up anew for each record."""
        self.stream = sys.stderr
        super().emit(record)
