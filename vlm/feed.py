"""Keeps a device busy: decoding, copying and the forward passes of one or more models run in parallel.

On an accelerator, two workers take turns: while the batch of one is computed, that of the other is copied and waits,
so that the device never waits for the host. Pictures are decoded ahead, into slots that are used again (page-locked
for CUDA, so that copies do not block). On a CPU there is one worker per core, each with one thread, which decodes its
own batch: a single worker that splits every operation over all cores would wait at each operation for the core that
is decoding (ViT-B-32, two cores, float32: 13.2 images/s instead of 16.2), and more threads than cores evict each other
from the caches (EfficientNet-Lite0 on two cores fell to a quarter of its speed).
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vlm.decoders import Decoded, Processes, Slot, Work, bytes_of, fill, layout_of, slots_in
from vlm.encoder import finite_rows, unit_rows
from vlm.nvjpeg import jpegs_on

if TYPE_CHECKING:
    import torch

    from vlm.encoder import Encoder
    from vlm.pixels import Pixels

Array = np.ndarray[Any, np.dtype[np.float32]]
#: From a batch of inputs to features on the device, [B, dim].
Compute = Callable[[dict[str, "torch.Tensor"]], "torch.Tensor"]
#: Images per batch by default. On a CPU, more than 16 images per core gain nothing. A GPU needs many images.
CPU_BATCH, GPU_BATCH = 16, 256
UNDER_WAY = 2  # batches under way on an accelerator
SLOTS_AHEAD = 2  # slots beyond those under way, which are filled meanwhile
#: Cores from which decoding for an accelerator runs in processes: with fewer, the lock of one process is no bound.
MANY_CORES = 8
PARTS = ("read", "decode", "wait", "copy", "forward", "write")


class Later(NamedTuple):
    """A stand-in for a future: the work is done when its result is asked for."""

    work: Callable[[], Any]

    def result(self) -> Any:
        """Do the work and return its result."""
        return self.work()


class Feed:
    """Feeds the encoders of one device. A context manager: its threads run within the block, and it can be used again.

    Args:
        encoders: the models, all on one device. Each picture is decoded once for all of them, and resized once for
            those that resize in the same way.
        batch_size: images per batch, or "auto".
        decoders: "threads", "processes", or "auto": processes for an accelerator with more than `MANY_CORES` cores.
        cores: cores that this feed may use; default: all.
        workers: threads that run the models; default: two for an accelerator, else one per thread of torch.
        decode: what decodes JPEGs, one of `vlm.nvjpeg.DECODES`. nvJPEG is used from threads of this process.

    Raises `SpecError` if nvJPEG cannot be used on the device.
    """

    def __init__(
        self,
        encoders: Sequence[Encoder],
        batch_size: int | str = "auto",
        decoders: str = "auto",
        cores: int | None = None,
        workers: int | None = None,
        decode: str = "pillow",
    ) -> None:
        import torch

        self.encoders = list(encoders)
        self.cores = cores or os.cpu_count() or 1
        self._threads = torch.get_num_threads()
        self.device = encoders[0].device
        self.on_cpu, self.on_cuda = self.device == "cpu", self.device.startswith("cuda")
        self.batch_size = (CPU_BATCH if self.on_cpu else GPU_BATCH) if batch_size == "auto" else int(batch_size)
        self.workers = workers or (self._threads if self.on_cpu else UNDER_WAY)
        #: When workers fill every core, decoding ahead gains nothing.
        self.decode_ahead = not self.on_cpu or self.workers < self.cores
        self.views, self.view_of = _views(self.encoders)
        many = not self.on_cpu and self.cores > MANY_CORES
        portable = all(view.key is not None for view in self.views)
        self.jpegs = jpegs_on(self.device) if decode == "nvjpeg" else None
        self.in_processes = (
            self.jpegs is None and portable and (decoders == "processes" or (decoders == "auto" and many))
        )
        self._processes: Processes | None = None
        self._slots: list[Slot] = []
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._lock, self._launch, self._own = threading.Lock(), threading.Lock(), threading.local()
        self.forwarded, self.seconds = 0, dict.fromkeys(PARTS, 0.0)

    def __enter__(self) -> Feed:
        import torch

        self.forwarded, self.seconds = 0, dict.fromkeys(PARTS, 0.0)
        self._threads = torch.get_num_threads()
        if not self.on_cpu or self.workers > 1:  # threads that start later inherit this number
            torch.set_num_threads(1)
        self._forward = ThreadPoolExecutor(self.workers, thread_name_prefix="forward")
        self._decode = ThreadPoolExecutor(self.cores, thread_name_prefix="decode")
        self._tokenize = ThreadPoolExecutor(
            1, thread_name_prefix="tokenize"
        )  # tokenizers may be used by one thread only
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        import torch

        for pool in (self._forward, self._decode, self._tokenize):
            pool.shutdown(cancel_futures=True)
        if kind is not None:  # a process may have died
            self.close()
        torch.set_num_threads(self._threads)

    def close(self) -> None:
        """Free the slots and end the decoding processes. The feed can still be used: both are made again."""
        self._slots, self._free = [], queue.SimpleQueue()
        ended, self._processes = self._processes, None
        if ended is not None:
            ended.close()

    # Slots

    def take(self, stop: threading.Event) -> int | None:
        """The number of a free slot, or None once `stop` is set."""
        if not self._slots:
            self._make_slots()
        while not stop.is_set():
            with contextlib.suppress(queue.Empty):
                return self._free.get(timeout=0.2)
        return None

    def slot(self, number: int) -> Slot:
        """The tensors of a slot."""
        return self._slots[number]

    def release(self, number: int) -> None:
        """Give a slot back, so that other pictures can be decoded into it."""
        self._free.put(number)

    def _make_slots(self) -> None:
        import torch

        layout, rows, count = layout_of(self.views), self.batch_size, self.workers + SLOTS_AHEAD
        if self.in_processes:
            self._processes = Processes(self.cores, self.views, layout, rows, count)
            self._slots = self._processes.slots
            if self.on_cuda:
                memory = self._processes.memory
                with torch.cuda.device(self.device):  # this thread's own is GPU 0, which may be another feed's
                    _check(torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.numel(), 0))
                self._processes.undo.append(functools.partial(_unlock, memory.data_ptr(), self.device))
        else:
            size = bytes_of(layout, rows) * count
            self._slots = slots_in(torch.zeros(size, dtype=torch.uint8, pin_memory=self.on_cuda), layout, rows, count)
        for number in range(count):
            self._free.put(number)

    # Work

    def decode(self, work: Work) -> Future[Decoded] | Later:
        """Decode pictures into a slot, ahead if that gains anything, else when the result is asked for."""

        def run() -> Decoded:
            if self._processes is not None:
                found = self._processes.fill(work)
            else:
                found = fill(self.views, self._slots[work.slot], work, self.jpegs)
            self.spent("decode", found.seconds)
            return found

        return self._decode.submit(run) if self.decode_ahead else Later(run)

    def tokenize(self, work: Callable[[], Any]) -> Future[Any]:
        """Run some work in the one thread that uses tokenizers."""
        return self._tokenize.submit(work)

    def forward(self, work: Callable[[], Any]) -> Future[Any]:
        """Run some work on the next free worker. Work begins in the order of the calls of `forward`."""
        return self._forward.submit(work)

    def spent(self, part: str, seconds: float, rows: int = 0) -> None:
        """Add seconds to a part, and rows to those that went through a model."""
        with self._lock:
            self.seconds[part] += seconds
            self.forwarded += rows

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the seconds of a block to a part."""
        began = time.perf_counter()
        yield
        self.spent(part, time.perf_counter() - began)

    def rows(
        self,
        compute: Compute,
        inputs: dict[str, torch.Tensor],
        what: str,
    ) -> Array:
        """Unit rows of a batch, float32 on the CPU: `compute` gives its features on the device."""
        if self.on_cuda:
            return self._on_cuda(compute, inputs, what)
        with self.timed("forward"):
            return unit_rows(compute(inputs), what)

    def _on_cuda(
        self,
        compute: Compute,
        inputs: dict[str, torch.Tensor],
        what: str,
    ) -> Array:
        """Each worker copies on a stream of its own; the kernels of all workers run on one stream, batch by batch.

        Nothing here waits for the device but the last line. The events give the device's own time.
        """
        import torch

        with torch.cuda.device(self.device):
            if not hasattr(self._own, "stream"):
                self._own.stream = torch.cuda.Stream()
            copying, computing = self._own.stream, torch.cuda.current_stream()
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
            with torch.cuda.stream(copying):
                marks[0].record()
                # Slots are page-locked. Captions are not, nor are the pictures of a batch in which some failed.
                moved = {n: values.pin_memory().to(self.device, non_blocking=True) for n, values in inputs.items()}
                marks[1].record()
            with self._launch:  # so that the kernels of two batches do not alternate
                computing.wait_event(marks[1])
                marks[2].record()
                features = compute(moved)
                rows = features / features.norm(dim=1, keepdim=True)
                marks[3].record()
            for values in moved.values():
                values.record_stream(computing)
            with torch.cuda.stream(copying):
                copying.wait_event(marks[3])
                rows.record_stream(copying)
                found = rows.cpu()
        self.spent("copy", marks[0].elapsed_time(marks[1]) / 1000)
        self.spent("forward", marks[2].elapsed_time(marks[3]) / 1000)
        return finite_rows(found, what)


def _check(result: Any) -> None:
    """Raise the error that a function of the CUDA runtime returned."""
    import torch

    torch.cuda.check_error(result)


def _unlock(address: int, device: str) -> None:
    import torch

    with torch.cuda.device(device):
        _check(torch.cuda.cudart().cudaHostUnregister(address))


def _views(encoders: Sequence[Encoder]) -> tuple[list[Pixels], list[int]]:
    """The distinct ways in which models resize pictures, and for each model the number of its way."""
    views: list[Pixels] = []
    numbers = []
    for encoder in encoders:
        keys = [view.key for view in views]
        key = encoder.pixels.key
        if key is None or key not in keys:
            views.append(encoder.pixels)
            keys.append(key)
        numbers.append(len(views) - 1 if key is None else keys.index(key))
    return views, numbers
