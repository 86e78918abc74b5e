"""A job, a step of a stage, and what the steps of several stages list their jobs with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flows.config import Study
from flows.sections import Model
from flows.stages import STAGES
from storage.dataset import Dataset
from storage.errors import BadInput
from storage.runs import Entry, Key, Run, State
from tasks.embed import model_identity
from tasks.specs import Spec
from tasks.stage import Stage


class Job(NamedTuple):
    """A cached task with its arguments, to run or to look up. `inputs` is None while one of its datasets is missing."""

    key: Key
    stage: Stage
    inputs: dict[str, Any] | None
    problem: Exception | None = None  #: bad input that was met while the job was listed; `inputs` is then None

    def arguments(self) -> dict[str, Any]:
        """Arguments of the task. Raises `problem`, or BadInput while a dataset that the job depends on is missing."""
        if self.problem is not None:
            raise self.problem
        if self.inputs is None:
            raise BadInput(f"{self.key}: its inputs are missing: run the earlier stages first")
        return self.inputs

    def lookup(self, store: Path) -> Dataset | None:
        """Return the dataset of this job if it is complete, else None. Runs no task."""
        return self.stage.lookup(store, **self.inputs) if self.inputs is not None else None

    def entry(self, dataset: Dataset, seconds: float = 0.0, *, cached: bool = False) -> Entry:
        """The entry that records the dataset of this job in a run."""
        inputs = list(self.stage.address(**self.arguments()).inputs)
        return Entry(**self.key._asdict(), dataset=dataset, inputs=inputs, seconds=round(seconds, 4), cached=cached)


class Given(NamedTuple):
    """The study and the datasets from which a step lists its jobs."""

    study: Study
    state: State  #: the entries of the earlier steps
    last: Run | None  #: the newest run of the study
    store: Path

    def is_embedded(self, model: str) -> bool:
        """Return True when there is a shard of pairs and this model has embedded every one of them."""
        shards = len(self.state.of("embed", model=model))
        return 0 < shards == len(self.state.of("acquire"))


Step = Callable[[Given], list[Job]]


STEPS: dict[str, list[Step]] = {name: [] for name in STAGES}  #: the steps of each stage, in order


def step_of(stage: str) -> Callable[[Step], Step]:
    """Decorator that appends a function to the steps of a stage."""

    def add(step: Step) -> Step:
        STEPS[stage].append(step)
        return step

    return add


def jobs_of(stage: str, given: Given) -> Iterator[Job]:
    """Yield the jobs of a stage. The jobs of a step are listed only after the jobs of the previous step were yielded.

    So their arguments include the datasets that the previous step added to the state.
    """
    for step in STEPS[stage]:
        yield from step(given)


def shards_of_model(given: Given, model: str) -> dict[str, list[Dataset]]:
    """The pairs and the embeddings of all shards of a model, as arguments of a task."""
    embedded = given.state.of("embed", model=model)
    pairs = [given.state[Key("acquire", shard=e.shard)].dataset for e in embedded]
    return {"pairs": pairs, "embeddings": [e.dataset for e in embedded]}


def training_rows(study: Study, embeddings: list[Dataset]) -> int:
    """Number of training rows of both modalities in these shards, up to the chance of the split."""
    return round((1 - study.pairs.heldout) * sum(shard.rows for shard in embeddings))


def in_order(study: Study, entries: Iterable[Entry]) -> list[Entry]:
    """Entries of one kind in the order of the study: by model, SAE setting, seed and shard.

    Not in the order in which a run came to them, which other runs may not share, such as `status`: a list of datasets
    is part of a recipe in its order.
    """
    models = {model.name: place for place, model in enumerate(study.models)}
    settings = {setting.name: place for place, setting in enumerate(study.settings())}

    def place(entry: Entry) -> tuple[int, ...]:
        numbers = (-1 if number is None else number for number in (entry.seed, entry.other_seed, entry.shard))
        return models.get(str(entry.model), -1), settings.get(str(entry.sae), -1), *numbers

    return sorted(entries, key=place)


def entries_of(given: Given, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """Entries of these kinds, as an argument of a task."""
    return [e.argument() for kind in kinds for e in in_order(given.study, given.state.of(kind))]


def encoder_of(given: Given, model: Model) -> dict[str, Any] | None:
    """Arguments of a task that loads a model. None while a demo model is missing.

    Raises BadInput for a folder that does not exist.
    """
    identity: Dataset | str | None
    if model.parsed_spec.variant is not None:
        identity = given.state.dataset("model", model=model.name)
        spec = str(Spec.of_folder("open_clip", given.store / identity.path)) if identity else ""
    else:
        identity, spec = model_identity(model.spec, given.store)
    return {"model": identity, "spec": spec, "dtype": model.dtype} if identity is not None else None
