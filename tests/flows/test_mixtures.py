"""Warnings when a comparison mixes datasets that different trainers, libraries or devices made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flows.cli import main
from flows.mixtures import mixtures
from storage.dataset import Dataset, address, materialize
from storage.manifest import MANIFEST
from storage.record import write_run
from storage.runs import Entry, Run

CONFIG = {"pairs": {"heldout": 0.2}}


def made(store: Path, kind: str, number: int, **changes: Any) -> Dataset:
    """A dataset whose manifest names another trainer, library or device."""
    folder = {"train": "saes", "embed": "embeddings"}[kind]
    dataset = materialize(store, address(folder, "1", {"number": number}), lambda out: (out / "x").write_bytes(b"x"))
    path = store / dataset.path / MANIFEST
    manifest = json.loads(path.read_text())
    for key, value in changes.items():
        manifest[key] = {**manifest[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(manifest))
    return dataset


def run_of(*entries: Entry) -> Run:
    return Run(study="small", config=CONFIG, entries=list(entries), started="", versions={}, ended="complete")


def sae(store: Path, seed: int, name: str = "main", **changes: Any) -> Entry:
    dataset = made(store, "train", 10 * seed + len(name), **changes)
    return Entry(kind="train", model="own", sae=name, seed=seed, dataset=dataset)


def test_seeds_of_one_setting_by_two_trainers_are_told(tmp_path: Path, capsys: Any) -> None:
    run = run_of(sae(tmp_path, 0), sae(tmp_path, 1), sae(tmp_path, 2, version="2", libraries={"torch": "9.9"}))
    (line,) = mixtures(tmp_path, run)
    assert line.startswith("SAEs main of own were made differently: ")
    assert "version of the stage (1: seeds 0, 1, 2: seed 2)" in line
    assert "9.9: seed 2)" in line
    assert "numpy" not in line
    write_run(tmp_path, run)
    main(["doctor", "--store", str(tmp_path)])
    assert f"study small: warning: run 1: {line}" in capsys.readouterr().out


def test_shards_embedded_on_two_devices_are_told(tmp_path: Path) -> None:
    gpu = {"device": "cuda", "gpu": "NVIDIA H100"}
    shards = [made(tmp_path, "embed", 0), made(tmp_path, "embed", 1, machine=gpu)]
    entries = [Entry(kind="embed", model="own", shard=n, dataset=dataset) for n, dataset in enumerate(shards)]
    (line,) = mixtures(tmp_path, run_of(*entries))
    assert line == "embeddings of own were made differently: device (cpu: shard 0, NVIDIA H100: shard 1)"


def test_other_settings_and_what_old_manifests_do_not_record_are_no_mixture(tmp_path: Path) -> None:
    old = sae(tmp_path, 1)
    path = tmp_path / old.dataset.path / MANIFEST
    manifest = json.loads(path.read_text())
    for key in ("code", "machine"):
        del manifest[key]
    manifest["libraries"] = {"torch": manifest["libraries"]["torch"]}
    path.write_text(json.dumps(manifest))
    other = sae(tmp_path, 0, name="wider", version="2")
    damaged = sae(tmp_path, 2)
    (tmp_path / damaged.dataset.path / MANIFEST).write_text("[]")
    assert mixtures(tmp_path, run_of(sae(tmp_path, 0), old, other, damaged)) == []
