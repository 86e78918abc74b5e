"""The stages of a study, in the order in which they run: the one list of them, which everything else derives from.

A stage is what users run. The jobs of each stage stand in `flows.jobs`. Imports nothing, so that the command line reads
it at once.
"""

from __future__ import annotations

from typing import NamedTuple


class StageInfo(NamedTuple):
    """One stage."""

    name: str
    sentence: str  #: description of its deployment
    spread: bool = False  #: a cluster runs the tasks of one step side by side
    gpu: bool = False  #: a cluster sets GPUs aside for each task
    bar: bool = False  #: Prefect's page shows a progress bar, since the stage can take hours
    deployed: bool = True  #: the stage has a deployment of its own


STAGES = {
    stage.name: stage
    for stage in (
        StageInfo("acquire", "List the source, fetch what is new, and send `pairs landed` when its manifest changed."),
        StageInfo("model", "Build the demo models that the study names."),
        StageInfo("embed", "Embed the shards of pairs that have no embeddings yet.", spread=True, gpu=True, bar=True),
        StageInfo("train", "Train the SAEs that are missing.", spread=True, gpu=True, bar=True),
        StageInfo("export", "Write the activations of every SAE.", spread=True, bar=True),
        StageInfo("analyze", "Compute the tables of the study from its activations.", spread=True),
        StageInfo("report", "Make the study's page and the explorer's data."),
    )
}


def before(stage: str) -> list[str]:
    """The names of the stages that run before this one, in order."""
    names = list(STAGES)
    return names[: names.index(stage)]
