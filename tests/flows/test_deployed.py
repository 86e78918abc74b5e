"""The deployed flows, called as Prefect calls them. They load a study, send one event for new pairs and write
artifacts.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterTags
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.settings import PREFECT_API_URL
from tests_support import grow, write_study

import flows.deployed as deployed
from flows.config import load_study
from flows.stages import STAGES
from flows.study import run_study
from storage.errors import BadInput
from storage.runs import last_run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


KILLED = """
import os, signal, sys
import flows.deployed as deployed
deployed.announce = lambda study, payload: os.kill(os.getpid(), signal.SIGKILL)
deployed.acquire(sys.argv[1])
"""


@pytest.fixture
def landings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Events that a flow would send. They are recorded and not sent."""
    sent: list[Any] = []
    monkeypatch.setattr(deployed, "emit_event", lambda event, **of: sent.append((event, of)))
    return sent


def artifacts(key: str) -> list[Any]:
    async def read() -> list[Any]:
        async with get_client() as client:
            return await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))

    return asyncio.run(read())


def test_stages_alone_are_the_study_a_changed_manifest_is_a_landing_and_an_upstream_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, landings: list[Any]
) -> None:
    file, store = write_study(tmp_path, images=300), tmp_path / "store"
    monkeypatch.setenv("BRIDGESCOPE_STORE", str(store))
    one = ["saes.main.seeds=[0]"]
    deployed.acquire(str(file), set=one)
    deployed.acquire(str(file), set=one)
    digest = deployed.manifest_digest(last_run(store, "small"))
    of = {
        "resource": {"prefect.resource.id": "bridgescope.study.small", "prefect.resource.name": "small"},
        "payload": {"digest": digest, "study": str(file), "set": one},
    }
    assert landings == [("pairs landed", of)]
    for stage in ("embed", "train", "export", "analyze", "report"):
        getattr(deployed, stage)(str(file), set=one)
    first = run_study(load_study(file, one), store, progress=False).run
    assert first.number == 8
    assert all(entry.cached for entry in first.entries if entry.is_task)
    shown = artifacts("small-train")[0]
    assert shown.description.startswith("**small: train**: ")
    assert '"what": "train own main seed 0"' in str(shown.data)
    assert "SAEs, mean of seeds" in artifacts("small-results")[0].data

    # Run the study with another k. Then export the activations of the earlier SAE. The argument `upstream` is the
    # recipe of this SAE.
    other = load_study(file, [*one, "saes.main.k=4"])
    run_study(other, store, progress=False)
    old = first.of("train")[0].dataset
    done = run_study(other, store, only="export", upstream=old.recipe, progress=False).run
    assert done.of("train")[0].dataset == old
    assert done.of("export")[0].dataset == first.of("export")[0].dataset
    with pytest.raises(BadInput, match="which does not come before embed"):
        run_study(other, store, only="embed", upstream=old.recipe, progress=False)
    with pytest.raises(BadInput, match="no run of 'small' made a dataset of that name"):
        run_study(other, store, only="export", upstream="0" * 20, progress=False)
    with pytest.raises(BadInput, match="is allowed only with --only STAGE"):
        run_study(other, store, upstream=old.recipe, progress=False)

    # A run of the whole study acquires the new pairs too. The manifest of the pairs changes, but no event is sent.
    grow(file.parent / "vectors")
    deployed.study(str(file), set=[*one, 'saes.main.retrain="never"'])
    assert len(landings) == 1
    assert deployed.manifest_digest(last_run(store, "small")) != digest


def test_a_landing_that_was_killed_before_its_event_is_sent_by_the_next_run_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, landings: list[Any]
) -> None:
    file, store = write_study(tmp_path, images=60), tmp_path / "store"
    monkeypatch.setenv("BRIDGESCOPE_STORE", str(store))
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    written = last_run(store, "small")
    assert written is not None
    deployed.acquire(str(file))
    assert [of["payload"]["digest"] for _, of in landings] == [deployed.manifest_digest(written)]
    deployed.acquire(str(file))
    assert len(landings) == 1


def test_an_event_is_taken_by_the_server_before_it_counts_as_sent() -> None:
    deployed.announce("small", {"digest": "0" * 64, "study": "small.toml", "set": []})
    wanted = EventFilter(event=EventNameFilter(name=["pairs landed"]))
    with get_client(sync_client=True) as client:
        sent = client.read_events(wanted, limit=50).events
    assert [event.payload["digest"] for event in sent if event.payload["study"] == "small.toml"] == ["0" * 64]


def test_a_run_of_a_deployment_gets_the_tag_of_its_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGESCOPE_STORE", str(tmp_path / "store"))
    deployed.acquire(str(write_study(tmp_path, images=60)), set=['name="tagged"'])
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=["study:tagged"])))
    assert "tagged" in str([run.parameters for run in runs])
    assert any(run.parent_task_run_id is None for run in runs)


def test_every_stage_has_a_deployment_and_the_night_is_exclusive() -> None:
    described = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "prefect.yaml").read_text())["deployments"]
    by_entry: dict[str, list[dict[str, Any]]] = {}
    for one in described:
        by_entry.setdefault(one["entrypoint"].removeprefix("flows.deployed."), []).append(one)
    assert set(by_entry) == {"study", *(stage.name for stage in STAGES.values() if stage.deployed)}
    assert all(getattr(deployed, name).name == name for name in by_entry)
    assert {one["name"]: one["description"] for one in described if "stage" in one["tags"]} == {
        f"{stage.name}-alone": stage.sentence for stage in STAGES.values() if stage.deployed
    }
    night = next(one for one in by_entry["study"] if one["name"] == "nightly")
    assert night["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    landed = next(one for one in by_entry["study"] if one["name"] == "landed")
    assert landed["triggers"][0]["expect"] == [deployed.PAIRS_LANDED]
    assert [one["name"] for one in described if one.get("triggers")] == ["landed"]
