"""Where output goes and what happens where it can't: one meaning of --out, one line, and nothing half written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.draw import output
from analysis.draw.output import file_for, format_for, fresh_folder, is_file_name, replace_file
from analysis.errors import OutputError

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def runs(write_sweep, tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("output") / "runs", seeds=(0,))


def every_command(runs, out):
    """Each command, writing to `out`."""
    return {
        "report": ["--runs", str(runs), "--out", str(out)],
        "figure": ["figure3", "--runs", str(runs), "--out", str(out)],
        "table": ["figure2_scores", "--runs", str(runs), "--out", str(out)],
        "compare": ["compare", "figure2", "--runs", str(runs), "--out", str(out)],
        "curves": ["curves", "table2", "chain6", "--out", str(out)],
        "keep": ["keep", "figure2", "--runs", str(runs), "--out", str(out)],
        "wandb": ["wandb", "figure2", "--offline", "--runs", str(runs), "--dir", str(out)],
        "workspace": ["wandb", "figure2", "--runs", str(runs), "--workspace", str(out)],
    }


COMMANDS = [*every_command(Path(), Path())]
OF_A_FILE = ("figure", "table", "curves", "workspace")
ENDING = {"figure": "png", "table": "md", "curves": "png", "workspace": "json"}


def status_of(command):
    """The exit status, also where argparse ends the command."""
    try:
        return main(command)
    except SystemExit as exit_:
        return exit_.code


def said_in_one_line(capsys, path):
    """The one line of a command that couldn't write, which names the path."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1 and str(path) in lines[0], lines
    return lines[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_where_a_folder_must_be_is_one_line(name, runs, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "inside"
    assert status_of(every_command(runs, out)[name]) in (1, 2)
    assert "is no folder" in said_in_one_line(capsys, out)
    assert (tmp_path / "file").read_text() == "mine" and len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_in_place_of_the_folder_is_one_line(name, runs, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert status_of(every_command(runs, tmp_path / "file")[name]) in (1, 2)
    said_in_one_line(capsys, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine" and len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_a_place_where_nothing_can_be_made_is_one_line(name, runs, capsys):
    assert status_of(every_command(runs, Path("/proc/nowhere/out"))[name]) in (1, 2)
    said_in_one_line(capsys, "/proc/nowhere")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_link_that_leads_nowhere_is_one_line(name, runs, tmp_path, capsys):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert status_of(every_command(runs, tmp_path / "link")[name]) in (1, 2)
    said_in_one_line(capsys, tmp_path / "link")


@pytest.mark.parametrize("name", OF_A_FILE)
def test_a_files_folder_must_be_there(name, runs, tmp_path, capsys):
    out = tmp_path / "missing" / f"x.{ENDING[name]}"
    assert status_of(every_command(runs, out)[name]) in (1, 2)
    assert "there is no folder" in said_in_one_line(capsys, out)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", OF_A_FILE)
def test_a_full_disk_is_one_line(name, runs, tmp_path, capsys):
    out = tmp_path / f"full.{ENDING[name]}"
    out.symlink_to("/dev/full")
    assert status_of(every_command(runs, out)[name]) == 1
    assert "No space left" in said_in_one_line(capsys, out)


@pytest.mark.parametrize("name", ["report", "compare", "keep", "figure"])
def test_a_disk_that_fills_up_leaves_what_was_there(name, runs, tmp_path, capsys, monkeypatch):
    import resource

    out = tmp_path / "out"
    out.mkdir()
    (out / "index.html").write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # files of more than that fail as on a full disk
    try:
        assert status_of(every_command(runs, out)[name]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said_in_one_line(capsys, out)
    assert [path.name for path in out.iterdir()] == ["index.html"] and (out / "index.html").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", OF_A_FILE)
def test_a_name_without_a_known_ending_is_a_folder(name, runs, tmp_path):
    out = tmp_path / "new" / "paper.v2"
    assert main(every_command(runs, out)[name]) == 0
    names = {
        "figure": "figure3.png",
        "table": "figure2_scores.md",
        "curves": "table2.png",
        "workspace": "workspace.json",
    }
    assert [path.name for path in out.iterdir()] == [names[name]]


@pytest.mark.parametrize("name", OF_A_FILE)
def test_a_folder_that_is_there_is_a_folder_whatever_its_ending(name, runs, tmp_path):
    out = tmp_path / f"folder.{ENDING[name]}"
    out.mkdir()
    assert main(every_command(runs, out)[name]) == 0
    assert len([*out.iterdir()]) == 1


@pytest.mark.parametrize("name", ["report", "compare", "keep", "wandb"])
@pytest.mark.parametrize("ending", ["pdf", "html", "PNG", "jpg"])
def test_what_is_a_folder_of_files_refuses_a_files_name(name, ending, runs, tmp_path, capsys):
    out = tmp_path / f"x.{ending}"
    assert status_of(every_command(runs, out)[name]) in (1, 2)
    assert "names a file" in said_in_one_line(capsys, out)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["figure3", "--out", "x.svg", "--format", "pdf"], "--format pdf contradicts --out x.svg"),
        (["claims", "--out", "x.tex", "--format", "csv"], "--format csv contradicts --out x.tex"),
        (["claims", "--out", "x.png"], "claims is a table; one of markdown, latex, csv"),
        (["figure3", "--out", "x.tex"], "figure3 is a figure; one of png, svg, pdf"),
        (["figure3", "--out", "x.jpg"], "ends in none of .png, .svg, .pdf"),
        (["curves", "table2", "chain6", "--out", "x.md"], "ends in none of .png, .svg, .pdf"),
        (["curves", "table2", "chain6", "--out", "x.png", "--format", "svg"], "contradicts"),
    ],
)
def test_format_and_ending_that_contradict_each_other_are_an_error(
    arguments, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert status_of(arguments) in (1, 2)
    assert words in capsys.readouterr().err and [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("name", "is_file"),
    [
        *((f"x.{ending}", True) for ending in ("png", "PDF", "md", "tex", "csv", "json", "jpeg", "txt")),
        *((name, False) for name in ("x", "x.d", "v1.2", ".hidden", "png", "dir/", ".", "..", "x.png.d")),
    ],
)
def test_a_known_ending_means_a_file(name, is_file, tmp_path):
    assert is_file_name(tmp_path / name) is is_file


def test_the_ending_says_the_format_where_no_option_does(tmp_path):
    formats = {"markdown": "md", "latex": "tex"}
    assert format_for(tmp_path / "x.TEX", None, formats, "markdown", "it") == "tex"
    assert format_for(tmp_path / "x", "latex", formats, "markdown", "it") == "tex"
    assert format_for(None, None, formats, "markdown", "it") == "md"
    assert file_for(None, "a.b", "md") == Path("a.b.md")


def test_a_device_is_a_file(tmp_path):
    replace_file(Path("/dev/null"), b"x")
    assert Path("/dev/null").is_char_device() and is_file_name(Path("/dev/null"))


def test_a_file_is_replaced_whole_and_a_link_to_it_stays_one(tmp_path, monkeypatch):
    file, link = tmp_path / "a.md", tmp_path / "b.md"
    replace_file(file, b"first")
    link.symlink_to(file)
    replace_file(link, b"second")
    assert link.is_symlink() and file.read_bytes() == b"second"
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left"):
        replace_file(file, b"third")
    assert file.read_bytes() == b"second" and len([*tmp_path.iterdir()]) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_an_error_in_between_leaves_the_folder_as_it_was(error, tmp_path):
    out = tmp_path / "report"
    with fresh_folder(out, stale=["b"]) as fresh:
        (fresh / "a").write_text("old")
        (fresh / "b").write_text("old")
    (out / "mine").write_text("mine")
    with pytest.raises(OutputError if error is OSError else error), fresh_folder(out, stale=["b"]) as fresh:
        (fresh / "a").write_text("new")
        raise error
    assert {path.name: path.read_text() for path in out.iterdir()} == {"a": "old", "b": "old", "mine": "mine"}
    with fresh_folder(out, last="a", stale=["b"]) as fresh:
        (fresh / "a").write_text("new")
    assert {path.name: path.read_text() for path in out.iterdir()} == {"a": "new", "mine": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_first_report_that_fails_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError), fresh_folder(tmp_path / "deep" / "er"):
        raise ValueError
    assert [*tmp_path.iterdir()] == []


def test_what_a_kill_left_is_removed_once_it_is_old(tmp_path):
    for name, age in (("old", 2 * output.HOUR), ("young", 0)):
        left = tmp_path / f".report.partial-{name}"
        left.mkdir()
        os.utime(left, (time.time() - age,) * 2)
    with fresh_folder(tmp_path / "report"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".report.partial-young", "report"]


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGKILL, signal.SIGTERM))]
)
def test_a_kill_while_it_is_written_leaves_the_old_report_whole(number, runs, tmp_path):
    out = tmp_path / "report"
    out.mkdir()
    (out / "index.html").write_text("old")
    (out / "final_scores.md").write_text("old")
    command = [sys.executable, "-m", "analysis", "--runs", str(runs), "--out", str(out)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not [*tmp_path.glob(".report.partial-*/figure2.png")]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, printed = process.communicate(timeout=60)
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "index.html": "old",
        "final_scores.md": "old",
    }
    if number == signal.SIGINT:
        assert process.returncode == 130 and printed == "interrupted: nothing was left half written\n"
        assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize(
    "command",
    [["claims"], *(pytest.param(w, marks=pytest.mark.slow) for w in (["compare", "figure2"], ["figure2_scores"]))],
)
def test_a_pipe_that_nobody_reads_is_quiet(command, runs, tmp_path):
    words = [sys.executable, "-m", "analysis", *command, "--runs", str(runs)]
    words += ["--out", str(tmp_path)] if command[0] == "compare" else []
    process = subprocess.Popen(
        words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    process.stdout.close()
    said = [line for line in process.stderr.read().splitlines() if not line.startswith((b"left out: ", b"note: "))]
    assert said == [] and process.wait() == 141


@pytest.mark.slow
def test_a_full_disk_behind_the_standard_output_is_one_line(runs, tmp_path):
    words = [sys.executable, "-m", "analysis", "paper_table1", "--runs", str(runs)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_ctrl_c_is_one_line_and_130_also_while_modules_are_loaded(monkeypatch, capsys):
    import analysis.__main__ as entry

    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "import_module", interrupted)
    assert main([]) == 130
    assert capsys.readouterr().err == "interrupted: nothing was left half written\n"


@pytest.mark.parametrize("command", [[], ["figure3"], ["compare"], ["curves"], ["keep"], ["wandb"]])
def test_help_says_what_out_means(command, capsys):
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "is a file" in words or "folder" in words
