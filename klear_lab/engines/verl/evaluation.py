"""The script that evaluates the last weights with verl, on all of its GPUs: avg@n, at 32K and at 64K tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from klear_lab.config import Config
from klear_lab.engines.verl.phases import trainings
from klear_lab.engines.verl.rows import write_benchmarks
from klear_lab.engines.verl.settings import MODEL, ROLLOUT
from klear_lab.engines.verl.sft import template_arguments
from klear_lab.engines.verl.sizes import longest_prompt
from klear_lab.engines.verl.start import ORIGINAL_POSITIONS
from klear_lab.rows import Row

SAMPLES = {"math": 64, "code": 8}  # n of avg@n by ability, in the paper's Table 1
YARN, LONG = 2.5, 65536  # the paper's factor and tokens of a response at 64K, in its section 4.3
SCRIPT = """#!/usr/bin/env bash
# Evaluates the last weights with verl, on this machine or on the Ray cluster that RAY_ADDRESS names: @WHAT@.
# With the argument 64k responses have @LONG@ tokens, with YaRN by @YARN@. MODEL is another model folder.
# The answers are in evaluate/<ability>_<budget>/. Further arguments are verl's own.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
model="${MODEL:-$here/@WEIGHTS@}"
budget=trained
more=()
if [ "${1:-}" = 64k ]; then
  shift
  budget=64k
  "${PYTHON:-python}" -m klear_lab.engines.verl.start "$model" "$here/evaluate/model_64k" --yarn @YARN@ \\
    --template-arguments @TEMPLATE@
  model="$here/evaluate/model_64k"
  more=(data.max_response_length=@LONG@ @ROLLOUT@.max_model_len=@MOST@
    reward.klear_lab.max_response_tokens=@LONG@ ++@MODEL@.override_config.max_position_embeddings=@POSITIONS@
    ++@ROLLOUT@.engine_kwargs.vllm.hf_overrides.max_position_embeddings=@POSITIONS@)
fi
evaluate() {
  out="$here/evaluate/$1_$budget"
  mkdir -p "$out"
  VERL_FILE_LOGGER_PATH="$out/metrics.jsonl" bash "$here/@TRAINING@train.sh" trainer.val_only=True \\
    trainer.val_before_train=True trainer.resume_mode=disable "trainer.default_local_dir=$out" \\
    "trainer.validation_data_dir=$out" "data.val_files=$here/evaluate/$1.parquet" \\
    "@ROLLOUT@.val_kwargs.n=$2" "@MODEL@.path=$model" "${more[@]}" "${@:3}"
}
@CALLS@
"""


def write_evaluation(config: Config, benchmarks: Mapping[str, Sequence[Row]], place: Path) -> list[str]:
    """Writes the benchmarks by ability, and evaluate.sh; returns what it evaluates, as avg@n of names."""
    folder, by_ability = place / "evaluate", abilities(benchmarks)
    folder.mkdir(exist_ok=True)
    last = trainings(config)[-1]
    for ability, sets in by_ability.items():
        write_benchmarks(sets, folder / f"{ability}.parquet")
    samples = {ability: SAMPLES.get(ability, config.eval.samples) for ability in by_ability}
    what = [f"avg@{samples[ability]} of {', '.join(sets)}" for ability, sets in by_ability.items()]
    values = {
        "@WHAT@": "; ".join(what),
        "@WEIGHTS@": last.weights(place).relative_to(place),
        "@TRAINING@": f"{last.name}/" if last.name else "",
        "@YARN@": YARN,
        "@TEMPLATE@": template_arguments(config),
        "@LONG@": LONG,
        "@MOST@": longest_prompt(config) + LONG,
        "@POSITIONS@": round(ORIGINAL_POSITIONS * YARN),
        "@ROLLOUT@": ROLLOUT,
        "@MODEL@": MODEL,
        "@CALLS@": "\n".join(f'evaluate {ability} {n} "$@"' for ability, n in samples.items()),
    }
    text = SCRIPT
    for name, value in values.items():
        text = text.replace(name, str(value))
    (place / "evaluate.sh").write_text(text, encoding="utf-8")
    return what


def abilities(benchmarks: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Sequence[Row]]]:
    """Returns the benchmarks by the ability of their rows, in lower case."""
    found: dict[str, dict[str, Sequence[Row]]] = {}
    for name, rows in benchmarks.items():
        ability = "".join(c if c.isalnum() else "_" for c in str(rows[0].get("ability") or "other").lower())
        found.setdefault(ability, {})[name] = rows
    return found
