"""Consensus: one SAE of the atoms that most seeds of a setting share, in a child process with one thread."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from storage.dataset import Dataset
from tasks.checkpoint import CURVE
from tasks.children import Watch, in_process
from tasks.devices import device_of
from tasks.fit import CHECKPOINT_SECONDS, groups_of, reporting
from tasks.flattened import warn_if_short
from tasks.stage import Runtime, stage


class Join(NamedTuple):
    """Arguments of a process that makes a consensus SAE."""

    out: Path
    store: Path
    saes: list[Dataset]
    pairs: list[Dataset]
    embeddings: list[Dataset]
    heldout: float
    data_half: str | None
    device: str
    progress: bool


@stage(
    "saes", version="consensus 2", unhashed=("label",), volatile=("training.parquet",), resumes=True, on_device=True,
    threads=1,
)  # fmt: skip
def consensus(
    out: Path,
    saes: list[Dataset],
    pairs: list[Dataset],
    embeddings: list[Dataset],
    heldout: float,
    runtime: Runtime,
    data_half: str | None = None,
    label: str = "",
) -> int:
    """Make the consensus SAE of all seeds of a setting, whose encoder is trained on the rows of these shards.

    Writes also consensus.parquet, with the concepts of the seeds that each atom was made from. Raises ChildRefused, bad
    input, if the seeds share too few atoms. label: the model and the setting, as the study names them, for messages.
    """
    job = Join(out, runtime.store, saes, pairs, embeddings, heldout, data_half, runtime.device, runtime.progress)
    rows = int(in_process(join, job, "consensus"))
    warn_if_short(label or f"consensus of {len(saes)} seeds", pl.read_parquet(out / "training.parquet").to_dicts())
    return rows


def join(job: Join, watch: Watch) -> int:
    """Make the SAE, and save it, its members and its training curve to `job.out`."""
    from analysis.stability import match
    from sae import SAE, Checkpoint
    from sae.consensus import consensus
    from storage.rows import select

    nets = [SAE.load(job.store / dataset.path) for dataset in job.saes]
    rows = select(job.store, job.pairs, job.embeddings, job.heldout, "train", job.data_half, normalised=False)

    def matched(D_a: np.ndarray, D_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assigned, cosines, *_ = match(D_a, D_b)
        return assigned, cosines

    label = f"consensus of {len(nets)} seeds, width {nets[0].config.width}, k {nets[0].config.k}"
    with reporting(label, watch, show=job.progress, position=0) as on_step:
        made = consensus(
            nets, rows.image, rows.text, matched, device=device_of(job.device), on_step=on_step,
            checkpoint=Checkpoint(job.out, CHECKPOINT_SECONDS), groups=groups_of(rows),
        )  # fmt: skip
    made.sae.save(job.out)
    atom, place = np.nonzero(made.shared.concepts >= 0)
    seeds = np.array([net.config.seed for net in nets])
    members = {
        "concept_id": atom.astype(np.int32),
        "of_seed": seeds[place].astype(np.int32),
        "of_concept": made.shared.concepts[atom, place].astype(np.int32),
        "cosine": made.shared.cosines[atom, place],
    }
    pl.DataFrame(members).write_parquet(job.out / "consensus.parquet")
    columns = {"step": pl.Int64, "epoch": pl.Float64, **dict.fromkeys(CURVE, pl.Float64)}
    curve = pl.DataFrame(made.curve) if made.curve else pl.DataFrame(schema=columns)
    curve.write_parquet(job.out / "training.parquet")
    return len(rows.image) + len(rows.text)
