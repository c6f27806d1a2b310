"""The scripts that start verl: on one machine, or on each of many that form a Ray cluster."""

from klear_lab.config import EngineConfig

TRAIN = """#!/usr/bin/env bash
# Trains with verl on this machine, or on the Ray cluster that RAY_ADDRESS names. It goes on from verl's last
# checkpoint. Further arguments are verl's own: bash train.sh trainer.save_freq=5
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
mkdir -p "$here/metrics"
export VERL_FILE_LOGGER_PATH="${VERL_FILE_LOGGER_PATH:-$here/metrics/$(date -u +%Y-%m-%dT%H-%M-%S).jsonl}"
exec "${PYTHON:-python}" -m verl.trainer.main_ppo --config-path "$here" --config-name config \\
  "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH='$VERL_FILE_LOGGER_PATH'" "$@"
"""

NODE = """#!/usr/bin/env bash
# Runs on each of @NODES@ machines with @GPUS@ GPUs, which share this folder, and where klear_lab and verl are
# installed alike:
#   srun --nodes=@NODES@ --ntasks-per-node=1 bash node.sh
# SCRIPT names another script of this folder than train.sh for the first machine, such as evaluate.sh.
# Without Slurm, NODE_RANK counts the machines from 0, and HEAD_ADDRESS is the address of the first.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
rank="${NODE_RANK:-${SLURM_NODEID:?set NODE_RANK, or start with srun}}"
head="${HEAD_ADDRESS:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}"
if [ "$rank" != 0 ]; then
  until ray start --address="$head:6379" --num-gpus=@GPUS@; do sleep 5; done
  # As long as the first machine's cluster lives.
  while ray status --address="$head:6379" >/dev/null 2>&1; do sleep 30; done
  exec ray stop
fi
ray start --head --port=6379 --num-gpus=@GPUS@
trap 'ray stop' EXIT
export RAY_ADDRESS="$head:6379"
found() {
  "${PYTHON:-python}" -c "
import ray
ray.init(logging_level='ERROR')
print(int(ray.cluster_resources().get('GPU', 0)))"
}
until [ "$(found)" -ge @ALL@ ]; do sleep 5; done
bash "$here/${SCRIPT:-train.sh}" "$@"
"""

PHASES = """#!/usr/bin/env bash
# Trains one phase after the other with verl, each from the last weights of the one before. Further arguments are
# verl's own.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
for phase in @PHASES@; do
  bash "$here/$phase/train.sh" "$@"
done
"""


def train_script() -> str:
    """Returns train.sh."""
    return TRAIN


def phases_script(names: list[str]) -> str:
    """Returns train.sh for several phases, whose folders are named in their order."""
    return PHASES.replace("@PHASES@", " ".join(names))


def node_script(engine: EngineConfig) -> str:
    """Returns node.sh for the machines of a config; those that only sample join the same cluster."""
    nodes = engine.nodes + engine.rollout_nodes
    gpus = max(engine.gpus_per_node, engine.rollout_gpus_per_node if engine.rollout_nodes else 0)
    needed = engine.nodes * engine.gpus_per_node + engine.rollout_nodes * engine.rollout_gpus_per_node
    values = {"@NODES@": nodes, "@GPUS@": gpus, "@ALL@": needed}
    text = NODE
    for name, value in values.items():
        text = text.replace(name, str(value))
    return text
