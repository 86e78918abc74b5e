"""Encode a caption or an image with the study's own model and SAE, and find the nearest items of the study."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from report.explorer.shares import shares
from storage.dataset import manifest_of
from storage.errors import BadInput
from storage.rows import Rows, select
from storage.runs import Run
from vlm.spec import Spec

NEAREST = 12  # items of each modality
MAX_PIXELS = 40_000_000  # of an image
MAX_LETTERS = 10_000  # of a caption


class Near(NamedTuple):
    """An item of the study with its cosine to the query."""

    modality: str
    item: int
    cosine: float


class Encoded(NamedTuple):
    """Concepts and nearest items of a caption or an image."""

    modality: str
    concepts: list[dict[str, Any]]  #: keys: concept, activation, share; the largest activation first
    bias: float  #: the share of the SAE's bias
    nearest: list[Near]  #: items of the other modality, then items of the same modality


class Encoders:
    """The models, SAEs and embeddings of one run, each loaded at its first use. One query at a time."""

    def __init__(self, store: Path, run: Run) -> None:
        self.store, self.run = store, run
        self.lock = threading.Lock()
        self.sae = functools.lru_cache(maxsize=8)(self._sae)
        self.model = functools.lru_cache(maxsize=1)(self._model)
        self.rows = functools.lru_cache(maxsize=1)(self._rows)

    def encode(self, key: str, given: str | bytes) -> Encoded:
        """Encode a caption, or the bytes of an image, with the SAE `model/sae/seed`.

        Raises BadInput for a key that the run does not have, a model without an encoder, and data that is no image.
        """
        with self.lock:
            model, net = key.split("/")[0], self.sae(key)
            modality, x = self.embedded(model, given)
            codes = net.encode(x[None], modality)[0].double().numpy()
            concepts = np.flatnonzero(codes)
            concepts = concepts[np.argsort(-codes[concepts], kind="stable")]
            bias = net.decode(np.zeros((1, len(codes)), np.float32), modality)[0].double().numpy()
            parts, rest = shares(net.dictionary.double().numpy()[concepts], bias, codes[concepts])
            activated = [
                {"concept": int(concept), "activation": float(codes[concept]), "share": float(part)}
                for concept, part in zip(concepts, parts, strict=True)
            ]
            other = "text" if modality == "image" else "image"
            near = [near for kind in (other, modality) for near in nearest(self.rows(model), kind, x)]
            return Encoded(modality, activated, rest, near)

    def embedded(self, model: str, given: str | bytes) -> tuple[str, np.ndarray[Any, Any]]:
        """Modality and embedding, float32 [d], of a caption or an image. The caller holds `lock`."""
        from vlm import DecodeError, decode

        encoder = self.model(model)
        if isinstance(given, str):
            if not given.strip():
                raise BadInput("the caption is empty")
            if len(given) > MAX_LETTERS:
                raise BadInput(f"the caption has {len(given)} characters; at most {MAX_LETTERS} are read")
            return "text", encoder.encode_texts([given])[0]
        try:
            picture = decode(given, MAX_PIXELS)
        except DecodeError as error:
            raise BadInput(f"the picture cannot be read: {error}") from error
        return "image", encoder.encode_images([picture])[0]

    def _sae(self, key: str) -> Any:
        from sae import SAE

        for entry in self.run.of("train"):
            if key == f"{entry.model}/{entry.sae}/{entry.seed}":
                return SAE.load(self.store / entry.dataset.path)
        raise BadInput(f"no SAE {key!r} in this study")

    def _model(self, name: str) -> Any:
        import vlm

        config = next(model for model in self.run.config["models"] if model["name"] == name)
        return vlm.load(spec_of(self.store, self.run, name), self.run.config["runtime"]["device"], config["dtype"])

    def _rows(self, model: str) -> Rows:
        embeddings = {entry.shard: entry.dataset for entry in self.run.of("embed", model=model)}
        pairs = {entry.shard: entry.dataset for entry in self.run.of("acquire")}
        return select(self.store, [pairs[shard] for shard in embeddings], list(embeddings.values()), heldout=0.0)


def spec_of(store: Path, run: Run, name: str) -> str:
    """Specification of the model that computed a run's embeddings, with its revision.

    Raises BadInput for vectors that were computed outside the project: they have no encoder.
    """
    text: str = next(model["spec"] for model in run.config["models"] if model["name"] == name)
    spec = Spec.parse(text)
    if spec.is_vectors:
        raise BadInput(f"model {name} consists of vectors that were computed elsewhere: it has no encoder")
    if spec.variant is not None:
        return str(Spec.of_folder("open_clip", store / run.of("model", model=name)[0].dataset.path))
    if spec.path is not None:
        return text
    recorded: str = manifest_of(store, run.of("embed", model=name)[0].dataset)["arguments"]["model"]
    return recorded  # the specification includes the commit on the hub that the study used


def nearest(rows: Rows, modality: str, x: np.ndarray[Any, Any], n: int = NEAREST) -> list[Near]:
    """The n items of a modality with the largest cosine to x, a unit row [d]; the nearest first."""
    embeddings, ids = (rows.image, rows.image_id) if modality == "image" else (rows.text, rows.pair_id)
    cosines = embeddings @ np.asarray(x, np.float32)
    order = np.lexsort((ids, -cosines))[:n]
    return [Near(modality, int(ids[i]), float(cosines[i])) for i in order]
