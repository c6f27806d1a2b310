"""Sampling with vLLM: an engine in this process that takes the learner's weights over, and its random numbers.

Its distribution is that of the transformers sampler, but a seed gives another response there. The engine starts
without a weight on disk: from the model's config, then through `load`'s own path. Prompts and responses are token
ids, so vLLM needs no tokenizer.

Shapes: B sequences in the batch, T response tokens, V vocabulary.
"""

import copy
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from klear_lab.config import ConfigError, SamplerConfig
from klear_lab.policy.model import Policy
from klear_lab.sampling.types import Request, Response, Sampling, Weights

# vLLM reads these while it is imported and started. In this process, so that weights need no copy on their way.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
# Its warnings are about what is chosen here; the cache's GiB are those on a CPU. The environment's own values win.
for variable, value in {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}.items():
    os.environ.setdefault(variable, value)

from vllm import LLM, CompletionOutput, SamplingParams, TokensPrompt  # noqa: E402
from vllm.logprobs import FlatLogprobs  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402
from vllm.v1.sample.logits_processor import LogitsProcessor  # noqa: E402

COLDEST = 0.01  # vLLM raises lower temperatures to this one, apart from 0
KEYS_BY_REASON = {  # words of vLLM's reasons, the first that fits: what to change
    "head_dim": "model.heads or model.hidden_size",
    "head size": "model.heads or model.hidden_size",
    "VLLM_CPU_KVCACHE_SPACE": "VLLM_CPU_KVCACHE_SPACE, the cache's GiB",
    "memory": "sampler.gpu_memory_utilization, sampler.max_model_len or sampler.max_num_seqs",
    "max_model_len": "sampler.max_model_len",
}


