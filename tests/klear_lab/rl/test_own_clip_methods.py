"""A clip method of one's own: found by path or module, tried out, part of a run's identity, and run in a sweep."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from klear_lab.config import ConfigError, register
from klear_lab.identity import run_id
from klear_lab.own_code import source_of
from klear_lab.rl.clip_methods import Responses, make_clip_method
from klear_lab.validation import parse

ROOT = Path(__file__).parents[3]
FILE = ROOT / "tests" / "support" / "own_clip_methods.py"


def own(name, *settings):
    return ["clip_method=custom", f"clip_method.function={FILE}:{name}", *settings]


def make(name, **parameters):
    place = f"{FILE}:{name}"
    return make_clip_method("custom", function=place, source=source_of(place), **parameters)


def test_its_gradient_is_that_of_the_function():
    log_prob = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    method = make("unit", eps_low=0.1)
    method(log_prob, torch.zeros(3), torch.tensor([-2.0, 2.0, 2.0])).objective.sum().backward()
    assert log_prob.grad.tolist() == [-2.0, 2.0, 2.0]
    assert (method.name, method.parameters) == ("unit", {"eps_low": 0.1, "eps_high": 0.28})
    assert method.has_bounds


def test_it_may_weigh_whole_responses_and_look_at_the_mini_batch():
    log_prob = torch.tensor([0.2, 0.4], requires_grad=True)
    responses = Responses.of([2])
    objective = make("whole", power=2.0)(log_prob, torch.zeros(2), torch.ones(2), responses=responses).objective
    (weight,) = torch.autograd.grad(objective.sum(), log_prob)
    torch.testing.assert_close(weight, torch.full((2,), 0.6).exp())
    scaled = make("scaled")
    batch = log_prob, torch.zeros(2), torch.tensor([2.0, -4.0])
    objective = scaled(*batch, statistics=scaled.measure(*batch)).objective
    torch.testing.assert_close(objective, log_prob * torch.tensor([2 / 3, -4 / 3]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (own("summed"), r"summed: returned a tensor of shape \(\) for tokens of shape \(24,\)"),
        (own("raises"), r"raises: raised AttributeError: .*advantages"),
        (own("leaves"), "leaves: raised SystemExit: done"),
        (own("without_gradient"), "without_gradient: its objective has no gradient"),
        (own("constant"), "constant: its gradient is 0 everywhere"),
        (own("not_a_number"), "its objective is nan for a token with log-ratio -20 and advantage -1.5"),
        (
            own("steep"),
            "the gradient of its objective is (nan|-inf|inf) for a token with log-ratio 0 and advantage -1.5",
        ),
        (own("a_float"), "returned float, must return a tensor: the objective of each token"),
        (own("undescribed"), r"needs to know which tokens form a response: .*@describe\(of_responses=True\)"),
        (own("number"), "has no function number"),
        (own("missing"), "has no function missing"),
        (own("whole"), r"clip_method.power: has no value; whole needs it: \+clip_method.power="),
        (own("whole", "+clip_method.power=big"), "clip_method.power=big: must be a number"),
        (own("unit", "+clip_method.eps=1"), "clip_method.eps: unknown; unit takes eps_low, eps_high, dual_clip"),
        (["clip_method=custom"], "clip_method.function=null: must be my_file.py:my_function"),
        (["clip_method=custom", "clip_method.function=a"], "clip_method.function=a: must be my_file.py:my_func"),
        (["clip_method=custom", "clip_method.function=a.py:f"], "clip_method.function=a.py:f: there is no file"),
        (["clip_method=custom", "clip_method.function=no_such:f"], "no_such:f: there is no module no_such"),
        (own("unit", "~clip_method.source"), "clip_method.source: has no value; a YAML file of your own begins"),
        (
            own("unit", "clip_method.source=abc"),
            "own_clip_methods.py has changed: its source is .*, and the run's is",
        ),
    ],
)
def test_what_is_wrong_with_it_is_said_before_anything_trains(composed_config, settings, words):
    with pytest.raises(ConfigError, match=words):
        parse(composed_config(*settings))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named"),
        ("import sys; sys.exit()", "SystemExit"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_run_is_an_error_with_its_reason(composed_config, tmp_path, text, reason):
    (tmp_path / "broken.py").write_text(f"{text}\n")
    with pytest.raises(ConfigError, match=f"broken.py can't be loaded: {reason}"):
        parse(composed_config("clip_method=custom", f"clip_method.function={tmp_path / 'broken.py'}:f"))


@pytest.mark.parametrize("text", ["1 / 0", "raise SystemExit"])
def test_a_package_that_cannot_be_run_is_an_error_with_its_reason(composed_config, tmp_path, monkeypatch, text):
    name = f"package_{len(text)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=f"{name}.methods can't be loaded: (ZeroDivisionError|SystemExit)"):
        parse(composed_config("clip_method=custom", f"clip_method.function={name}.methods:f"))


def test_its_text_is_part_of_the_runs_identity_and_of_what_is_kept_of_its_config(composed_config, tmp_path):
    copy = tmp_path / "mine.py"
    shutil.copy(FILE, copy)
    composed = composed_config("clip_method=custom", f"clip_method.function={copy}:unit")
    before = run_id(composed)
    assert run_id(composed) == before
    assert parse(composed).clip_method["source"] == source_of(f"{copy}:unit")
    copy.write_text(copy.read_text() + "# another text\n")
    assert run_id(composed) != before


def test_a_method_that_was_loaded_stays_when_its_file_changes(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def f(tokens):\n    return tokens.log_prob\n")
    place = f"{file}:f"
    first = source_of(place)
    make_clip_method("custom", function=place, source=first)
    file.write_text("def f(tokens):\n    return 2 * tokens.log_prob\n")
    three = torch.ones(1), torch.ones(1), torch.ones(1)
    for source, value in ((first, 1.0), (source_of(place), 2.0)):
        assert make_clip_method("custom", function=place, source=source)(*three).objective.tolist() == [value]


def test_a_module_is_found_in_the_working_directory_and_read_again_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    for number in (1.0, 2.0):
        Path("my_own_module.py").write_text(
            f"def f(tokens):\n    return {number} * tokens.log_prob\n" + "\n" * int(number)
        )
        method = make_clip_method("custom", function="my_own_module:f", source=source_of("my_own_module:f"))
        assert method(torch.ones(1), torch.ones(1), torch.ones(1)).objective.tolist() == [number]
    del sys.modules["my_own_module"]


def test_a_yaml_file_of_ones_own_begins_with_the_repositorys(tmp_path):
    register()
    (tmp_path / "clip_method").mkdir()
    text = f"defaults: [custom, _self_]\nfunction: {FILE}:unit\neps_low: 0.1\n"
    (tmp_path / "clip_method" / "mine.yaml").write_text(text)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        search = [f"hydra.searchpath=[{tmp_path}]"]
        composed = compose("config", overrides=[*search, "scale=smoke", "clip_method=mine"])
    method = make_clip_method(**parse(composed).clip_method)
    assert (method.name, method.parameters["eps_low"]) == ("unit", 0.1)


def test_it_trains(run):
    folder = run(*own("scaled"))
    assert folder.record["status"] == "finished"
    steps = [line for line in folder.metrics() if line["stage"] == "rl" and line["step"] > 0]
    assert all("clip/low_fraction" in line and line["clip/low_fraction"] is None for line in steps)
    assert all(line.get("ratio/mean") for line in steps if line["optim/updates"])
