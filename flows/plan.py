"""What a run would make, adopt and skip, with bytes on disk and seconds. A complete dataset is adopted, not made.

Nothing is made and no server is started. The jobs are those of `flows.jobs`. A dataset that does not exist yet is put
into the state as a planned dataset, so that the jobs that read it are listed too.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flows.config import Study
from flows.costs import PREFECT_SECONDS, STAGE_SECONDS, TASK_SECONDS, Cost, cost
from flows.foresight import Foresight, foresight
from flows.gpu import gpu_lines, on_gpu
from flows.jobs.job import STEPS, Given, Job
from flows.narrow import WHOLE, Narrow
from flows.rates import Rates, rates, seconds_of
from flows.sizes import Sizes, sizes_of_plan
from flows.stages import STAGES, before
from flows.status import runs_of
from flows.upstream import check_taken, entry_of_recipe
from flows.variants import known_run, name_variant
from storage.dataset import Dataset, planned
from storage.errors import BadInput
from storage.garbage import size_of
from storage.runs import Entry, Run, State


class Line(NamedTuple):
    """The datasets of one kind that a stage would make or adopt."""

    stage: str
    kind: str
    make: int
    adopt: int
    bytes: float  #: bytes on disk of the datasets to make
    seconds: float  #: seconds that it takes to make these datasets
    known: bool  #: whether bytes and seconds are corrected by datasets of this kind in the store


class Plan(NamedTuple):
    """What a run would do."""

    lines: list[Line]
    skipped: list[str]  #: stages that the run leaves out
    downloads: int  #: bytes that the source downloads, or unpacks, in addition to the datasets
    free: int  #: bytes that are free on the disk of the store
    how: str  #: a sentence that says where the source's size comes from; "" if the source was listed
    gpu: tuple[str, ...] = ()  #: lines on the memory of a GPU, if models or SAEs are to be made

    @property
    def bytes(self) -> float:
        """Bytes that the run would add to the store."""
        return sum(line.bytes for line in self.lines) + self.downloads

    @property
    def seconds(self) -> float:
        """Seconds of the run, including those of Prefect. 0 if nothing is to be made."""
        if not any(line.make for line in self.lines):
            return 0.0
        tasks = sum(line.make + line.adopt for line in self.lines)
        stages = len({line.stage for line in self.lines})
        own = PREFECT_SECONDS + STAGE_SECONDS * stages + TASK_SECONDS * tasks
        return own + sum(line.seconds for line in self.lines)

    def check(self, store: Path) -> None:
        """Raise BadInput when the disk of the store is too small."""
        if self.bytes > self.free:
            most = max(self.lines, key=lambda line: line.bytes)
            raise BadInput(
                f"the disk of the store {store} is too small: the run needs about {sized(self.bytes)}, of which "
                f"{sized(most.bytes)} for {most.kind}, and {sized(self.free)} are free. Free space, choose another "
                "disk with --store, or make the study smaller (bridgescope gc lists what the store no longer needs)"
            )


def plan(
    study: Study,
    store: Path,
    *,
    only: str | None = None,
    force: bool = False,
    narrow: Narrow = WHOLE,
    upstream: str | None = None,
    variant: str | None = None,
    anew: bool = True,
) -> Plan:
    """What a run with these options would make and adopt. With `anew` the source is listed now.

    A store that does not exist is not made; what listing the source keeps there is counted and thrown away. Raises
    BadInput for an unknown stage and for a source that cannot be listed. With `only`, also if a dataset of an earlier
    stage is missing.
    """
    if only is not None and only not in STAGES:
        raise BadInput(f"--only {only}: no such stage; stages are {', '.join(STAGES)}")
    if only is None and (narrow != WHOLE or upstream is not None):
        raise BadInput("--upstream, --model, --sae and --seed are allowed only with --only STAGE")
    narrow.check(study)
    with _at_hand(store) as held:
        try:
            found = _planned(study, held, only, force, narrow, upstream, variant, anew)
        except BadInput as error:
            if held == store:
                raise
            raise BadInput(str(error).replace(str(held), str(store))) from error  # the store that a run would make
        kept = size_of(held / "downloads") if held != store and "acquire" not in found.skipped else 0
    there = next(folder for folder in (store, *store.parents) if folder.is_dir())
    return found._replace(downloads=found.downloads + kept, free=shutil.disk_usage(there).free)


@contextlib.contextmanager
def _at_hand(store: Path) -> Iterator[Path]:
    """Yield the store, or an empty folder in place of a store that does not exist."""
    if store.is_dir():
        yield store
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def _planned(
    study: Study,
    store: Path,
    only: str | None,
    force: bool,
    narrow: Narrow,
    upstream: str | None,
    variant: str | None,
    anew: bool,
) -> Plan:
    """The plan, with the options of `plan`. The bytes that are free on the disk are left at 0."""
    last = (
        runs_of(study, store)[1]
        if variant is None
        else known_run(store, study, name_variant(store, study, variant, []))
    )
    chosen = entry_of_recipe(study, store, upstream) if upstream is not None else None
    seen = foresight(study, store, last, anew=anew)
    known = rates(store, study.name)
    sizes = sizes_of_plan(study, seen.shards, known.dims)
    given = Given(study, State(), last, store)
    given.state.add(*_listed(seen, last))
    wanted = list(STAGES) if only is None else [only]
    lines = []
    for stage in STAGES if only is None else (*before(only), only):
        if stage == only:
            check_taken(chosen, given.state, only)
        made, adopted = _walk(stage, given, sizes, chosen, force=force and stage in wanted)
        made, adopted = ([job for job in jobs if narrow.includes(job.key)] for jobs in (made, adopted))
        if stage in wanted:
            lines += _lines(stage, made, adopted, sizes, known)
        elif made:
            raise BadInput(f"--only {only}: {made[0].key} is missing or stale: run --only {stage} first, or all stages")
    skipped = [stage for stage in STAGES if stage not in wanted]
    downloads = seen.downloads if "acquire" in wanted else 0
    uses_gpu = any(line.make and STAGES[line.stage].gpu for line in lines)
    gpu = tuple(gpu_lines(study, sizes)) if uses_gpu else ()
    return Plan(lines, skipped, downloads, 0, seen.how, gpu)


def _listed(seen: Foresight, last: Run | None) -> list[Entry]:
    """The entries that a scan would add: the listings and the ledger.

    If the last run had the same listings, the ledger is that of the last run; otherwise it is a planned dataset.
    """
    scans = [Entry(kind="scan", shard=shard.number, dataset=shard.listing) for shard in seen.shards]
    same = last is not None and [e.dataset for e in last.of("scan")] == [e.dataset for e in scans]
    ledgers = [e.dataset for e in last.of("ledger")] if last is not None and same else []
    return [*scans, Entry(kind="ledger", dataset=ledgers[0] if ledgers else planned("ledgers/planned", 0))]


def _walk(stage: str, given: Given, sizes: Sizes, chosen: Entry | None, *, force: bool) -> tuple[list[Job], list[Job]]:
    """(jobs of a stage whose dataset is to be made, jobs whose dataset is adopted).

    Every dataset is added to the state, planned datasets too. A dataset that two jobs share counts as made once; with
    `force` it counts as made for each of them. `chosen` takes the place of the dataset with its key.
    """
    made: list[Job] = []
    adopted: list[Job] = []
    known: dict[str, Dataset] = {}  # by path
    for step in STEPS[stage]:
        for job in step(given):
            if chosen is not None and job.key == chosen.key:
                adopted.append(job)
                given.state.add(chosen)
                continue
            path = _path(job)
            shared = not force and path in known
            found = None if force or shared else job.lookup(given.store)
            (adopted if found or shared else made).append(job)
            known[path] = known[path] if shared else found or planned(path, _rows(job, sizes))
            given.state.add(_entry(job, known[path]))
    return made, adopted


def _path(job: Job) -> str:
    """Path of the dataset of a job. While the inputs of the job are not known, the path is made up."""
    if job.inputs is not None:
        return job.stage.address(**job.inputs).path
    return f"{job.stage.folder}/{str(job.key).replace(' ', '-')}"


def _entry(job: Job, dataset: Dataset) -> Entry:
    return job.entry(dataset) if job.inputs is not None else Entry(**job.key._asdict(), dataset=dataset)


def _rows(job: Job, sizes: Sizes) -> int:
    """Rows of a dataset that is to be made. By these rows the key `retrain` decides whether an SAE is trained again."""
    work = sizes.work(job.key)
    return work.images if job.key.kind == "acquire" else work.rows


def _lines(stage: str, made: list[Job], adopted: list[Job], sizes: Sizes, known: Rates) -> list[Line]:
    lines = []
    for kind in dict.fromkeys(job.key.kind for job in (*made, *adopted)):
        jobs = [job for job in made if job.key.kind == kind]
        costs, from_store = [], bool(jobs)
        for job in jobs:
            work = sizes.work(job.key)
            table, factor = cost(kind, work), known.factor(kind, work)
            from_store &= factor is not None
            rate = factor or (1.0, 1.0)
            costs.append(Cost(table.bytes * rate[0], table.seconds * rate[1]))
        adopt = sum(job.key.kind == kind for job in adopted)
        seconds = seconds_of(kind, costs, gpu=on_gpu(sizes.study)) if jobs else 0.0
        lines.append(Line(stage, kind, len(jobs), adopt, sum(each.bytes for each in costs), seconds, from_store))
    return lines


def sized(count: float) -> str:
    """Bytes in words: 3.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.1f} TB"


