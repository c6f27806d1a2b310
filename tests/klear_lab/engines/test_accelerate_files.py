"""The files of docs/accelerate: accelerate reads them, and what they set is what engine=trl looks for."""

from pathlib import Path

import pytest

from klear_lab.engines.trl import checks

pytest.importorskip("trl")

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "docs" / "accelerate").glob("*.yaml"))
SHARED = {"ddp": False, "fsdp": True, "zero2": False}


def environment_of(file):
    """What the processes of a launch with this file would see."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    args = launch_command_parser().parse_args(["--config_file", str(file), "a_script.py"])
    args, defaults, _ = _validate_launch_command(args)
    if not args.use_deepspeed:
        return args, prepare_multi_gpu_env(args)
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    return args, prepare_deepspeed_cmd_env(args)[1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_reads_it_and_a_run_would_start(file, config, monkeypatch):
    args, environment = environment_of(file)
    assert args.num_processes == 8 and not args.use_cpu
    for name in (
        "ACCELERATE_MIXED_PRECISION",
        "ACCELERATE_USE_FSDP",
        "ACCELERATE_USE_DEEPSPEED",
        "ACCELERATE_GRADIENT_CLIPPING",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in environment.keys() - {"WORLD_SIZE", "RANK"}:
        if name.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.setenv(name, environment[name])
    assert checks.is_sharded() == SHARED[file.stem]
    server = ["sampler=vllm", "engine.vllm_server=http://localhost:8000"] if SHARED[file.stem] else []
    assert [*checks.missing(config("engine=trl", *server))] == []


def test_there_are_files():
    assert {file.stem for file in FILES} == {*SHARED}
