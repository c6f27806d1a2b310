"""What is named on the command line: runs, sweeps, metrics and folders that are there, ambiguous, or not there."""

import json

import pytest

from analysis.__main__ import main
from analysis.commands.keep import write_readme
from analysis.runs.frames import load_runs
from analysis.sweeps.from_runs import keep_single, keep_sweep
from analysis.sweeps.kept import KeptSweep, how_made, read_results, scale_of, write_results


def change_record(run, **changes):
    path = run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def runs(write_run, tmp_path):
    """Four runs of two sweeps; a sweep's name begins a run's id, and another is a run's id."""
    folder = tmp_path / "runs"
    for run_id, method, seed in (
        ("aa11", "gppo", 0),
        ("aa22", "gppo", 1),
        ("bb11", "cispo", 0),
        ("cc", "cispo", 1),
    ):
        run = write_run(folder, method, seed, run_id=run_id)
        change_record(run, sweeps={"mine": {"clip_method": method}}, sweep="mine")
    change_record(folder / "bb11", sweeps={"bb": {"clip_method": "cispo"}, "mine": {"clip_method": "cispo"}})
    change_record(folder / "aa11", sweeps={"cc": {"clip_method": "gppo"}, "mine": {"clip_method": "gppo"}})
    return folder


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([""], "an empty name: neither a run nor a sweep; sweeps are bb, cc, mine, runs aa11, aa22, bb11, cc"),
        ([" "], "an empty name"),
        (["mine", ""], "an empty name"),
        (["aa"], "aa: ambiguous; the beginning of 2 runs: aa11, aa22"),
        (["a"], "a: ambiguous; the beginning of 2 runs"),
        (["bb"], "bb: ambiguous; a sweep of 1 runs, and the run bb11"),
        (["cc"], "cc: ambiguous; a sweep of 1 runs, and the run cc"),
        (["mime"], "did you mean mine?"),
        (["aa12"], "did you mean aa22, aa11?"),
        (["AA11"], "AA11: neither a run nor a sweep"),
        (["*"], "*: neither a run nor a sweep"),
        (["aa11 "], "aa11 : neither a run nor a sweep"),
        (["mine", "--metrics", "policy/entropi"], "--metrics policy/entropi: not logged by these runs; there are"),
        (["mine", "--metrics", "policy/entropi"], "did you mean policy/entropy"),
        (["mine", "--metrics", ""], "--metrics : not logged"),
        (
            ["mine", "--metrics", "policy/entropy", "reward/mean"],
            "--metrics reward/mean: not logged by these runs",
        ),
        (["mine", "--metrics", "loss/sft"], "--metrics loss/sft: not logged"),
        (["mine", "--metrics", "step"], "--metrics step: not logged"),
    ],
)
def test_what_is_not_one_thing_is_an_error_with_what_comes_near(names, words, runs, tmp_path, capsys):
    assert main(["compare", *names, "--runs", str(runs), "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("names", "count"), [(["mine"], 4), (["aa1"], 1), (["aa11", "aa22"], 2), (["b"], 1), (["mine", "aa11"], 4)]
)
def test_a_name_of_one_thing_is_found(names, count, runs, tmp_path, capsys):
    command = ["compare", *names, "--metrics", "policy/entropy", "optim/grad_norm", "--out", str(tmp_path / "out")]
    if names == ["b"]:
        change_record(runs / "bb11", sweeps={})
    assert main([*command, "--runs", str(runs)]) == 0
    table = capsys.readouterr().out
    assert sum(f"| {method} |" in table for method in ("gppo", "cispo")) >= (2 if count == 4 else 1)


@pytest.mark.parametrize(
    "command",
    [pytest.param([], marks=pytest.mark.slow), ["compare", "x"], ["keep", "x"], ["wandb", "x", "--offline"]],
)
def test_a_folder_without_runs_is_named(command, runs, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    out = ["--dir", str(tmp_path / "w")] if command[:1] == ["wandb"] else ["--out", str(tmp_path / "out")]
    status = main([*command, "--runs", str(tmp_path / "empty"), *out])
    printed = capsys.readouterr().err
    assert status == (1 if command else 0) and f"no runs in {tmp_path / 'empty'}" in printed
    if not command:
        page = (tmp_path / "out" / "index.html").read_text()
        assert f"There are no runs yet in {tmp_path / 'empty'}" in page


def test_a_folder_above_or_below_the_runs_says_where_they_are(runs, capsys):
    for folder in (runs.parent, runs / "aa11" / "rollouts"):
        folder.mkdir(exist_ok=True)
        assert main(["compare", "x", "--runs", str(folder), "--out", str(runs.parent / "out")]) == 1
        assert f"there are some in {runs}" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_takes_the_folder_of_one_run(runs, tmp_path, capsys):
    assert [*load_runs(runs / "aa11").records] == ["aa11"]
    assert main(["--runs", str(runs / "aa11"), "--out", str(tmp_path / "report")]) == 0
    assert "1 finished." in (tmp_path / "report" / "index.html").read_text()
    assert main(["compare", "aa", "--runs", str(runs / "aa11"), "--out", str(tmp_path / "out")]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["missing", "empty"])
def test_runs_without_evaluations_have_a_report_and_curves_of_metrics(lost, write_run, tmp_path, capsys):
    folder = tmp_path / "runs"
    for method in ("gppo", "cispo"):
        for seed in (0, 1):
            run = write_run(folder, method, seed, evaluated=())
            if lost == "missing":
                (run / "evaluations.parquet").unlink()
            lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
            (run / "metrics.jsonl").write_text("".join(line for line in lines if "eval/" not in line))
            record = json.loads((run / "run.json").read_text())
            for key in ("hardware", "versions", "git_commit"):
                del record[key]
            (run / "run.json").write_text(json.dumps(record))
    report = tmp_path / "report"
    assert main(["--runs", str(folder), "--out", str(report)]) == 0
    page = (report / "index.html").read_text()
    assert "no benchmark was evaluated" in page and "No benchmark was evaluated." in page
    assert "<dt>git commit</dt><dd>not recorded</dd>" in page and "Final scores</h2>" not in page
    assert 'data-arm="GPPO"' in page and "± nan" not in page and ">nan<" not in page and ">None<" not in page
    assert (report / "figure2_mechanism.png").exists()
    assert main(["compare", "figure2", "--runs", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "curves.png").stat().st_size > 5000
    for name in (
        "figure2_scores",
        "figure2_arms",
        "figure2_cost",
        "figure2_differences",
        "final_scores",
        "claims",
    ):
        assert main([name, "--runs", str(folder)]) == 0, name
    assert "nan" not in capsys.readouterr().out
    assert main(["keep", "figure2", "--runs", str(folder), "--out", str(tmp_path / "kept")]) == 0
    assert "machine not recorded" in (tmp_path / "kept" / "README.md").read_text()


@pytest.mark.slow
def test_runs_of_which_some_are_evaluated_are_compared_where_they_can_be(write_run, tmp_path):
    write_run(tmp_path / "runs", "gppo", 0)
    run = write_run(tmp_path / "runs", "cispo", 0)
    (run / "evaluations.parquet").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if "eval/" not in line))
    assert main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]) == 0
    table = (tmp_path / "report" / "final_scores.md").read_text()
    assert "nan" not in table and "| CISPO | 0 |" in table
    assert "nan" not in (tmp_path / "report" / "figure2_scores.md").read_text()


