"""Caching: the cache key of a task is derived from the address of its dataset, whose folder holds Prefect's record."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from storage.dataset import Address, Dataset, address, complete, materialize
from storage.lease import adopt
from storage.provenance import machine
from tasks.transient import tried_again

if TYPE_CHECKING:
    from prefect import Task


class Runtime(BaseModel):
    """Options of a task that do not change its result. So they are not part of the dataset's recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path
    device: str = "auto"
    embed_batch_size: int | Literal["auto"] = "auto"
    decoders: Literal["auto", "threads", "processes"] = "auto"
    cores: int | None = None  #: cores that decode for this task; None: all
    saes_at_once: int | None = None  #: SAEs that are trained together on a GPU at most; None: as many as have room
    force: bool = False
    progress: bool = True  #: draw progress bars


class Stage:
    """A cached task. The address of its dataset can be computed without running the task."""

    def __init__(
        self,
        body: Callable[..., int],
        folder: str,
        version: str,
        unhashed: tuple[str, ...],
        volatile: tuple[str, ...],
        resumes: bool,
        on_device: bool,
        threads: int | None,
    ) -> None:
        self.body, self.folder, self.version = body, folder, version
        self.unhashed, self.volatile, self.resumes = {*unhashed, "runtime"}, volatile, resumes
        self.on_device, self.threads = on_device, threads
        parameters = inspect.signature(body).parameters.values()
        self.defaults = {p.name: p.default for p in parameters if p.default is not p.empty}

    @functools.cached_property
    def task(self) -> Task[..., Dataset]:
        """The Prefect task, made at first use. Listing and looking up the jobs of a study do not need the task."""
        from tasks.cached import task_of

        return task_of(self.body, self.make, self.address)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the name. Another process then uses its own module, and the models that it has loaded."""
        return _stage_named, (self.body.__module__, self.body.__name__)

    def address(self, **arguments: Any) -> Address:
        """Address of the dataset for these arguments. Arguments that are not hashed may be left out.

        An argument equal to its default is not hashed, so that a new parameter with a default changes no old address.
        """
        hashed = {
            name: value
            for name, value in arguments.items()
            if name not in self.unhashed and not (name in self.defaults and value == self.defaults[name])
        }
        return address(self.folder, self.version, hashed)

    def lookup(self, store: Path, **arguments: Any) -> Dataset | None:
        """Return the dataset for these arguments if it is complete, else None. Runs no task."""
        return complete(store, self.address(**arguments))

    def adopt(self, store: Path, **arguments: Any) -> Dataset | None:
        """Do what `lookup` does, and mark the dataset as in use by this run, so that `gc` keeps the dataset."""
        return adopt(store, self.address(**arguments))

    def make(self, runtime: Runtime, **arguments: Any) -> Dataset:
        """Return the dataset for these arguments. If it is not complete, make it. Does not need Prefect.

        After a failure that may be transient, the body is run again a few times: see `tasks.transient`.
        """
        return tried_again(lambda: self.place(runtime, arguments, self.body), self.address(**arguments).path)

    def place(
        self,
        runtime: Runtime,
        arguments: dict[str, Any],
        body: Callable[..., int],
        share: Callable[[], float] = lambda: 1.0,
    ) -> Dataset:
        """Do what `make` does, once, with another body; for stages that make several datasets together.

        share: the part of the time of `body` that this dataset took, asked for when `body` has ended.
        """
        return materialize(
            runtime.store,
            self.address(**arguments),
            lambda out: body(out, **arguments, runtime=runtime),
            volatile=self.volatile,
            resumes=self.resumes,
            force=runtime.force,
            machine=machine(runtime.device if self.on_device else "cpu", self.threads),
            share=share,
        )


def _stage_named(module: str, name: str) -> Stage:
    stage: Stage = getattr(importlib.import_module(module), name)
    return stage


def stage(
    folder: str,
    version: str,
    *,
    unhashed: tuple[str, ...] = (),
    volatile: tuple[str, ...] = (),
    resumes: bool = False,
    on_device: bool = False,
    threads: int | None = None,
) -> Callable[[Callable[..., int]], Stage]:
    """Decorator that makes a cached task of `body(out, ..., runtime) -> rows`, which writes into the folder `out`.

    folder: folder of the store in which the datasets lie.
    version: part of the recipe; change it when the body gives another result.
    unhashed: arguments that are not part of the recipe, besides `runtime`. All other arguments are part of it. A handle
        is replaced by its digest.
    volatile: files that hold times and are not part of the digest.
    resumes: an interrupted call leaves its files in `out`, where the next call finds them.
    on_device: if True, the body computes on `runtime.device`, else on the CPU. The manifest records the device.
    threads: number of threads with which the body computes. None: the number of the process. The manifest records it.
    """
    return lambda body: Stage(body, folder, version, unhashed, volatile, resumes, on_device, threads)
