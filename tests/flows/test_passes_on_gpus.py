"""On several GPUs one process per GPU embeds one shard after another. Here the devices are played by the CPU.

The processes are real. In place of a pass they write down which process ran it.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, cast

import pytest
from pass_stand_in import mark, writes_its_process

from flows import embedding
from flows.course import Failed
from flows.embedding import _complete, _on_gpus
from flows.jobs.job import Job
from storage.dataset import Address, Dataset, materialize
from storage.runs import Entry, Key
from tasks import together
from tasks.embed import embed
from tasks.stage import Runtime

GPUS = ["cuda:0", "cuda:1"]


def job(model: str, shard: int) -> Job:
    pairs = Dataset(path=f"pairs/{shard}", recipe=str(shard), digest=str(shard), rows=1)
    inputs = {"pairs": pairs, "model": model, "spec": model, "dtype": "float32"}
    return Job(Key("embed", model, shard=shard), embed, inputs)


@pytest.fixture(autouse=True)
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(store: Path, **arguments: Any) -> Dataset | None:
        at = embed.address(**arguments).path
        return Dataset(path=at, recipe="r", digest="d", rows=1) if mark(store, arguments).exists() else None

    def made(each: Job, *_: Any, **__: Any) -> Entry:
        if each.key.model == "bad":
            raise ValueError(f"shard {each.key.shard}: cannot be read")
        return Entry(**each.key._asdict(), dataset=Dataset(path="x", recipe="x", digest="x", rows=1))

    monkeypatch.setattr(together, "_in_child", writes_its_process)
    monkeypatch.setattr(embed, "lookup", lookup)
    monkeypatch.setattr("flows.course.run_job", made)
    monkeypatch.setattr(embedding, "run_job", made)


def outcomes(store: Path, jobs: list[Job]) -> Any:
    return _on_gpus(GPUS, jobs, Runtime(store=store), None)


def test_a_gpu_keeps_its_process_and_so_its_models_for_all_shards(tmp_path: Path) -> None:
    jobs = [job(model, shard) for shard in range(6) for model in ("a", "b")]
    found = list(outcomes(tmp_path, jobs))
    assert sorted(str(each.key) for each in found) == sorted(str(each.key) for each in jobs)
    processes = defaultdict(set)
    for each in jobs:
        device, process = mark(tmp_path, each.arguments()).read_text().split()
        processes[device].add(process)
    assert set(processes) <= set(GPUS)
    assert all(len(of_device) == 1 for of_device in processes.values())


def test_a_slow_shard_holds_up_neither_the_other_gpu_nor_the_record(tmp_path: Path) -> None:
    """Shard 0 ends only when the shards after it are recorded: they run beside it, and are yielded as they end."""
    jobs = [job("a", shard) for shard in range(4)]
    (tmp_path / "waits-0").touch()
    order = []
    for outcome in outcomes(tmp_path, jobs):
        order.append(outcome.key.shard)
        if len(order) == 3:
            (tmp_path / "waits-0").unlink()
    assert sorted(order[:3]) == [1, 2, 3]
    assert order[3] == 0
    assert mark(tmp_path, jobs[0].arguments()).exists()  # by its pass, which waited long enough


def test_a_model_that_two_passes_did_not_make_is_left_to_its_own_jobs(tmp_path: Path) -> None:
    jobs = [job(model, shard) for shard in range(8) for model in ("a", "bad")]
    found = list(outcomes(tmp_path, jobs))
    failed = [each for each in found if isinstance(each, Failed)]
    made = {each.key for each in found if isinstance(each, Entry)}
    assert made == {each.key for each in jobs if each.key.model == "a"}
    assert {each.key for each in failed} == {each.key for each in jobs if each.key.model == "bad"}
    assert found[-len(failed) :] == failed  # after the passes, when the processes have ended


def test_a_process_that_dies_costs_its_pass_alone(tmp_path: Path) -> None:
    (tmp_path / "dies-1").touch()
    jobs = [job("a", shard) for shard in range(5)]
    found = list(outcomes(tmp_path, jobs))
    assert {each.key for each in found} == {each.key for each in jobs}
    assert found[-1].key.shard == 1  # made by its own job
    assert not mark(tmp_path, jobs[1].arguments()).exists()


def test_with_force_a_dataset_that_is_not_made_again_does_not_count_as_made(tmp_path: Path) -> None:
    """The dataset of the run before is still there where a pass failed."""
    made = materialize(tmp_path, Address("embeddings", "1", {}, ()), lambda out: 1)

    class Job:
        def lookup(self, store: Path) -> Dataset:
            return made

    one, forced = cast(Any, Job()), Runtime(store=tmp_path, force=True)
    before = _complete(one, forced)
    assert before is not None
    assert _complete(one, forced) == before
    materialize(tmp_path, Address("embeddings", "1", {}, ()), lambda out: 1, force=True)
    assert _complete(one, forced) not in (None, before)
    assert _complete(one, Runtime(store=tmp_path)) == made
