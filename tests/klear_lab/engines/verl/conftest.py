"""A dry run of engine=verl: what it writes into a run folder; and verl's platform, which it takes once a process."""

import pytest

from klear_lab.engines.verl.files import has_verl

if has_verl():
    import support.verl_cpu  # noqa: F401

SMALL = """engine=verl dry_run=true engine.gpus_per_node=1 data.sft_rows=60 data.rl_rows=8 data.benchmark_rows=2
model.hidden_size=16 model.layers=2 rl.mini_batch_prompts=2 rl.micro_batch_sequences=4 sft.length_curriculum=0""".split()


@pytest.fixture
def dry_run(run):
    """A function from overrides to the folder that verl would be started with."""
    return lambda *overrides: run(*SMALL, *overrides).path / "verl"
