"""Makes a model folder from another one, whose weights it links.

python -m klear_lab.engines.verl.start TRAINED start              # RL's start: it names all of our stop tokens
python -m klear_lab.engines.verl.start TRAINED long --yarn 2.5    # for responses beyond the trained positions
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from klear_lab.policy.codec import make_codec

ORIGINAL_POSITIONS = 32768  # what the authors' inference script stretches


def make_folder(
    source: Path, target: Path, yarn: float | None = None, template_arguments: dict[str, Any] | None = None
) -> None:
    """Makes the folder `target` for the weights in `source`, in place of any old one.

    Its generation config names all stop tokens of ours, which the chat template may need `template_arguments` to
    tell. `yarn` stretches its rotations by a factor. Raises `OSError` where there is no model.
    """
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    config = AutoConfig.from_pretrained(source)
    if yarn is not None:
        scaled = {"rope_type": "yarn", "factor": yarn, "original_max_position_embeddings": ORIGINAL_POSITIONS}
        config.rope_parameters = dict(config.rope_parameters or {}) | scaled
        config.max_position_embeddings = round(ORIGINAL_POSITIONS * yarn)
    for file in source.iterdir():
        if file.name not in ("config.json", "generation_config.json"):
            (partial / file.name).symlink_to(file.absolute())
    config.save_pretrained(partial)
    try:
        generation = GenerationConfig.from_pretrained(source)
    except OSError:
        generation = GenerationConfig()
    codec = make_codec(AutoTokenizer.from_pretrained(source), generation.eos_token_id, template_arguments or {})
    generation.eos_token_id = codec.stop_token_ids
    generation.save_pretrained(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Makes a model folder from another one.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--yarn", type=float, default=None)
    parser.add_argument("--template-arguments", type=json.loads, default={}, help="the chat template's, as JSON")
    given = parser.parse_args()
    make_folder(given.source.absolute(), given.target.absolute(), given.yarn, given.template_arguments)


if __name__ == "__main__":
    main()
