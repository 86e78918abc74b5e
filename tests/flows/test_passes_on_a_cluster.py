"""On a cluster one task embeds a shard with all models that miss it; what it does not make is made by tasks apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import embedding
from flows.cluster import AHEAD, Cluster
from flows.course import Failed
from flows.embedding import _on_cluster
from flows.jobs.job import Job
from storage.dataset import Dataset
from storage.errors import BadInput
from storage.runs import Entry, Key
from tasks.embed import adopt_vectors, embed
from tasks.stage import Runtime


class Ended:
    """A future of a task that has ended."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def result(self) -> None:
        if self.error is not None:
            raise self.error


class Played:
    """A cluster on which a pass ends when it is submitted: it makes its datasets, but for those of `bad` models."""

    ahead_each = AHEAD

    def __init__(self, slots: int = 2, bad: tuple[str, ...] = (), error: Exception | None = None) -> None:
        self.count, self.bad, self.error = slots, bad, error
        self.passes: list[tuple[int, list[str]]] = []
        self.made: set[str] = set()
        self.options: list[Runtime] = []

    def slots(self, stage: str) -> int:
        return self.count

    def ahead(self, stage: str) -> int:
        return self.ahead_each * self.count

    def submit(self, stage: str, task: Any, inputs: dict[str, Any]) -> Ended:
        jobs = inputs["jobs"]
        shards = {job["pairs"].path for job in jobs}
        assert len(shards) == 1
        self.passes.append((int(shards.pop()[-1]), [job["model"] for job in jobs]))
        self.options.append(inputs["runtime"])
        if self.error is None:
            self.made |= {embed.address(**job).path for job in jobs if job["model"] not in self.bad}
        return Ended(self.error)


def job(model: str, shard: int) -> Job:
    pairs = Dataset(path=f"pairs/{shard}", recipe=str(shard), digest=str(shard), rows=1)
    inputs = {"pairs": pairs, "model": model, "spec": model, "dtype": "float32"}
    return Job(Key("embed", model, shard=shard), embed, inputs)


JOBS = [job(model, shard) for model in ("a", "b", "c") for shard in range(4)]


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> list[Key]:
    """The jobs that are run as tasks of their own. Those of the model `b` fail."""
    ran: list[Key] = []

    def run_jobs(stage: str, jobs: list[Job], runtime: Runtime, cluster: Any) -> Any:
        for each in jobs:
            ran.append(each.key)
            yield Failed(each.key, BadInput("b")) if each.key.model == "b" else made(each)

    def made(each: Job, *_: Any, **__: Any) -> Entry:
        return Entry(**each.key._asdict(), dataset=Dataset(path="x", recipe="x", digest="x", rows=1))

    monkeypatch.setattr(embedding, "run_jobs", run_jobs)
    monkeypatch.setattr(embedding, "run_job", made)
    monkeypatch.setattr(embedding.uses, "note", lambda store, path: None)
    return ran


def outcomes(
    cluster: Played, monkeypatch: pytest.MonkeyPatch, jobs: list[Job] = JOBS, at_once: int | None = None
) -> Any:
    def lookup(store: Path, **arguments: Any) -> Dataset | None:
        at = embed.address(**arguments).path
        return Dataset(path=at, recipe="r", digest="d", rows=1) if at in cluster.made else None

    monkeypatch.setattr(embed, "lookup", lookup)
    played: Any = cluster
    assert isinstance(played, Played | Cluster)
    return list(_on_cluster(played, jobs, Runtime(store=Path("/nowhere")), at_once))


def test_a_task_embeds_a_shard_with_all_models(apart: list[Key], monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Played()
    found = outcomes(cluster, monkeypatch)
    assert cluster.passes == [(shard, ["a", "b", "c"]) for shard in range(4)]
    assert apart == []
    assert [entry.key for entry in found] == [Key("embed", m, shard=n) for n in range(4) for m in "abc"]
    assert {(each.decoders, each.progress) for each in cluster.options} == {("threads", False)}


def test_more_room_than_shards_divides_the_models(apart: list[Key], monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Played(slots=8)
    outcomes(cluster, monkeypatch)
    assert sorted(cluster.passes) == [(n, ["a", "b"]) for n in range(4)]  # the third model of a shard is a task apart
    assert sorted(apart) == [Key("embed", "c", shard=n) for n in range(4)]
    cluster = Played(slots=12)
    outcomes(cluster, monkeypatch)
    assert cluster.passes == []


def test_what_is_complete_or_has_no_pass_runs_apart(apart: list[Key], monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Played()
    cluster.made = {each.stage.address(**each.arguments()).path for each in JOBS if each.key.model == "a"}
    vectors = Job(Key("embed", "own", shard=0), adopt_vectors, {"pairs": JOBS[0].arguments()["pairs"], "rows": "r"})
    broken = Job(Key("embed", "gone", shard=0), embed, None, BadInput("no such folder"))
    outcomes(cluster, monkeypatch, [*JOBS, vectors, broken])
    assert cluster.passes == [(shard, ["b", "c"]) for shard in range(4)]
    assert apart == [*(Key("embed", "a", shard=n) for n in range(4)), vectors.key, broken.key]


def test_a_model_that_two_passes_did_not_make_is_left_out(apart: list[Key], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Played, "ahead_each", 1)
    cluster = Played(slots=1, bad=("b",))
    found = outcomes(cluster, monkeypatch)
    assert cluster.passes == [*((n, ["a", "b", "c"]) for n in range(2)), *((n, ["a", "c"]) for n in (2, 3))]
    assert apart == [Key("embed", "b", shard=n) for n in range(4)]
    assert [each.key for each in found if isinstance(each, Failed)] == apart


@pytest.mark.parametrize("error", [RuntimeError("a machine was lost"), OSError(28, "No space left on device")])
def test_a_pass_that_fails_is_made_apart_unless_the_disk_is_full(
    apart: list[Key], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    cluster = Played(error=error)
    if isinstance(error, OSError):
        with pytest.raises(OSError, match="No space"):
            outcomes(cluster, monkeypatch)
        assert apart == []
    else:
        outcomes(cluster, monkeypatch)
        assert len(apart) == 12
