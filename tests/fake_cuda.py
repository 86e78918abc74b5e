"""A CUDA device without a GPU: torch's FakeTensorMode checks devices and shapes, and what the host waits for is listed.

Tensors on "cuda" are fake: they have a shape, a dtype and a device, but no numbers. Tensors on the CPU are real. Where
the host reads from the device, it gets made-up numbers.
"""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ATEN = torch.ops.aten
COPIES = (ATEN._to_copy.default, ATEN.copy_.default)
INDEXED = (ATEN.index.Tensor, ATEN.index_put_.default, ATEN.index_put.default)
#: Operations whose result has a size that only the device knows, or that give the host a number.
UNKNOWN = ("nonzero", "masked_select", "unique", "_unique", "unique_consecutive", "repeat_interleave", "equal", "item")
OWN = ("tests/fake_cuda.py", "tests/fake_streams.py", "/torch/")


class Wait(NamedTuple):
    """The host waits for the device."""

    operation: str
    line: str  #: the line of the project that asks for it


class FakeCuda(TorchDispatchMode):
    """The dispatch mode above torch's FakeTensorMode. `waits` lists what the host has waited for.

    numbers: what the host reads, by dtype. A number in float64 is large and one in float32 is small, so that masses of
    thresholds suffice and atoms count as unit vectors; a whole number is -1, "none", and a truth value true.
    """

    numbers: dict[torch.dtype, Any] = {torch.float64: 1e6, torch.float32: 1e-5, torch.int64: -1, torch.bool: True}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.peak = 0  #: largest number of bytes that tensors held on the device at once
        self.bytes = 0  #: bytes that tensors hold on the device now
        self._storages: dict[int, int] = {}  # number of tensors by storage
        self._pinned: set[int] = set()  # addresses of the memory of page-locked tensors
        self._held: list[Tensor] = []  # so that none of these addresses is used again

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = self._run(func, args, kwargs or {})
        for tensor in tree_leaves(made):
            if isinstance(tensor, FakeTensor) and tensor.device.type == "cuda":
                self._count(tensor)
        return made

    def _count(self, tensor: FakeTensor) -> None:
        """Count the bytes of a new tensor's storage until the last tensor of this storage is gone."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._storages:
            self._storages[key] = 0
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
        self._storages[key] += 1
        weakref.finalize(tensor, self._uncount, key, size)

    def _uncount(self, key: int, size: int) -> None:
        self._storages[key] -= 1
        if not self._storages[key]:
            del self._storages[key]
            self.bytes -= size

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        leaves = tree_leaves((args, kwargs))
        name = func.overloadpacket.__name__
        if name == "_pin_memory":
            return self._lock(args[0])
        if not any(isinstance(leaf, FakeTensor) or _is_cuda(leaf) for leaf in leaves):
            locked = kwargs.pop("pin_memory", False)
            with unset_fake_temporarily():
                made = func(*args, **kwargs)
            return self._lock(made) if locked else made
        if name == "_local_scalar_dense":
            self._waited(name)
            return self.numbers[args[0].dtype]
        if func in COPIES:
            return self._copied(func, args, kwargs)
        if name in UNKNOWN:
            self._waited(name)
            assert name == "nonzero", f"the played device has no answer for {name}"
            return torch.zeros(max(1, args[0].numel() // 2), args[0].ndim, dtype=torch.int64, device="cuda")
        if func in INDEXED:
            args = (args[0], [self._place(place) for place in args[1]], *args[2:])
        return func(*args, **kwargs)

    def _lock(self, tensor: Tensor) -> Tensor:
        """Note that the memory of a tensor on the CPU, and so of its views, is page-locked."""
        self._pinned.add(tensor.untyped_storage().data_ptr())
        self._held.append(tensor)
        return tensor

    def _is_locked(self, tensor: Tensor) -> bool:
        return not isinstance(tensor, FakeTensor) and tensor.untyped_storage().data_ptr() in self._pinned

    def _copied(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A copy between the devices: to the CPU it gives real ones; from a pinned source alone no wait."""
        to, source = (args[0], args[1]) if func is ATEN.copy_.default else (None, args[0])
        place = to.device if to is not None else torch.device(kwargs.get("device") or source.device)
        if place.type == source.device.type:
            return func(*args, **kwargs)
        blocks = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        if place.type == "cpu" or blocks or not self._is_locked(source):
            self._waited(f"copy from {source.device.type} to {place.type}")
        if place.type == "cuda":
            return func(*args, **kwargs)
        with unset_fake_temporarily():
            ones = torch.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)
            return ones if to is None else to.copy_(ones)

    def _place(self, place: Tensor | None) -> Tensor | None:
        """An index of an indexing operation; a mask is first made into numbers, as the operation itself does it."""
        if place is None:
            return None
        if place.device.type == "cpu":
            self._waited("indexing by a tensor on the CPU")
        if place.dtype in (torch.bool, torch.uint8):
            self._waited("indexing by a mask")
            return torch.zeros(max(1, place.numel() // 2), dtype=torch.int64, device="cuda")
        return place

    def _waited(self, operation: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if not any(own in frame.filename for own in OWN)]
        self.waits.append(Wait(operation, f"{frames[-1].name}: {frames[-1].line}"))

    @contextmanager
    def no_waits(self) -> Iterator[None]:
        """Fail if the host waits for the device within this context."""
        before = len(self.waits)
        yield
        found = self.waits[before:]
        assert not found, "\n".join(f"{wait.operation}: {wait.line}" for wait in found)


def _is_cuda(leaf: object) -> bool:
    return isinstance(leaf, torch.device) and leaf.type == "cuda"


def backward(loss: Tensor) -> None:
    """`Tensor.backward` without torch's engine, which needs a driver for nodes on a GPU.

    Calls each node's own formula, newest first, and adds what reaches a leaf to its grad. Checks that a gradient has
    the device and dtype of what it is the gradient of.
    """
    waiting: dict[Any, list[Tensor | None]] = {loss.grad_fn: [torch.ones_like(loss)]}
    while waiting:
        node = max(waiting, key=lambda node: node._sequence_nr())
        gradients = waiting.pop(node)
        if hasattr(node, "variable"):
            leaf, (gradient,) = node.variable, gradients
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
            continue
        if hasattr(node, "apply"):  # of a torch.autograd.Function in Python
            filled = [
                torch.zeros(meta.shape, dtype=meta.dtype, device=meta.device) if each is None else each
                for each, meta in zip(gradients, node._input_metadata, strict=True)
            ]
            found = node.apply(*filled)
        else:
            found = node(*gradients)
        found = found if isinstance(found, tuple) else (found,)
        for (following, place), gradient in zip(node.next_functions, found, strict=True):
            if following is None or gradient is None:
                continue
            of = following._input_metadata[place]
            assert (gradient.device, gradient.dtype) == (of.device, of.dtype), f"{node}: {gradient} for {of}"
            gradient = gradient.sum_to_size(of.shape)
            slots = waiting.setdefault(following, [None] * len(following._input_metadata))
            slots[place] = gradient if slots[place] is None else slots[place] + gradient


def converted(module: torch.nn.Module, convert: Any, recurse: bool = True) -> torch.nn.Module:
    """`Module._apply` that puts new parameters in the place of the old ones.

    torch swaps the contents of fake tensors, which is not possible while their bytes are counted.
    """
    for child in module.children() if recurse else ():
        converted(child, convert)
    for name, weight in module._parameters.items():
        if weight is not None:
            module._parameters[name] = torch.nn.Parameter(convert(weight.detach()), weight.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = convert(buffer)
    return module


def playing(patch: pytest.MonkeyPatch) -> None:
    """Replace what does not work on a played device: torch swaps parameters, and draws again until a number fits."""
    patch.setattr(torch.nn.Module, "_apply", converted)
    patch.setattr(torch.nn.init, "_no_grad_trunc_normal_", lambda tensor, *_, **__: tensor)


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """Context in which "cuda" is a played device, whether or not this machine has one."""
    with pytest.MonkeyPatch.context() as patch, torch.autograd.set_multithreading_enabled(False):
        patch.setattr(torch.Tensor, "backward", backward)
        playing(patch)
        with FakeTensorMode(allow_non_fake_inputs=True), FakeCuda() as device:
            yield device
