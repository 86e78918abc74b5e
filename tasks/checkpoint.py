"""Checkpoint: import an SAE that was trained elsewhere, in place of training. The recipe hashes its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from storage.dataset import Dataset
from storage.errors import BadInput
from storage.fingerprints import fingerprint
from tasks.stage import Runtime, stage

if TYPE_CHECKING:
    from sae import SAE

CURVE = ("loss", "r2", "l0", "dead_fraction", "rows_per_second")


def problem_of(path: str, architecture: str, k: int | None, encoder: str = "own") -> str | None:
    """Return why the files of an SAE cannot be imported, or None if they can be imported.

    The text names the file and the key or tensor. The dimension of the SAE is not checked, since it must fit rows that
    may not exist yet.
    """
    from sae.interchange import read_checkpoint
    from sae.model import SAEFormatError

    try:
        read = read_checkpoint(path, architecture=architecture, k=k or 0, threshold=0.0 if k else None)
        _encoding(read, encoder, k, path)
    except SAEFormatError as error:
        return str(error)
    return None


def _encoding(imported: SAE, encoder: str, k: int | None, path: str) -> SAE:
    """The SAE with the encoder that the study names. Raises SAEFormatError if pursuit has no number of steps."""
    from sae.model import SAEFormatError

    if encoder == "own":
        return imported
    try:
        return imported.encoding(encoder, k)
    except SAEFormatError as error:
        raise SAEFormatError(f"{path}: {error}: give k (in a study: saes.k)") from error


@stage("saes", version="import 2", unhashed=("path",))
def import_sae(
    out: Path,
    pairs: list[Dataset],
    embeddings: list[Dataset],
    checkpoint: str,
    architecture: str,
    k: int | None,
    heldout: float,
    path: str,
    runtime: Runtime,
    encoder: str = "own",
) -> int:
    """Read an SAE from `path` and write it in this project's format. `checkpoint` is the fingerprint of its files.

    The SAE must have the dimension of the model's rows. If its files hold no threshold, a threshold is calibrated on
    the training rows. The table of its training curve is empty. With encoder "pursuit" the SAE encodes by matching
    pursuit with its dictionary, k steps per row (the files' k, where k is None). Raises SAEFormatError before the
    dataset is complete if a part of the files is not known, or if the SAE that was written differs from the SAE that
    was read. Raises BadInput if the files are no longer those of the fingerprint.
    """
    import polars as pl

    from sae.interchange import load_checkpoint
    from sae.model import SAE, SAEFormatError
    from storage.rows import select

    rows = select(runtime.store, pairs, embeddings, heldout, "train")
    imported = load_checkpoint(
        path, dim=rows.image.shape[1], architecture=architecture, k=k or 0, rows=(rows.image, rows.text)
    )
    if fingerprint(Path(path), runtime.store / "sources" / "fingerprints.json") != checkpoint:
        raise BadInput(f"{path}: the checkpoint changed while the study was running: run the study again")
    imported = _encoding(imported, encoder, k, path)
    imported.save(out)
    if difference := SAE.load(out).difference(imported):
        raise SAEFormatError(f"{path}: the SAE changed while it was written: {difference}")
    columns = {"step": pl.Int64, "epoch": pl.Float64, **dict.fromkeys(CURVE, pl.Float64)}
    pl.DataFrame(schema=columns).write_parquet(out / "training.parquet")
    return len(rows.image) + len(rows.text)