class VllmSampler:
    """Draws responses with vLLM. `close` ends the engine; without it, it lives as long as the process."""

    def __init__(self, policy: Policy, settings: SamplerConfig) -> None:
        """Starts an engine for the policy's model, with its weights, and draws a first token.

        Raises `ConfigError` where vLLM can't run this model on the policy's device.
        """
        self.stop_token_ids = policy.stop_token_ids
        self.names = {name for name, _ in policy.weights()}
        self.tied: dict[str, str] = policy.model.all_tied_weights_keys  # a second name of a parameter: its first
        self.version: int | None = None
        self.asleep = False
        try:
            with threads_of_first_use():
                self.llm = start_engine(policy, settings)
            self.take_over(policy.weights())
            self.sample([Request(self.stop_token_ids[:1], [0])], Sampling(1, 1, 1.0, 1.0, 1))
        except (ValueError, RuntimeError, AssertionError, ImportError) as error:
            if hasattr(self, "llm"):  # a half-started engine would falsify what the next one in this process draws
                self.close()
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(why_not(error)) from error

    def load(self, weights: Weights, version: int) -> None:
        """Takes over weights; those of a `version` that it has already cost nothing."""
        if version == self.version:
            return
        self.wake()
        self.version = None
        self.take_over(weights())
        self.version = version

    def take_over(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Puts weights into the engine and forgets the prompts that older ones have read.

        Raises `ValueError` unless each parameter of the model is among them: vLLM would keep its old value.
        """
        given: set[str] = set()

        def by_all_names() -> Iterator[tuple[str, Tensor]]:
            for name, weight in weights:
                # On a CPU vLLM has tied weights twice, in the order of memory that each use likes best.
                for known_as in {name, *(second for second, first in self.tied.items() if first == name)} - given:
                    given.add(known_as)
                    yield known_as, weight.detach()

        with threads_of_first_use():
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": by_all_names()})
        if missing := sorted(self.names - given):
            raise ValueError(f"weights without {', '.join(missing)}, which the model has")
        self.llm.reset_prefix_cache()

    def sample(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Response]]:
        """Returns a list of responses for each request, in the order of requests and seeds.

        Raises `ConfigError` for prompts and responses that are too long for the engine, and for temperatures
        that vLLM doesn't draw with.
        """
        self.check(requests, sampling)
        self.wake()
        prompts = [TokensPrompt(prompt_token_ids=r.prompt_ids) for r in requests for _ in r.seeds]
        params = [self.sampling_params(sampling, seed) for r in requests for seed in r.seeds]
        with threads_of_first_use():
            outputs = self.llm.generate(prompts, params, use_tqdm=False) if prompts else []
        drawn = (as_response(output.outputs[0]) for output in outputs)
        return [[next(drawn) for _ in r.seeds] for r in requests]

    def sampling_params(self, sampling: Sampling, seed: int) -> SamplingParams:
        """Returns vLLM's settings for one response.

        A greedy draw is one from the likeliest token alone: vLLM's own has no log-probability.
        """
        greedy = sampling.temperature == 0 or sampling.top_p == 0
        return SamplingParams(
            seed=mixed(seed),
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature or 1.0,
            top_p=1.0 if greedy else sampling.top_p,
            top_k=1 if greedy else -1,
            stop_token_ids=self.stop_token_ids,
            ignore_eos=True,  # all that ends a response is among the stop tokens
            logprobs=0,  # the drawn token's
            flat_logprobs=True,
            detokenize=False,
        )

    def check(self, requests: Sequence[Request], sampling: Sampling) -> None:
        """Raises `ConfigError` for what vLLM would cut short or change without a word."""
        limit = self.llm.model_config.max_model_len
        longest = max((len(request.prompt_ids) for request in requests), default=0)
        if longest + sampling.max_tokens > limit:
            raise ConfigError(
                f"sampler.max_model_len={limit}: a prompt of {longest} tokens with a response of up to "
                f"{sampling.max_tokens} needs {longest + sampling.max_tokens}"
            )
        if 0 < sampling.temperature < COLDEST:
            raise ConfigError(
                f"temperature={sampling.temperature}: must be 0 or at least {COLDEST} with sampler=vllm"
            )

    def sleep(self) -> None:
        """Moves the weights into the CPU's memory and gives the GPU's back until the next `load` or `sample`.

        On a CPU there is nothing to give back.
        """
        if current_platform.is_sleep_mode_available() and not self.asleep:
            self.llm.sleep(level=1)
            self.asleep = True

    def wake(self) -> None:
        """Takes the memory back that `sleep` gave away."""
        if self.asleep:
            self.llm.wake_up()
            self.asleep = False

    def close(self) -> None:
        """Ends the engine, so that another one may have its memory."""
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm


class Normalise(LogitsProcessor):
    """Makes log-probabilities of the logits, after the temperature and before top-p.

    vLLM's own log-probabilities are from before the temperature or from after top-p. Its processed logits are
    those that it draws from; with this, a drawn token's is the log-probability that `Response` has.
    """

    def __init__(self, vllm_config: object, device: torch.device, is_pin_memory: bool) -> None:
        """Takes what vLLM hands to each of its processors, and needs none of it."""

    def is_argmax_invariant(self) -> bool:
        """Tells vLLM to apply this after the temperature."""
        return True

    def update_state(self, batch_update: object) -> None:
        """Ignores who is in the batch."""

    def apply(self, logits_BV: Tensor) -> Tensor:
        """Returns the normalised logits, in the memory of the others."""
        return logits_BV.sub_(logits_BV.logsumexp(-1, keepdim=True))


@functools.cache
def first_threads() -> int:
    """Returns how many threads PyTorch had when vLLM was first used in this process."""
    return torch.get_num_threads()


@contextmanager
def threads_of_first_use() -> Iterator[None]:
    """Gives PyTorch meanwhile the number of threads with which vLLM was first used in this process.

    On a CPU, matrix products are kept for the whole process, cut for the threads of their first use. With another
    number of threads they return wrong values, without an error.
    """
    before, set_num_threads = torch.get_num_threads(), torch.set_num_threads
    set_num_threads(first_threads())
    try:
        yield
    finally:
        torch.set_num_threads = set_num_threads  # a start leaves a function that does nothing
        set_num_threads(before)


def start_engine(policy: Policy, settings: SamplerConfig) -> LLM:
    """Starts an engine for the policy's model, with weights that mean nothing yet."""
    if policy.device.type != current_platform.device_type:
        raise ConfigError(
            f"sampler=vllm: the installed vLLM runs on {current_platform.device_type} and the model on "
            f"{policy.device.type}; set device={current_platform.device_type}, or sampler=transformers"
        )
    on_cpu = policy.device.type == "cpu"
    config = copy.deepcopy(policy.model.config)
    config.architectures = [type(policy.model).__name__]
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return LLM(
            model=folder,
            skip_tokenizer_init=True,
            load_format="dummy",
            dtype="float32" if policy.autocast_dtype is None else "bfloat16",
            max_model_len=settings.max_model_len,
            max_num_seqs=settings.max_num_seqs,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            enforce_eager=on_cpu,
            enable_sleep_mode=current_platform.is_sleep_mode_available(),
            # A prompt read in parts draws after each part, and vLLM rewinds the generator; on a CPU that fails.
            enable_chunked_prefill=not on_cpu,
            enable_prefix_caching=True,  # the samples of a prompt share what it makes of it
            generation_config="vllm",
            logits_processors=[Normalise],
            logprobs_mode="processed_logits",
        )


def as_response(output: CompletionOutput) -> Response:
    """Makes a response of vLLM's output, whose tokens end in the stop token if there was one."""
    assert isinstance(output.logprobs, FlatLogprobs)
    log_prob_T = torch.tensor(output.logprobs.logprobs, dtype=torch.float32)
    return Response(list(output.token_ids), output.finish_reason == "length", log_prob_T)


def mixed(seed: int) -> int:
    """Returns a seed whose lower half depends on all of `seed`: on a CPU, PyTorch's generator reads no more."""
    return int.from_bytes(hashlib.sha256(seed.to_bytes(8, "big")).digest()[:8], "big") >> 1


def why_not(error: Exception) -> str:
    """Says in one line why vLLM doesn't run, and what to change."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    prefix = "Value error, "  # where pydantic puts the reason, below a line of its own
    reason = next((line for line in lines if line.startswith(prefix)), lines[0])
    reason = reason.removeprefix(prefix).partition(" [type=")[0].rstrip(".")
    keys = next((f"change {keys}, or " for word, keys in KEYS_BY_REASON.items() if word in reason), "")
    return f"sampler=vllm: vLLM can't run this model here: {reason}; {keys}set sampler=transformers"
