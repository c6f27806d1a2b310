"""SFT examples of rows, through the files that a run has them in."""

import tempfile
from pathlib import Path

from klear_lab.data.tokens import read_tokens, write_tokens
from klear_lab.progress import Display
from klear_lab.sft import fitting
from klear_lab.storage.interruption import Stop


def tokens_of(codec, rows, folder):
    """Writes the tokens of rows into a folder and opens them."""
    write_tokens(rows, codec, folder, Stop(), Display("test", "off"))
    return read_tokens(folder)


def examples_of(codec, rows, max_tokens):
    """The examples of rows; their files stay readable after their folder is gone."""
    with tempfile.TemporaryDirectory() as folder:
        return fitting(tokens_of(codec, rows, Path(folder)), max_tokens)
