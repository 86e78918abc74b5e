"""CUDA's streams without a GPU: the order that events give is checked, and that memory is not used again too early.

On top of `fake_cuda`. Each operation runs on the current stream. A tensor may be read on a stream only after an event
that this stream has waited for was recorded behind the write; and memory that another stream has used may be freed only
after `record_stream`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from fake_cuda import FakeCuda, playing
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves


class Stream:
    """A played stream: the operations of each stream, itself included, that are over before its next one."""

    def __init__(self) -> None:
        self.over: Counter[Stream] = Counter()

    def wait_event(self, event: Event) -> None:
        assert event.over is not None, "an event is waited for that was never recorded"
        self.over |= event.over


class Event:
    """A played event."""

    def __init__(self, streams: StreamCuda) -> None:
        self.streams = streams
        self.over: Counter[Stream] | None = None

    def record(self, stream: Stream | None = None) -> None:
        self.over = (stream or self.streams.current()).over.copy()

    def elapsed_time(self, other: Event) -> float:
        assert self.over is not None
        assert other.over is not None
        return 1.0


class StreamCuda(FakeCuda):
    """`FakeCuda` with streams. `raced` lists what was read too early, `reused` what was freed too early."""

    def __init__(self) -> None:
        super().__init__()
        self.default = Stream()
        self.raced: list[str] = []
        self.reused: list[str] = []
        self.copies = 0  #: copies from page-locked memory for which the host did not wait
        self._own = threading.local()
        self._written: dict[int, tuple[Stream, int]] = {}  # the last write, by storage
        self._home: dict[int, Stream] = {}
        self._used: dict[int, set[Stream]] = {}
        self._kept: dict[int, set[Stream]] = {}  # by `record_stream`

    def current(self) -> Stream:
        found: Stream = getattr(self._own, "stream", self.default)
        return found

    @property
    def place(self) -> str:
        """The current device of this thread: GPU 0 until it sets another."""
        found: str = getattr(self._own, "place", "cuda:0")
        return found

    @contextmanager
    def on(self, place: str) -> Iterator[None]:
        before, self._own.place = self.place, place
        yield
        self._own.place = before

    @contextmanager
    def using(self, stream: Stream) -> Iterator[None]:
        before, self._own.stream = self.current(), stream
        yield
        self._own.stream = before

    def keep(self, tensor: torch.Tensor, stream: Stream) -> None:
        self._kept.setdefault(tensor.untyped_storage()._cdata, set()).add(stream)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        stream, name = self.current(), func.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves((args, kwargs)) if _is_on_cuda(leaf)]
        for tensor in given:
            key = tensor.untyped_storage()._cdata
            writer, number = self._written.get(key, (stream, 0))
            if stream.over[writer] < number:
                self.raced.append(f"{name} reads what another stream may still write")
            self._used.setdefault(key, set()).add(stream)
        before = len(self.waits)
        made = super().__torch_dispatch__(func, types, args, kwargs)
        stream.over[stream] += 1
        outs = [leaf for leaf in tree_leaves(made) if _is_on_cuda(leaf)]
        if name in ("_to_copy", "copy_") and outs and not given and len(self.waits) == before:
            self.copies += 1
        if any(returned.alias_info and not returned.alias_info.is_write for returned in func._schema.returns):
            return made  # a view
        for tensor in outs:
            key = tensor.untyped_storage()._cdata
            self._written[key] = (stream, stream.over[stream])
            self._home.setdefault(key, stream)
            self._used.setdefault(key, set()).add(stream)
        return made

    def _uncount(self, key: int, size: int) -> None:
        super()._uncount(key, size)
        if key in self._storages:
            return
        elsewhere = self._used.pop(key, set()) - {self._home.pop(key, self.default)} - self._kept.pop(key, set())
        self._written.pop(key, None)
        if elsewhere:
            self.reused.append(f"{size} bytes are freed that another stream may still use")


def _is_on_cuda(leaf: object) -> bool:
    return isinstance(leaf, FakeTensor) and leaf.device.type == "cuda"


@contextmanager
def fake_streams() -> Iterator[tuple[StreamCuda, Callable[[Callable[[], Any]], Any]]]:
    """Context in which "cuda" is a played device with streams.

    Yields the device, and a function that runs some work on it in another thread, one thread at a time.
    """
    lock = threading.Lock()
    with pytest.MonkeyPatch.context() as patch:
        fake, device = FakeTensorMode(allow_non_fake_inputs=True), StreamCuda()

        def elsewhere(work: Callable[[], Any]) -> Any:
            with lock, fake, device:
                return work()

        playing(patch)
        patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: device.keep(tensor, stream))
        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "Event", lambda enable_timing=False: Event(device))
        patch.setattr(torch.cuda, "current_stream", lambda device_name=None: device.current())
        patch.setattr(torch.cuda, "stream", device.using)
        patch.setattr(torch.cuda, "device", device.on)
        with fake, device:
            yield device, elsewhere
