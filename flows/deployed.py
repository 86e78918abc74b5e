"""The flows that a Prefect server deploys: the study, and each stage alone, with parameters that the server checks.

Every flow calls `run_study`, as the command line does, so that both share one cache. This module does not import
`annotations` from `__future__`: Prefect builds the form of the parameters from the annotations themselves.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from prefect import Flow, flow, runtime
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from pydantic import Field

from flows.config import load_study
from flows.stages import STAGES
from flows.study import Finished, run_study
from storage.dataset import find_store
from storage.runs import Run, read_run

log = logging.getLogger("bridgescope")

PAIRS_LANDED = "pairs landed"  # event sent by the flow `acquire` when the manifest of its source changed

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


def _run_name() -> str:
    """Name of a flow run: study and flow, as in `demo: train`."""
    parameters: dict[str, Any] = runtime.flow_run.parameters
    return f"{Path(parameters['study']).stem}: {runtime.flow_run.flow_name}"


def _run(file: str, only: str | None, force: bool, changes: list[str], upstream: str | None = None) -> Finished:
    log.setLevel(logging.INFO)
    study = load_study(file, changes)
    store = find_store(create=True)
    log.info("study %s, store %s", study.name, store)
    finished = run_study(
        study, store, only=only, force=force, upstream=upstream, progress=False, on_stage_done=_log_stage
    )
    made = sum(done.tasks - done.cached for done in finished.stages)
    cached = sum(done.cached for done in finished.stages)
    log.info("run %d: %s, %d cached", finished.run.number, f"{made} made" if made else "nothing new", cached)
    return finished


def _log_stage(done: object) -> None:
    log.info("%s", done)


def _whole(study: StudyFile, force: bool = False, set: Changes = []) -> None:  # noqa: B006 (Prefect copies it)
    _run(study, None, force, set)


def _acquire(study: StudyFile, force: bool = False, set: Changes = []) -> None:  # noqa: B006
    done = _run(study, "acquire", force, set).run
    # The manifest is compared with that of the run just before this one, whichever flow wrote it. When two runs see the
    # same change, only the first of them sends the event.
    before = manifest_digest(read_run(find_store(), done.study, done.number - 1)) if done.number > 1 else None
    now = manifest_digest(done)
    if now == before:
        log.info("no new pairs: the manifest is %s as before", now)
        return
    log.info("pairs landed: the manifest is %s now", now)
    emit_event(
        PAIRS_LANDED,
        resource={"prefect.resource.id": f"bridgescope.study.{done.study}", "prefect.resource.name": done.study},
        payload={"digest": now, "study": study, "set": set},
    )
    EventsWorker.instance().wait_until_empty()


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
# Each deployed stage gets a flow, as a global variable with the name of the stage. deploy/prefect.yaml refers to these
# flows as flows.deployed.embed and so on.
globals().update(
    {
        stage.name: _deployable(stage.name, _acquire if stage.name == "acquire" else _alone(stage.name), stage.sentence)
        for stage in STAGES.values()
        if stage.deployed
    }
)