def lasting(seconds: float) -> str:
    """Seconds in words: 12 s, 6 min, 3.4 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def told(found: Plan) -> list[str]:
    """The plan as lines to print."""
    lines = [f"{'stage':8} {'kind':10} {'make':>6} {'adopt':>6} {'on disk':>10} {'time':>9}"]
    for line in found.lines:
        amount, time = (sized(line.bytes), lasting(line.seconds)) if line.make else ("", "")
        lines.append(f"{line.stage:8} {line.kind:10} {line.make:6} {line.adopt:6} {amount:>10} {time:>9}".rstrip())
    if found.skipped:
        lines.append(f"skipped: {', '.join(found.skipped)}")
    if found.how:
        lines.append(found.how)
    made, adopted = (sum(getattr(line, name) for line in found.lines) for name in ("make", "adopt"))
    known = [line.kind for line in found.lines if line.known]
    if made:
        table = "a table that was measured on a machine with 2 cores"
        lines.append(
            "estimated from "
            + (f"datasets in the store for {', '.join(dict.fromkeys(known))}, else from {table}" if known else table)
        )
    lines += found.gpu
    if found.downloads:
        lines.append(f"the source downloads or unpacks {sized(found.downloads)}, which the store keeps")
    lines.append(
        f"{made} to make, {adopted} to adopt: about {sized(found.bytes)} and {lasting(found.seconds)}; "
        f"{sized(found.free)} are free"
    )
    return lines
