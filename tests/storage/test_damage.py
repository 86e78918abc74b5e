"""Damaged stores: `doctor` lists the path of all that is damaged and goes on, `gc` names the path, nothing crashes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli import main
from storage.dataset import Address, Dataset, address, complete, manifest_of, materialize, verify
from storage.errors import BadInput
from storage.manifest import MANIFEST


def at(seed: int) -> Address:
    return address("saes", "1", {"seed": seed})


def made(store: Path, seed: int = 1) -> Dataset:
    return materialize(store, at(seed), lambda out: (out / "weights").write_bytes(b"weights"))


def changed(**keys: object) -> Callable[[bytes], bytes]:
    """A function that changes the values of keys in a manifest's bytes. The value None removes a key."""

    def change(data: bytes) -> bytes:
        values = {**json.loads(data), **keys}
        return json.dumps({key: value for key, value in values.items() if value is not None}).encode()

    return change


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[:100],
    "empty": lambda data: b"",
    "a list": lambda data: b"[]",
    "null": lambda data: b"null",
    "a string": lambda data: b'"x"',
    "binary junk": lambda data: bytes(range(256)),
    "nested deeply": lambda data: b"[" * 100_000,
    "without files": changed(files=None),
    "files a list": changed(files=["weights"]),
    "a size as text": changed(files={"weights": "7"}),
    "a file outside": changed(files={"../../weights": 7}),
    "a name with NUL": changed(files={"a\0b": 7}),
    "rows as text": changed(rows="7"),
    "digest a number": changed(digest=7),
    "volatile null": changed(volatile=None),
    "of another dataset": changed(recipe="f" * 20),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_manifest_is_told_in_words(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = made(tmp_path)
    sound = made(tmp_path, 2)
    path = tmp_path / dataset.path / MANIFEST
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    assert complete(tmp_path, at(1)) is None
    if kind != "of another dataset":
        assert dataset.path in str(verify(tmp_path, dataset))
        with pytest.raises(BadInput, match=dataset.path):
            manifest_of(tmp_path, dataset)
    assert main(["doctor", "--store", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "torch " in output
    assert f"not sound: {dataset.path}: " in output
    assert "delete its folder and run again" in output
    assert main(["gc", "--store", str(tmp_path), "--yes"]) == 0
    output = capsys.readouterr().out
    assert f"left alone: {dataset.path}: " in output
    assert (tmp_path / dataset.path / "weights").exists()
    assert not (tmp_path / sound.path).exists()
    assert made(tmp_path) == dataset  # the next run makes the dataset again


def test_verify_says_which_file_changed(tmp_path: Path) -> None:
    dataset = made(tmp_path)
    (tmp_path / dataset.path / "weights").write_bytes(b"weight")
    assert verify(tmp_path, dataset) == f"{dataset.path}: weights holds 6 bytes, and 7 were written"
    (tmp_path / dataset.path / "weights").unlink()
    assert verify(tmp_path, dataset) == f"{dataset.path}: weights: No such file or directory"
    (tmp_path / dataset.path / "weights").write_bytes(b"weights")
    (tmp_path / dataset.path / "stray").write_bytes(b"x")
    assert verify(tmp_path, dataset) == f"{dataset.path}: holds files that were not written with it: stray"


@pytest.mark.parametrize(
    "junk", [b"", b"[]", b"null", b'{"shards": 5}', b'{"shards": [{"path": 1}]}', b"\xff\xfe", b"[" * 9999]
)
def test_a_damaged_manifest_of_a_source_is_listed_and_stops_gc(
    tmp_path: Path, junk: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = made(tmp_path)
    manifest = tmp_path / "sources" / ("a" * 20) / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(junk)
    memo = tmp_path / "sources" / "fingerprints.json"
    memo.write_bytes(b'{"a": [1, 2')
    assert main(["doctor", "--store", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "not sound: sources/fingerprints.json: " in output
    assert f"not sound: sources/{'a' * 20}/manifest.json: " in output
    assert "the next run numbers the items again" in output
    assert main(["gc", "--store", str(tmp_path), "--yes"]) == 2  # the listings that the manifest names are unknown
    assert str(manifest) in capsys.readouterr().err
    assert (tmp_path / dataset.path).exists()


@pytest.mark.parametrize("junk", [b"", b"[]", b"null", b'{"study": "small"}', b"\xff\xfe\x00", b"[" * 99_999])
def test_a_damaged_record_of_a_run_does_not_hide_the_rest(
    tmp_path: Path, junk: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = made(tmp_path)
    for run in ("first/runs/1.json", "second/runs/1/run.json"):
        path = tmp_path / "studies" / run
        path.parent.mkdir(parents=True)
        path.write_bytes(junk)
    manifest = tmp_path / dataset.path / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:100])
    assert main(["doctor", "--store", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "not sound: studies/first/runs/1: " in output
    assert "not sound: studies/second/runs/1: " in output
    assert "garbage: not searched for: " in output
    assert f"not sound: {dataset.path}: " in output
