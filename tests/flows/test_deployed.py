"""The deployed flows, called as Prefect calls them: one code path, one event a landing, what an operator sees."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from tests_support import write_study

import flows.deployed as deployed
from flows.config import load_study
from flows.stages import STAGES
from flows.study import run_study
from storage.errors import BadInput
from storage.runs import last_run, read_run

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def landings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The events that a flow sends, in place of a server's."""
    sent: list[Any] = []
    monkeypatch.setattr(deployed, "emit_event", lambda event, **of: sent.append((event, of)))
    return sent


def artifacts(key: str) -> list[Any]:
    async def read() -> list[Any]:
        async with get_client() as client:
            return await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))

    return asyncio.run(read())


def test_stages_alone_end_as_the_whole_study_and_only_a_changed_manifest_is_a_landing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, landings: list[Any]
) -> None:
    study, store = write_study(tmp_path, images=300), tmp_path / "store"
    monkeypatch.setenv("BRIDGESCOPE_STORE", str(store))
    deployed.acquire(str(study))
    deployed.acquire(str(study))
    digest = deployed.manifest_digest(last_run(store, "small"))
    assert landings == [
        (
            "pairs landed",
            {
                "resource": {"prefect.resource.id": "bridgescope.study.small", "prefect.resource.name": "small"},
                "payload": {"digest": digest, "study": str(study), "set": []},
            },
        )
    ]
    for stage in ("embed", "train", "export", "analyze", "report"):
        getattr(deployed, stage)(str(study))
    run = last_run(store, "small")
    assert run is not None
    again = run_study(load_study(study), store, progress=False).run
    assert all(entry.cached for entry in again.entries if entry.stage not in ("scan", "ledger"))
    image = study.parent / "vectors" / "image.npy"
    np.save(image, np.load(image) * np.float32(2))
    deployed.study(str(study), set=["runtime.embed_batch_size=32"])
    assert len(landings) == 1  # the study's own acquire saw another manifest, and lands nothing
    assert deployed.manifest_digest(last_run(store, "small")) != digest

    shown = artifacts("small-train")[0]
    assert shown.description.startswith("**small: train**: ")
    assert '"what": "train own main seed 0"' in str(shown.data)
    assert "SAEs, mean of seeds" in artifacts("small-results")[0].data


def test_a_named_upstream_stands_in_place_of_the_newest(tmp_path: Path) -> None:
    study, store = write_study(tmp_path, images=300), tmp_path / "store"
    store.mkdir()
    first = run_study(load_study(study), store, progress=False).run
    other = load_study(study, ["saes.main.k=4"])
    run_study(other, store, progress=False)
    old = first.of("train", seed=0)[0].dataset
    done = run_study(other, store, only="export", upstream=old.recipe, progress=False)
    assert done.run.of("train", seed=0)[0].dataset == old
    assert done.run.of("export", seed=0)[0].dataset == first.of("export", seed=0)[0].dataset
    assert done.run.of("export", seed=1)[0].dataset == read_run(store, "small", 2).of("export", seed=1)[0].dataset
    with pytest.raises(BadInput, match="which does not come before embed"):
        run_study(other, store, only="embed", upstream=old.recipe, progress=False)
    with pytest.raises(BadInput, match="no run of 'small' made a dataset of that name"):
        run_study(other, store, only="export", upstream="0" * 20, progress=False)
    with pytest.raises(BadInput, match="goes with --only STAGE"):
        run_study(other, store, upstream=old.recipe, progress=False)


def test_every_stage_has_a_deployment_and_the_night_is_exclusive() -> None:
    described = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "prefect.yaml").read_text())["deployments"]
    by_entry: dict[str, list[dict[str, Any]]] = {}
    for one in described:
        by_entry.setdefault(one["entrypoint"].removeprefix("flows.deployed."), []).append(one)
    assert set(by_entry) == {"study", *STAGES}
    assert all(getattr(deployed, name).name == name for name in by_entry)
    night = next(one for one in by_entry["study"] if one["name"] == "nightly")
    assert night["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    landed = next(one for one in by_entry["study"] if one["name"] == "landed")
    assert landed["triggers"][0]["expect"] == [deployed.PAIRS_LANDED]
    assert [one["name"] for one in described if one.get("triggers")] == ["landed"]
