"""Writes what verl's SFT trainer is started with: a large model with long responses needs many GPUs for SFT too.

The folder `verl/sft/` of a run has config.yaml, train.parquet, order.npy and sft.sh, which trains and leaves the
model in `verl/start/`, from where RL starts. klear_lab's own SFT is for models that one GPU trains; order.npy has
verl take the same rows in each step as that would, by `sft.batches` and `sft.seed`.
"""

import json
import shlex
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from klear_lab.config import Config, ConfigError, value_of
from klear_lab.data.tokens import TokenTable
from klear_lab.data.write_parquet import PROMPT, ROWS_A_GROUP
from klear_lab.engines.verl.settings import nested, optimizer_class, positions, precision
from klear_lab.engines.verl.sizes import shares, tokens_of_a_gpu
from klear_lab.rows import Row
from klear_lab.sft import draw_places, fitting

# Key of ours -> key of verl's SFT trainer with the same meaning.
COPIED = {
    "sft.learning_rate": "optim.lr",
    "sft.final_learning_rate": "optim.min_lr_ratio",
    "sft.warmup_steps": "optim.lr_warmup_steps",
    "sft.adam_betas": "optim.betas",
    "sft.weight_decay": "optim.weight_decay",
    "sft.max_grad_norm": "optim.clip_grad",
    "sft.batch_sequences": "data.train_batch_size",
    "sft.micro_batch_sequences": "data.micro_batch_size_per_gpu",
    "sft.max_tokens": "data.max_length",
    "sft.steps": "trainer.total_training_steps",
    "sft.seed": "engine.seed",
    "checkpoint.sft_every": "trainer.save_freq",
    "checkpoint.keep": "trainer.max_ckpt_to_keep",
    "model.gradient_checkpointing": "model.enable_gradient_checkpointing",
    "engine.sequence_parallel": "engine.ulysses_sequence_parallel_size",
    "engine.nodes": "trainer.nnodes",
    "engine.gpus_per_node": "trainer.n_gpus_per_node",
}
FIXED = {
    "engine.strategy": "fsdp2",
    "model.use_remove_padding": True,
    "optim.lr_scheduler_type": "cosine",
    "optim.zero_indexed_step": False,  # else the first step has a learning rate of 0
    "data.truncation": "error",
    "data.pad_mode": "no_padding",
    "data.custom_cls.path": "pkg://klear_lab.engines.verl.sft_rows",
    "data.custom_cls.name": "KlearSFTRows",
    "checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
    "trainer.test_freq": -1,
    "trainer.total_epochs": 1,  # of the rows of all steps, by order.npy
    "trainer.resume_mode": "auto",
    "trainer.project_name": "klear_lab",
    "trainer.logger": ["console", "file"],
    "trainer.device": "cuda",
}
ORDER = "order.npy"
SCHEMA = pa.schema({"messages": PROMPT})
SCRIPT = """#!/usr/bin/env bash
# Fine-tunes with verl on each of @NODES@ machines with @GPUS@ GPUs, which share this folder:
#   srun --nodes=@NODES@ --ntasks-per-node=1 bash sft.sh
# Without Slurm, NODE_RANK counts the machines from 0, and HEAD_ADDRESS is the address of the first. It goes on
# from verl's last checkpoint. Further arguments are verl's own.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
rank="${NODE_RANK:-${SLURM_NODEID:-0}}"
head=localhost
if [ @NODES@ -gt 1 ]; then
  head="${HEAD_ADDRESS:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}"
fi
mkdir -p "$here/metrics"
export VERL_FILE_LOGGER_PATH="$here/metrics/$(date -u +%Y-%m-%dT%H-%M-%S).jsonl"
"${PYTHON:-python}" -m torch.distributed.run --nnodes=@NODES@ --nproc-per-node=@GPUS@ --node-rank="$rank" \\
  --master-addr="$head" --master-port=29500 -m verl.trainer.sft_trainer \\
  --config-path "$here" --config-name config "$@"
if [ "$rank" = 0 ]; then
  "${PYTHON:-python}" -m klear_lab.engines.verl.start \\
    "$here/checkpoints/global_step_@STEPS@/huggingface" "$here/../start" --template-arguments @TEMPLATE@
fi
"""