COMMAND = ["python", "-m", "klear_lab.run"]


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        (
            "figure2",
            ["sweep=figure2", "launcher=joblib", "-m"],
            "python -m klear_lab.run sweep=figure2 launcher=joblib -m",
        ),
        (
            "figure2",
            ["sweep=figure2", "runs_dir=/x", "-m"],
            "python -m klear_lab.run sweep=figure2 launcher=joblib -m",
        ),
        (
            "figure2",
            ["sweep=figure2", "scale=smoke", "-m"],
            "python -m klear_lab.run sweep=figure2 scale=smoke -m",
        ),
        ("figure2", ["-m", "sweep=figure2", "seed=0,1"], "python -m klear_lab.run -m sweep=figure2 seed=0,1"),
        (
            "clip_method=gppo,cispo",
            ["clip_method=gppo,cispo", "-m"],
            "python -m klear_lab.run clip_method=gppo,cispo -m",
        ),
        ("a b/c", ["sweep_name=a b/c", "-m"], "python -m klear_lab.run 'sweep_name=a b/c' -m"),
    ],
)
def test_kept_results_print_a_command_that_can_be_typed(name, words, expected, write_run, tmp_path):
    run = write_run(tmp_path / "runs", command=[*COMMAND, *words])
    change_record(run, sweeps={name: {"clip_method": "gppo"}})
    out = tmp_path / "kept"
    assert main(["keep", name, "--runs", str(tmp_path / "runs"), "--out", str(out)]) == 0
    (path,) = out.glob("*.jsonl")
    assert (
        read_results(path).about["command"] == expected
        and f"`{expected}`, 1 run," in (out / "README.md").read_text()
    )
    curves = ["curves", name, "chain6", "--results", str(out), "--out", str(tmp_path / "pictures")]
    assert main(curves) == 0 and len([*(tmp_path / "pictures").iterdir()]) == 1


