"""The files of the item maps: binary columns, since a map of a million items would be 30 MB as JSON.

All numbers are little-endian. `explorer/web/src/contract.ts` states the columns of each file.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from zipfile import ZipFile

import duckdb
import numpy as np

from report.explorer.concepts import CONCEPT_BLOCK, SMALL, SAEKey
from storage.site import put
from storage.statements import statement

Ints = np.ndarray[Any, np.dtype[np.int64]]
STEPS = 32767  # coordinates are stored as whole numbers from -STEPS to STEPS
ROOT = "data/items/map"


class ItemMap(NamedTuple):
    """One map of the items of a model."""

    model: str
    sae: str | None  #: the SAE whose codes are laid out; None: the embeddings are
    seed: int | None
    ids: Ints  #: [N], ids of the images, in ascending order, then of the captions, in ascending order
    images: int  #: number of images among the items
    places: Any  #: [N, 2] in [-1, 1]
    layout: str  #: as in `report.explorer.places.Placed`
    fitted: int

    @property
    def file(self) -> str:
        """Name of the file with the places."""
        return f"{ROOT}/{self.model}/{'embeddings' if self.sae is None else f'codes-{self.sae}-{self.seed}'}.bin"

    def described(self) -> dict[str, Any]:
        """Its row of the manifest."""
        return {
            "model": self.model, "by": "embeddings" if self.sae is None else "codes", "sae": self.sae,
            "seed": self.seed, "items": len(self.ids), "images": self.images, "layout": self.layout,
            "fitted": self.fitted, "file": self.file, "ids": f"{ROOT}/{self.model}/items.bin",
        }  # fmt: skip


def packed(places: Any) -> bytes:
    """Places [N, 2] as two columns of int16: all x, then all y."""
    steps = np.rint(np.clip(np.asarray(places, np.float64), -1, 1) * STEPS)
    return np.ascontiguousarray(steps.T.astype("<i2")).tobytes()


def packed_items(ids: Ints, groups: Ints) -> bytes:
    """Items [N]: their ids as float64, then their jackknife groups as uint8."""
    return ids.astype("<f8").tobytes() + groups.astype("u1").tobytes()


def packed_firings(concept: Ints, item: Ints, activation: Any, first: int) -> bytes:
    """The firings of CONCEPT_BLOCK concepts, sorted by concept.

    Where each concept begins, uint32 [CONCEPT_BLOCK + 1], then the number of the item on the map, uint32, and the
    activation, float32, of every firing.
    """
    starts = np.searchsorted(concept, np.arange(first, first + CONCEPT_BLOCK + 1))
    return starts.astype("<u4").tobytes() + item.astype("<u4").tobytes() + np.asarray(activation, "<f4").tobytes()


def write_item_maps(site: ZipFile, con: duckdb.DuckDBPyConnection, maps: list[ItemMap], keys: list[SAEKey]) -> bool:
    """Write the maps, and for studies of at most SMALL images all firings of the SAEs shown.

    Returns whether the firings were written.
    """
    by_model = {each.model: each for each in reversed(maps)}
    for model, each in sorted(by_model.items()):
        put(site, f"{ROOT}/{model}/items.bin", packed_items(each.ids, groups_of(con, each)))
    for each in maps:
        put(site, each.file, packed(each.places))
    images = con.execute("SELECT count(*) FROM images").fetchone()
    small = images is not None and images[0] <= SMALL
    for key in keys if small else []:
        if key.model in by_model:
            _write_firings(site, con, key, by_model[key.model])
    return small and bool(maps)


def groups_of(con: duckdb.DuckDBPyConnection, of: ItemMap) -> Ints:
    """The jackknife group of every item, [N]: that of its image."""
    answer = con.execute(statement("explorer/groups")).fetchnumpy()
    groups = np.zeros(len(of.ids), np.int64)
    for part, is_text in ((slice(0, of.images), False), (slice(of.images, None), True)):
        mine = answer["is_text"] == is_text
        ids, values = np.asarray(answer["item_id"])[mine], np.asarray(answer["jackknife_group"])[mine]
        groups[part] = values[np.searchsorted(ids, of.ids[part])]
    return groups


def _write_firings(site: ZipFile, con: duckdb.DuckDBPyConnection, key: SAEKey, of: ItemMap) -> None:
    answer = con.execute(statement("explorer/firings", **key._asdict())).fetchnumpy()
    concept, ids = np.asarray(answer["concept_id"], np.int64), np.asarray(answer["item_id"], np.int64)
    is_text = np.asarray(answer["modality"] == "text")
    place = np.where(
        is_text, of.images + np.searchsorted(of.ids[of.images :], ids), np.searchsorted(of.ids[: of.images], ids)
    )
    width = int(concept.max()) + 1 if len(concept) else 0
    for first in range(0, max(width, 1), CONCEPT_BLOCK):
        part = slice(*np.searchsorted(concept, (first, first + CONCEPT_BLOCK)))
        data = packed_firings(concept[part], place[part], answer["activation"][part], first)
        put(site, f"{key.folder}/codes/firings-{first // CONCEPT_BLOCK}.bin", data)
