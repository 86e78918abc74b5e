"""Inputs of the statistics: rows, trained SAEs and codes of one study, checked before statistics are computed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np

from analysis.coactivation import Codes, codes_by_item
from sae import SAE
from storage.catalog import frame
from storage.errors import BadInput
from storage.rows import Ints, Rows, select
from storage.runs import Entry
from storage.statements import statement

Keys = dict[str, Any]


class Analysis(NamedTuple):
    """The entries of the study that is analysed, and the settings of the analysis."""

    store: Path
    entries: list[Entry]
    heldout: float
    split: str  #: 'heldout', 'train' or 'all'
    min_pairs: int
    #: {data diet: {'of': setting that the diet trains on other data, 'data_half': its half of the images, or None}}
    diets: dict[str, dict[str, str | None]]
    out: Path  #: folder of the written tables

    def models(self) -> list[str]:
        """Models that were embedded, in the order of the study."""
        return [model for model in dict.fromkeys(e.model for e in self.entries if e.kind == "embed") if model]

    def rows(self, model: str | None, split: str) -> Rows:
        """Embeddings of one model on one side of the split."""
        pairs = {e.shard: e.dataset for e in self.entries if e.kind == "acquire"}
        embeddings = {e.shard: e.dataset for e in self.entries if e.kind == "embed" and e.model == model}
        embedded_pairs = [pairs[shard] for shard in embeddings]
        return select(self.store, embedded_pairs, list(embeddings.values()), self.heldout, split)

    def trained(self, model: str | None = None) -> Iterator[tuple[Entry, SAE]]:
        """Load every SAE of the study, or of one model, in the order of model, name and seed."""
        wanted = [e for e in self.entries if e.kind == "train" and model in (None, e.model)]
        for entry in sorted(wanted, key=lambda e: (e.model or "", e.sae or "", e.seed or 0)):
            yield entry, SAE.load(self.store / entry.dataset.path)

    def family(self, setting: str | None) -> str | None:
        """The setting of which `setting` is a data diet (a training on other data), or else `setting` itself."""
        return self.diets[setting]["of"] if setting in self.diets else setting


class Biases(NamedTuple):
    """Vectors added to decoded codes; they are equal unless each modality was centred on its own mean."""

    image: np.ndarray  # [d] float64
    text: np.ndarray  # [d] float64


class Counted(NamedTuple):
    """The pairs of the split that is counted, and their images."""

    images: Ints  #: ids of the images, ascending
    texts: Ints  #: ids of the pairs, ascending
    pair_image: Ints  #: [P] position in `images` of each pair's image


def keys_of(entry: Entry) -> Keys:
    """The columns that name an SAE."""
    return {"model": entry.model, "sae": entry.sae, "seed": entry.seed}


def biases_of(net: SAE) -> Biases:
    """The vectors that an SAE adds to decoded codes: its bias, and the mean that centring subtracted."""
    zeros = np.zeros((1, net.config.width), np.float32)
    return Biases(*(net.decode(zeros, modality).numpy()[0].astype(np.float64) for modality in ("image", "text")))


def check(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> None:
    """Raise BadInput where activations are missing or not above 0, seeds differ in width, or the split is empty.

    The message names the place and the command to run.
    """
    entries, shards = analysis.entries, {e.shard for e in analysis.entries if e.kind == "acquire"}
    for entry in entries:
        if entry.kind == "train":
            exported = {e.shard for e in entries if e.kind == "export" and keys_of(e) == keys_of(entry)}
            if missing := sorted(shard for shard in shards - exported if shard is not None):
                raise BadInput(
                    f"model {entry.model}, SAE {entry.sae}, seed {entry.seed}: no activations of shard "
                    f"{', '.join(map(str, missing))}: run the study with --only export first, or whole"
                )
    settings = itertools.groupby(analysis.trained(), key=lambda pair: (pair[0].model, pair[0].sae))
    for (model, name), group in settings:
        widths = {f"{entry.dataset.path} (seed {entry.seed})": net.config.width for entry, net in group}
        if len(set(widths.values())) > 1:
            listed = ", ".join(f"{path}: {width}" for path, width in widths.items())
            raise BadInput(
                f"model {model}, SAE {name}: its seeds differ in width: {listed}: run the study with --only train"
            )
    _check_items(con, analysis.split)
    _check_values(con, analysis)


def _check_items(con: duckdb.DuckDBPyConnection, split: str) -> None:
    counts = frame(
        con,
        """SELECT
            (SELECT count(*) FROM images WHERE $split = 'all' OR split = $split) AS images,
            (SELECT count(*) FROM pairs WHERE $split = 'all' OR split = $split) AS captions""",
        {"split": split},
    ).row(0, named=True)
    for modality, count in counts.items():
        if count == 0:
            raise BadInput(
                f"no {modality} in the split {split!r}: set another analyze.split, or pairs.heldout, in the study file"
            )


def _check_values(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> None:
    """Raise BadInput where an activation is not a number above 0."""
    files = {}
    for entry in analysis.entries:
        if entry.kind == "export":
            files[str(analysis.store / entry.dataset.path / f"{entry.shard}.parquet")] = entry
    if not files:
        return
    bad = con.execute(statement("checks/activations", files=[Path(file) for file in files])).fetchone()
    if bad is not None:
        path, rows, concept, item, value = bad
        entry = files[path]
        raise BadInput(
            f"{path}: {rows} activations are not numbers above 0; the first is {value}, of concept {concept} on item "
            f"{item}: delete the folder {analysis.store / entry.dataset.path} and run the study again"
        )


def counted_pairs(con: duckdb.DuckDBPyConnection, split: str) -> Counted:
    """The pairs of the split and their images."""
    captions = frame(
        con,
        "SELECT pair_id, image_id FROM pairs WHERE $split = 'all' OR split = $split ORDER BY pair_id",
        {"split": split},
    )
    images = captions["image_id"].unique().sort().to_numpy()
    return Counted(images, captions["pair_id"].to_numpy(), np.searchsorted(images, captions["image_id"].to_numpy()))


def codes_of(con: duckdb.DuckDBPyConnection, keys: Keys, modality: str, items: Ints) -> Codes:
    """The codes of the given items (ascending ids) in compressed rows, one row per item.

    The query needs no sort: each file is sorted by concept and holds all firings of its items, so the concepts of an
    item ascend.
    """
    firings = con.execute(
        """SELECT item_id, concept_id, activation FROM activations
        WHERE model = $model AND sae = $sae AND seed = $seed AND modality = $modality""",
        {**keys, "modality": modality},
    ).fetchnumpy()
    ids = np.asarray(firings["item_id"])
    position = np.searchsorted(items, ids)
    position[items[np.minimum(position, len(items) - 1)] != ids] = -1
    return codes_by_item(position, np.asarray(firings["concept_id"]), np.asarray(firings["activation"]), len(items))


def classes_of(con: duckdb.DuckDBPyConnection, keys: Keys) -> list[str]:
    """The class of every concept of one SAE: image, text, bimodal, or silent (never fires on the counted items)."""
    classes = con.execute(
        "SELECT modality_class(modality_score) FROM concepts "
        "WHERE model = $model AND sae = $sae AND seed = $seed ORDER BY concept_id",
        keys,
    ).fetchall()
    return [name for (name,) in classes]
