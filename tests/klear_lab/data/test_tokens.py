"""Tokens on disk: those that the codec gives, however many processes make them, whoever stops or kills them."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from klear_lab.config import ConfigError, ModelConfig, OutOfMemory
from klear_lab.data import tokens
from klear_lab.data.table import write_rows
from klear_lab.data.tokens import codec_fingerprint, read_tokens, tokenized, write_tokens
from klear_lab.policy.codec import make_codec
from klear_lab.policy.model import character_tokenizer, load_codec
from klear_lab.progress import Display
from klear_lab.storage.interruption import Interrupted, Stop
from support.models import CHATML, byte_pair_tokenizer, save_model
from support.rows import sft_row
from support.server import SERVER
from support.tokens import tokens_of

ROOT = Path(__file__).parents[3]
ROWS = [sft_row(response=f"<think>{i}+1={'7+5=2;' * (i % 40)}</think>4\u00e9") for i in range(1000)]
FILES = (tokens.IDS, tokens.LENGTHS)
OFF = Display("test", "off")


@pytest.fixture
def codec():
    return make_codec(byte_pair_tokenizer(CHATML), None, {})


@pytest.fixture
def stored(tmp_path):
    return write_rows(ROWS, tmp_path / "rows.arrow")


@pytest.fixture
def serial(codec, tmp_path):
    """The files that one process makes of the rows."""
    (tmp_path / "serial").mkdir()
    tokens_of(codec, ROWS, tmp_path / "serial")
    return {name: (tmp_path / "serial" / name).read_bytes() for name in FILES}


@pytest.fixture
def parallel(monkeypatch):
    monkeypatch.setattr(tokens, "LITTLE", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def files_of(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("make", [character_tokenizer, lambda: byte_pair_tokenizer(CHATML)])
def test_tokens_are_those_of_the_codec(make, tmp_path):
    codec = make_codec(make(), None, {})
    table = tokens_of(codec, ROWS, tmp_path)
    for number in (0, 1, 63, 64, 500, 999):
        prompt, response = ROWS[number]["prompt"], ROWS[number]["response"]
        assert table.row(number) == (codec.encode_prompt(prompt), codec.encode_response(prompt, response))
    assert len(table) == 1000


@pytest.mark.parametrize(("ids", "type_of_ids"), [(256, "uint8"), (257, "uint16"), (65_537, "uint32")])
def test_ids_take_the_smallest_type_that_holds_the_whole_vocabulary(tmp_path, ids, type_of_ids):
    tokenizer = character_tokenizer()
    tokenizer.add_tokens([f"<extra{i}>" for i in range(ids - len(tokenizer))])
    codec = make_codec(tokenizer, None, {})
    row = sft_row(response=f"<extra{ids - 1 - 105}>")
    table = tokens_of(codec, [row], tmp_path)
    assert table.ids.dtype == type_of_ids and (tmp_path / tokens.IDS).stat().st_size == table.ids.nbytes
    assert table.row(0)[1] == codec.encode_response(row["prompt"], row["response"])


def test_processes_make_what_one_makes(codec, stored, serial, tmp_path, parallel):
    (tmp_path / "made").mkdir()
    assert files_of_made(stored, codec, tmp_path / "made") == serial


def files_of_made(rows, codec, folder, stop=None):
    write_tokens(rows, codec, folder, stop or Stop(), OFF)
    return files_of(folder)


class StopAfter(Stop):
    """Asks to stop after some looks."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    @property
    def requested(self):
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_who_is_stopped_goes_on_after_the_last_chunk(codec, stored, serial, tmp_path, request, processes):
    if processes == 2:
        request.getfixturevalue("parallel")
    folder = tmp_path / "made"
    folder.mkdir()
    for looks, rows in ((2, 192), (0, 256), (4, 576)):
        with pytest.raises(Interrupted, match=f"^{rows} rows are tokenized; the same command goes on from there"):
            write_tokens(stored, codec, folder, StopAfter(looks), OFF)
        assert len(read_tokens(folder)) == rows
        for name in FILES:  # what a kill may leave behind it
            with (folder / name).open("ab") as file:
                file.write(b"half a chunk")
    assert files_of_made(stored, codec, folder) == serial


def slowly(rows, codec, folder):
    """Tokenizes so slowly that it is killed on the way, and saves each chunk."""
    real, tokens.SAVE_SECONDS = tokens.encode_chunk, 0
    tokens.encode_chunk = lambda *arguments: time.sleep(0.03) or real(*arguments)
    tokenized(rows, "key", codec, folder, Stop(), OFF)


