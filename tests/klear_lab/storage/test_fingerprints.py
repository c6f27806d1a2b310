"""What a run's files are known by: their content and their names, wherever they lie and whenever they were written."""

import gzip
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest

from klear_lab.config import ConfigError, ModelConfig
from klear_lab.data.sources import source_fingerprint
from klear_lab.data_source_config import DatasetSourceConfig, RowSetConfig
from klear_lab.storage import fingerprints
from klear_lab.storage.fingerprints import HASHES, difference, fingerprint, weights_fingerprint
from support.rows import rl_row, write

ROWS = [rl_row(id=None, prompt=f"1+{i}?") for i in range(3)]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def of_rows(cache):
    """A function from names of files to their fingerprint."""
    return lambda *files: source_fingerprint(DatasetSourceConfig(rl=RowSetConfig(files=[*map(str, files)])), cache)


@pytest.fixture
def of_repository(cache):
    return lambda folder: source_fingerprint(DatasetSourceConfig(rl=RowSetConfig(repository=str(folder))), cache)


@pytest.fixture
def of_model(cache):
    return lambda folder: weights_fingerprint(ModelConfig(name="path", path=str(folder)), cache)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "data").mkdir()
    return Path(write(tmp_path / "data" / "a.jsonl", ROWS))


@pytest.fixture
def model(tmp_path):
    """The files of a model with sharded weights; only their bytes matter here."""
    folder = tmp_path / "model"
    folder.mkdir()
    names = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    for name in [*names, "config.json", "tokenizer.json", "chat_template.jinja"]:
        (folder / name).write_text(name)
    return folder


# Rows in files


def test_a_copy_a_touch_and_another_parent_folder_change_nothing(file, of_rows, tmp_path):
    first = of_rows(file)
    os.utime(file, ns=(0, 0))
    assert of_rows(file) == first
    shutil.copy(file, tmp_path / "a.jsonl")
    assert of_rows(tmp_path / "a.jsonl") == first
    file.parent.rename(tmp_path / "renamed")
    assert of_rows(tmp_path / "renamed" / "a.jsonl") == first


def test_relative_absolute_home_and_linked_paths_are_the_same_file(file, of_rows, tmp_path, monkeypatch):
    first = of_rows(file)
    monkeypatch.chdir(tmp_path)
    assert of_rows("data/a.jsonl") == of_rows("./data/../data/a.jsonl") == first
    monkeypatch.chdir(file.parent)
    assert of_rows("a.jsonl") == of_rows("*.jsonl") == first
    monkeypatch.setenv("HOME", str(file.parent))
    assert of_rows("~/a.jsonl") == first
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "a.jsonl").symlink_to(file)
    assert of_rows(tmp_path / "link" / "a.jsonl") == first


def test_other_content_another_name_and_another_packing_are_other_rows(file, of_rows, tmp_path):
    first = of_rows(file)
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    renamed = shutil.copy(file, tmp_path / "b.jsonl")  # ids of rows begin with it
    other = Path(write(tmp_path / "a.jsonl", ROWS[:2]))
    assert len({json.dumps(of_rows(path)) for path in (packed, renamed, other)} | {json.dumps(first)}) == 4
    assert difference(first, of_rows(other)) == "data_source.rl: a.jsonl has changed"


def test_a_glob_that_gains_or_loses_a_file_names_it(file, of_rows):
    first = of_rows(f"{file.parent}/*.jsonl")
    write(file.parent / "b.jsonl", ROWS)
    second = of_rows(f"{file.parent}/*.jsonl")
    assert difference(first, second) == "data_source.rl: b.jsonl is new"
    assert difference(second, first) == "data_source.rl: b.jsonl is gone"


def test_the_order_of_files_counts(file, of_rows):
    other = write(file.parent / "b.jsonl", ROWS)
    assert of_rows(file, other) != of_rows(other, file)
    assert difference(of_rows(file, other), of_rows(other, file)) == "the order of the files has changed"


def test_files_of_one_name_are_told_apart_by_their_folders_and_not_by_what_is_above(file, of_rows, tmp_path):
    for part in ("x", "y"):
        (tmp_path / "parts" / part).mkdir(parents=True)
        shutil.copy(file, tmp_path / "parts" / part / "a.jsonl")
    first = of_rows(tmp_path / "parts" / "*" / "a.jsonl")
    assert [name for name, _ in first] == ["data_source.rl: x/a.jsonl", "data_source.rl: y/a.jsonl"]
    (tmp_path / "parts").rename(tmp_path / "moved")
    assert of_rows(tmp_path / "moved" / "*" / "a.jsonl") == first


def test_an_empty_file_and_a_packages_file_have_fingerprints(file, of_rows):
    file.write_bytes(b"")
    assert len(of_rows(file)) == 1
    name = "aime24.jsonl"
    assert of_rows(f"pkg://klear_lab/data/benchmarks/{name}")[0][0] == f"data_source.rl: {name}"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that nobody can read")
def test_a_file_that_cannot_be_read_is_named(of_rows, of_model, model, tmp_path):
    (tmp_path / "a.jsonl").symlink_to("/proc/self/mem")
    with pytest.raises(ConfigError, match=r"^data_source.rl: a.jsonl: can't be read \(Input/output error\): /"):
        of_rows(tmp_path / "a.jsonl")
    (model / "vocab.json").symlink_to("/proc/self/mem")
    with pytest.raises(ConfigError, match=r"^model.path: vocab.json: can't be read"):
        of_model(model)


