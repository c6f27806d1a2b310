"""vLLM behind the sampler's seam: the learner's distribution, log-probabilities and weights, seeds, where it stops.

Shapes: A first tokens, V vocabulary, T response tokens.
"""

import functools
import random
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import chisquare

from klear_lab.config import ConfigError, ModelConfig, SamplerConfig
from klear_lab.policy.log_probs import response_log_probs
from klear_lab.policy.model import load_policy, load_pretrained
from klear_lab.sampling.types import Request, Sampling
from support.architectures import SOUND, save_folder

if find_spec("vllm") is None:
    pytest.skip("vLLM has an environment of its own: make test-vllm", allow_module_level=True)
pytestmark = pytest.mark.vllm

PROMPTS = ["1+2=", "7*5-3+4=", "9-9*9=", "3+4-5*6+7="]
versions = iter(range(1000))


def make_policy(seed=0, heads=2):
    """A float32 policy whose probabilities are far from equal, and which stops at times."""
    policy = load_policy(ModelConfig(name="tiny", layers=2, heads=heads), torch.device("cpu"), seed)
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.mul_(2)
        policy.model.get_input_embeddings().weight[policy.stop_token_ids].mul_(1.5)
    return policy


@pytest.fixture(scope="module")
def policy():
    return make_policy()


@pytest.fixture(scope="module")
def engine(policy):
    """The one engine of all tests, since a start takes long."""
    from klear_lab.sampling.vllm import VllmSampler

    return VllmSampler(policy, SamplerConfig(name="vllm", max_model_len=400))


def load(engine, policy):
    engine.load(lambda: policy.model.named_parameters(), next(versions))


@pytest.fixture
def sample(engine, policy):
    """A function that samples with the weights of `policy`, whatever the test before has loaded."""
    load(engine, policy)
    return functools.partial(sample_with, engine, policy)


def sample_with(engine, policy, requests=None, **changes):
    settings = dict(samples=3, max_tokens=12, temperature=1.0, top_p=1.0, batch_sequences=1) | changes
    return engine.sample(make_requests(policy) if requests is None else requests, Sampling(**settings))


def make_requests(policy, samples=3, prompts=PROMPTS, seed="s"):
    ids = [policy.codec.encode_prompt([{"role": "user", "content": prompt}]) for prompt in prompts]
    generator = random.Random(seed)
    return [Request(prompt_ids, [generator.getrandbits(63) for _ in range(samples)]) for prompt_ids in ids]


def tokens_of(groups):
    return [[response.token_ids for response in group] for group in groups]


def largest_error(policy, requests, groups, temperature):
    """How far the log-probabilities of responses are from the learner's, at most."""
    errors = [0.0]
    for request, group in zip(requests, groups, strict=True):
        for response in group:
            sequence = SimpleNamespace(prompt_ids=request.prompt_ids, response_ids=response.token_ids)
            want_T = response_log_probs(policy, [sequence], temperature)[0].detach()
            assert response.log_prob_T.shape == want_T.shape and response.log_prob_T.dtype == torch.float32
            errors.append((response.log_prob_T - want_T).abs().max().item())
    return max(errors)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.4])
@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_log_probabilities_are_the_learners_with_the_temperature_and_before_top_p(
    sample, policy, temperature, top_p
):
    requests = make_requests(policy, samples=8)
    groups = sample(requests, temperature=temperature, top_p=top_p, max_tokens=30)
    assert largest_error(policy, requests, groups, temperature) < 1e-4


