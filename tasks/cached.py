"""The Prefect task of a stage. The task's cache key is the address of its dataset.

Prefect's cache record lies in the dataset's folder.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from storage.dataset import Address, Dataset
from storage.lease import adopt
from storage.manifest import RECORD


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
        store: Path = inputs["runtime"].store
        at = self.of(**inputs)
        if adopt(store, at) is None:
            (store / at.path / RECORD).unlink(missing_ok=True)
        return f"{at.path}/{RECORD}"


def task_of(
    body: Callable[..., int], dataset_of: Callable[..., Dataset], address_of: Callable[..., Address]
) -> Task[..., Dataset]:
    """Return the Prefect task of a stage. The task takes the arguments of the stage's body, without `out`.

    `dataset_of` makes the dataset, and `address_of` computes the address of the dataset. Both take the same arguments
    as the task.
    """
    signature = inspect.signature(body)
    parameters = [p for p in signature.parameters.values() if p.name != "out"]
    make_signature = signature.replace(parameters=parameters, return_annotation=Dataset)

    @functools.wraps(body)
    def make(*args: Any, **kwargs: Any) -> Dataset:
        bound = make_signature.bind(*args, **kwargs).arguments
        return dataset_of(**bound)

    del make.__wrapped__  # so that the body is not pickled with the task: another process imports it (Stage.__reduce__)
    make.__signature__ = make_signature  # type: ignore[attr-defined]
    make.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": Dataset}
    return Task(
        make,
        name=body.__name__.replace("_", " "),
        cache_policy=AtAddress(of=address_of),
        persist_result=True,
        result_serializer="json",
    )