def test_kept_results_say_their_own_world_and_scale(write_run, tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "kept"
    write_run(runs, "gppo", 0, settings={"scale": "smoke"})
    assert main(["keep", "figure2", "--runs", str(runs), "--out", str(out)]) == 0
    text = " ".join((out / "README.md").read_text().split())
    assert "All of it is about the embedded worlds, tiny models at `scale=smoke`" in text
    write_run(runs, "cispo", 0, settings={"scale": "gpu", "model": {"name": "path", "path": "Qwen/Qwen3-0.6B"}})
    change_record(
        runs / next(path.name for path in runs.glob("cispo*")), sweeps={"other": {"clip_method": "cispo"}}
    )
    assert main(["keep", "other", "--runs", str(runs), "--out", str(out)]) == 0
    text = (out / "README.md").read_text()
    assert "- the embedded worlds, tiny models at `scale=smoke`: figure2" in text
    assert "- chain, Qwen/Qwen3-0.6B at `scale=gpu`: other" in text


def test_kept_results_of_before_these_were_noted_are_of_the_small_scale(tmp_path):
    old = KeptSweep({"sweep": "old"}, [{"arm": {}, "seed": 0, "scores": {}, "curves": {}}])
    assert scale_of(old) == "small" and how_made(old).startswith("1 run, 0 minutes of run time (machine not rec")
    write_results(old, tmp_path)
    write_readme(tmp_path)
    assert "nan" not in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[1]\n", b"\xff", b'{"sweep": "x"}\n', b'{"sweep": "x"}\n{"arm": {}}\n']
)
def test_a_damaged_file_of_kept_results_is_named(data, tmp_path, capsys):
    (tmp_path / "x.jsonl").write_bytes(data)
    assert main(["curves", "x", "chain6", "--results", str(tmp_path), "--out", str(tmp_path / "x.png")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "x.jsonl: " in line and "Keep the sweep again." in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tabel2", "chain6"], "did you mean table2"),
        (["table2", "chian6"], "did you mean chain6, chain8?"),
        (["figure2", "chain6", "--where", "clip_methd=gppo"], "did you mean clip_method?"),
        (["figure2", "chain6", "--where", "gppo"], "--where gppo: not KEY=VALUE"),
        (["figure2", "chain6", "--where", "clip_method=ppo"], "no run of sweep figure2 has clip_method=ppo"),
    ],
)
def test_curves_name_what_comes_near(arguments, words, tmp_path, capsys):
    assert main(["curves", *arguments, "--out", str(tmp_path / "x.png")]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [[], ["claims"], ["next"], ["settle", "C7"], ["curves", "figure2", "chain6", "--out", "x.png"]]
)
@pytest.mark.parametrize("results", ["nowhere", "a file"])
def test_kept_results_that_are_in_no_folder_are_a_wrong_argument(command, results, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    with pytest.raises(SystemExit) as end:
        main([*command, "--results", results])
    assert end.value.code == 2 and f"--results {results}: no such folder" in capsys.readouterr().err
    if command:
        with pytest.raises(SystemExit):
            main(["settle", "C7", "--runs", "a file"])
        assert "--runs a file: not a folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


@pytest.mark.parametrize("number", ["0", "-3", "1.5", "two", "", "1e3"])
@pytest.mark.parametrize(
    "command",
    [["next", "--jobs"], *(["settle", "C7", flag] for flag in ("--jobs", "--seeds", "--batch"))],
)
def test_how_many_is_a_whole_number_above_zero(command, number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([*command[:-1], f"{command[-1]}={number}"])
    assert end.value.code == 2
    assert f"argument {command[-1]}: {number}: must be a whole number above 0" in capsys.readouterr().err


def test_a_sweep_that_is_not_there_is_named_with_those_that_are(runs, tmp_path, capsys):
    for name, words in (
        ("mime", "did you mean mine?"),
        ("table2", "make them: python -m klear_lab.run sweep=table2"),
    ):
        assert main(["keep", name, "--runs", str(runs), "--out", str(tmp_path / "kept")]) == 1
        assert words in capsys.readouterr().err


def test_one_run_alone_is_kept_like_a_sweep_of_one_arm(runs):
    frames = load_runs(runs)
    assert [run["run_id"] for run in keep_single(frames, "aa22").runs] == ["aa22"]
    assert len(keep_sweep(frames, "mine").runs) == 4
