"""The command line as people really use it: what is wrong is told in one message before anything starts.

All of it runs in this process; a command that would train reaches a pipeline that only notes its config.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from klear_lab import sweep as sweep_module
from klear_lab.data.__main__ import main as data_main
from klear_lab.identity import run_id
from klear_lab.run import main
from klear_lab.storage.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
SMOKE = ["scale=smoke", "logger=none", "progress=off"]


@pytest.fixture
def trained(monkeypatch):
    """The runs that would have been trained: (run id, sweep, arm)."""
    found = []

    def note(config, composed, *, sweep=None, arm=None, **_):
        found.append((run_id(composed), sweep, arm))
        return RunFolder.of(config, run_id(composed))

    monkeypatch.setattr(sweep_module, "run_pipeline", note)
    return found


@pytest.fixture
def tell(tmp_path, monkeypatch, capfd, trained):
    """A function from a command's words to all that it prints, its exit message included."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_module, "listen", lambda stop: None)
    monkeypatch.setattr(sweep_module, "hold_signals_of_workers", lambda: None)

    def start(*words, program=main, settings=SMOKE):
        capfd.readouterr()
        os.environ.pop("HYDRA_FULL_ERROR", None)
        monkeypatch.setattr(sys, "argv", ["klear_lab", *settings, *words])
        leaving = ""
        try:
            program([*settings, *words])
        except SystemExit as left:
            leaving = str(left.code or "")
        finally:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        printed = capfd.readouterr()
        return printed.out + printed.err + leaving

    return start