def next_token_probabilities(policy, prefixes, temperature, top_p):
    """What each of the prefixes, of one length, goes on with: a row of probabilities, cut at top-p."""
    with torch.no_grad():
        logits_AV = policy.model(input_ids=torch.tensor(prefixes)).logits[:, -1].double() / temperature
    sorted_AV, order_AV = logits_AV.softmax(-1).sort(-1, descending=True)
    sorted_AV[sorted_AV.cumsum(-1) - sorted_AV >= top_p] = 0
    kept_AV = torch.zeros_like(sorted_AV).scatter(1, order_AV, sorted_AV)
    return kept_AV / kept_AV.sum(-1, keepdim=True)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_first_and_second_tokens_follow_the_learners_probabilities(sample, policy, temperature, top_p):
    samples = 6000
    (request,) = requests = make_requests(policy, samples, PROMPTS[:1])
    first_V = next_token_probabilities(policy, [request.prompt_ids], temperature, top_p)[0]
    vocabulary = range(len(first_V))
    second_AV = next_token_probabilities(
        policy, [[*request.prompt_ids, a] for a in vocabulary], temperature, top_p
    )
    stop = set(policy.stop_token_ids)
    wanted = {(a,): first_V[a].item() for a in vocabulary if a in stop}
    wanted |= {
        (a, b): (first_V[a] * second_AV[a, b]).item() for a in vocabulary if a not in stop for b in vocabulary
    }

    drawn = [tuple(r.token_ids) for r in sample(requests, temperature=temperature, top_p=top_p, max_tokens=2)[0]]
    assert all(wanted[pair] > 0 for pair in drawn)
    common = [pair for pair, probability in wanted.items() if probability * samples >= 5]
    counts = [drawn.count(pair) for pair in common]
    expected = [wanted[pair] * samples for pair in common]
    assert len(common) > 50
    rest = samples - sum(expected)
    assert rest > 5
    assert chisquare([*counts, samples - sum(counts)], [*expected, rest]).pvalue > 1e-3


def test_greedy_responses_take_the_likeliest_tokens_with_their_log_probabilities(sample, policy):
    requests = make_requests(policy, samples=1)
    groups = sample(requests, temperature=0.0, top_p=0.95)
    assert tokens_of(groups) == tokens_of(sample(requests, top_p=0.0))
    assert largest_error(policy, requests, groups, 1.0) < 1e-4
    for request, (response,) in zip(requests, groups, strict=True):
        ids = torch.tensor([request.prompt_ids])
        want = policy.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )[0, ids.shape[1] :].tolist()
        assert response.token_ids == want


def test_new_weights_are_seen_and_forget_the_cached_prompts(engine, policy):
    other = make_policy(seed=1)
    prompts = ["1+2=" * 75]  # longer than the blocks in which vLLM keeps what prompts have become
    requests = make_requests(policy, samples=2, prompts=prompts)
    for weights_of in (policy, other, policy):
        load(engine, weights_of)
        for _ in range(2):  # the second time from the cache
            groups = sample_with(engine, policy, requests, max_tokens=8)
            assert largest_error(weights_of, requests, groups, 1.0) < 1e-4


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_process_with_other_threads_than_at_the_start_gets_the_same_log_probabilities(engine, policy, threads):
    requests = make_requests(policy, samples=6)  # some end early: batches of all sizes
    torch.set_num_threads(threads)
    for weights_of in (make_policy(seed=1), policy):
        load(engine, weights_of)
        groups = sample_with(engine, weights_of, requests, max_tokens=20)
        assert largest_error(weights_of, requests, groups, 1.0) < 1e-4
        assert torch.get_num_threads() == threads


def test_weights_of_a_known_version_are_not_read(engine, policy):
    version = next(versions)
    engine.load(lambda: policy.model.named_parameters(), version)
    before = sample_with(engine, policy)
    engine.load(lambda: pytest.fail("read again"), version)
    assert tokens_of(sample_with(engine, policy)) == tokens_of(before)


def test_weights_that_lack_a_parameter_are_refused(engine, policy):
    (first, _), *others = policy.model.named_parameters()
    with pytest.raises(ValueError, match=first):
        engine.load(lambda: others, next(versions))


def test_responses_end_at_a_stop_token_or_the_limit(sample, policy):
    stop = set(policy.stop_token_ids)
    groups = sample(make_requests(policy, samples=50), max_tokens=40)
    responses = [response for group in groups for response in group]
    assert {r.truncated for r in responses} == {True, False}
    for response in responses:
        assert response.truncated == (response.token_ids[-1] not in stop)
        assert not stop & set(response.token_ids[:-1])
        assert not response.truncated or len(response.token_ids) == 40


def test_a_seed_gives_the_same_response_in_any_company_and_order(sample, policy):
    requests = make_requests(policy, samples=4)
    wanted = tokens_of(sample(requests))
    assert tokens_of(sample(requests)) == wanted
    assert tokens_of(sample(requests[::-1])) == wanted[::-1]
    assert [tokens_of(sample([request]))[0] for request in requests] == wanted
    backwards = [Request(r.prompt_ids, r.seeds[::-1]) for r in requests]
    assert tokens_of(sample(backwards)) == [group[::-1] for group in wanted]


