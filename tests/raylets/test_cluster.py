"""The runner "ray": bytes equal to those of "threads", one model per process, and raylets killed during a stage."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
from deploy_support import descendants, until
from ray_support import Raylets, begin, end
from tests_support import tables

from storage.garbage import find_garbage
from storage.runs import Run

SLOW = "saes.main.epochs=400"  # a training that still runs when its machine is killed


@pytest.fixture(scope="session")
def by_threads(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    store = tmp_path_factory.mktemp("threads")
    return end(begin(pictures, store, SLOW), store)[0], store


def same(run: Run, store: Path, other: Run, reference: Path) -> None:
    """Check that the datasets of acquire, embed, train and export have equal bytes, and the tables equal values."""
    for stage in ("acquire", "embed", "train", "export"):
        digests = {(entry.model, entry.sae, entry.seed, entry.shard): entry.dataset.digest for entry in run.of(stage)}
        assert digests == {(e.model, e.sae, e.seed, e.shard): e.dataset.digest for e in other.of(stage)}, stage
    expected = tables(reference, other)
    assert expected.keys() == tables(store, run).keys()
    for name, table in tables(store, run).items():
        assert table.equals(expected[name]), name


def test_a_cluster_on_this_machine_makes_the_bytes_of_threads_and_the_next_run_finds_them(
    pictures: Path, by_threads: tuple[Run, Path], tmp_path: Path
) -> None:
    run, output = end(begin(pictures, tmp_path, SLOW, "runtime.runner=ray"), tmp_path)
    assert "Ray: 1 machines" in output
    assert "shard 3: 200 images, 200 captions" in output  # logged by a task in its own process
    same(run, tmp_path, *by_threads)
    again, output = end(begin(pictures, tmp_path, SLOW), tmp_path)
    assert all(entry.cached for entry in again.entries if entry.is_task), output
    # All datasets are cached: no cluster is contacted, so an unreachable address is no error.
    third, output = end(begin(pictures, tmp_path, SLOW, "runtime.runner=ray", RAY_ADDRESS="127.0.0.1:1"), tmp_path)
    assert [entry.dataset for entry in third.entries] == [entry.dataset for entry in again.entries]


def embedding(store: Path, raylet: int) -> list[Path]:
    """The shards that a descendant process of a raylet is embedding, read from the locks in the store."""
    below = {f"process {pid} on" for pid in descendants(raylet)}
    held = [lock for lock in store.glob("embeddings/*.lock") if any(lock.read_text().startswith(one) for one in below)]
    return [lock for lock in held if not lock.with_suffix("").is_dir()]


def training(raylet: int) -> list[int]:
    """A raylet's descendant processes that train an SAE."""
    pids = []
    for pid in descendants(raylet):
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                pids.append(pid)
    return pids


def kill(raylet: int) -> None:
    """SIGKILL a raylet and its descendant processes, as if the machine of the raylet were lost."""
    for pid in (raylet, *descendants(raylet)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_two_raylets_of_which_one_is_killed_while_it_embeds_and_another_while_it_trains(
    pictures: Path, by_threads: tuple[Run, Path], tmp_path: Path, raylets: type[Raylets]
) -> None:
    cluster = raylets(num_cpus=1)
    second = cluster.add(num_cpus=1)
    process = begin(pictures, tmp_path, SLOW, "runtime.runner=ray", RAY_ADDRESS=cluster.address)
    until(lambda: embedding(tmp_path, second) or process.poll(), "the second raylet to embed")
    assert process.poll() is None
    kill(second)
    third = cluster.add(num_cpus=1)
    until(lambda: training(third) or process.poll(), "the third raylet to train")
    assert process.poll() is None
    kill(third)
    run, _ = end(process, tmp_path)
    same(run, tmp_path, *by_threads)
    # Every dataset exists once and is complete.
    assert {stage: len(run.of(stage)) for stage in ("acquire", "embed", "train", "export")} == {
        "acquire": 4, "embed": 4, "train": 2, "export": 8,
    }  # fmt: skip
    for folder, count in {"embeddings": 4, "saes": 2, "activations": 8, "tables": 1}.items():
        assert len([path for path in (tmp_path / folder).iterdir() if path.is_dir()]) == count, folder
    assert find_garbage(tmp_path).items == []
