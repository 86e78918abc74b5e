"""Train: one cached task per SAE. When several SAEs are missing, they are trained together first."""

from __future__ import annotations

import logging
import math
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl

from storage.dataset import Dataset
from storage.errors import BadInput
from tasks.children import ChildFailed, side_by_side
from tasks.devices import device_of, devices, processes_on
from tasks.fit import Fit, FitEach, fit_each_in_process, fit_in_process
from tasks.flattened import named, warn_if_short
from tasks.memory import tell_memory
from tasks.placed import Part, place_together
from tasks.stage import Runtime, stage

OWN = (ChildFailed, BadInput)  # errors that belong to one job, and stop no other
log = logging.getLogger("bridgescope")


@stage(
    "saes", version="9", unhashed=("label",), volatile=("training.parquet",), resumes=True, on_device=True, threads=1
)
def sae(
    out: Path,
    pairs: list[Dataset],
    embeddings: list[Dataset],
    setting: dict[str, Any],
    seed: int,
    heldout: float,
    runtime: Runtime,
    label: str = "",
) -> int:
    """Train one seed of one setting on the training rows of a model's shards.

    label: the model and the setting, as the study names them, for messages.
    """
    tell_memory(runtime.store, embeddings, setting, heldout, runtime.device)
    job = Fit(out, runtime.store, pairs, embeddings, setting, seed, heldout, runtime.device, runtime.progress)
    rows = fit_in_process(job)
    _tell_if_short(out, setting, seed, label)
    return rows


def _tell_if_short(out: Path, setting: dict[str, Any], seed: int, label: str) -> None:
    """Warn if a training was too short. A frozen SAE has the budget of its setting, for whose own SAEs it is judged."""
    if setting.get("frozen") is None:
        name = named(label, width=setting["width"], k=setting["k"], seed=seed)
        warn_if_short(name, pl.read_parquet(out / "training.parquet").to_dicts())


def train_together(jobs: list[dict[str, Any]], runtime: Runtime) -> list[ChildFailed | BadInput | None]:
    """Make the datasets of several SAEs: in parallel, one per core, on a CPU, and in one process on each GPU.

    On a GPU the seeds of one setting and model are trained together, as many as its memory has room for; settings and
    models follow one another. If there are more GPUs than these, the seeds of each are divided among GPUs. This
    function is not cached: the task of each seed adopts its dataset. A seed that fails does not stop the other seeds.
    Returns for each job its error, or None: ChildFailed, or BadInput if a GPU has no room. Any other exception, such as
    that of a full disk, is raised when all jobs have ended.
    """
    on_gpu, places = device_of(runtime.device).startswith("cuda"), devices(runtime.device)
    waiting = deque(shares(_sets(jobs), len(places)) if on_gpu else [[number] for number in range(len(jobs))])
    errors: list[BaseException | None] = [None] * len(jobs)

    def serve(device: str) -> None:
        """Train on one device until no seeds wait."""
        own = runtime.model_copy(update={"device": device})
        while True:
            try:
                same = waiting.popleft()
            except IndexError:  # none waits
                return
            found: list[BaseException | None]
            try:
                found = _seeds([jobs[number] for number in same], own)
            except Exception as error:
                found = [error] * len(same)
            for number, each in zip(same, found, strict=True):
                errors[number] = each

    with ExitStack() as stack:
        # A pool for each device: its process serves this device alone.
        counts = [processes_on(device, len(jobs)) for device in places]
        pools = [stack.enter_context(side_by_side(count)) for count in counts]
        stack.callback(waiting.clear)  # after an interrupt no further seeds are begun
        served = zip(places, pools, counts, strict=True)
        runs = [pool.submit(serve, device) for device, pool, count in served for _ in range(count)]
        for run in runs:
            run.result()
    if other := [error for error in errors if error is not None and not isinstance(error, OWN)]:
        raise other[0]
    return [error if isinstance(error, OWN) else None for error in errors]


def _sets(jobs: list[dict[str, Any]]) -> list[list[int]]:
    """The places of the jobs that differ in nothing but their seeds."""
    sets: dict[str, list[int]] = {}
    for number, job in enumerate(jobs):
        sets.setdefault(sae.address(**{**job, "seed": None}).path, []).append(number)
    return list(sets.values())


def shares(sets: list[list[int]], devices: int) -> list[list[int]]:
    """The sets; if there are more devices than sets, parts of each set, so that there is one for each device."""
    parts = math.ceil(devices / max(len(sets), 1))
    return [same[first::parts] for same in sets for first in range(min(parts, len(same)))]


def _seeds(jobs: list[dict[str, Any]], runtime: Runtime) -> list[BaseException | None]:
    """Make the datasets of some seeds of one setting. Returns the error of each, or None."""
    errors: list[BaseException | None] = [None] * len(jobs)
    left = list(range(len(jobs)))
    if len(jobs) > 1 and (at_once := _at_once(jobs, runtime)) > 1:
        found = place_together(sae, jobs, runtime, lambda outs: _made(jobs, outs, at_once, runtime))
        errors = [error if isinstance(error, _Diverged) else None for error in found]
        # Whatever else went wrong is left to the seed's own job, which tries again and reports it.
        left = [number for number in left if found[number] is not None and errors[number] is None]
        if left:
            log.debug("seeds not trained together: %s", [found[number] for number in left])
    for number in left:
        try:
            sae.make(runtime, **jobs[number])
        except Exception as error:
            errors[number] = error
    return errors


class _Diverged(ChildFailed):
    """The training of one seed among several diverged."""


def _at_once(jobs: list[dict[str, Any]], runtime: Runtime) -> int:
    """How many of some seeds are trained together; 1 also if not even one has room: its own job reports that."""
    most, first = runtime.saes_at_once, jobs[0]
    if most == 1:
        return 1
    try:
        return tell_memory(
            runtime.store, first["embeddings"], first["setting"], first["heldout"], runtime.device, len(jobs), most
        )
    except BadInput as error:
        log.debug("%s", error)
        return 1


def _made(
    jobs: list[dict[str, Any]], outs: dict[int, Path], at_once: int, runtime: Runtime
) -> dict[int, Part | Exception]:
    """Train the seeds whose datasets are missing in one process. Their checkpoints are kept until they are complete."""
    from sae import Checkpoint

    numbers = list(outs)
    first, seeds = jobs[numbers[0]], [int(jobs[number]["seed"]) for number in numbers]
    of = Fit(
        outs[numbers[0]], runtime.store, first["pairs"], first["embeddings"], first["setting"], seeds[0],
        first["heldout"], runtime.device, runtime.progress,
    )  # fmt: skip
    found = fit_each_in_process(FitEach(of, seeds, list(outs.values()), at_once))
    made: dict[int, Part | Exception] = {}
    for number, seed, rows in zip(numbers, seeds, found, strict=True):
        if isinstance(rows, str):
            made[number] = _Diverged(f"seed {seed}: {rows}")
            continue
        _tell_if_short(outs[number], first["setting"], seed, jobs[number].get("label", ""))
        made[number] = Part(rows, 1.0, Checkpoint(outs[number]).remove)
    return made
