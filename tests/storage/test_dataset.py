"""Datasets: addresses, atomic writes, locks and the reuse of finished datasets, with real processes and SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage.dataset import Dataset, address, complete, find_store, manifest_of, materialize, verify
from storage.errors import BadInput
from storage.manifest import MANIFEST, RECORD, digest_of


def handle(digest: str, path: str = "pairs/x") -> Dataset:
    return Dataset(path=path, recipe="r", digest=digest, rows=1)


def write(text: str, calls: list[int] | None = None):
    def body(out: Path) -> int:
        if calls is not None:
            calls.append(1)
        (out / "a.txt").write_text(text)
        return 3

    return body


def test_address_depends_on_digests_not_on_where_inputs_lie() -> None:
    here = address("embeddings", "1", {"pairs": handle("d1", "pairs/x"), "dtype": "float32"})
    moved = address("embeddings", "1", {"pairs": handle("d1", "pairs/elsewhere"), "dtype": "float32"})
    assert here.path == moved.path
    assert here.inputs[0].path == "pairs/x"


@pytest.mark.parametrize(
    ("stage", "version", "arguments"),
    [
        ("export", "1", {"model": "m", "seed": 0}),  # another stage with the same arguments
        ("train", "2", {"model": "m", "seed": 0}),  # another version
        ("train", "1", {"model": "m", "seed": 1}),  # another value
        ("train", "1", {"model": handle("d"), "seed": 0}),  # a dataset's handle instead of a model's name
    ],
)
def test_address_changes_with_stage_version_and_arguments(stage: str, version: str, arguments: dict) -> None:
    assert address(stage, version, arguments).path != address("train", "1", {"model": "m", "seed": 0}).path


def test_address_ignores_the_order_of_keys_but_not_of_lists() -> None:
    a = address("s", "1", {"x": 1, "y": [1, 2]})
    assert a.recipe == address("s", "1", {"y": [1, 2], "x": 1}).recipe
    assert a.recipe != address("s", "1", {"x": 1, "y": [2, 1]}).recipe


def test_address_refuses_what_it_cannot_hash() -> None:
    with pytest.raises(TypeError, match="PosixPath cannot be part of a recipe"):
        address("s", "1", {"path": Path("x")})


def test_a_complete_dataset_is_adopted_not_made_again(tmp_path: Path) -> None:
    calls: list[int] = []
    at = address("things", "1", {"n": 1})
    first = materialize(tmp_path, at, write("x", calls))
    second = materialize(tmp_path, at, write("y", calls))
    assert first == second == complete(tmp_path, at)
    assert len(calls) == 1
    assert first.rows == 3


def test_force_makes_it_again_and_the_digest_follows_the_bytes(tmp_path: Path) -> None:
    at = address("things", "1", {"n": 1})
    first = materialize(tmp_path, at, write("x"))
    same = materialize(tmp_path, at, write("x"), force=True)
    other = materialize(tmp_path, at, write("y"), force=True)
    assert first == same
    assert first.recipe == other.recipe
    assert first.digest != other.digest


def test_volatile_files_do_not_count_in_the_digest(tmp_path: Path) -> None:
    def body(seconds: str):
        def fill(out: Path) -> int:
            (out / "weights").write_text("w")
            (out / "times").write_text(seconds)
            return 1

        return fill

    at = address("things", "1", {})
    first = materialize(tmp_path, at, body("1.0"), volatile=("times",))
    again = materialize(tmp_path, at, body("2.0"), volatile=("times",), force=True)
    assert first.digest == again.digest


def test_prefects_record_does_not_count_in_the_digest(tmp_path: Path) -> None:
    dataset = materialize(tmp_path, address("things", "1", {}), write("x"))
    (tmp_path / dataset.path / RECORD).write_text("{}")
    assert verify(tmp_path, dataset) is None
    assert digest_of(tmp_path / dataset.path) == dataset.digest


def test_a_folder_that_lost_or_tore_a_file_is_not_complete(tmp_path: Path) -> None:
    at = address("things", "1", {})
    dataset = materialize(tmp_path, at, write("xyz"))
    (tmp_path / dataset.path / "a.txt").write_text("x")
    assert complete(tmp_path, at) is None
    (tmp_path / dataset.path / "a.txt").unlink()
    assert complete(tmp_path, at) is None
    assert materialize(tmp_path, at, write("xyz")) == dataset


def test_changed_bytes_of_the_same_size_are_found_by_verify(tmp_path: Path) -> None:
    dataset = materialize(tmp_path, address("things", "1", {}), write("xyz"))
    assert verify(tmp_path, dataset) is None
    (tmp_path / dataset.path / "a.txt").write_text("xyw")
    assert "not those that were written" in str(verify(tmp_path, dataset))


def test_changed_bytes_of_a_file_outside_the_digest_are_found_by_verify(tmp_path: Path) -> None:
    dataset = materialize(tmp_path, address("things", "1", {}), write("xyz"), volatile=("a.txt",))
    assert verify(tmp_path, dataset) is None
    (tmp_path / dataset.path / "a.txt").write_text("xyw")
    assert verify(tmp_path, dataset) == f"{dataset.path}: a.txt: its bytes are not those that were written"


def test_a_manifest_without_hashes_is_still_read(tmp_path: Path) -> None:
    dataset = materialize(tmp_path, address("things", "1", {}), write("xyz"), volatile=("a.txt",))
    path = tmp_path / dataset.path / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["hashes"]
    path.write_text(json.dumps(manifest))
    assert verify(tmp_path, dataset) is None


def test_a_body_that_raises_leaves_no_dataset(tmp_path: Path) -> None:
    at = address("things", "1", {})

    def body(out: Path) -> int:
        (out / "half").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        materialize(tmp_path, at, body)
    assert complete(tmp_path, at) is None
    dataset = materialize(tmp_path, at, write("x"))
    assert sorted(os.listdir(tmp_path / dataset.path)) == ["a.txt", MANIFEST]


def test_manifest_says_what_it_was_made_from(tmp_path: Path) -> None:
    dataset = materialize(tmp_path, address("things", "7", {"from": handle("d1"), "k": 8}), write("x"))
    manifest = manifest_of(tmp_path, dataset)
    assert manifest["arguments"] == {"from": {"digest": "d1"}, "k": 8}
    assert manifest["inputs"] == [handle("d1").model_dump()]
    assert manifest["version"] == "7"
    assert "torch" in manifest["libraries"]


SLOW = """
import sys, time
from pathlib import Path
from storage.dataset import address, materialize
store, name = Path(sys.argv[1]), sys.argv[2]
def body(out):
    (out / "by").write_text(name)
    print("inside", flush=True)
    time.sleep(float(sys.argv[3]))
    (out / "end").write_text("x")
    return 1
