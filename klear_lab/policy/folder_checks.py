"""Checks of a model's folder: what can't be trained is named before anything is, with what to do about it.

`check_files` looks at a folder before it is read, `check_loaded` at the model and tokenizer that were read from
it; forward_checks.py runs the model, template_checks.py its chat template.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers import __version__ as transformers_version
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from klear_lab.config import ConfigError
from klear_lab.policy.forward_checks import embedding_rows, in_short

# What transformers raises for a folder that it can't read; of any kind, since a file may hold anything.
LOAD_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ImportError, EOFError),
    *(SafetensorError, UnpicklingError, AssertionError, StrictDataclassError),
)
GGUF = "; GGUF files can't be trained, so name the folder that it was converted from"
QUANTISED = ", and can't be trained; name the model as it was before quantisation"
TRAINABLE = ("F64", "F32", "F16", "BF16")
ORIGINAL = "original_max_position_embeddings"
CHANGING = ("dynamic", "longrope")  # kinds of rotations by transformers' names
SENTENCE = "what is 2 + 3 ?"  # that every tokenizer has to bring back
SHOWN = 3  # names in a message; further ones are counted


def refusal(path: str | Path, problem: str) -> ConfigError:
    """Makes the error that names a model and what keeps it from being trained."""
    return ConfigError(f"model.path={path}: {problem}")


@contextmanager
def naming(path: str | Path, part: str) -> Iterator[None]:
    """Turns what transformers raises while it reads a part of a model into a `ConfigError` that names both."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if not isinstance(error, LOAD_ERRORS) and type(error) is not Exception:  # tokenizers raises the bare kind
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
        if Path(path).is_dir():
            raise refusal(path, f"its {part} can't be read ({said}); mend it or download it again") from error
        raise refusal(path, f"not a model folder, nor a hub name that can be reached. {said}") from error


def check_files(path: str | Path, revision: dict[str, str]) -> None:
    """Raises `ConfigError` for a folder that isn't a whole model, and a config.json of one that can't be trained.

    `revision` is the argument for a hub name's.
    """
    folder = Path(path)
    if folder.is_file():
        raise refusal(path, "is a file, not a model folder" + (GGUF if folder.suffix == ".gguf" else ""))
    if folder.is_dir():
        check_folder(folder)
    with naming(path, "config.json"):
        config, _ = PreTrainedConfig.get_config_dict(path, **revision)
    if not isinstance(config, dict):
        raise refusal(path, "its config.json holds no object; download the folder again")
    if problem := config_problem(config):
        raise refusal(path, problem)


def check_folder(folder: Path) -> None:
    """Raises `ConfigError` for a folder that lacks files of a model, or has damaged ones."""
    names = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    problem = missing_files(names)
    if problem is None and "model.safetensors.index.json" in names:
        places = read_json(folder, "model.safetensors.index.json").get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
            raise refusal(folder, "model.safetensors.index.json: weight_map names no files; download it again")
        shards = {*places.values()}
        if absent := sorted(shards - {*names}):
            problem = f"{some(absent)} missing, of {len(shards)} files of weights; download the folder again"
    weights = [folder / name for name in names if name.endswith(".safetensors")]
    problem = problem or next(filter(None, map(damage, weights)), None)
    if problem is not None:
        raise refusal(folder, problem)


def missing_files(names: list[str]) -> str | None:
    """Returns what shows by the names of a folder's files that it holds no model."""
    if not names:
        return "not a model folder: it is empty"
    if "adapter_config.json" in names:
        return (
            "holds a PEFT adapter, not a model; merge it into its base model with peft's merge_and_unload(), and "
            "name the folder that save_pretrained writes then, with the tokenizer"
        )
    if "config.json" not in names:
        gguf = any(name.endswith(".gguf") for name in names)
        return "not a model folder: it has no config.json" + (GGUF if gguf else "")
    if not any(name.endswith((".safetensors", ".bin", ".index.json")) for name in names):
        return "has no weights; expected model.safetensors, as save_pretrained writes it"
    return None


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Reads an object of a model folder. Raises `ConfigError` for a file that holds none."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise refusal(folder, f"{name} can't be read ({error}); download the folder again") from error
    if not isinstance(content, dict):
        raise refusal(folder, f"{name} holds no object; download the folder again")
    return content