@pytest.fixture
def own(tmp_path):
    """A folder of configs of one's own."""
    folder = tmp_path / "own"
    (folder / "clip_method").mkdir(parents=True)
    (folder / "mine.yaml").write_text("defaults: [config, _self_]\nrl: {steps: 3}\n")
    (folder / "clip_method" / "narrow.yaml").write_text(
        "name: gppo\neps_low: 0.1\neps_high: 0.1\ndual_clip: null\n"
    )
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        # keys that nothing reads
        (["+rl.foo=1"], "rl.foo: there is no such key; one of steps, learning_rate"),
        (["+rl.kl_coef=0,0.1", "-m"], "rl.kl_coef: there is no such key"),
        (["+rl.learning_rat=1"], "did you mean rl.learning_rate? One of steps"),
        (["++sft.step=1"], "did you mean sft.steps? One of"),
        (["+reward.corect=1"], "did you mean reward.correct? One of name, correct"),
        (["+logger.tag=x"], "did you mean logger.tags?"),
        (["+eval.top_k=5"], "did you mean eval.top_p?"),
        (["+teacher.foo=1"], "teacher.foo: there is no such key; one of name, misconceptions, error_rate"),
        (["+sft={foo: 1}"], "sft.foo: there is no such key"),
        (["rl.phases=[{learning_rat: 1}]"], "rl.phases[0].learning_rat: unknown; did you mean rl.phases[0].learning_rate?"),
        (["data_source=file", "+data_source.sft.fils=[a]"], "did you mean data_source.sft.files?"),
        (["data_source=file", "+data_source.benchmarks.b={file: [a]}"], "did you mean data_source.benchmarks.b.files"),
        (["data_source=chain_and_functions", "+data_source.chain.foo=1"], "data_source.chain.foo: there is no"),
        (["+job.chdir=true"], "job: there is no such key"),
        (["+clip_method.beta1=1"], "clip_method.beta1: unknown; gppo takes"),
        (["+token_records.evry=1"], "did you mean token_records.every?"),
        (["+checkpoint.every=1"], "checkpoint.every: there is no such key"),
        # what isn't an arm
        (["sweep=figure2,table1", "-m"], "sweep=figure2,table1: one sweep at a time"),
        (["launcher=basic,joblib", "-m"], "launcher=basic,joblib: launcher changes no result"),
        (["runs_dir=a,b", "-m"], "runs_dir changes no result"),
        (["progress=off,lines", "-m"], "progress changes no result"),
        (["logger.project=a,b", "-m"], "logger.project changes no result"),
        (["checkpoint.rl_every=1,2", "-m"], "checkpoint.rl_every changes no result"),
        (["sweep_name=a,b", "-m"], "sweep_name changes no result"),
        (["reward_workers=range(1,3)", "-m"], "reward_workers changes no result"),
        (["rl.learning_rate=1e-4,0.0001", "-m"], "rl.learning_rate=0.0001 and rl.learning_rate=0.0001 are one run"),
        (["seed=1,1", "-m"], "seed=1 and seed=1 are one run"),
        (["rl.steps=2,null", "-m"], "rl.steps"),
        (["clip_method=gppo,{name: gppo}", "-m"], "clip_method=gppo and clip_method={name:gppo} are one run"),
        (["recipe=sft_rl,sft_rl_long", "eval.response_budget=1.0", "-m"], "recipe=sft_rl and recipe=sft_rl_long are one"),
        (["clip_method=glob(z*)", "-m"], "clip_method=glob(z*): matches nothing"),
        (["rl.alpha=interval(0,1)", "-m"], "rl.alpha=interval(0,1): an interval has no end of values"),
        # wandb's limits
        (["logger.tags=['']"], "logger.tags=['']: must be a list of tags of 1 to 64 characters"),
        (["logger.tags=[" + "x" * 65 + "]"], "must be a list of tags of 1 to 64 characters"),
        (["logger.project=a/b"], "logger.project=a/b: must be a name of 1 to 128 characters without"),
        (["sweep_name=" + "x" * 129], "must be a name of 1 to 128 characters"),
        # numbers
        (["rl.learning_rate=inf"], "rl.learning_rate=inf: must be a finite number"),
        (["rl.learning_rate=nan"], "rl.learning_rate=nan: must be a finite number"),
        (["sft.adam_betas=[0.9,nan]"], "sft.adam_betas=[0.9, nan]: must be a finite number"),
        (["reward.wrong=-inf"], "reward.wrong=-inf: must be a finite number"),
        (["clip_method.eps_high=inf"], "clip_method.eps_high=inf: must be a number"),
        (["rl.phases=[{temperature: inf}]"], "rl.phases[0].temperature=inf: must be a finite number"),
        (["sft.max_grad_norm=nan"], "sft.max_grad_norm=nan: must be a finite number"),
        # what isn't there
        (["model=path", "model.path=/not/here"], "model.path=/not/here: no such folder"),
        (["model=path", "model.path=./not"], "model.path=not: no such folder"),
        (["model=path", "model.path=empty", "clip_method=gppo,cispo", "-m"], "model.path=empty: is no model"),
        (["data_source=file", "data_source.rl.files=[no.jsonl]", "sft.steps=0"], "data_source.rl.files: no.jsonl: no such"),
        (["data_source=file", "data_source.rl.files=[no.jsonl],[na.jsonl]", "sft.steps=0", "-m"], "no.jsonl: no such file"),
        (["data_source=klear_math", "data_source.rl.repository=./rows", "sft.steps=0"], "repository=./rows: no such folder"),
        (["device=cpu,mps", "-m"], "device=mps: PyTorch finds none here"),
        # folders
        (["runs_dir=/dev/null/x"], "runs_dir=/dev/null/x: /dev/null/x can't be written to"),
        (["runs_dir=/proc/x", "seed=0,1", "-m"], "runs_dir=/proc/x: /proc/x can't be written to"),
        (["cache_dir=/dev/null/x"], "cache_dir=/dev/null/x: /dev/null/x can't be written to"),
        (["runs_dir="], "runs_dir=: must be the path of a folder"),
        (["runs_dir=null"], "runs_dir"),
        (["hydra.job.chdir=true"], "hydra.job.chdir=true: paths are from the folder of the command"),
        (["hydra.job.chdir=true", "seed=0,1", "-m"], "hydra.job.chdir=true: paths are from"),
        (["hydra.run.dir=x"], "hydra.run.dir: isn't used"),
        (["hydra.sweep.dir=x/${seed}", "seed=0,1", "-m"], "hydra.sweep.dir=x/1: all arms of a sweep share one folder"),
        (["hydra.sweep.dir=${hydra:job.override_dirname}", "seed=0,1", "-m"], "all arms of a sweep share one folder"),
        (["hydra.sweep.subdir=${seed}", "seed=0,1", "-m"], "hydra.sweep.subdir: isn't used"),
        # choices, flags and grammar
        (["clip_method=null"], "clip_method=null: must be one of aspo, bapo"),
        (["clip_method=gppo,null", "-m"], "clip_method=gppo,null: must be one of aspo"),
        (["sweep=null"], "sweep=null: must be one of ce_gppo"),
        (["model=3"], "model=3: must be one of path, tiny"),
        (["hydra/launcher=null"], "hydra/launcher=null: must be the name of one of its options"),
        (["clip_method=[gppo,cispo]"], "clip_method=gppo,cispo -m is a sweep"),
        (["~rl"], "rl: has no value; set rl=..."),
        (["~sft", "~eval"], "eval: has no value; set eval=...\nsft: has no value"),
        (["~data"], "data: has no value; set data=..."),
        (["~seed"], "seed: has no value; set seed=..."),
        (["~plan", "seed=0,1", "-m"], "plan: has no value; set plan=..."),
        (["~clip_method.eps_low"], "~clip_method.eps_low: its default would be taken; set clip_method.eps_low=..."),
        (["~clip_method"], "clip_method: has no value; set clip_method=..."),
        (["--resolve"], "--resolve: goes with --cfg job"),
        (["--cfg", "job", "-m"], "--multirun and --cfg: can't go together"),
        (["--experimental-rerun", "x"], "`python -m klear_lab.run --config-path runs/<run_id>`"),
        (["rl.steps=1=2"], "rl.steps=1=2: can't be read"),
        (["rl.steps"], "rl.steps: must be key=value"),
        ([""], "'': must be key=value"),
        (["=3"], "=3: must be key=value"),
        (["rl.phases=[{"], "rl.phases=[{: can't be read"),
        (["logger.tags=[my ü]"], "quote each text inside of the [, within the shell's quotes, as in \"logger.tags=['first"),
        (["sweep_name=it's ü"], """within the shell's quotes: "sweep_name='it\\'s ü'\""""),
        (["sweep_name=a,$x ü"], """within the shell's quotes: 'sweep_name='"'"'a,$x ü'"'"''"""),
        (["runs_dir=${nope}"], "runs_dir: Interpolation key 'nope' not found"),
        (["-cn", "nope"], "--config-name nope: there is no nope.yaml in"),
        (["-cd", ".", "-cn", "no_list"], "no_list.yaml: defaults=5: must be a list of configs, e.g. [config, _self_]"),
        (["-cd", ".", "-cn", "no_names"], "no_names.yaml: defaults=['config', 5]: must be a list of configs"),
        (["hydra.launcher.n_jobs=0", "launcher=joblib", "seed=0,1", "-m"], "hydra.launcher.n_jobs=0: must be a number"),
        (["cpu_threads=1000000"], "cpu_threads=1000000: must be at most"),
        (["-cd", "nope"], "--config-dir nope: there is no such folder"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_anything_starts(tell, trained, tmp_path, words, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_list.yaml").write_text("defaults: 5\n")
    (tmp_path / "no_names.yaml").write_text("defaults: [config, 5]\n")
    told = tell(*words)
    assert said in told
    assert "Traceback" not in told and "Error executing job" not in told
    assert trained == []
    assert not (tmp_path / "~").exists()


@pytest.mark.slow
def test_arms_are_named_by_what_differs_and_never_alike(tell, trained):
    for words in (
        ["clip_method={eps_low: 0.1},{eps_low: 0.3}"],
        ["clip_method=gppo,{eps_low: 0.3}"],
        ["rl={steps: 1},{alpha: 0.2}"],
        ["rl.steps=1,2", "sft.steps=1,2"],
        ["data.seed=0,1", "seed=0,1"],
        ["cpu_threads=1,2"],
        ["rl.phases=[{steps: 1}],[{steps: 2}]"],
        ["+clip_method.dual_clip=3,4"],
        ["scale=smoke,small"],
    ):
        trained.clear()
        told = tell(*words, "-m", settings=["logger=none", "progress=off"])
        arms = [json.dumps([run[2], run[0] if "seed=0,1" in words else 0]) for run in trained]
        assert len(set(arms)) == len(arms) >= 2, told
    assert "cpu_threads=1" in tell("cpu_threads=1,2", "-m")
    told = tell("clip_method={eps_low: 0.1},{eps_low: 0.3}", "-m")
    assert "eps_low=0.1" in told and "eps_low=0.3" in told
    told = tell("rl.steps=1,2", "sft.steps=1,2", "-m")
    assert "rl.steps=1, sft.steps=2" in told


@pytest.mark.slow
def test_long_sweep_names_stay_apart_and_short_enough(tell, trained):
    long = [
        "rl.micro_batch_sequences=4",
        "eval.batch_sequences=8",
        "rl.rollout_batch_sequences=16",
        "data.rl_rows=32",
    ]
    long += ["rl.max_response_tokens=16"]
    tell(*long, "rl.learning_rate=1e-4", "clip_method=gppo,cispo", "-m")
    tell(*long, "rl.learning_rate=2e-4", "clip_method=gppo,cispo", "-m")
    names = {run[1] for run in trained}
    assert len(names) == 2 and all(len(name) <= 120 for name in names)


@pytest.mark.parametrize("launcher", ["launcher=basic"])
def test_every_start_has_a_folder_of_its_own(tell, trained, tmp_path, launcher):
    for clip_method in ("gppo,cispo", "grpo,none"):
        assert "2 of 2" not in tell(f"clip_method={clip_method}", "hydra.sweep.dir=same", launcher, "-m")
    folders = sorted((tmp_path / "same").iterdir())
    assert len(folders) == 2
    (folders[0] / "stop").touch()
    told = tell("clip_method=gppo", "hydra.sweep.dir=same", "-m")
    assert "was stopped" not in told and "cispo" not in told
    names = [json.loads((f / "sweep.json").read_text())["sweep"] for f in sorted((tmp_path / "same").iterdir())]
    assert [name.split("clip_method=")[1].split()[0] for name in names] == ["gppo,cispo", "grpo,none", "gppo"]
    assert [len(run[2]) for run in trained] == [1, 1, 1, 1, 0]


def test_the_settings_of_a_sweep_are_those_of_its_start(tell, tmp_path, own, monkeypatch):
    found = []

    def note(config, composed, **_):
        found.append((config.rl.steps, config.clip_method["eps_low"]))
        (own / "mine.yaml").write_text("defaults: [config, _self_]\nrl: {steps: 9}\n")
        (own / "clip_method" / "narrow.yaml").write_text("name: [broken")

    monkeypatch.setattr(sweep_module, "run_pipeline", note)
    tell("-cd", "own", "-cn", "mine", "clip_method=narrow", "seed=0,1,2", "-m")
    assert found == [(3, 0.1)] * 3


@pytest.mark.slow
def test_the_check_composes_what_hydra_will_run(tell, trained, own):
    tell("-cd", "own", "-cn", "mine", "clip_method=glob(na*),cispo", "-m")
    told = tell("clip_method=narrow,gppo", "-cd", "own", "-cn", "mine", "-m")
    assert len(trained) == 2, told
    assert "arms failed" not in told
    (own / "wrong.yaml").write_text("defaults: [config, _self_]\nrl: {mini_batch_prompts: 3}\n")
    assert "rl.mini_batch_prompts=3: must divide" in tell("-cd", "own", "-cn", "wrong", "seed=0,1", "-m")
    tell("-cp", "own", "-cn", "mine", "seed=0,1", "-m")
    tell("clip_method=glob(gppo*)", "-m")
    assert len(trained) == 2 + 2 + 4


def test_a_file_that_would_never_be_read_is_refused(tell, trained, own):
    (own / "clip_method" / "gppo.yaml").write_text("name: gppo\n")
    assert "its clip_method/gppo.yaml would never be read" in tell("-cd", "own", "-cn", "mine")
    assert trained == []


@pytest.mark.slow
def test_a_saved_config_is_run_again_one_way(tell, trained, tmp_path):
    from omegaconf import OmegaConf

    from klear_lab.config import Config

    settings = ["clip_method=ce_gppo", "rl.learning_rate=3e-6", "data_source=functions", "logger.tags=[a]"]
    tell(*settings)
    ((first, *_),) = trained
    saved = tmp_path / "runs" / first
    saved.mkdir(parents=True, exist_ok=True)
    text = tell("--cfg", "job", "--resolve", *settings)
    (saved / "config.yaml").write_text(text)
    assert {*OmegaConf.create(text)} == {*Config.__dataclass_fields__}
    tell("-cp", f"runs/{first}", settings=[])
    tell("--config-path", str(saved), "--config-name", "config.yaml", settings=["logger=none", "progress=off"])
    assert {run[0] for run in trained} == {first} and len(trained) == 3
    tell("-cp", f"runs/{first}", "seed=0,1", "launcher=basic", "-m", settings=[])
    assert trained[3][0] == first != trained[4][0]
    for wrong in (["-cd", f"runs/{first}", "-cn", "config"], ["-cd", f"runs/{first}"]):
        assert "--config-path runs/<run_id>` runs a saved config again" in tell(*wrong)
    assert "is a file; name its folder" in tell("-cp", f"runs/{first}/config.yaml")
    assert "clip_method: the main config chooses no clip_method" in tell(
        "-cp", f"runs/{first}", "clip_method=gppo", settings=[]
    )
    (tmp_path / "part.yaml").write_text("rl: {steps: 3}\n")
    assert "begin it with `defaults: [config, _self_]`" in tell("-cd", ".", "-cn", "part")
    assert len(trained) == 5


def test_the_data_command_takes_the_same_main_configs(tell, own, tmp_path):
    settings = ["scale=smoke", "data.rl_rows=16", "data.sft_rows=20"]
    assert "Written" in tell("-cd", "own", "-cn", "mine", program=data_main, settings=settings)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "config.yaml").write_text(tell("--cfg", "job", "--resolve", *settings[1:]))
    assert "found prepared" in tell("-cp", "saved", program=data_main, settings=[])
    assert "would never be read" in tell("-cd", "saved", "-cn", "config", program=data_main)
    assert "rl.foo: there is no such key" in tell("+rl.foo=1", program=data_main)
    assert "clip_method=null: must be one of" in tell("clip_method=null", program=data_main)


def test_a_single_run_says_where_it_is_and_what_comes_next(tell):
    told = tell("progress=lines", "runs_dir=my runs")
    assert "the run is in my runs/" in told and "next: python -m analysis --runs 'my runs'" in told


def test_ctrl_c_is_one_line_from_the_first_import_on():
    ask = "import sys, klear_lab.run; print({'hydra', 'omegaconf', 'torch', 'klear_lab.config'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"  # what takes long is imported where an interruption is caught
