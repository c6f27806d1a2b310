"""Composing many configs: each is what Hydra composes, its own settings and its errors too."""

import shutil

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf

from klear_lab.composing import GroupsOnce, without_hydra
from klear_lab.config import Config, register
from support.composed import CONF


@pytest.fixture
def composers():
    """Hydra's loader and ours, for a folder of config files."""
    register()

    def of(folder=CONF):
        with initialize_config_dir(str(folder), version_base="1.3"):
            loader = GlobalHydra.instance().hydra.config_loader
        return loader, GroupsOnce(loader)

    return of


def composed(loader, overrides):
    return loader.load_configuration("config", overrides, RunMode.RUN)


SOUND = [
    [],
    ["clip_method=cispo", "rl.steps=3", "seed=1"],
    ["seed=1", "sweep=table2", "rl.learning_rate=1e-3", "clip_method.eps_high=0.3", "seed=2"],
    ["rl.phases=[{steps:3},{}]", "runs_dir='a b'"],
    ["clip_method={name:gppo,eps_low:0.1}", "+clip_method.beta1=3", "++clip_method.beta2=3"],
    ["clip_method=gppo", "clip_method={eps_low:0.1}"],
    ["rl={steps:3,alpha:0.2}", "hydra.sweep.dir=x/${seed}", "hydra.job.name=y"],
    ["ladder=dapo_0_grpo", "~clip_method.eps_low", "data.seed=${seed}"],
    ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "sweep=figure2"],
    [f"hydra.searchpath=[{CONF.parent / 'tests'}]", "seed=3"],
    ["hydra.job.config.override_dirname.exclude_keys=[seed]", "seed=3", "rl.steps=3"],
]
WRONG = [
    ["rl.stpes=3"],
    ["seed=one"],
    ["clip_method=gpo", "rl.stpes=3"],
    ["rl={stpes:3}"],
    ["ladder=dapo_0_grpo", "~clip_method.eps_low", "rl.seed=${seed}"],
    ["+seed=3"],
    ["~seed=3"],
    ["~rl.nothing"],
    ["seed@rl=3"],
    ["++clip_method=gppo"],
    ["+sweep=figure2"],
    ["seed=1,2"],
    ["hydra.nothing=3"],
    ["nothing=3"],
]


@pytest.mark.parametrize("overrides", SOUND, ids=str)
def test_a_config_is_what_hydra_composes(composers, overrides):
    theirs, ours = composers()
    expected = composed(theirs, overrides)
    for _ in range(2):  # read from files, then copied
        found = composed(ours, overrides)
        assert found == expected and OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)
        assert OmegaConf.get_type(found) is OmegaConf.get_type(without_hydra(found)) is Config
        for parts in (found, expected):
            with pytest.raises(Exception, match="nothing"):  # closed to new keys
                parts.rl.nothing = 1


@pytest.mark.parametrize("overrides", WRONG, ids=str)
def test_what_is_wrong_is_said_as_hydra_says_it(composers, overrides):
    said = []
    for loader in composers():
        with pytest.raises((HydraException, ConfigCompositionException, OverrideParseException)) as caught:
            composed(loader, overrides)
        said.append((type(caught.value), str(caught.value), str(caught.value.__cause__)))
    assert said[0] == said[1]


def test_what_is_set_in_one_config_is_in_no_other(composers):
    _, ours = composers()
    first = composed(ours, ["rl.steps=3"])
    first.rl.steps = 4
    first.hydra.job.name = "other"
    assert composed(ours, ["rl.steps=3"]).rl.steps == 3
    assert composed(ours, ["seed=3"]).hydra.job.name != "other"
    without_hydra(first).rl.steps = 5
    assert first.rl.steps == 4 and "hydra" in first


def test_a_file_that_changes_in_between_changes_no_config_to_come(composers, tmp_path):
    shutil.copytree(CONF, tmp_path / "conf")
    theirs, ours = composers(tmp_path / "conf")
    before = composed(ours, ["seed=1"])
    file = tmp_path / "conf" / "config.yaml"
    file.write_text(file.read_text() + "\nrl:\n  steps: 77\n")
    assert composed(theirs, ["seed=1"]).rl.steps == 77
    assert composed(ours, ["seed=2"]).rl.steps == before.rl.steps != 77