# Folders


def test_of_a_repositorys_folder_all_counts_but_what_is_hidden_or_a_lock(file, of_repository):
    folder = file.parent
    first = of_repository(folder)
    for name in (".git/config", ".cache/huggingface/a.jsonl.lock", ".gitattributes", "data/a.lock"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    assert of_repository(folder) == first
    (folder / "README.md").write_text("---\nconfigs: []\n---")  # which files are a split
    assert difference(first, of_repository(folder)) == "data_source.rl: README.md is new"


def test_a_folder_below_a_hidden_one_is_looked_into(file, model, of_repository, of_model, tmp_path):
    first = of_repository(file.parent), of_model(model)
    hidden = tmp_path / ".cache" / "huggingface"
    hidden.mkdir(parents=True)
    moved = file.parent.rename(hidden / "data"), model.rename(hidden / "model")
    assert (of_repository(moved[0]), of_model(moved[1])) == first


def test_of_a_model_folder_only_what_transformers_reads_counts(model, of_model):
    first = of_model(model)
    for name in ("README.md", ".gitattributes", ".cache/download.lock", ".git/HEAD", "model.lock"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("x")
    assert of_model(model) == first


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "model-00002-of-00002.safetensors"])
def test_a_tokenizer_a_template_or_one_shard_is_enough(model, of_model, name):
    first = of_model(model)
    (model / name).write_text("other")
    assert difference(first, of_model(model)) == f"model.path: {name} has changed"


def test_a_model_folder_that_is_copied_linked_or_named_from_home_is_the_same(
    model, of_model, tmp_path, monkeypatch
):
    first = of_model(model)
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "link").symlink_to(model)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert of_model(tmp_path / "copy") == of_model(tmp_path / "link") == of_model("~/model") == first
    shard = model / "model-00001-of-00002.safetensors"  # as the hub's cache keeps its files
    shard.rename(tmp_path / "blob")
    shard.symlink_to(tmp_path / "blob")
    assert of_model(model) == first
    assert of_model("Qwen/Qwen3-0.6B") is of_model(tmp_path / "nowhere") is None


# What is remembered


@pytest.fixture
def reads(monkeypatch):
    """The files that were read, in a world where files settle at once."""
    found, real = [], fingerprints.hash_content
    monkeypatch.setattr(fingerprints, "SETTLED_NS", 0)
    monkeypatch.setattr(fingerprints, "hash_content", lambda path: found.append(path.name) or real(path))
    return found


def settle():
    """Waits for the next tick of the file system's clock."""
    time.sleep(0.05)


def test_a_file_is_read_once(file, of_rows, reads):
    settle()
    assert of_rows(file) == of_rows(file) == of_rows(file)
    assert reads == ["a.jsonl"]


def test_a_file_that_was_just_written_is_not_remembered(file, of_rows, cache):
    of_rows(file)
    assert not (cache / HASHES).exists()


def test_other_content_of_the_same_size_and_time_is_seen(file, of_rows, reads):
    settle()
    first, status, content = of_rows(file), file.stat(), file.read_bytes()
    settle()
    file.write_bytes(content.replace(b"1+2?", b"1+7?"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert of_rows(file) != first
    assert len(reads) == 2


def test_a_file_that_another_replaced_with_its_size_and_time_is_seen(file, of_rows, reads, tmp_path):
    settle()
    first, status = of_rows(file), file.stat()
    other = tmp_path / "other"
    other.write_bytes(file.read_bytes().replace(b"1+2?", b"1+7?"))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(file)
    assert of_rows(file) != first


@pytest.mark.parametrize("damage", ["absent", "cut", "flipped", "garbage", "folder"])
def test_damaged_memory_costs_a_reading_and_nothing_else(file, of_rows, reads, cache, damage):
    settle()
    first, hashes = of_rows(file), cache / HASHES
    content = hashes.read_bytes()
    hashes.unlink()
    if damage == "folder":
        hashes.mkdir()
    elif damage != "absent":
        place = content.index(first[0][1].encode())  # a digit of the hash itself
        flipped = content[:place] + (b"0" if content[place : place + 1] != b"0" else b"1") + content[place + 1 :]
        hashes.write_bytes({"cut": content[:-5], "flipped": flipped, "garbage": b"\xff\x00{["}[damage])
    assert of_rows(file) == of_rows(file) == first
    assert len(reads) == (3 if damage == "folder" else 2)


def work(files, cache, queue):
    queue.put(fingerprint([(file.name, file) for file in files], cache))


def test_processes_that_write_at_once_remember_everything(tmp_path, cache, reads):
    files = [tmp_path / f"{i}.bin" for i in range(40)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]) * 1000)
    settle()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [
        context.Process(target=work, args=(files[i * 10 :] + files[: i * 10], cache, queue)) for i in range(4)
    ]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    expected = fingerprint([(file.name, file) for file in files], tmp_path / "elsewhere")
    assert all(sorted(each) == sorted(expected) for each in found)
    reads.clear()
    assert fingerprint([(file.name, file) for file in files], cache) == expected
    assert reads == []
