"""The run that is served: the newest finished run of a study. When a newer run finishes, the next visit gets it."""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from explorer.asker import Asker
from explorer.below import Below, below
from explorer.encode import Encoded, Encoders, Near
from explorer.pairs import Pairs
from report.explorer.release import MANIFEST, handed_out
from storage.catalog import open_catalog
from storage.errors import BadInput
from storage.rows import Ints
from storage.runs import Run, newest_complete, numbers, read_run, shown_run
from storage.site import SITE, compact
from storage.user_labels import read_labels, set_label

FIRST_CAPTION = """
SELECT image_id, arg_min(caption, pair_id) FROM pairs WHERE list_contains(?, image_id) GROUP BY image_id
"""
CAPTION = "SELECT pair_id, caption FROM pairs WHERE list_contains(?, pair_id)"
OWNER = "SELECT pair_id, image_id FROM pairs WHERE list_contains(?, pair_id)"
FIRING = """
SELECT item_id FROM activations
WHERE model = ? AND sae = ? AND seed::VARCHAR = ? AND modality = ? AND concept_id = ? ORDER BY item_id
"""
WIDTH = "SELECT width FROM saes WHERE model = ? AND sae = ? AND seed::VARCHAR = ?"


class Shown:
    """One run, open for reading. Immutable, except for models and tables that are loaded at their first use."""

    def __init__(self, store: Path, run: Run) -> None:
        entries = run.of("explorer")
        if not entries or not (store / entries[0].dataset.path / SITE).is_file():
            raise BadInput(
                f"run {run.number} of study {run.study!r} has no data for the explorer: bridgescope report STUDY.toml"
                " makes them"
            )
        self.store = store
        self.run, self.digest = run, entries[0].dataset.digest
        self.site = zipfile.ZipFile(store / entries[0].dataset.path / SITE)
        self.names = frozenset(self.site.namelist())
        self.catalog = open_catalog(store, run=run, guarded=True)
        self.encoders = Encoders(store, run)
        self.pairs = Pairs(self.encoders)
        self.asker = Asker(store, run.study, run.number)

    def read(self, name: str) -> bytes:
        """A data file by name. Raises KeyError for an unknown name."""
        if name not in self.names:
            raise KeyError(name)
        data = self.site.read(name)
        return compact(handed_out(json.loads(data), live=True)) if name == MANIFEST else data

    def image(self, image_id: int) -> bytes | None:
        """The bytes of an image as the source gave it; None if the store does not hold them."""
        if image_id >= 2**63 or not self._has("image_bytes"):
            return None
        rows = self.ask("SELECT image FROM image_bytes WHERE image_id = ?", [image_id])
        return bytes(rows[0][0]) if rows else None

    def labels(self) -> bytes:
        """The file of the labels that users gave to concepts of this run."""
        return compact({"labels": read_labels(self.store, self.run)})

    def label(self, key: str, concept: int, label: str) -> dict[str, Any]:
        """Give a concept a label, or remove it with an empty one. Returns all labels of this run."""
        model, sae, seed = (*key.split("/"), "", "")[:3]
        widths = self.ask(WIDTH, [model, sae, seed])
        return {"labels": set_label(self.store, self.run, key, concept, label, widths[0][0] if widths else 0)}

    def encode(self, key: str, given: str | bytes) -> dict[str, Any]:
        """`Encoders.encode`, with a caption and a thumbnail for each of the nearest items."""
        encoded: Encoded = self.encoders.encode(key, given)
        return {**encoded._asdict(), "nearest": self._shown(encoded.nearest)}

    def below(self, key: str, concept: int) -> dict[str, Any]:
        """The items on which a concept just does not fire, each with a caption and a thumbnail."""
        model, sae, seed = (*key.split("/"), "", "")[:3]

        def firing(modality: str) -> Ints:
            rows = self.ask(FIRING, [model, sae, seed, modality, concept])
            return np.array([item for (item,) in rows], np.int64)

        return {"items": self._shown(below(self.encoders, key, concept, firing))}

    def _shown(self, items: Sequence[Near | Below]) -> list[dict[str, Any]]:
        """Items of the study with a caption and a thumbnail for each."""
        images = [each.item for each in items if each.modality == "image"]
        texts = [each.item for each in items if each.modality == "text"]
        captions = {"image": dict(self.ask(FIRST_CAPTION, [images])), "text": dict(self.ask(CAPTION, [texts]))}
        owners = dict(self.ask(OWNER, [texts]))

        def thumb(modality: str, item: int) -> str | None:
            name = f"thumbs/{item if modality == 'image' else owners.get(item)}.webp"
            return name if name in self.names else None

        return [
            {**one._asdict(), "caption": captions[one.modality].get(one.item), "thumb": thumb(one.modality, one.item)}
            for one in items
        ]

    def ask(self, query: str, values: list[Any]) -> list[tuple[Any, ...]]:
        """Rows of one of the queries written in this module."""
        with self.catalog.cursor() as con:
            return con.execute(query, values).fetchall()

    def close(self) -> None:
        """End the query process. The archive stays open, since requests may still read from it."""
        self.asker.close()

    def _has(self, view: str) -> bool:
        return bool(self.ask("SELECT 1 FROM duckdb_views() WHERE view_name = ?", [view]))


class Live:
    """The run that is served now: run `number`, else the newest complete run of the study or of one of its variants."""

    def __init__(self, store: Path, study: str, number: int | None = None, variant: str | None = None) -> None:
        self.store, self.study, self.variant = store, study, variant
        self.shown = Shown(store, shown_run(store, study, number, variant))
        self.stays = number is not None
        self.seen = max(numbers(store, study))
        self.lock = threading.Lock()

    def renew(self) -> Shown:
        """The newest complete run that can be served. It replaces the served run, unless the user named a number."""
        with self.lock:
            newest = max(numbers(self.store, self.study), default=self.seen)
            if self.stays or newest == self.seen:
                return self.shown
            run = newest_complete(self.store, self.study, self.variant)
            if read_run(self.store, self.study, newest, head=True).ended is not None:
                self.seen = newest  # set only for a finished run: an unfinished run is checked again at the next visit
            entries = run.of("explorer") if run and run.number > self.shown.run.number else []
            if run and entries and (self.store / entries[0].dataset.path / SITE).is_file():
                before, self.shown = self.shown, Shown(self.store, run)
                before.close()
            return self.shown

    def close(self) -> None:
        """Close the run that is served."""
        self.shown.close()
