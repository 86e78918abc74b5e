"""The caching rule. A cached task's key is the address of its output; Prefect's record lies inside that folder."""

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
    """What a task needs and what never changes its result: not part of any recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path
    device: str = "auto"
    embed_batch_size: int | Literal["auto"] = "auto"
    force: bool = False
    progress: bool = True  #: draw progress bars


@dataclass
class AtAddress(CachePolicy):
    """Key = path of the record inside the dataset's folder: deleting the folder deletes the record.

    A folder that lost a file loses its record too, so that a hit always has all of its output behind it.
    """

    of: Callable[..., Address] | None = None

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Prefect calls this with the task's arguments. (An exception here would be logged and leave the task uncached;
        the task's body computes the same address, and raises.)"""
        assert self.of is not None
        runtime: Runtime = inputs["runtime"]
        at = self.of(**inputs)
        if adopt(runtime.store, at) is None:
            (runtime.store / at.path / RECORD).unlink(missing_ok=True)
        return f"{at.path}/{RECORD}"


class Stage:
    """A cached task, and the address of what it makes, which can be known without running it."""

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

        del make.__wrapped__  # a process of a cluster finds the body by its name: see __reduce__
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
        """Travels as its name, so that another process uses its own module, and what that module keeps loaded."""
        return _stage_named, (self.body.__module__, self.body.__name__)

    def address(self, **arguments: Any) -> Address:
        """Where the output for these arguments lies. Those that are not hashed may be left out.

        One at its default counts as left out: a parameter that a stage is given later changes no older address.
        """
        hashed = {
            name: value
            for name, value in arguments.items()
            if name not in self.unhashed and not (name in self.defaults and value == self.defaults[name])
        }
        return address(self.folder, self.version, hashed)

    def lookup(self, store: Path, **arguments: Any) -> Dataset | None:
        """The output for these arguments if it is there whole. Runs nothing."""
        return complete(store, self.address(**arguments))

    def adopt(self, store: Path, **arguments: Any) -> Dataset | None:
        """As `lookup`, for a run that goes on to use it: a garbage collection leaves it alone."""
        return adopt(store, self.address(**arguments))

    def make(self, runtime: Runtime, **arguments: Any) -> Dataset:
        """Adopt the output at its address, or make it. Plain Python: no orchestrator needed."""
        return materialize(
            runtime.store,
            self.address(**arguments),
            lambda out: self.body(out, **arguments, runtime=runtime),
            volatile=self.volatile,
            resumes=self.resumes,
            force=runtime.force,
        )


def _stage_named(module: str, name: str) -> Stage:
    found: Stage = getattr(importlib.import_module(module), name)
    return found


def stage(
    folder: str,
    version: str,
    *,
    unhashed: tuple[str, ...] = (),
    volatile: tuple[str, ...] = (),
    resumes: bool = False,
) -> Callable[[Callable[..., int]], Stage]:
    """Make a cached task of `body(out, ..., runtime) -> rows`, which fills the folder `out`.

    Everything but `runtime` and what `unhashed` names is part of the recipe, handles by their digest. `version` is
    changed by hand when the body changes its result; comments and helpers do not count. Files named in `volatile`
    hold times and do not count in the digest. With `resumes` the body finds what an interrupted call left in `out`.
    """
    return lambda body: Stage(body, folder, version, unhashed, volatile, resumes)
