"""The runner "ray" without Ray: refused settings, and the data sent with a task. tests/raylets tests it with Ray."""

from __future__ import annotations

import importlib.util
import re
import socket
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cloudpickle
import pytest

from flows.cli import main
from flows.cluster import Cluster, ClusterError, Here, check_answers
from flows.config import load_study
from flows.course import Failed, run_jobs
from flows.jobs.job import STEPS, Given, Job
from flows.running import run_stage
from storage.dataset import Dataset
from storage.runs import Key, State
from tasks.embed import embed
from tasks.export import export
from tasks.stage import Runtime


def test_without_the_extra_it_is_named_before_anything_is_made(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without_ray(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in ("ray", "prefect_ray") else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_ray)
    store = tmp_path / "store"
    assert main(["run", str(study_file), "--store", str(store), "--set", "runtime.runner=ray"]) == 2
    errors = capsys.readouterr().err
    assert "needs ray and prefect_ray" in errors
    assert "'.[ray]'" in errors
    assert list(store.iterdir()) == []


def test_a_task_travels_by_name_so_that_a_process_keeps_its_model() -> None:
    there = cloudpickle.loads(cloudpickle.dumps(export.task.with_options(task_run_name="export tiny")))
    assert there.task_run_name == "export tiny"
    assert there.cache_policy.of.__self__ is export
    assert cloudpickle.loads(cloudpickle.dumps(embed)) is embed


def test_a_flow_body_stays_where_it_is() -> None:
    here = Here(lambda: [Runtime(store=Path("/s"))])
    assert cloudpickle.loads(cloudpickle.dumps(here)).body is None


def test_an_address_without_a_listener_is_refused_at_once_and_others_are_left_to_ray() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=rf"the Ray cluster at {re.escape(address)} does not answer: start it"):
            check_answers(address)  # the port is bound, but no process listens
        taken.listen()
        check_answers(address)
    with pytest.raises(ClusterError, match="does not answer"):
        check_answers("127.0.0.1:99999")
    for other in (None, "auto", "local", "ray://nowhere.invalid:10001"):
        check_answers(other)


class Recorder:
    """A cluster on which every task fails. It records the stages of the tasks."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def submit(self, stage: str, task: Any, inputs: dict[str, Any]) -> Recorder:
        self.stages.append(stage)
        return self

    def ahead(self, stage: str) -> int:
        self.stages.append(stage)
        return 4

    def result(self) -> None:
        raise RuntimeError("no machine")


def test_tasks_of_every_kind_run_with_the_resources_of_their_stage(tmp_path: Path) -> None:
    """A cluster knows the resources of stages. The stage analyze has tasks of several kinds."""
    handle = Dataset(path="embeddings/0", recipe="0", digest="0", rows=1)
    inputs = {"sae": handle, "pairs": handle, "embeddings": handle, "shard": 0}
    jobs = [Job(Key(kind), export, inputs) for kind in ("frontier", "analyze")]
    cluster = Recorder()
    outcomes = list(run_jobs("analyze", jobs, Runtime(store=tmp_path), cast(Cluster, cluster)))
    assert cluster.stages == ["analyze"] * 4
    # A task that fails does not stop other tasks.
    assert [(outcome.key.kind, str(cast(Failed, outcome).error)) for outcome in outcomes] == [
        ("frontier", "no machine"), ("analyze", "no machine"),
    ]  # fmt: skip


def test_shards_that_fail_alike_twice_are_not_tried_further_and_a_full_disk_stops_the_run(tmp_path: Path) -> None:
    class Broken:
        """A cached task that always fails."""

        def __init__(self, error: Exception) -> None:
            self.error, self.tried = error, 0

        def failing(self, *_: Any, **__: Any) -> None:
            self.tried += 1
            raise self.error

    def jobs(broken: Broken, model: str) -> list[Job]:
        stage = cast(Any, SimpleNamespace(task=SimpleNamespace(with_options=lambda **_: broken.failing)))
        return [Job(Key("embed", model, shard=shard), stage, {}) for shard in range(5)]

    same, other = Broken(ValueError("no such tensor")), Broken(ValueError("another"))
    outcomes = list(run_jobs("embed", jobs(same, "a") + jobs(other, "b"), Runtime(store=tmp_path)))
    assert [outcome.key for outcome in outcomes] == [
        Key("embed", model, shard=shard) for model in ("a", "b") for shard in (0, 1)
    ]
    assert (same.tried, other.tried) == (2, 2)
    full = Broken(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        list(run_jobs("embed", jobs(full, "a"), Runtime(store=tmp_path)))
    assert full.tried == 1


def test_the_frontier_runs_beside_the_parts_of_the_saes() -> None:
    """A step waits for the step before it. So the long jobs of the stage analyze are in one step and run together."""
    assert [len(STEPS[stage]) for stage in ("embed", "train", "export")] == [2, 2, 1]  # checks; consensus SAEs
    demo = load_study(Path(__file__).parents[2] / "studies" / "demo.toml")
    given = Given(demo, State(), None, Path("store"))
    kinds = [{job.key.kind for job in step(given)} for step in STEPS["analyze"]]
    assert kinds == [{"space", "matching"}, {"measures", "partners", "correspondence", "frontier"}, {"names"},
                     {"analyze"}]  # fmt: skip


def test_the_flow_of_a_stage_refers_to_its_body_alone() -> None:
    """Prefect pickles the flow, and all that it refers to, with every task. So it must not refer to a study's state."""
    (stage_flow,) = (code for code in run_stage.__code__.co_consts if getattr(code, "co_name", "") == "stage_flow")
    assert stage_flow.co_freevars == ("here",)
