"""The plan of many cards: what a rollout, a pass and a figure of the paper take, and the paper's own experiment."""

import json
from pathlib import Path

import pytest

from klear_lab.plan import paper_figures
from klear_lab.plan.__main__ import main
from klear_lab.plan.advice import applied
from klear_lab.plan.cards import CARDS
from klear_lab.plan.costs import problems, rl_costs
from klear_lab.plan.memory import Assumed, memory_of
from klear_lab.plan.model_size import read_model_config, sequence_flops, size_of
from support.models import save_qwen3_config

DOCS = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
H100 = CARDS["h100-80gb"]
VERL = ["engine=verl", "sampler=vllm", "rl.micro_batch_tokens=9216", "engine.gpus_per_node=8"]


@pytest.fixture
def folder(tmp_path):
    """A folder with the config of a Qwen3 of 0.6 billion parameters, and nothing else."""
    return save_qwen3_config(tmp_path / "model", max_position_embeddings=32768)


@pytest.fixture
def planned(config, folder):
    """A function from overrides to the config of a run of that model, and the model's config."""

    def build(*overrides):
        made = config("scale=gpu", "model=path", f"model.path={folder}", *overrides)
        return made, read_model_config(made.model)

    return build


@pytest.fixture
def rl_of(planned):
    """A function from overrides, and the mean length of responses as a share, to the costs of RL by stage."""

    def build(*overrides, fullness=1.0):
        made, model = planned(*overrides)
        costs = rl_costs(made, "a run", model, size_of(model), H100, Assumed(100, fullness), None)
        return {cost.stage: cost for cost in costs}

    return build


