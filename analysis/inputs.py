"""Inputs of the statistics of one part: rows, SAEs and codes. Each input is read once and checked before use."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np

from analysis.coactivation import Codes, codes_by_item
from analysis.tables import fill
from sae import SAE
from storage.catalog import create_views, frame
from storage.embeddings import read_attributes
from storage.errors import BadInput
from storage.listing import SHARD_ROWS
from storage.pairs import read_images
from storage.rows import Ints, Rows, select
from storage.runs import Entry
from storage.statements import statement

Keys = dict[str, Any]
Encode = Callable[[list[str]], np.ndarray]  #: gives the unit embeddings [n, d] float32 of n texts


@dataclass(frozen=True)
class Analysis:
    """The data of one part of the analysis, and its settings. `analysis.parts` lists the sorts of parts."""

    store: Path
    entries: list[Entry]  #: datasets of the part's model, SAE or pair of seeds; empty for the part of the whole study
    out: Path  #: folder to which the tables are written
    heldout: float = 0.0
    split: str = "all"  #: side of the split that is counted: 'heldout', 'train' or 'all'
    min_pairs: int = 1
    data_half: str | None = None  #: the half of the images on which the SAE was trained
    twin_of: str | None = None  #: the setting whose frozen twin the SAE is
    independent: list[Entry] = field(default_factory=list)  #: embeddings of the same shards by another model
    device: str = "cpu"  #: where concepts are matched; another device changes cosines by rounding
    encode: Encode | None = None  #: the model's text encoder; None for vectors that were computed elsewhere

    @property
    def model(self) -> str:
        """The model of this part."""
        return next(entry.model for entry in self.entries if entry.model is not None)

    @functools.cached_property
    def sae(self) -> tuple[Entry, SAE]:
        """The SAE of this part, loaded once. Raises ValueError where the part has no SAE, or more than one SAE."""
        (one,) = self.trained()
        return one

    def trained(self) -> Iterator[tuple[Entry, SAE]]:
        """Load every SAE of this part, one at a time, in the order of name and seed."""
        wanted = [entry for entry in self.entries if entry.kind == "train"]
        for entry in sorted(wanted, key=lambda e: (e.sae or "", e.seed or 0)):
            yield entry, SAE.load(self.store / entry.dataset.path)

    @functools.cached_property
    def embedded(self) -> Rows:
        """The embeddings of the model on both sides of the split, read once."""
        return self.embedded_on("all")

    def embedded_on(self, split: str) -> Rows:
        """Read the embeddings of the model on one side of the split; the other side takes no memory.

        Raises EmbeddingError where the side has no images or no captions.
        """
        pairs = {e.shard: e.dataset for e in self.entries if e.kind == "acquire"}
        embeddings = {e.shard: e.dataset for e in self.entries if e.kind == "embed"}
        shards = [pairs[shard] for shard in embeddings]
        return select(self.store, shards, list(embeddings.values()), self.heldout, split)

    @functools.cached_property
    def judging(self) -> Rows | None:
        """The images that the model of `independent` embedded, on the counted side, as stored; None if there is none.

        The captions are left out.
        """
        pairs = {e.shard: e.dataset for e in self.entries if e.kind == "acquire"}
        embeddings = {e.shard: e.dataset for e in self.independent}
        if not embeddings:
            return None
        shards = [pairs[shard] for shard in embeddings]
        rows = select(self.store, shards, list(embeddings.values()), self.heldout, self.split, normalised=False)
        none = np.empty(0, np.int64)
        return rows._replace(text=np.empty((0, rows.image.shape[1]), rows.text.dtype), pair_id=none, owner=none)

    def failed(self) -> list[int]:
        """The ids of the images that a model of this part could not embed."""
        pairs = {e.shard: e.dataset for e in self.entries if e.kind == "acquire"}
        ids: list[int] = []
        for embedded in (e for e in self.entries if e.kind == "embed"):
            if rows := read_attributes(self.store, embedded.dataset)["failed_rows"]:
                ids += read_images(self.store, pairs[embedded.shard], ["image_id"])["image_id"].gather(rows).to_list()
        return ids

    @functools.cached_property
    def counted(self) -> Rows:
        """The embeddings on the side of the split that is counted."""
        return self.side(self.split)

    def side(self, split: str) -> Rows:
        """The embeddings on one side of the split, or all for 'all', in the order of `embedded`. It may be empty."""
        rows = self.embedded
        if split == "all":
            return rows
        keep = self.is_on(split)
        keep_text = keep[rows.owner]
        owner = (np.cumsum(keep) - 1)[rows.owner[keep_text]]
        images = rows.image[keep], rows.text[keep_text], rows.image_id[keep]
        return Rows(*images, rows.pair_id[keep_text], owner, rows.split_u[keep])

    def is_on(self, split: str) -> np.ndarray:
        """For each image of `embedded`, whether the image is on the given side of the split ('heldout' or 'train').

        The result is bool [n].
        """
        held = self.embedded.split_u < self.heldout
        return held if split == "heldout" else ~held


class Biases(NamedTuple):
    """The vector that is added to the decoded codes of each modality.

    Both vectors are equal unless each modality was centred on its own mean.
    """

    image: np.ndarray  # [d] float64
    text: np.ndarray  # [d] float64


class Counted(NamedTuple):
    """The P pairs on the side of the split that is counted, and their images."""

    images: Ints  #: ids of the images, ascending
    texts: Ints  #: [P] ids of the pairs, ascending
    pair_image: Ints  #: [P] for each pair, the position of its image in `images`


def keys_of(entry: Entry) -> Keys:
    """The columns that name an SAE."""
    return {"model": entry.model, "sae": entry.sae, "seed": entry.seed}


def biases_of(net: SAE) -> Biases:
    """The vector that an SAE adds to decoded codes, for each modality: bias plus the mean that centring subtracted."""
    zeros = np.zeros((1, net.config.width), np.float32)
    return Biases(*(net.decode(zeros, modality).numpy()[0].astype(np.float64) for modality in ("image", "text")))


def open_part(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> None:
    """Create the catalog's views of a part's data. For a part of one SAE, also read its activations into `codes`.

    A part of several SAEs reads the activations of one SAE at a time: see `codes_of_sae`. Raises BadInput where
    activations are missing or not above 0, or the counted side of the split has no images or no pairs. The message says
    what to change or to run.
    """
    create_views(con, analysis.store, analysis.entries, analysis.heldout)
    if failed := analysis.failed():
        # An image that was acquired, but could not be embedded, has no codes. It would count as an image without any
        # active concept, and so would its captions.
        con.execute("ALTER VIEW images RENAME TO acquired_images")
        con.execute("CREATE TABLE failed_images AS SELECT unnest(?::BIGINT[]) AS image_id", [failed])
        con.execute("CREATE VIEW images AS FROM acquired_images ANTI JOIN failed_images USING (image_id)")
    _check_items(con, analysis.split)
    trained = [entry for entry in analysis.entries if entry.kind == "train"]
    if len(trained) == 1:
        _open_codes(con, analysis, trained[0])


def _open_codes(con: duckdb.DuckDBPyConnection, analysis: Analysis, sae: Entry) -> None:
    """Read the activations of an SAE into `codes`. Raises BadInput where they are missing or not above 0."""
    of_sae = [e for e in analysis.entries if e.kind == "export" and keys_of(e) == keys_of(sae)]
    _check_exported(sae, {e.shard for e in analysis.entries if e.kind == "acquire"}, {e.shard for e in of_sae})
    fill(con, "codes", **keys_of(sae), split=analysis.split)
    _check_values(con, analysis.store, of_sae)


def _check_exported(sae: Entry, shards: set[int | None], exported: set[int | None]) -> None:
    """Raise BadInput where a shard has no activations of an SAE."""
    if missing := sorted(shard for shard in shards - exported if shard is not None):
        raise BadInput(
            f"model {sae.model}, SAE {sae.sae}, seed {sae.seed}: no activations of shard "
            f"{', '.join(map(str, missing))}: run the study with --only export first, or whole"
        )


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


def _check_values(con: duckdb.DuckDBPyConnection, store: Path, exported: list[Entry]) -> None:
    """Raise BadInput where a code of an SAE is not a number above 0. exported: the SAE's activations."""
    bad = con.execute(statement("checks/codes", shard_rows=SHARD_ROWS)).fetchone()
    if bad is not None:
        shard, rows, concept, item, value = bad
        folder = next(store / e.dataset.path for e in exported if e.shard == shard)
        raise BadInput(
            f"{folder / f'{shard}.parquet'}: {rows} activations are not numbers above 0; the first is {value}, of "
            f"concept {concept} on item {item}: delete the folder {folder} and run the study again"
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


def groups_of(con: duckdb.DuckDBPyConnection, images: Ints) -> Ints:
    """The jackknife group of each of the given images (ascending ids), [n]."""
    rows = con.execute("SELECT image_id, split_u FROM images ORDER BY image_id").fetchnumpy()
    return jackknife_groups(rows["split_u"][np.searchsorted(rows["image_id"], images)])


def jackknife_groups(split_u: np.ndarray) -> Ints:
    """The group, 0 to 19, of each image, which the jackknife leaves out as a whole. split_u: [n].

    Source: docs/definitions.md, "Uncertainty of per-concept sums".
    """
    return np.floor(np.asarray(split_u) * 2**40).astype(np.int64) % 20


def codes_of(con: duckdb.DuckDBPyConnection, modality: str, items: Ints) -> Codes:
    """The codes of the given items (ascending ids) in compressed rows, one row per item. Reads the table codes.

    The query needs no sort: each file of activations is sorted by concept and holds all firings of its items, so the
    concepts of an item ascend.
    """
    query = "SELECT item_id, concept_id, activation FROM codes WHERE is_image = $is_image"
    firings = con.execute(query, {"is_image": modality == "image"}).fetchnumpy()
    ids = np.asarray(firings["item_id"], np.int64)
    position = np.searchsorted(items, ids)
    known = position < len(items)
    known[known] = items[position[known]] == ids[known]
    position[~known] = -1
    concepts, values = np.asarray(firings["concept_id"], np.int32), np.asarray(firings["activation"], np.float32)
    return codes_by_item(position, concepts, values, len(items))


def codes_of_sae(con: duckdb.DuckDBPyConnection, analysis: Analysis, sae: Entry, counted: Counted) -> dict[str, Codes]:
    """The codes of the counted images and captions of one SAE, for a part of several SAEs, by modality.

    Raises BadInput where activations are missing or not above 0.
    """
    _open_codes(con, analysis, sae)
    codes = {"image": codes_of(con, "image", counted.images), "text": codes_of(con, "text", counted.texts)}
    con.execute("DROP TABLE codes")  # the codes of the next SAE take as much memory
    return codes


def classes_of(con: duckdb.DuckDBPyConnection, keys: Keys) -> list[str]:
    """The class of every concept of one SAE: image, text, bimodal, or silent (never fires on the counted items)."""
    classes = con.execute(
        "SELECT modality_class(modality_score) FROM concepts "
        "WHERE model = $model AND sae = $sae AND seed = $seed ORDER BY concept_id",
        keys,
    ).fetchall()
    return [name for (name,) in classes]
