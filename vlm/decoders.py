"""Decoding of pictures into the slots of a feed: in threads of this process, or in processes that share the slots.

Pillow and torch release the interpreter's lock while they decode and resize, except for 5 to 15 % of the time. So one
process with threads passes 2,600 to 5,600 pictures per second, however many cores it has. Processes have no such
bound. They start in seconds, and get the bytes of the pictures through a pipe; the pixels are written into memory that
both share.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from multiprocessing.connection import Connection
from socket import socketpair
from typing import TYPE_CHECKING, NamedTuple

from vlm.encoder import PLAIN, prepared
from vlm.nvjpeg import Jpegs, by_nvjpeg
from vlm.pictures import DecodeError, decode
from vlm.pixels import Pixels

if TYPE_CHECKING:
    import torch
    from PIL import Image

ENDING = 10.0  # seconds in which a decoding process may finish its pictures at the end, before it is killed
#: Why a picture has no pixels: {view: (cause, detail)}, with the view None when the picture itself cannot be decoded.
Causes = dict[int | None, tuple[str, str]]
#: Pictures whose pixels are written in one call. Each call gives up the interpreter's lock and waits for it again, for
#: longer than the copy takes. In turns on two cores, 8 to 29 % more pictures pass with 32 than with 8, and with 64 no
#: more than with 32.
TOGETHER = 32
_Pixels = list[tuple[int, Mapping[str, "torch.Tensor"]]]  # places in the slot, and what `Pixels.resize` gave


class Field(NamedTuple):
    """One tensor of a slot: a row per picture."""

    name: str
    shape: tuple[int, ...]  #: without the batch's dimension
    dtype: str  #: name of the torch dtype


Layout = list[list[Field]]  #: the tensors of a slot, for each view
Slot = list[dict[str, "torch.Tensor"]]  #: for each view, tensors of `rows` pictures


class Work(NamedTuple):
    """Some pictures of a batch."""

    slot: int
    places: list[int]  #: places in the slot
    data: list[bytes]
    max_pixels: int


class Decoded(NamedTuple):
    """What became of some pictures."""

    failures: dict[int, Causes]  #: by place in the slot
    seconds: float  #: of a core


def layout_of(views: Sequence[Pixels]) -> Layout:
    """The tensors that each view gives for a picture, found with a grey one."""
    from PIL import Image

    grey = Image.new("RGB", PLAIN, "grey")
    return [
        [Field(name, tuple(values.shape), str(values.dtype).removeprefix("torch.")) for name, values in found.items()]
        for found in (view.resize(grey) for view in views)
    ]


def slots_in(memory: torch.Tensor, layout: Layout, rows: int, count: int) -> list[Slot]:
    """Lay slots out in memory: uint8 [`bytes_of(layout, rows)` x count]."""
    import torch

    at = 0

    def tensor(field: Field) -> torch.Tensor:
        nonlocal at
        size = _bytes(field, rows)
        found = memory[at : at + size].view(getattr(torch, field.dtype)).view(rows, *field.shape)
        at += _aligned(size)
        return found

    return [[{field.name: tensor(field) for field in view} for view in layout] for _ in range(count)]


def bytes_of(layout: Layout, rows: int) -> int:
    """Bytes of a slot with this number of rows."""
    return sum(_aligned(_bytes(field, rows)) for view in layout for field in view)


def _bytes(field: Field, rows: int) -> int:
    import torch

    return rows * math.prod(field.shape) * int(getattr(torch, field.dtype).itemsize)


def _aligned(count: int) -> int:
    return -(-count // 64) * 64  # the size of a cache line, and a multiple of every dtype's size


def fill(views: Sequence[Pixels], slot: Slot, work: Work, jpegs: Jpegs | None = None) -> Decoded:
    """Decode each picture once, resize it for each view, and write the pixels into the slot.

    jpegs: what decodes JPEGs; None: Pillow, as all other pictures.
    """
    began = time.thread_time()
    failures: dict[int, Causes] = {}
    waiting: list[_Pixels] = [[] for _ in views]
    pictures = _each(work) if jpegs is None else by_nvjpeg(work.data, work.max_pixels, jpegs, decode)
    for place, picture in zip(work.places, pictures, strict=True):
        if isinstance(picture, DecodeError):
            failures[place] = {None: (picture.cause, picture.detail)}
            continue
        for number, view in enumerate(views):
            try:
                waiting[number].append((place, prepared(view.resize, picture)))
            except DecodeError as error:
                failures.setdefault(place, {})[number] = (error.cause, error.detail)
            if len(waiting[number]) == TOGETHER:
                _write(slot[number], waiting[number])
    for tensors, pixels in zip(slot, waiting, strict=True):
        _write(tensors, pixels)
    return Decoded(failures, time.thread_time() - began)


def _write(tensors: dict[str, torch.Tensor], pixels: _Pixels) -> None:
    """Write the pixels of some pictures into their places, in one call for pictures side by side. Clears `pixels`.

    Raises ValueError for pixels of another shape than the tensor's rows, to which `torch.stack` would resize it.
    """
    import torch

    for _, found in groupby(enumerate(pixels), lambda numbered: numbered[1][0] - numbered[0]):
        together = [each for _, each in found]
        start, given = together[0][0], [values for _, values in together]
        for name, values in tensors.items():
            shape = tuple(given[0][name].shape)
            if shape != tuple(values.shape[1:]):
                raise ValueError(f"{name} of a picture: shape {shape}, expected {tuple(values.shape[1:])}")
            torch.stack([each[name] for each in given], out=values[start : start + len(given)])
    pixels.clear()


def _each(work: Work) -> Iterator[Image.Image | DecodeError]:
    for data in work.data:
        try:
            yield decode(data, work.max_pixels)
        except DecodeError as error:
            yield error


class Processes:
    """Decoding processes, and slots in memory that they share with this process.

    They are started by `subprocess`, since a process of `multiprocessing` may itself be one that may start no other.
    A process ends when its pipe is closed, which also happens when this process dies.
    """

    def __init__(self, count: int, views: Sequence[Pixels], layout: Layout, rows: int, slots: int) -> None:
        size = max(1, bytes_of(layout, rows) * slots)
        self._file = _shared_memory(size)
        self.memory = _mapped(self._file, size)
        self.slots = slots_in(self.memory, layout, rows, slots)
        start = (list(views), layout, rows, slots, size)
        self._started = [self._start(start) for _ in range(count)]
        self.idle = [pipe for _, pipe in self._started]  #: a list, whose `pop` and `append` need no lock
        self.undo: list[Callable[[], object]] = []  #: called before the end, such as to unlock pages
        #: End the processes. The shared memory is freed with the last tensor that lies in it.
        self.close = weakref.finalize(self, _end, self._started, self._file, self.undo)

    def _start(self, start: tuple[object, ...]) -> tuple[subprocess.Popen[bytes], Connection]:
        ours, theirs = socketpair()
        with theirs:
            command = [sys.executable, "-c", _START, str(theirs.fileno()), str(self._file)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            process = subprocess.Popen(
                command, pass_fds=(theirs.fileno(), self._file), env=environment, start_new_session=True
            )
        pipe: Connection = Connection(ours.detach())
        pipe.send(start)
        return process, pipe

    def fill(self, work: Work) -> Decoded:
        """`fill`, in a process. At most as many threads as there are processes may call this at a time."""
        pipe = self.idle.pop()
        try:
            pipe.send(work)
            found = pipe.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError("a decoding process died: memory may have run out, or it was killed") from error
        finally:  # the pipe of a dead process too, so that the next call finds one and says the same
            self.idle.append(pipe)
        if isinstance(found, BaseException):
            raise found
        decoded: Decoded = found
        return decoded


def _end(
    started: list[tuple[subprocess.Popen[bytes], Connection]], file: int, undo: list[Callable[[], object]]
) -> None:
    """Take every step, also after one that failed, and then raise the error of that step."""
    with contextlib.ExitStack() as steps:  # which takes the last step first
        steps.callback(os.close, file)
        until = time.monotonic() + ENDING
        for process, _ in started:
            steps.callback(_wait, process, until)
        for _, pipe in started:
            steps.callback(pipe.close)
        for call in reversed(undo):
            steps.callback(call)


def _wait(process: subprocess.Popen[bytes], until: float) -> None:
    """Wait for the end of a process whose pipe is closed. One that still runs at a time of the clock is killed."""
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# The new session keeps Ctrl-C from the process, which its parent ends.
_START = "import sys; from vlm.decoders import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"


def _shared_memory(size: int) -> int:
    """The descriptor of an unnamed file in memory. The kernel frees it when no process has it open or mapped."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("pictures")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, size)
    return handle


def _mapped(handle: int, size: int) -> torch.Tensor:
    import torch

    return torch.frombuffer(mmap.mmap(handle, size), dtype=torch.uint8)


def serve(pipe_number: int, memory_number: int) -> None:
    """Decode until the pipe is closed: the body of a decoding process."""
    import torch

    torch.set_num_threads(1)
    pipe: Connection = Connection(pipe_number)
    views, layout, rows, count, size = pipe.recv()
    slots = slots_in(_mapped(memory_number, size), layout, rows, count)
    while True:
        try:
            work: Work = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send(fill(views, slots[work.slot], work))
        except Exception as error:  # of the machine, such as MemoryError; those of pictures are among the failures
            pipe.send(error)


def rows_of(inputs: Mapping[str, torch.Tensor], places: slice | Sequence[int]) -> dict[str, torch.Tensor]:
    """Some rows of a view of a slot. A slice gives views of the same memory, a list copies."""
    return {name: values[places if isinstance(places, slice) else list(places)] for name, values in inputs.items()}