@pytest.mark.parametrize("epochs", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", ["bapo", "clip_cov", "kl_cov"])
def test_a_method_of_the_mini_batch_takes_a_forward_pass_more_before_each_update(planned, rl_of, method, epochs):
    words = ["rl.steps=3", f"rl.epochs={epochs}"]
    _, model = planned()
    more = rl_of(f"clip_method={method}", *words)["RL updates"]
    less = rl_of("clip_method=gppo", *words)["RL updates"]
    forward = sequence_flops(size_of(model), 4096 + 100, 2)
    assert more.flops - less.flops == pytest.approx(epochs * 3 * 128 * 8 * forward)
    assert more.seconds > less.seconds and more.tokens == less.tokens


@pytest.mark.parametrize("method", ["cispo", "gspo", "sapo"])
def test_methods_of_tokens_and_responses_take_none(rl_of, method):
    assert rl_of(f"clip_method={method}")["RL updates"].flops == rl_of("clip_method=gppo")["RL updates"].flops


def test_a_rollout_ends_with_its_longest_response_whatever_the_number_of_cards(rl_of):
    def clock(nodes, *overrides):
        costs = rl_of(*VERL, f"engine.nodes={nodes}", "rl.steps=1", *overrides, fullness=0.1)
        return costs["rollouts"].seconds / (8 * nodes)

    assert clock(8) == pytest.approx(clock(16), rel=0.05)
    assert clock(8, "engine.trainer_mode=colocate_async") < clock(8) / 5  # it doesn't wait


def test_ten_rollouts_take_ten_times_one(rl_of):
    one, ten = (rl_of(*VERL, "engine.nodes=4", f"rl.steps={steps}")["rollouts"] for steps in (1, 10))
    assert ten.seconds == pytest.approx(10 * one.seconds) and ten.tokens == 10 * one.tokens


@pytest.mark.slow
def test_cards_that_train_on_a_response_together_keep_their_part_of_its_activations(planned):
    def kept(*overrides):
        config, model = planned(*VERL, *overrides)
        update = next(stage for stage in memory_of(config, model, H100, Assumed()) if stage.stage == "RL update")
        return update.parts["activations"]

    assert kept("engine.sequence_parallel=4") == pytest.approx(kept() / 4, rel=0.02)


@pytest.mark.slow
def test_a_plan_has_the_positions_that_the_config_gives_the_model(planned):
    config, model = planned("model.positions=40960", "rl.max_response_tokens=40000")
    assert model.max_position_embeddings == 40960
    assert {stage.positions for stage in memory_of(config, model, H100, Assumed()) if "RL" in stage.stage} == {
        40512
    }


def test_benchmarks_that_are_known_have_the_problems_that_they_have(config):
    joined = ["data_source=klear_reasoner", "model=path", "model.path=a/b", "data.benchmark_rows=null"]
    made = config("scale=gpu", *joined, "teacher=medium")
    assert problems(made) == 30 + 167 + 175
    assert problems(applied(made, {"data.benchmark_rows": 100})) == 30 + 100 + 100


def test_a_figure_costs_as_much_as_its_runs_with_its_steps_and_length(planned):
    config, model = planned(*VERL)
    costs = {cost.name: cost for cost in paper_figures.figure_costs(config, model, H100, Assumed())}
    alone = applied(config, {"rl.steps": 240, "rl.max_response_tokens": 32768})
    run = {c.stage: c for c in rl_costs(alone, "a run", model, size_of(model), H100, Assumed(), None)}
    assert costs["Figure 2"].training == pytest.approx(3 * run["RL updates"].seconds)
    assert costs["Figure 2"].sampling > 3 * run["rollouts"].seconds  # and evaluations
    assert costs["Figure 3"].seconds == costs["Figure 4"].seconds
    assert costs["Table 4"].training == pytest.approx(1.5 * costs["Table 5"].training)
    assert costs["Table 4"].training == 2 * costs["Table 3"].training


def test_a_figure_has_the_settings_of_the_phase_with_its_ability(planned):
    phases = "rl.phases=[{ability: math, mini_batch_prompts: 16}, {ability: code, mini_batch_prompts: 32}]"
    config, _ = planned(*VERL, phases)
    keys = {figure.name: paper_figures.of_phase(config, figure) for figure in paper_figures.FIGURES}
    assert keys["Figure 2"]["rl.mini_batch_prompts"] == 16 and keys["Figure 3"]["rl.mini_batch_prompts"] == 32
    assert keys["Figure 3"]["rl.phases"] == [] and keys["Figure 3"]["rl.max_response_tokens"] == 16384


def test_every_figure_and_table_of_the_paper_has_a_cost():
    names = {figure.name for figure in paper_figures.FIGURES}
    assert names == {f"Figure {n}" for n in range(2, 6)} | {f"Table {n}" for n in range(2, 7)}


@pytest.mark.slow
def test_the_papers_experiment_has_a_plan_with_its_figures_and_clusters(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = ["experiment=klear_reasoner_8b", f"model.path={folder}", "logger=none"]
    main([*experiment, "--paper", "--price", "2", "--fullness", "0.4", "--json", "plan.json"])
    shown = capsys.readouterr().out
    assert "The paper's figures and tables, with 256 h100-80gb" in shown and "Figure 1, Table 1" in shown
    assert "240 steps of math RL, 32,768 tokens" in shown
    written = json.loads((tmp_path / "plan.json").read_text())
    assert [size["gpus"] for size in written["clusters"]] == [8, 16, 32, 64, 128, 256]
    assert written["clusters"][-1]["gpu_hours"] == pytest.approx(written["total"]["gpu_hours"])
    assert len(written["paper"]) == 10
    first = written["paper"][0]
    assert first["gpu_hours"] > written["total"]["gpu_hours"]  # with the evaluation at the end
    row = next(line for line in shown.splitlines() if "Figure 2" in line)
    assert f"{2 * written['paper'][1]['gpu_hours']:,.0f}" in row


@pytest.mark.slow
def test_the_docs_have_the_hours_of_the_papers_figures(config, folder):
    saved = json.loads((folder / "config.json").read_text())
    sizes = dict(hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32)
    (folder / "config.json").write_text(
        json.dumps(saved | sizes | {"layer_types": None, "tie_word_embeddings": False})
    )
    recipe = config("experiment=klear_reasoner_8b", f"model.path={folder}", "scale=gpu")
    model = read_model_config(recipe.model)
    assert size_of(model).parameters == 8_190_735_360
    costs = {c.name: c for c in paper_figures.figure_costs(recipe, model, H100, Assumed(fullness=0.4))}
    hours = {name: f"{cost.seconds / 3600:,.0f}" for name, cost in costs.items()}
    rows = [line for line in DOCS.splitlines() if line.startswith(("| Figure", "| Table"))]
    named = {"Figure 1, Table 1", "Figure 2", "Figure 5", "Table 6"}
    assert {name for name in named for row in rows if f"| {name}:" in row and f"| {hours[name]} |" in row} == named
    assert f"| {hours['Figure 3']} each |" in DOCS
    assert f"| {', '.join(hours[f'Table {n}'] for n in (2, 3, 4, 5))} |" in DOCS
    cheapest, dearest = [*paper_figures.size_costs(recipe, model, H100, Assumed(fullness=0.4))][::5]
    assert f"| {cheapest.seconds / 3600:,.0f} |" in DOCS and f"| {dearest.seconds / 3600:,.0f} |" in DOCS


def test_the_papers_figures_are_of_one_run(capsys):
    with pytest.raises(SystemExit):
        main(["scale=smoke", "clip_method=gppo,cispo", "-m", "--paper"])
    assert "--paper: plans one run by what is assumed" in capsys.readouterr().err
