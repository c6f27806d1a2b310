"""Responses to a few prompts, as tests of the sampler draw them."""

from klear_lab.sampling.draws import make_requests
from klear_lab.sampling.transformers import TransformersSampler
from klear_lab.sampling.types import Sampling

PROMPTS = ["1+2=", "7*5-3+4=", "9-9*9=", "3+4-5*6+7="]


def requests_for(policy, prompts=PROMPTS, samples=3, name="s"):
    return make_requests(
        [policy.codec.encode_prompt([{"role": "user", "content": p}]) for p in prompts], samples, name
    )


def sample(policy, requests=None, read_every=None, **changes):
    settings = dict(samples=3, max_tokens=12, temperature=1.0, top_p=1.0, batch_sequences=100) | changes
    requests = requests_for(policy) if requests is None else requests
    return TransformersSampler(policy, read_every).sample(requests, Sampling(**settings))


def tokens(groups):
    return [[response.token_ids for response in group] for group in groups]


def flat(groups):
    return [response for group in groups for response in group]
