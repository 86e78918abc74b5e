"""The flows that a Prefect server deploys: the study, and each stage alone, with parameters that the server checks.

Every flow calls `run_study`, as the command line does, so that both share one cache. This module does not import
`annotations` from `__future__`: Prefect builds the form of the parameters from the annotations themselves.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from prefect import Flow, flow, runtime
from prefect.context import FlowRunContext, SyncClientContext
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventIDFilter
from prefect.events.worker import EventsWorker
from pydantic import Field

from flows.config import load_study
from flows.stages import STAGES
from flows.study import Finished, run_study
from storage.dataset import find_store, locked, write_atomically
from storage.runs import Run, heads, read_run

log = logging.getLogger("bridgescope")

LANDED = "landed-{variant}.json"  # file of a study: digest of the manifest that the event was last sent for
TAKEN_WITHIN = 60.0  # seconds to wait for an event; Prefect's server stores its events every 5 s
PAIRS_LANDED = "pairs landed"  # event that the flow `acquire` sends when the manifest of its source has changed

StudyFile = Annotated[str, Field(pattern=r"^.+\.toml$")]
Changes = list[Annotated[str, Field(pattern=r"^[a-z0-9_.-]+=.")]]
Recipe = Annotated[str, Field(pattern=r"^[0-9a-f]{20}$")]

# Prefect shows these lines as help in the form of the parameters.
ARGUMENTS = """

Args:
    study: the study file, relative to the folder that the deployment names
    force: make the outputs again, also those that are complete
    set: changes to the study: saes.main.k=16, pairs.limit=40
    upstream: recipe of a dataset of an earlier stage, to use in place of the newest complete one
"""


class NotTaken(RuntimeError):
    """The Prefect server did not take an event. The next run of acquire sends it again."""


def _run_name() -> str:
    """Name of a flow run: study and flow, as in `demo: train`."""
    parameters: dict[str, Any] = runtime.flow_run.parameters
    return f"{Path(parameters['study']).stem}: {runtime.flow_run.flow_name}"


def _run(file: str, only: str | None, force: bool, changes: list[str], upstream: str | None = None) -> Finished:
    log.setLevel(logging.INFO)
    study = load_study(file, changes)
    store = find_store(create=True)
    _tag(f"study:{study.name}")
    log.info("study %s, store %s", study.name, store)
    finished = run_study(
        study,
        store,
        only=only,
        force=force,
        upstream=upstream,
        changes=changes,
        progress=False,
        on_stage_done=_log_stage,
    )
    made = sum(done.tasks - done.cached for done in finished.stages)
    cached = sum(done.cached for done in finished.stages)
    log.info("run %d: %s, %d cached", finished.run.number, f"{made} made" if made else "nothing new", cached)
    return finished


def _tag(tag: str) -> None:
    """Add the study's tag to the current flow run, once the study file is read and the name of the study is known."""
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        with SyncClientContext.get_or_create() as found:
            found.client.update_flow_run(context.flow_run.id, tags=[*context.flow_run.tags, tag])


def _log_stage(done: object) -> None:
    log.info("%s", done)


def _whole(study: StudyFile, force: bool = False, set: Changes = []) -> None:  # noqa: B006 (Prefect copies it)
    _run(study, None, force, set)


def _acquire(study: StudyFile, force: bool = False, set: Changes = []) -> None:  # noqa: B006
    done = _run(study, "acquire", force, set).run
    store, now = find_store(), manifest_digest(done)
    landed = store / "studies" / done.study / LANDED.format(variant=done.variant)
    with locked(landed):  # if two runs see the same change, only the first sends the event
        if now in (_announced(landed), _of_the_last_whole_run(store, done)):
            log.info("no new pairs: the manifest is still %s", now)
            return
        log.info("pairs landed: the manifest is %s now", now)
        announce(done.study, {"digest": now, "study": study, "set": set})
        # Written after the event is sent. If a run is killed in between, the next run sends the event a second time.
        write_atomically(landed, json.dumps({"digest": now}))


def _announced(landed: Path) -> str | None:
    """Digest of the manifest that an event was last sent for, or None before the first."""
    return str(json.loads(landed.read_text())["digest"]) if landed.exists() else None


def _of_the_last_whole_run(store: Path, done: Run) -> str | None:
    """Digest of the manifest that the newest complete run of all stages used. The pairs of that run need no event."""
    whole = (
        run for run in heads(store, done.study, done.variant) if run.is_complete and run.options.get("only") is None
    )
    newest = next(whole, None)
    return manifest_digest(read_run(store, done.study, newest.number)) if newest is not None else None


def announce(study: str, payload: dict[str, Any]) -> None:
    """Send the event `pairs landed`, and wait until the server has stored it. Raises NotTaken after a timeout."""
    event = emit_event(
        PAIRS_LANDED,
        resource={"prefect.resource.id": f"bridgescope.study.{study}", "prefect.resource.name": study},
        payload=payload,
    )
    EventsWorker.instance().wait_until_empty()
    if event is None:
        log.warning("Prefect sends no events with these settings: no deployment learns that pairs landed")
        return
    wanted, end = EventFilter(id=EventIDFilter(id=[event.id])), time.monotonic() + TAKEN_WITHIN
    with SyncClientContext.get_or_create() as found:
        while not found.client.read_events(wanted, limit=1).events:
            if time.monotonic() > end:
                raise NotTaken(f"the Prefect server has not taken the event `{PAIRS_LANDED}` in {TAKEN_WITHIN:.0f} s")
            time.sleep(0.2)


def manifest_digest(run: Run) -> str | None:
    """Hash over the digests of a run's listings, in the order of shards: it changes when the source's items change.

    None for a run without listings.
    """
    listings = run.of("scan")
    text = "".join(f"{entry.shard} {entry.dataset.digest}\n" for entry in listings)
    return hashlib.sha256(text.encode()).hexdigest() if listings else None


def _alone(stage: str) -> Callable[..., None]:
    def alone(
        study: StudyFile,
        force: bool = False,
        set: Changes = [],  # noqa: B006
        upstream: Recipe | None = None,
    ) -> None:
        _run(study, stage, force, set, upstream)

    return alone


def _deployable(name: str, body: Callable[..., None], description: str) -> Flow[..., None]:
    body.__doc__ = description + ARGUMENTS
    return flow(name=name, description=description, flow_run_name=_run_name, persist_result=False)(body)


study = _deployable("study", _whole, "Run every stage of a study. Datasets that are complete are not made again.")
# The flow of each deployed stage is a global variable with the name of the stage. deploy/prefect.yaml refers to the
# flows by these names, such as flows.deployed.embed.
globals().update(
    {
        stage.name: _deployable(stage.name, _acquire if stage.name == "acquire" else _alone(stage.name), stage.sentence)
        for stage in STAGES.values()
        if stage.deployed
    }
)