def config_problem(config: Mapping[str, Any]) -> str | None:
    """Returns what a model's config.json says of it that can't be trained here."""
    kind = config.get("model_type")
    if not isinstance(kind, str):
        return "its config.json names no model_type, so no architecture; download the folder again"
    if kind not in CONFIG_MAPPING:
        if config.get("auto_map"):
            return "needs code of its own (trust_remote_code), which isn't run here; take a model of transformers"
        return f"transformers {transformers_version} knows no model_type={kind}; another version may"
    if config.get("is_encoder_decoder"):
        return f"an encoder-decoder model ({kind}); only causal language models can be trained"
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return f"transformers has no causal language model of model_type={kind}; use one of its language models"
    if (quantised := config.get("quantization_config")) is not None:
        method = quantised.get("quant_method", "unknown method") if isinstance(quantised, dict) else quantised
        return f"its weights are quantised ({method}){QUANTISED}"
    return None


def damage(file: Path) -> str | None:
    """Returns what is wrong with a file of weights, by its header and length."""
    try:
        with safe_open(file, framework="pt") as weights:
            kinds = {name: weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        with file.open("rb") as opened:
            pointer = opened.read(40).startswith(b"version https://git-lfs")
        if pointer:
            return f"{file.name} is a pointer of Git LFS, not the weights; run `git lfs pull` in the folder"
        return f"{file.name} is damaged or cut short ({error}); download it again"
    quantised = sorted(name for name, kind in kinds.items() if name.endswith("weight") and kind not in TRAINABLE)
    if quantised:
        return f"{file.name} holds {kinds[quantised[0]]} numbers for {some(quantised)}{QUANTISED}"
    return None


def check_loaded(
    path: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, loading: Mapping[str, Any]
) -> None:
    """Raises `ConfigError` for weights that weren't there or aren't numbers, and a tokenizer or stop tokens unfit.

    `loading` is what `from_pretrained` says with output_loading_info.
    """
    problem = (
        weights_problem(loading)
        or nonfinite_problem(model)
        or stop_problem(model)
        or tokenizer_problem(tokenizer, embedding_rows(model))
    )
    if problem is not None:
        raise refusal(path, problem)


def check_saving(path: str | Path, model: PreTrainedModel) -> None:
    """Raises `ConfigError` for a model with configs that transformers reads and then doesn't save."""
    with TemporaryDirectory() as folder:
        try:
            model.config.save_pretrained(folder)
            if model.can_generate():
                model.generation_config.save_pretrained(folder)
        except (ValueError, TypeError, LookupError, AttributeError, StrictDataclassError) as error:
            said = (
                f"it can be read, but couldn't be saved after training ({in_short(error)}); mend its config.json"
            )
            raise refusal(path, said) from error


def weights_problem(loading: Mapping[str, Any]) -> str | None:
    """Returns which weights transformers would have drawn at random, as they are missing or of another shape."""
    if missing := sorted(loading["missing_keys"]):
        return f"has no weights for {some(missing)}, which would be random; name a whole model of its architecture"
    if mismatched := sorted(loading["mismatched_keys"]):
        name, found, expected = mismatched[0]
        return (
            f"the weights of {name} have the shape {tuple(found)}, where config.json asks for {tuple(expected)} "
            f"({len(mismatched)} such); weights and config.json belong to different models"
        )
    if errors := [*(loading.get("error_msgs") or [])]:
        return f"its weights can't be read: {' '.join(str(errors[0]).split())[:300]}"
    return None


def nonfinite_problem(model: PreTrainedModel) -> str | None:
    """Returns which weights aren't finite numbers."""
    broken = [name for name, weights in model.named_parameters() if not torch.isfinite(weights).all()]
    return (
        f"has weights that are NaN or infinite, in {some(broken)}; use an earlier checkpoint" if broken else None
    )


def stop_problem(model: PreTrainedModel) -> str | None:
    """Returns which stop tokens of a model's generation config aren't tokens' numbers."""
    stop = getattr(model.generation_config, "eos_token_id", None)
    if all(token is None or isinstance(token, int) for token in (stop if isinstance(stop, list) else [stop])):
        return None
    return f"its generation_config.json has eos_token_id={stop!r}; must be a token's number, or a list of such"


def tokenizer_problem(tokenizer: PreTrainedTokenizerBase, rows: int) -> str | None:
    """Returns what is wrong with a tokenizer, by itself and for an embedding of so many rows."""
    if tokenizer.chat_template is None:
        return "its tokenizer has no chat template; add the chat_template.jinja of an instruction-tuned model"
    if tokenizer.eos_token_id is None:
        return "its tokenizer has no eos token; set eos_token in tokenizer_config.json"
    if problem := encoding_problem(tokenizer):
        return problem
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    if beyond:
        return (
            f"its tokenizer has {some(sorted(beyond, key=lambda t: -beyond[t]))} beyond the {rows} rows of "
            f"its embedding; save it again after model.resize_token_embeddings({max(beyond.values()) + 1})"
        )
    return None


def encoding_problem(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Returns how a tokenizer fails to bring a text back; it may change its spaces and its case."""
    token_ids = tokenizer.encode(SENTENCE, add_special_tokens=False)
    back = tokenizer.decode(token_ids) if token_ids else ""
    if letters_of(str(back)) == letters_of(SENTENCE):
        return None
    made = f"the text {back!r}" if token_ids else "no tokens"
    return (
        f"its tokenizer makes {made} of {SENTENCE!r}; copy tokenizer.json and tokenizer_config.json from "
        "the folder that the model comes from"
    )


def letters_of(text: str) -> str:
    """Returns a text without spaces and capitals, as some tokenizers leave it."""
    return "".join(text.lower().split())


def some(names: list[str]) -> str:
    """Lists the first names, and counts the others."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def position_limit(config: PreTrainedConfig) -> int | None:
    """Returns how many tokens a model was made for, None where its config doesn't say; scaled rotations count.

    Rotations of kinds that change with a sequence's length count up to where they change: beyond it, what a token
    computes would depend on whether it was decoded with a cache, and on the other sequences of its batch.
    """
    text = config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len", "max_sequence_length")
    limit = next((value for name in names if isinstance(value := getattr(text, name, None), int)), None)
    if changing := changing_rotations(config):
        return min(filter(None, (rope.get(ORIGINAL) or limit for rope in changing)), default=None)
    rope = getattr(text, "rope_parameters", None) or {}
    if limit is None or not isinstance(rope.get("factor"), int | float):
        return limit
    return max(limit, int(rope["factor"] * (rope.get(ORIGINAL) or limit)))


def changing_rotations(config: PreTrainedConfig) -> list[Mapping[str, Any]]:
    """Returns the parameters of those rotations that change for all of a sequence's tokens when it gets long."""
    found = getattr(config.get_text_config(), "rope_parameters", None) or {}
    by_layer = [value for value in found.values() if isinstance(value, dict)]  # kinds of layers may have their own
    return [rope for rope in by_layer or [found] if rope.get("rope_type") in CHANGING]


def set_positions(path: str | Path, config: PreTrainedConfig, positions: int | None) -> None:
    """Puts `model.positions` into a model's config. Raises `ConfigError` where its rotations rest on its own."""
    if positions is None:
        return
    if changing := changing_rotations(config):
        raise ConfigError(
            f"model.positions={positions}: the rotations of model.path={path} ({changing[0]['rope_type']}) change "
            f"for all tokens of a sequence of more than {position_limit(config)}; must be null"
        )
    config.get_text_config().max_position_embeddings = positions
