"""The README: its commands compose, its map is the tree, its example of a new clip method works as written."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from klear_lab.rl import clip_methods
from klear_lab.sweep import check_arms

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"python -m klear_lab\.run[^#`\n]*", README)
FILES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes_and_each_of_its_arms_could_run(composed_config, command):
    from hydra import initialize_config_dir

    words = [word for word in shlex.split(command)[3:] if "=" in word]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        check_arms(OverridesParser.create().parse_overrides(words))


def test_commands_were_found():
    assert len(COMMANDS) >= 6


def test_the_map_names_what_is_there():
    named = re.findall(r"^\| (`[^|]+`) \|", README.split("## Where things are")[1], flags=re.M)
    paths = [path for cell in named for path in re.findall(r"`([^`]+)`", cell)]
    assert len(paths) > 8
    for path in paths:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_links_and_pictures_are_there(file):
    for target in re.findall(r"\]\(([^)]+)\)", file.read_text()):
        assert target.startswith("https://") or (file.parent / target).exists(), target


def test_the_scales_table_names_every_scale():
    table = README.split("## Scales")[1].split("##")[0]
    for path in (ROOT / "conf" / "scale").glob("*.yaml"):
        assert f"| `{path.stem}`" in table


def test_the_example_of_a_new_clip_method_works_as_written(monkeypatch):
    code = re.search(r"```python\n(.*?)```", README, flags=re.S).group(1)
    settings = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, flags=re.S).group(1))
    monkeypatch.setattr(clip_methods, "CLIP_METHODS", dict(clip_methods.CLIP_METHODS))
    exec(code, vars(clip_methods).copy())
    method = clip_methods.make_clip_method(**settings)
    log_prob = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    method(log_prob, torch.zeros(3), torch.tensor([-2.0, 2.0, 2.0])).objective.sum().backward()
    assert log_prob.grad.tolist() == [-2.0, 2.0, 2.0]
