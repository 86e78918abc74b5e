"""The ledger of an image and a caption, of the study or the user's own, and what leaving out concepts does to it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.retrieval import GALLERY
from explorer.encode import Encoders
from storage.catalog import heldout_of
from storage.errors import BadInput

if TYPE_CHECKING:
    from sae.ledger import Ledger, Split
    from sae.what_if import Items, Outcome, WhatIf


class Pairs:
    """The ledgers of one run. The items among which ranks are counted are encoded at the first use of an SAE."""

    def __init__(self, encoders: Encoders) -> None:
        self.encoders = encoders
        self.gallery = functools.lru_cache(maxsize=2)(self._gallery)

    def pair(
        self, key: str, image: int | bytes, caption: int | str, left_out: Sequence[int] = (), ranks: bool = True
    ) -> dict[str, Any]:
        """The ledger of a pair by the SAE `model/sae/seed`, ready for JSON.

        image: an image_id, or the bytes of a picture. caption: a pair_id, or a text. left_out: concepts to leave out;
        with none, the answer has no comparison with random sets. Without `ranks`, the answer is the ledger alone: ranks
        need all held-out items to be encoded at the first use of an SAE. Raises BadInput for an SAE, item or concept
        that the run does not have, for a picture that cannot be read, and for a text or picture where the model has no
        encoder.
        """
        from sae.ledger import ledger_of, reduced, split
        from sae.what_if import TIE, left, what_if

        with self.encoders.lock:
            net, model = self.encoders.sae(key), key.split("/")[0]
            if wrong := [concept for concept in left_out if not 0 <= concept < net.config.width]:
                raise BadInput(f"concept {wrong[0]}: {key} has the concepts 0 to {net.config.width - 1}")
            x = split(net, self._row(model, "image", image), "image")
            y = split(net, self._row(model, "text", caption), "text")
            own = _id(image), _id(caption)
            answer = {"key": key, "image": own[0], "caption": own[1], **_ledger(ledger_of(net, x, y))}
            answer["codes"] = {"image": _codes(x), "text": _codes(y)}
            if not ranks:
                return answer | {"gallery": None, "before": None, "what_if": None}
            gallery = self.gallery(key)
            answer["gallery"] = {"images": len(gallery[0].ids), "captions": len(gallery[1].ids), "tie": TIE}
            if left_out:
                terms = _ledger(ledger_of(net, *(reduced(net, item, left_out) for item in (x, y))))["terms"]
                return answer | _what_if(what_if(net, x, y, set(left_out), *gallery, own), left_out, terms)
            return answer | {"before": _outcome(left(net, x, y, (), *gallery, own)), "what_if": None}

    def _row(self, model: str, modality: str, given: int | str | bytes) -> np.ndarray[Any, Any]:
        """The embedding [d] of an item of the study, or of a text or picture."""
        if not isinstance(given, int):
            return self.encoders.embedded(model, given)[1]
        rows = self.encoders.rows(model)
        x, ids = (rows.image, rows.image_id) if modality == "image" else (rows.text, rows.pair_id)
        found = np.flatnonzero(ids == given)
        if not len(found):
            name = "image" if modality == "image" else "caption"
            raise BadInput(f"{name} {given}: the study has no such {name}, or {model} has no embedding of it")
        return np.asarray(x[found[0]])

    def _gallery(self, key: str) -> tuple[Items, Items]:
        """The held-out images with the smallest split_u, at most GALLERY, and all of their captions."""
        from sae.what_if import items_of

        net, rows = self.encoders.sae(key), self.encoders.rows(key.split("/")[0])
        order = np.argsort(rows.split_u, kind="stable")
        chosen = np.sort(order[rows.split_u[order] < heldout_of(self.encoders.run)][:GALLERY])
        texts = np.isin(rows.owner, chosen)
        return (
            items_of(net, rows.image_id[chosen], rows.image[chosen], "image"),
            items_of(net, rows.pair_id[texts], rows.text[texts], "text"),
        )


def _id(given: int | str | bytes) -> int | None:
    return given if isinstance(given, int) else None


def _ledger(ledger: Ledger) -> dict[str, Any]:
    rows = zip(ledger.image_concept.tolist(), ledger.text_concept.tolist(), ledger.contribution.tolist(), strict=True)
    return {
        "similarity": ledger.similarity,
        "terms": {"concepts": float(ledger.contribution.sum()), **ledger.terms},
        "rows": [{"image_concept": i, "text_concept": j, "contribution": value} for i, j, value in rows],
    }


def _codes(item: Split) -> dict[str, Any]:
    order = np.argsort(-item.codes, kind="stable")
    return {"concept": item.concepts[order].tolist(), "activation": item.codes[order].tolist()}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "inner": outcome.inner, "similarity": outcome.similarity, "caption": outcome.caption._asdict(),
        "image": outcome.image._asdict(),
    }  # fmt: skip


def _what_if(found: WhatIf, left_out: Sequence[int], terms: dict[str, float]) -> dict[str, Any]:
    figures: dict[str, Callable[[Outcome], float]] = {
        "inner": lambda one: one.inner, "similarity": lambda one: one.similarity,
        "caption": lambda one: one.caption.rank, "image": lambda one: one.image.rank,
    }  # fmt: skip
    values = {name: [float(figure(one)) for _, one in found.drawn] for name, figure in figures.items()}
    values["energy"] = [energy for energy, _ in found.drawn]
    random = {
        name: {"mean": float(np.mean(each)), "low": min(each), "high": max(each)} for name, each in values.items()
    }
    chosen = sorted(set(left_out))
    return {
        "before": _outcome(found.before),
        "what_if": {
            "terms": terms, "concepts": chosen, "energy": found.energy, "after": _outcome(found.after),
            "draws": len(found.drawn), "random": random,
        },
    }  # fmt: skip
