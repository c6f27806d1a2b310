"""The front page and the manual: their commands compose or parse, their links and paths are there, their numbers are kept.

The pages are README.md, CONTRIBUTING.md and docs/*.md.
"""

import argparse
import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from analysis.__main__ import main as analysis_main
from analysis.claims.judge import claims_json, judge_claims, sweeps_at_hand
from analysis.commands.item import items_of
from analysis.runs.frames import load_runs
from analysis.sweeps.kept import FOLDER, read_results
from klear_lab.arms import read_arms
from klear_lab.config import register
from klear_lab.data.__main__ import EXAMPLES, read_options
from klear_lab.plan.__main__ import compose_arms
from klear_lab.plan.__main__ import read_options as read_plan_options
from klear_lab.rl.clip_methods import make_clip_method
from klear_lab.validation import parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()
MOST_WORDS, LONGEST_LINE = 900, 150  # of the README
COMMANDS_OF_ANALYSIS = ("compare", "curves", "keep", "next", "wandb")
OF_MANY_ARMS = {f"sweep={name}" for name in ("collapse", "collapse_code", "collapse_large", "clip_methods")}
FOLDERS = ("analysis", "benchmarks", "conf", "docs", "klear_lab", "sweeps", "tests")


def commands(program):
    """Every call of a program on any page, as words without the program's own, each once."""
    found = {}
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(rf"{re.escape(program)}(?![\w.])[^#`\n]*", text):
            found[line.strip()] = shlex.split(line)[len(program.split()) :]
    slow = {True: [pytest.mark.slow, pytest.mark.timeout(900)], False: []}
    return [pytest.param(w, id=line, marks=slow[bool(OF_MANY_ARMS & {*w})]) for line, w in found.items()]


@pytest.mark.parametrize("words", commands("python -m klear_lab.run"))
def test_every_command_composes_and_each_of_its_arms_could_run(composed_config, words):
    if "launcher=ray" in words and find_spec("hydra_plugins.hydra_ray_launcher") is None:
        pytest.skip("launcher=ray isn't installed here; docs/running.md says how")
    settings = [word for word in words if "=" in word]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        read_arms(hydra.compose_config("config", settings, RunMode.MULTIRUN), hydra.config_loader)


def launches():
    """What each launch of several processes on the engines' page sets."""
    text = (ROOT / "docs" / "engines.md").read_text().replace("\\\n", " ")
    return re.findall(r"(?:torchrun|accelerate launch) [^#`\n]*-m klear_lab\.run ([^#`\n]*)", text)


@pytest.mark.parametrize("line", launches())
def test_every_launch_of_several_processes_composes_and_has_the_sizes_of_its_devices(composed_config, line):
    settings = shlex.split(line)
    assert "device=cpu" in settings or "scale=gpu" in settings
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        parse(compose("config", overrides=settings))


@pytest.mark.parametrize("words", commands("python -m klear_lab.data"))
def test_every_data_command_composes(composed_config, words):
    settings = read_options(words).overrides
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        parse(compose("config", overrides=settings))


def test_the_help_of_the_data_command_has_the_pages_command_for_pass_rates():
    (words,) = (line for one in commands("python -m klear_lab.data") if "--completions" in (line := one.values[0]))
    assert {*words} <= {*shlex.split(EXAMPLES.replace("\\\n", " "), comments=True)}


@pytest.mark.parametrize("words", commands("python -m klear_lab.plan"))
def test_every_plan_command_composes(words):
    assert compose_arms(read_plan_options(words))


class ParsedError(Exception):
    """Stops a command where its arguments have been read."""


@pytest.mark.parametrize("words", commands("python -m analysis"))
def test_every_analysis_command_parses(words, monkeypatch):
    read = argparse.ArgumentParser.parse_args

    def read_and_stop(parser, *arguments):
        read(parser, *arguments)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", read_and_stop)
    with pytest.raises(ParsedError):
        analysis_main([word for word in words if word != "..."])


def test_every_table_and_figure_that_a_command_names_is_there(tmp_path):
    named = {words.values[0][0] for words in commands("python -m analysis") if words.values[0]}
    named = {name for name in named if not name.startswith("-")} - {*COMMANDS_OF_ANALYSIS}
    items = items_of(load_runs(tmp_path))
    assert len(named) >= 3
    assert named <= {*items.tables, *items.figures}


def test_commands_were_found():
    found = [len(commands(f"python -m {program}")) for program in ("klear_lab.run", "klear_lab.data", "analysis")]
    assert found > [12, 2, 10]


