"""Counts the bytes of tensors while code runs, from an operation that makes one to the last reference to it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Counted:
    """Holds a storage that an operation made; `cast` from a weight, as autocast does."""

    alive: StorageWeakRef
    bytes: int
    cast: bool


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make within, and the most that live at once.

    `known` are tensors that were there before and aren't counted: weights and gradients.
    """

    def __init__(self, known: list[Tensor]) -> None:
        """Starts at zero."""
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.counted: dict[int, Counted] = {}
        self.bound = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, and counts what it made."""
        made = function(*args, **(kwargs or {}))
        cast = function is torch.ops.aten._to_copy.default and args[0].untyped_storage()._cdata in self.known
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.count(tensor, cast)
        return made

    def count(self, tensor: Tensor, cast: bool) -> None:
        """Counts a tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        key, before = storage._cdata, self.counted.get(storage._cdata)
        if key in self.known or (before is not None and not before.alive.expired()):
            return
        self.counted[key] = Counted(StorageWeakRef(storage), storage.nbytes(), cast)
        self.bound += storage.nbytes()
        if self.bound > self.peak:  # some of them may have ended, and looking for them takes time
            self.look()

    def look(self) -> tuple[int, int]:
        """Returns the bytes that live now, and how many of them are cast weights."""
        self.counted = {key: one for key, one in self.counted.items() if not one.alive.expired()}
        self.bound = sum(one.bytes for one in self.counted.values())
        self.peak = max(self.peak, self.bound)
        return self.bound, sum(one.bytes for one in self.counted.values() if one.cast)
