"""Caching: a task's cache key is derived from the address of its dataset. Its record lies in the dataset's folder."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from pydantic import BaseModel, ConfigDict

from storage.dataset import RECORD, Address, Dataset, address, complete, materialize
from storage.lease import adopt


class Runtime(BaseModel):
    """Options of a task that do not change its result. So they are not part of its recipe, which names the dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path
    device: str = "auto"
    embed_batch_size: int | Literal["auto"] = "auto"
    force: bool = False
    progress: bool = True  #: draw progress bars


@dataclass
class AtAddress(CachePolicy):
    """Prefect's cache policy: the key of a task is the path of Prefect's record in the folder of the task's dataset.

    Deleting the folder deletes the record too. The record of an incomplete dataset is deleted, so a cache hit always
    means a complete dataset.
    """

    of: Callable[..., Address] | None = None

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Return the cache key. Prefect calls this with the arguments of the task.

        If this method raises an exception, Prefect logs it and runs the task uncached. The task then computes the same
        address and raises the exception itself.
        """
        assert self.of is not None
        runtime: Runtime = inputs["runtime"]
        at = self.of(**inputs)
        if adopt(runtime.store, at) is None:
            (runtime.store / at.path / RECORD).unlink(missing_ok=True)
        return f"{at.path}/{RECORD}"


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
    ) -> None:
        self.body, self.folder, self.version = body, folder, version
        self.unhashed, self.volatile, self.resumes = {*unhashed, "runtime"}, volatile, resumes
        signature = inspect.signature(body)
        parameters = [p for p in signature.parameters.values() if p.name != "out"]
        self.defaults = {p.name: p.default for p in parameters if p.default is not p.empty}

        @functools.wraps(body)
        def make(*args: Any, **kwargs: Any) -> Dataset:
            bound = make_signature.bind(*args, **kwargs).arguments
            return self.make(**bound)

        del make.__wrapped__  # so that the body is not pickled with the task: another process imports it (__reduce__)
        make_signature = signature.replace(parameters=parameters, return_annotation=Dataset)
        make.__signature__ = make_signature  # type: ignore[attr-defined]
        make.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": Dataset}
        self.task: Task[..., Dataset] = Task(
            make,
            name=body.__name__.replace("_", " "),
            cache_policy=AtAddress(of=self.address),
            persist_result=True,
            result_serializer="json",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a name, so that another process uses its own module, with the models that it has loaded."""
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
        """Like `lookup`, and mark the dataset as in use by this run, so that `gc` keeps it."""
        return adopt(store, self.address(**arguments))

    def make(self, runtime: Runtime, **arguments: Any) -> Dataset:
        """Return the dataset for these arguments. If it is not complete, make it. Does not need Prefect."""
        return materialize(
            runtime.store,
            self.address(**arguments),
            lambda out: self.body(out, **arguments, runtime=runtime),
            volatile=self.volatile,
            resumes=self.resumes,
            force=runtime.force,
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
) -> Callable[[Callable[..., int]], Stage]:
    """Decorator that makes a cached task of `body(out, ..., runtime) -> rows`, which writes into the folder `out`.

    folder: folder of the store in which the datasets lie.
    version: part of the recipe; change it when the body gives another result.
    unhashed: arguments that are not part of the recipe, besides `runtime`. All other arguments are part of it. A handle
        is replaced by its digest.
    volatile: files that hold times and are not part of the digest.
    resumes: an interrupted call leaves its files in `out`, where the next call finds them.
    """
    return lambda body: Stage(body, folder, version, unhashed, volatile, resumes)