def trains_sft(config: Config) -> bool:
    """Tells whether verl can train the SFT stage: of a model from a folder or the hub, without our curriculum."""
    return config.sft.steps > 0 and config.model.path is not None and config.sft.length_curriculum == 0


def check_sizes(config: Config, rows: int) -> None:
    """Raises `ConfigError` for batches that verl can't cut for its GPUs or fill."""
    batch = config.sft.batch_sequences
    if batch % shares(config):
        raise ConfigError(
            f"sft.batch_sequences={batch}: engine=verl shares a batch among {shares(config)} GPUs (engine.nodes "
            "times engine.gpus_per_node, by engine.sequence_parallel), which must divide it"
        )
    if rows < batch:
        raise ConfigError(
            f"sft.batch_sequences={batch}: there are {rows} SFT rows within sft.max_tokens; lower it"
        )


def write_sft_rows(config: Config, rows: Sequence[Row], table: TokenTable, path: Path) -> int:
    """Writes the rows within sft.max_tokens, in their order, each as a conversation; returns their number.

    Beside them it writes order.npy, the places of all steps' rows among them. Raises `ConfigError` where there are
    none, or too few for a batch.
    """
    examples = fitting(table, config.sft.max_tokens)
    fit = {*examples.number_E.tolist()}
    check_sizes(config, len(fit))
    drawn = (draw_places(examples.response_length_E, config.sft, step + 1) for step in range(config.sft.steps))
    order_SE = np.fromiter(drawn, dtype=(np.int32, (config.sft.batch_sequences,)), count=config.sft.steps)
    place_E = np.searchsorted(np.sort(examples.number_E), examples.number_E)  # in train.parquet
    np.save(path.with_name(ORDER), place_E[order_SE.ravel()])
    chosen = (row for number, row in enumerate(rows) if number in fit)
    partial = path.with_name(f".{path.name}.partial")
    with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
        while group := [conversation(row) for row in islice(chosen, ROWS_A_GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, SCHEMA))
    partial.replace(path)
    return len(fit)


def conversation(row: Row) -> Row:
    """Returns an SFT row as verl reads it: a prompt's messages, and the response as the last."""
    return {"messages": [*row["prompt"], {"role": "assistant", "content": row["response"]}]}


def sft_settings(config: Config, folder: Path, run: str) -> dict[str, Any]:
    """Returns what verl's SFT trainer must be told: all that differs from its own defaults."""
    flat: dict[str, Any] = dict(FIXED) | {target: value_of(config, key) for key, target in COPIED.items()}
    optimizer = optimizer_class(config)
    flat |= {
        "model.path": model_path(config),
        "model.override_config": positions(config),
        "engine.mixed_precision": {
            "param_dtype": precision(config, ("bf16", "fp32")),
            "reduce_dtype": "fp32",
            "buffer_dtype": "fp32",
        },
        "optim.optimizer_impl": optimizer[0],
        "optim.optimizer": optimizer[1],
        "data.train_files": str(folder / "train.parquet"),
        "data.use_dynamic_bsz": config.sft.micro_batch_tokens is not None,
        "data.max_token_len_per_gpu": tokens_of_a_gpu(config, config.sft.micro_batch_tokens),
        "data.apply_chat_template_kwargs": config.model.template_arguments or {},
        "trainer.experiment_name": run,
        "trainer.default_local_dir": str(folder / "checkpoints"),
    }
    return nested(flat)


def model_path(config: Config) -> str:
    """Returns the model's folder, or its name on the hub."""
    folder = Path(config.model.path or "").expanduser()
    return str(folder.absolute()) if folder.is_dir() else str(config.model.path)


def template_arguments(config: Config) -> str:
    """Returns the chat template's arguments as a word of the shell."""
    return shlex.quote(json.dumps(config.model.template_arguments or {}))


def sft_script(config: Config) -> str:
    """Returns sft.sh."""
    values = {
        "@NODES@": config.engine.nodes,
        "@GPUS@": config.engine.gpus_per_node,
        "@STEPS@": config.sft.steps,
        "@TEMPLATE@": template_arguments(config),
    }
    text = SCRIPT
    for name, value in values.items():
        text = text.replace(name, str(value))
    return text