def test_other_seeds_give_other_responses(sample, policy):
    ids = make_requests(policy)[0].prompt_ids
    seeds = [0, 1, 2, 1 << 33, 1 << 62, 2**63 - 1]  # some differ in their upper half alone
    (group,) = sample([Request(ids, seeds)])
    assert len({tuple(response.token_ids) for response in group}) == len(seeds)


def test_more_prompts_than_vllm_reads_at_once_change_no_response(sample, policy):
    requests = make_requests(policy, samples=1, prompts=[f"{i:03}" * 30 for i in range(120)])
    assert sum(len(request.prompt_ids) for request in requests) > 10_000
    groups = sample(requests, max_tokens=4)
    assert largest_error(policy, requests, groups, 1.0) < 1e-4
    assert tokens_of(sample(requests[-5:], max_tokens=4)) == tokens_of(groups[-5:])


def test_nothing_asked_for_is_nothing_drawn(sample, policy):
    assert sample([]) == []
    assert sample([Request([5, 6], [])]) == [[]]


def test_what_vllm_would_change_without_a_word_is_refused(sample, policy):
    with pytest.raises(ConfigError, match=r"sampler\.max_model_len=400: .*needs 442"):
        sample([Request([5] * 42, [1])], max_tokens=400)
    with pytest.raises(ConfigError, match=r"temperature=0\.001"):
        sample(temperature=0.001)


def test_the_process_keeps_its_number_of_threads(engine):
    torch.set_num_threads(2)
    assert torch.get_num_threads() == 2


def test_a_sampler_that_slept_goes_on(sample, engine):
    before = tokens_of(sample())
    engine.sleep()
    engine.sleep()
    assert tokens_of(sample()) == before


# From here on tests start engines of their own, and a process has one at a time.


def test_a_model_that_vllm_cannot_run_is_refused_with_the_key_to_change(engine):
    from klear_lab.sampling.vllm import VllmSampler

    with pytest.raises(ConfigError, match=r"model\.heads"):
        VllmSampler(make_policy(heads=8), SamplerConfig(name="vllm"))
    with pytest.raises(ConfigError, match=r"change sampler\.max_model_len") as error:
        VllmSampler(make_policy(), SamplerConfig(name="vllm", max_model_len=10_000))
    assert "\n" not in str(error.value)


def test_another_engine_may_follow_one_that_was_closed(policy):
    from klear_lab.sampling.vllm import VllmSampler

    for seed in (3, 4):  # as many threads
        torch.set_num_threads(seed)
        other = make_policy(seed)
        sampler = VllmSampler(other, SamplerConfig(name="vllm", max_model_len=64))
        assert torch.get_num_threads() == seed
        requests = make_requests(policy)
        assert largest_error(other, requests, sample_with(sampler, policy), 1.0) < 1e-4
        sampler.close()


def family(folder, kind, **settings):
    """A policy of an architecture, with heads that vLLM's attention can do on a CPU."""
    heads = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    save_folder(folder, kind, **(SOUND[kind] | heads))
    return load_pretrained(folder, ModelConfig(name="path", path=str(folder), **settings), torch.device("cpu"))


@pytest.mark.parametrize(("kind", "settings"), [("llama", {"lora_rank": 4}), ("qwen2", {})])
def test_other_architectures_and_adapters_arrive_merged(tmp_path, kind, settings):
    from klear_lab.sampling.vllm import VllmSampler

    policy = family(tmp_path / "model", kind, **settings)
    sampler = VllmSampler(policy, SamplerConfig(name="vllm", max_model_len=64))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    sampler.load(policy.weights, 1)
    requests = make_requests(policy)
    assert largest_error(policy, requests, sample_with(sampler, policy), 1.0) < 1e-4
    sampler.close()


def test_a_model_that_vllm_cannot_load_is_refused_and_leaves_nothing_behind(tmp_path, policy):
    """On a CPU vLLM can't take new weights into a mixture of experts."""
    from klear_lab.sampling.vllm import VllmSampler

    with pytest.raises(ConfigError, match="sampler=vllm: vLLM can't run this model here"):
        VllmSampler(family(tmp_path / "model", "qwen3_moe"), SamplerConfig(name="vllm", max_model_len=64))
    after = VllmSampler(policy, SamplerConfig(name="vllm", max_model_len=64))
    requests = make_requests(policy)
    assert largest_error(policy, requests, sample_with(after, policy), 1.0) < 1e-4
    after.close()