def test_a_kill_leaves_the_cache_whole_and_costs_no_finished_rows(codec, stored, serial, tmp_path):
    cache = tmp_path / "cache"
    for _ in range(2):
        process = SERVER.Process(target=slowly, args=(stored.fresh(), codec, cache))
        process.start()
        while not [*cache.glob(f"tokens-*.partial/{tokens.ABOUT}")] and process.is_alive():
            time.sleep(0.01)
        time.sleep(0.1)
        process.kill()
        process.join()
        assert not [path for path in cache.glob("tokens-*") if path.is_dir() and path.suffix != ".partial"]
    assert 0 < len(read_tokens(*cache.glob("tokens-*.partial"))) < 1000
    tokenized(stored, "key", codec, cache, Stop(), OFF)
    (made,) = (path for path in cache.glob("tokens-*") if path.is_dir())
    assert files_of(made) == serial


KILLED = """
import os, sys, time
from pathlib import Path
from klear_lab.data import tokens
from klear_lab.data.table import StoredRows
from klear_lab.policy.codec import make_codec
from klear_lab.progress import Display
from klear_lab.storage.interruption import Stop
import pickle
tokens.LITTLE, os.cpu_count = 0, lambda: 2
codec = pickle.loads(Path(sys.argv[2]).read_bytes())
class Slow(Display):
    def show(self, *_):
        time.sleep(60)
tokens.write_tokens(StoredRows(Path(sys.argv[1])), codec, Path(sys.argv[3]), Stop(), Slow("", "off"))
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_processes_end_with_the_one_that_started_them_and_never_hear_of_an_interrupt(codec, stored, tmp_path):
    (tmp_path / "codec").write_bytes(pickle.dumps(codec))
    (tmp_path / "made").mkdir()
    command = [sys.executable, "-c", KILLED, stored.path, tmp_path / "codec", tmp_path / "made"]
    parent = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    workers = []
    deadline = time.monotonic() + 60
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
        workers = [pid for pid in children_of(parent.pid) if b"LokyProcess" in command_of(pid)]
    assert len(workers) == 2
    for pid in workers:
        blocked = next(s for s in Path(f"/proc/{pid}/status").read_text().splitlines() if s.startswith("SigBlk"))
        assert int(blocked.split()[1], 16) & 1 << (signal.SIGINT - 1)
    parent.kill()
    parent.wait()
    while any(command_of(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(command_of(pid) for pid in workers)


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_of(pid):
    """The command line of a process, empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_process_that_is_ended_from_outside_is_one_message(codec, stored, tmp_path, parallel, monkeypatch):
    def die(start):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(tokens, "work", die)
    with pytest.raises(OutOfMemory, match=r"ended from outside.*the same command goes on"):
        write_tokens(stored, codec, tmp_path, Stop(), OFF)
    with pytest.raises(Interrupted, match="stopped while rows were tokenized"):
        write_tokens(stored, codec, tmp_path, StopAfter(0), OFF)


def test_a_row_that_the_template_cannot_write_is_named_by_its_number(stored, tmp_path, parallel):
    template = "{% if messages[0]['content'] == 'odd' %}{{ raise_exception('no') }}{% endif %}" + CHATML
    codec = make_codec(byte_pair_tokenizer(template), None, {})
    odd = sft_row(prompt=[{"role": "user", "content": "odd"}])
    rows = write_rows([*ROWS[:700], odd, *ROWS[:10]], tmp_path / "odd.arrow")
    with pytest.raises(ConfigError, match=r"its chat template can't write the SFT row 700 \('odd'"):
        write_tokens(rows, codec, tmp_path, Stop(), OFF)


def test_tokens_are_made_once_for_each_tokenizer_template_and_data(stored, codec, tmp_path):
    cache = tmp_path / "cache"
    template = CHATML.replace("<|im_start|>assistant", "<|im_start|>model")
    others = [make_codec(byte_pair_tokenizer(template), None, {}), make_codec(character_tokenizer(), None, {})]
    others.append(make_codec(byte_pair_tokenizer(CHATML), None, {"enable_thinking": False}))
    larger = byte_pair_tokenizer(CHATML)
    larger.add_tokens(["7+5"])
    others.append(make_codec(larger, None, {}))
    made = set()
    for key, used in [("data", codec), ("other data", codec), *(("data", other) for other in others)] * 2:
        table = tokenized(stored, key, used, cache, Stop(), OFF)
        assert table.row(5)[1] == used.encode_response(ROWS[5]["prompt"], ROWS[5]["response"])
        made |= {path.name for path in cache.glob("tokens-*") if path.is_dir()}
    assert len(made) == 6


def test_a_tokenizer_is_known_by_its_content_wherever_it_lies(tmp_path):
    found = []
    for name in "ab":
        save_model(tmp_path / name)
        codec, _ = load_codec(ModelConfig(name="path", path=str(tmp_path / name)))
        found.append(codec_fingerprint(codec))
        found.append(codec_fingerprint(pickle.loads(pickle.dumps(codec))))
    assert len(set(found)) == 1


def test_an_id_that_the_type_cannot_hold_is_an_error_and_never_another_id(codec):
    with pytest.raises(OverflowError):
        tokens.encode_chunk(codec, ROWS, np.dtype("uint8"), 0)
