"""How SFT data grow: seconds and memory of every step from a file of rows to the first SFT step, at several sizes.

    python benchmarks/data_sizes.py [--rows 10000 100000] [--kilobytes 3 30] [--folder DIR] [--tokenize-at-most GB]
        [--word-tokens]

Rows have prompts of 100 words, with copies and words of benchmarks as data.py plants them, and responses of
paragraphs drawn at random from 2,000. The tokenizer is a byte-pair one of 32,000 tokens, learned from them, or
with --word-tokens one of whole words, which is faster; the model has one layer. Each size takes three
processes: one prepares (read to write), one tokenizes, and one starts a run that finds both done, up to its
first SFT step. Memory is the highest resident set, mapped pages too, above that after all imports; a worker
that tokenizes has its own. The last lines fit time and memory as powers of rows. DIR needs room for the rows
three times and for their tokens, and is removed at the end.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from data import BENCHMARK, VOCABULARY, WEIGHTS, Rows
from hydra import compose, initialize_config_dir

CONF = Path(__file__).parents[1] / "conf"
PARAGRAPHS = [
    " ".join(random.Random(f"paragraph{i}").choices(VOCABULARY, cum_weights=WEIGHTS, k=160)) for i in range(2000)
]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SOURCE = "rows.jsonl"


def write_source(path: Path, rows: int, kilobytes: int) -> None:
    """Writes the file of rows."""
    with path.open("w") as file:
        for i, prompt in enumerate(Rows(rows, 100)):
            drawn = random.Random(f"response{i}").choices(PARAGRAPHS, k=30)
            response = f"<think>{i} " + "\n".join(drawn * (1 + kilobytes // 30))
            response = response[: 1000 * kilobytes - len(prompt) - 100] + f"</think>{i}"
            about = {"source": f"s{i % 10}", "teacher": "t", "difficulty": i % 7 / 6, "correct": True}
            file.write(json.dumps({"prompt": prompt, "response": response, **about}) + "\n")


def write_model(folder: Path, word_tokens: bool) -> None:
    """Writes a model of one layer, with a tokenizer of words or one of byte pairs that knows the words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    if word_tokens:
        known = {word: i for i, word in enumerate([*special, "<unk>", *dict.fromkeys(VOCABULARY)])}
        tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return save_model(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>"), folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=32_000, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(PARAGRAPHS, trainer)
    return save_model(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>"), folder)


def save_model(tokenizer: Any, folder: Path) -> None:
    """Writes a model of one layer with this tokenizer."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer.chat_template = CHATML
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32_768}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **sizes, **heads)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_benchmark(path: Path) -> None:
    """Writes the benchmark whose words some prompts have."""
    about = {"data_source": "chain_exact", "ability": "math"}
    rows = ({"prompt": prompt, "reward_model": {"ground_truth": "1", "style": "rule"}} for prompt in BENCHMARK)
    path.write_text("".join(json.dumps({**row, **about}) + "\n" for row in rows))


def parsed_config(folder: Path) -> tuple[Any, Any]:
    """Returns the config of a run on the rows, composed and parsed; it filters by difficulty."""
    from klear_lab.config import register
    from klear_lab.validation import parse

    register()
    settings = [
        *("data_source=file", f"data_source.sft.files=[{folder / SOURCE}]", "data.sft_rows=null", "rl.steps=0"),
        f"+data_source.benchmarks.made.files=[{folder / 'benchmark.jsonl'}]",
        *("scale=smoke", "model=path", f"model.path={folder / 'model'}", "sft.max_tokens=32768", "logger=none"),
        *("data.benchmark_rows=null", "difficulty_filter=hard", "progress=off"),
        *("sft.batch_sequences=64", "sft.length_curriculum=0", f"runs_dir={folder / 'runs'}"),
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=settings)
    return composed, parse(composed)


def status(field: str) -> float:
    """Returns a size from the process's status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


@contextmanager
def measured(step: str, baseline: float) -> Iterator[None]:
    """Prints the seconds, the seconds of user code (finished children too) and the peak of memory."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    started, before = time.perf_counter(), os.times()
    yield
    seconds, after = time.perf_counter() - started, os.times()
    user = after.user + after.children_user - before.user - before.children_user
    found = {"step": step, "seconds": seconds, "user": user, "mib": status("VmHWM") - baseline}
    print(json.dumps(found), flush=True)


def measure(module: Any, name: str, step: str, baseline: float) -> None:
    """Makes a function of a module measure itself."""
    real = getattr(module, name)

    def measuring(*arguments: Any) -> Any:
        with measured(step, baseline):
            return real(*arguments)

    setattr(module, name, measuring)


def prepare(folder: Path) -> None:
    """Prepares the data into the stage cache."""
    from klear_lab.data import prepare, stage
    from klear_lab.storage.interruption import Stop

    _, config = parsed_config(folder)
    baseline, drop = status("VmRSS"), prepare.Pipeline.drop
    measure(stage, "source_fingerprint", "hash", baseline)
    measure(prepare, "load_source", "read", baseline)
    measure(prepare, "drop_repeated", "deduplicate", baseline)
    measure(prepare, "drop_contaminated", "decontaminate", baseline)
    measure(stage, "save_prepared", "write", baseline)

    def filtering(pipeline: Any, step: str, reasons: Any) -> None:
        if not step.startswith("difficulty_filter"):
            return drop(pipeline, step, reasons)
        with measured("filter", baseline):
            return drop(pipeline, step, reasons)

    prepare.Pipeline.drop = filtering  # type: ignore[method-assign]
    stage.prepare_data_stage(config, Stop())


def start(folder: Path) -> None:
    """Starts a run and ends it at its first SFT step, for which it draws 64 rows."""
    from klear_lab import pipeline, sft, stages  # noqa: F401  imported before memory is measured

    composed, config = parsed_config(folder)
    baseline = status("VmRSS")
    measure(sft, "tokenized", "tokenize", baseline)
    starting = measured("start", baseline)

    def first_step(state: Any, examples: Any, settings: Any) -> None:
        starting.__exit__(None, None, None)
        with measured("draw 64 rows", baseline):
            batch = sft.choose_batch(examples, settings, 1)
        assert len(batch) == 64
        os._exit(0)

    sft.train_step = first_step
    starting.__enter__()
    pipeline.run_pipeline(config, composed)


def run_child(part: str, folder: Path, size: str) -> dict[str, dict[str, Any]]:
    """Runs a part in a process of its own; returns what it measured by step, and prints it as a table."""
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
    found = {}
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    for line in (json.loads(line) for line in lines if line.startswith("{")):
        if line["step"] not in found:  # hashes are remembered the second time
            found[line["step"]] = line
            numbers = f"{line['seconds']:.1f} | {line['user']:.1f} | {line['mib']:.0f}"
            print(f"| {part} | {line['step']} | {size} | {numbers} |", flush=True)
    return found


def measure_size(folder: Path, rows: int, kilobytes: int, tokenizes: bool) -> dict[str, dict[str, Any]]:
    """Returns what every step took at one size."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    write_source(folder / SOURCE, rows, kilobytes)
    size = f"{rows:,} of {kilobytes} KB"
    found = run_child("prepare", folder, size)
    if tokenizes:
        found["tokenize"] = run_child("start", folder, size)["tokenize"]
        found["second start"] = run_child("start", folder, size)["start"]
    return found


def main() -> None:
    """Prints a table row for each size and step, and the exponents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kilobytes", type=int, nargs="+", default=[3, 30])
    parser.add_argument("--tokenize-at-most", type=float, default=4.0, metavar="GB")
    parser.add_argument("--word-tokens", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("data_sizes"))
    parser.add_argument("--part", choices=("prepare", "start"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder.absolute()
    if options.part:
        {"prepare": prepare, "start": start}[options.part](folder)
        return
    folder.mkdir(parents=True)
    write_model(folder / "model", options.word_tokens)
    write_benchmark(folder / "benchmark.jsonl")
    for kilobytes in options.kilobytes:
        sizes: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for rows in options.rows:
            tokenizes = rows * kilobytes <= 1e6 * options.tokenize_at_most
            for step, found in measure_size(folder, rows, kilobytes, tokenizes).items():
                sizes.setdefault(step, []).append((rows, found))
        for step, line in sizes.items():
            if len(line) > 1:
                print(f"{step}, {kilobytes} KB: {exponents(line)}", flush=True)
    shutil.rmtree(folder)


def exponents(line: list[tuple[int, dict[str, Any]]]) -> str:
    """Writes how user seconds and memory grow with the rows, as powers."""
    rows = np.log([rows for rows, _ in line])
    fits = {}
    for key in ("user", "mib"):
        values = np.log([max(found[key], 0.01) for _, found in line])
        fits[key] = np.polyfit(rows, values, 1)[0]
    return f"user seconds grow as rows^{fits['user']:.2f}, memory as rows^{fits['mib']:.2f}"


if __name__ == "__main__":
    main()