def test_every_install_is_from_the_checkout_and_of_an_extra_that_can_be_resolved():
    """klear_lab is on no index, and Ray's launcher and joblib want different versions of cloudpickle."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert not [pin for extra in extras.values() for pin in extra if pin.startswith("hydra-ray-launcher")]
    files = [*PAGES, *(ROOT / "conf").rglob("*.yaml"), *(ROOT / "klear_lab").rglob("*.py")]
    for file in files:
        text = file.read_text()
        assert not re.findall(r"pip install[^`&|\n]*klear_lab", text), file
        assert {*re.findall(r"pip install -e '\.\[(\w+)\]'", text)} <= {*extras}, file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_pictures_and_headings_linked_to_are_there(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        file, _, heading = target.partition("#")
        assert target.startswith("https://") or (page.parent / file).exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", (page.parent / file).read_text(), flags=re.M)
            assert heading in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page):
    spans = re.findall(r"`([^`\n]+)`", page.read_text())
    paths = {span for span in spans if re.match(rf"({'|'.join(FOLDERS)})/[\w./*-]+$", span)}
    assert [path for path in paths if not [*ROOT.glob(path.rstrip("/"))]] == []


def test_the_map_names_what_is_there():
    named = re.findall(r"^\| (`[^|]+`) \|", README.split("## Where things are")[1], flags=re.M)
    paths = [path for cell in named for path in re.findall(r"`([^`]+)`", cell)]
    assert len(paths) > 8
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_map_names_every_package():
    packages = {path.parent.relative_to(ROOT) for path in (ROOT / "klear_lab").glob("*/__init__.py")}
    assert [p for p in packages if f"`{p.as_posix()}/`" not in README.split("## Where things are")[1]] == []


def test_the_manual_lists_every_page_of_docs():
    manual = README.split("## Manual")[1].split("##")[0]
    assert {f"docs/{page.name}" for page in PAGES[2:]} == set(re.findall(r"\]\((docs/[^)]+)\)", manual))


def test_the_readme_is_short_and_its_lines_fit_a_screen():
    prose = re.sub(r"```.*?```|^    .*?$", "", README, flags=re.S | re.M)
    assert len([word for word in prose.split() if re.search(r"\w", word)]) <= MOST_WORDS
    assert [line for line in README.splitlines() if len(line) > LONGEST_LINE] == []


def test_the_scales_table_names_every_scale():
    table = README.split("## Scales")[1].split("##")[0]
    for path in (ROOT / "conf" / "scale").glob("*.yaml"):
        assert f"| `{path.stem}`" in table


def test_the_table_of_figure2_has_the_kept_numbers():
    kept = (FOLDER / "README.md").read_text().split("## figure2\n")[1].split("\n## ")[0]
    rows = {"Clip-Higher": "clip_higher", "CISPO": "cispo", "GPPO": "gppo"}
    for name, method in rows.items():
        scores = re.search(rf"^\| {method} (\| \d+ \| .*)$", kept, flags=re.M).group(1)
        assert f"| {name} {scores}\n" in README
    runs = read_results(FOLDER / "figure2.jsonl").runs
    before = [sum(run["scores"][b]["0"] for run in runs) / len(runs) for b in ("chain6", "chain8")]
    assert f"| SFT | 1 | {before[0]:.3f} | {before[1]:.3f} |\n" in README


def test_the_verdicts_that_the_readme_counts_are_those_of_the_kept_results(tmp_path):
    entries = claims_json(judge_claims(sweeps_at_hand(load_runs(tmp_path))))
    verdicts = [entry["verdict"] for entry in entries if entry["id"].startswith("C")]
    counts = [verdicts.count(word) for word in ("supported", "contradicted", "inconclusive")]
    pattern = r"24 claims \(C1 to C24\), (\d+) are supported in these worlds, (\d+) (?:is|are) contradicted, and (\d+) are"
    assert [int(n) for n in re.search(pattern, README).groups()] == counts
    *others, last = (entry["id"] for entry in entries if entry["verdict"] == "equal")
    assert f"in {', '.join(others)} and {last} both arms are equal" in " ".join(README.split())
    assert sum(counts) + len(others) + 1 == len(verdicts) == 24


def test_the_example_of_a_new_clip_method_works_as_written(monkeypatch, tmp_path):
    """In a folder of its own, as the README says."""
    register()
    monkeypatch.chdir(tmp_path)
    Path("my_methods.py").write_text(re.search(r"```python\n(.*?)```", README, flags=re.S).group(1))
    Path("mine/clip_method").mkdir(parents=True)
    settings = re.search(r"```yaml\n(.*?)```", README, flags=re.S).group(1)
    Path("mine/clip_method/unit.yaml").write_text(settings)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        search = f"hydra.searchpath=[{tmp_path / 'mine'}]"
        config = parse(compose("config", overrides=[search, "scale=smoke", "clip_method=unit"]))
    method = make_clip_method(**config.clip_method)
    log_prob = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    method(log_prob, torch.zeros(3), torch.tensor([-2.0, 2.0, 2.0])).objective.sum().backward()
    assert log_prob.grad.tolist() == [-2.0, 2.0, 2.0]
    assert (method.name, method.parameters["eps_low"]) == ("unit", 0.1)