materialize(store, address("things", "1", {}), body)
print("done", flush=True)
"""


def start(store: Path, name: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW, str(store), name, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_kill_9_while_writing_leaves_nothing_that_looks_whole_and_frees_the_lock(tmp_path: Path) -> None:
    process = start(tmp_path, "first", 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    at = address("things", "1", {})
    assert complete(tmp_path, at) is None
    began = time.monotonic()
    materialize(tmp_path, at, write("x"))
    assert time.monotonic() - began < 10
    assert not (tmp_path / at.path / "by").exists()


def test_a_second_process_waits_says_for_whom_and_adopts(tmp_path: Path) -> None:
    first = start(tmp_path, "first", 3)
    assert first.stdout is not None
    first.stdout.readline()
    second = start(tmp_path, "second", 0)
    out, err = second.communicate(timeout=60)
    assert out == "done\n"  # the second process did not run its body
    assert f"waiting for process {first.pid}" in err
    assert first.wait() == 0
    assert (tmp_path / address("things", "1", {}).path / "by").read_text() == "first"


def test_the_store_is_found_by_option_variable_or_nearest_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BRIDGESCOPE_STORE", raising=False)
    (tmp_path / "store").mkdir()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_store() == tmp_path / "store"
    monkeypatch.setenv("BRIDGESCOPE_STORE", str(below))
    assert find_store() == below
    assert find_store(tmp_path) == tmp_path


def test_a_missing_store_is_bad_input_and_create_makes_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no store at"):
        find_store(tmp_path / "none")
    assert find_store(tmp_path / "new", missing_ok=True) == tmp_path / "new"
    assert not (tmp_path / "new").exists()
    assert find_store(tmp_path / "new", create=True).is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is a file"):
        find_store(tmp_path / "file", create=True)
