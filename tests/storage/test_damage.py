"""Damaged stores: `doctor` lists the path of all that is damaged and goes on, `gc` names the path, nothing crashes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from planted_runs import planted_run, small_study

from flows.cli import main
from storage.dataset import Address, Dataset, address, complete, manifest_of, materialize, verify
from storage.errors import BadInput
from storage.manifest import MANIFEST
from storage.runs import read_run


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


CUTS: dict[str, Callable[[bytes], bytes]] = {
    "in a line": lambda data: data[: len(data) // 2],
    "after a line": lambda data: data[: data.rindex(b"\n", 0, len(data) // 2) + 1],
    "the last newline": lambda data: data[:-1],
    "everything": lambda data: b"",
    "a line too many": lambda data: data + data.splitlines(keepends=True)[-1],
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_run_that_ended_and_lost_entries_is_not_sound_and_stops_gc(
    tmp_path: Path, cut: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    run = planted_run(small_study(tmp_path), store)
    entries = store / "studies" / "small" / "runs" / "1" / "entries.jsonl"
    whole = entries.read_bytes()
    datasets = sorted(store.glob("*/*/dataset.json"))
    entries.write_bytes(CUTS[cut](whole))
    assert main(["doctor", "--store", str(store)]) == 1
    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if line.startswith("not sound: studies/small/runs/1: ")]
    assert f"and the run ended with {len(run.entries)} (ended.json): restore the run's record, or move it" in line
    assert line.count("restore") == 1
    for command in (["gc", "--yes"], ["gc", "--yes", "--interrupted"], ["status", "small"], ["plan", "small"]):
        assert main([*command, "--store", str(store)]) == 2
        assert f"{entries} holds " in capsys.readouterr().err
    assert main(["sql", "SELECT 1", "--study", "small", "--store", str(store)]) == 2
    assert f"{entries} holds " in capsys.readouterr().err
    assert sorted(store.glob("*/*/dataset.json")) == datasets
    entries.write_bytes(whole)
    assert main(["gc", "--yes", "--store", str(store)]) == 0
    assert sorted(store.glob("*/*/dataset.json")) == datasets


def test_the_record_of_an_older_version_counts_no_entries_and_is_read(tmp_path: Path) -> None:
    run = planted_run(small_study(tmp_path), tmp_path)
    ended = tmp_path / "studies" / "small" / "runs" / "1" / "ended.json"
    values = json.loads(ended.read_text())
    assert values.pop("entries") == len(run.entries)
    ended.write_text(json.dumps(values))
    assert read_run(tmp_path, "small", 1) == run
