"""The list of the stages of a study, in the order in which they run. Every other list of stages is derived from it.

A stage is a part of a study that users can run by its name. The jobs of the stages are in `flows.jobs`. This module
imports nothing of the project, so that the command line starts quickly.
"""

from __future__ import annotations

from typing import NamedTuple


class StageInfo(NamedTuple):
    """A stage, and how it is run and deployed."""

    name: str
    sentence: str  #: description of the deployment
    spread: bool = False  #: whether the tasks of one step run in parallel on a cluster
    gpu: bool = False  #: whether GPUs are reserved for each task on a cluster
    bar: bool = False  #: whether Prefect's UI shows a progress bar, for stages that can take hours
    deployed: bool = True  #: whether a Prefect server has a deployment for this stage


STAGES = {
    stage.name: stage
    for stage in (
        StageInfo("acquire", "List the source, fetch new items, and send `pairs landed` if the listed items changed."),
        StageInfo("model", "Build the demo models that the study names."),
        StageInfo("embed", "Embed the shards of pairs that have no embeddings yet.", spread=True, gpu=True, bar=True),
        StageInfo("train", "Train the SAEs that are missing.", spread=True, gpu=True, bar=True),
        StageInfo("export", "Write the activations of every SAE.", spread=True, bar=True),
        StageInfo("analyze", "Compute the tables of the study from its activations.", spread=True),
        StageInfo("report", "Make the study's page and the explorer's data."),
    )
}


def before(stage: str) -> list[str]:
    """Names of the stages that run before `stage`, in order."""
    names = list(STAGES)
    return names[: names.index(stage)]
