"""The resources that Ray reserves for a task, and a model that stays loaded in a process with a simulated GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.testing.utilities import prefect_test_harness
from ray_support import Raylets

from flows.cluster import Cluster, ClusterError
from flows.config import load_study
from flows.sections import RuntimeSection
from flows.study import run_study
from storage.dataset import Dataset
from storage.errors import BadInput
from storage.runs import last_run
from tasks.embed import embed, model_identity
from tasks.stage import Runtime


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


def test_gpus_go_to_embed_and_train_as_the_study_says(raylets: type[Raylets]) -> None:
    cluster = raylets(num_cpus=4, num_gpus=2)
    with Cluster(RuntimeSection(runner="ray", ray_address=cluster.address, num_gpus_sae=0.25)) as joined:
        joined.task_runner("embed")
        assert joined.options("embed") == {"num_cpus": 1, "num_gpus": 1, "max_calls": 0}
        assert joined.options("train") == {"num_cpus": 1, "num_gpus": 0.25, "max_calls": 0}
        assert joined.options("export")["num_gpus"] == 0
        assert joined.ahead("embed") == 4 * 2  # two tasks at once, one per GPU
        assert joined.ahead("train") == 4 * 4  # four tasks at once: two GPUs have room for eight, four cores for four
    with Cluster(RuntimeSection(runner="ray", ray_address=cluster.address, device="cpu", num_cpus=2)) as joined:
        joined.task_runner("embed")
        assert joined.options("embed") == {"num_cpus": 2, "num_gpus": 0, "max_calls": 0}
        assert joined.ahead("embed") == 4 * 2


def test_a_task_that_fits_no_machine_is_refused_or_logged(
    raylets: type[Raylets], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = raylets(num_cpus=2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with Cluster(RuntimeSection(runner="ray", ray_address=cluster.address, num_gpus=1)) as joined:
        joined.task_runner("embed")  # no error: a machine with a GPU may join later
        assert "a task of embed needs 1 cores and 1 GPUs" in caplog.text
        assert "the task waits until such a machine joins" in caplog.text
        joined.address = None  # no address: the run starts the cluster, and no machine can join
        with pytest.raises(BadInput, match="no machine of the Ray cluster has both"):
            joined.task_runner("embed")
        joined.task_runner("export")


def test_a_process_with_a_gpu_loads_a_model_once(
    pictures: Path, tmp_path: Path, raylets: type[Raylets], prefect_server: None
) -> None:
    import ray

    run_study(load_study(pictures), tmp_path, only="acquire", progress=False)
    run = last_run(tmp_path, "pictures")
    assert run is not None
    cluster = raylets(num_cpus=2, num_gpus=1)
    study = load_study(pictures)
    identity, spec = model_identity(study.models[0].spec, tmp_path)
    runtime = Runtime(store=tmp_path, device="cpu", embed_batch_size=32, progress=False)
    settings = RuntimeSection(runner="ray", ray_address=cluster.address, num_gpus=1)
    with Cluster(settings) as joined:

        @flow(task_runner=joined.task_runner("embed"), result_storage=tmp_path, persist_result=False)
        def embed_all() -> list[Dataset]:
            arguments = {"model": identity, "dtype": "float32", "spec": spec, "runtime": runtime}
            tasks = [joined.submit("embed", embed.task, {"pairs": e.dataset, **arguments}) for e in run.of("acquire")]
            return [task.result() for task in tasks]

        def loads() -> tuple[int, str]:
            import os

            from tasks.embed import load_encoders

            return load_encoders.cache_info().hits, os.environ["CUDA_VISIBLE_DEVICES"]

        assert len(embed_all()) == 4
        asked: Any = ray.remote(**joined.options("embed"))(loads)
        assert ray.get(asked.remote()) == (3, "0")


def test_a_missing_cluster_is_reported(tmp_path: Path) -> None:
    with (
        Cluster(RuntimeSection(runner="ray", ray_address="127.0.0.1:1")) as joined,
        pytest.raises(ClusterError, match=r"the Ray cluster at 127\.0\.0\.1:1 does not answer: start it"),
    ):
        joined.task_runner("embed")
