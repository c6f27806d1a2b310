"""verl on a CPU, for tests alone: a platform and an engine that verl doesn't have, over gloo in one process."""

import os

os.environ["VERL_PLATFORM"] = "cpu"  # read when verl is imported first

import contextlib
import dataclasses
import functools
import types

import torch
from hydra import compose, initialize_config_dir
from tensordict import TensorDict
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry
from verl.utils import tensordict_utils

# What a CPU can't do as verl does it by default.
ON_A_CPU = """actor_rollout_ref.model.use_remove_padding=False actor_rollout_ref.actor.use_torch_compile=False
+actor_rollout_ref.model.override_config.attn_implementation=eager
actor_rollout_ref.actor.fsdp_config.use_torch_compile=False
actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32""".split()


class Device(types.SimpleNamespace):
    """torch.cpu with what verl asks torch.cuda for."""

    @staticmethod
    def mem_get_info():
        return 1, 1

    @staticmethod
    def get_device_name(*_):
        return "CPU"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(torch.cpu, name) if hasattr(torch.cpu, name) else lambda *_, **__: 0


@PlatformRegistry.register("cpu")
class CpuPlatform(PlatformBase):
    device_name = vendor_name = "cpu"
    device_module = Device()
    communication_backend_name = staticmethod(lambda: "gloo")
    visible_devices_envvar = staticmethod(lambda: "CPU_VISIBLE_DEVICES")
    ray_resource_name = staticmethod(lambda: "CPU")
    ray_noset_envvars = staticmethod(list)
    is_available = staticmethod(lambda: True)
    is_ipc_supported = staticmethod(lambda: False)
    current_device = staticmethod(lambda: "cpu")
    device_count = staticmethod(lambda: 1)
    get_device_capability = staticmethod(lambda device_index=0: (None, None))
    nvtx_range = staticmethod(lambda msg: contextlib.nullcontext())

    def nothing(self, *_, **__):
        return None

    set_device = synchronize = manual_seed = manual_seed_all = set_allocator_settings = nothing
    empty_cache = profiler_start = profiler_stop = cudart = nothing


import klear_lab.engines.verl.register  # noqa: E402, F401 - as verl's processes do, once they have a platform


def make_batch(responses, old_log_probs, flags):
    """Scored responses as verl's trainer hands them to its workers, all of one step."""

    def jagged(rows, dtype):
        return torch.nested.as_nested_tensor(
            [torch.as_tensor(row, dtype=dtype) for row in rows], layout=torch.jagged
        )

    lengths = [len(r.response_ids) for r in responses]
    ids = [[*r.prompt_ids, *r.response_ids] for r in responses]
    ones = jagged([[1] * n for n in lengths], torch.int64)
    return TensorDict(
        {
            "input_ids": jagged(ids, torch.int64),
            "position_ids": jagged([range(len(row)) for row in ids], torch.int64),
            "prompts": jagged([r.prompt_ids for r in responses], torch.int64),
            "responses": jagged([r.response_ids for r in responses], torch.int64),
            "response_mask": ones,
            "loss_mask": ones,
            "old_log_probs": jagged(old_log_probs, torch.float32),
            "advantages": jagged([[r.advantage] * n for r, n in zip(responses, lengths)], torch.float32),
            "returns": jagged([[flag] * n for flag, n in zip(flags, lengths)], torch.float32),
        },
        batch_size=len(responses),
    )


def with_settings(batch, mini_batch_size, temperature=1.0, epochs=1):
    tensordict_utils.assign_non_tensor(
        batch,
        global_batch_size=mini_batch_size,
        mini_batch_size=mini_batch_size,
        epochs=epochs,
        seed=0,
        dataloader_kwargs={"shuffle": False},
        temperature=temperature,
        calculate_entropy=False,
    )
    return batch


def compose_config(folder, *overrides):
    """The configuration that klear_lab wrote into a folder, as verl composes it."""
    with initialize_config_dir(str(folder), version_base=None):
        return compose("config", overrides=[*ON_A_CPU, *overrides])


def make_worker(config, rank=0, store=None, world_size=1):
    """verl's own actor worker, in this process; `store` is where several processes meet."""
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
    from verl.workers.engine_workers import ActorRolloutRefWorker

    if not torch.distributed.is_initialized():
        place = {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        os.environ.update(place, MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
        store = store or torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
        EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")(
            type("CpuEngine", (FSDPEngineWithLMHead,), {})
        )
    worker = ActorRolloutRefWorker(config.actor_rollout_ref, role="actor")
    worker.init_model()
    return worker


def update_in_a_process(rank, folder, meeting, parts, loss):
    """One process of two: updates with its part of the responses; the first writes weights and metrics."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(meeting / "store"), 2)
    worker = make_worker(compose_config(folder), rank, store, world_size=2)
    use_loss(worker, **loss)
    output = worker.update_actor(with_settings(make_batch(*parts[rank]), mini_batch_size=4))
    found = weights(worker)  # of both processes together
    if rank == 0:
        torch.save((found, tensordict_utils.get(output, "metrics")), meeting / "result.pt")
    torch.distributed.destroy_process_group()


def use_loss(worker, **changes):
    """Starts from the first weights again, with other settings of the loss."""
    from verl.workers.utils.losses import ppo_loss

    actor = worker.actor.actor_config
    changed = dataclasses.replace(actor, policy_loss=dataclasses.replace(actor.policy_loss, **changes))
    worker.actor.reset()
    worker.actor.set_loss_fn(functools.partial(ppo_loss, config=changed))


def weights(worker):
    return {name: value.full_tensor() for name, value in worker.actor.engine.module.state_dict().items()}
