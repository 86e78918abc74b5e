"""Which concept of one run is which of another, and what unrelated dictionaries would score."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl

from sae.concepts.matching import floor_matched, floor_random, match
from storage.errors import BadInput
from storage.runs import Entry
from tasks.tables.frames import FLOORS, MATCHES, empty, table
from tasks.tables.inputs import Analysis, keys_of

DRAWS = 20  # of each floor


def match_rows(analysis: Analysis) -> pl.DataFrame:
    """The exact assignment of every pair of runs of a setting (other seeds, other data diets), in both orders.

    Raises BadInput where two diets of one setting differ in width.
    """
    found = [empty(MATCHES)]
    for model in dict.fromkeys(entry.model for entry in analysis.entries if entry.kind == "train"):
        runs = sorted(analysis.trained(model), key=lambda run: analysis.family(run[0].sae) or "")
        for _, family in itertools.groupby(runs, key=lambda run: analysis.family(run[0].sae)):
            for (a, net_a), (b, net_b) in itertools.combinations(list(family), 2):
                if net_a.config.width != net_b.config.width:
                    raise BadInput(
                        f"{a.dataset.path} ({a.sae}, seed {a.seed}) has width {net_a.config.width}, {b.dataset.path} "
                        f"({b.sae}, seed {b.seed}) has {net_b.config.width}: run the study with --only train"
                    )
                assigned, cosines = match(net_a.dictionary.numpy(), net_b.dictionary.numpy())
                here = np.arange(len(assigned))
                found += [_matched(a, b, here, assigned, cosines), _matched(b, a, assigned, here, cosines)]
    return pl.concat(found).sort("model", "sae_a", "seed_a", "sae_b", "seed_b", "concept_a")


def _matched(a: Entry, b: Entry, concept_a: np.ndarray, concept_b: np.ndarray, cosine: np.ndarray) -> pl.DataFrame:
    keys = {"model": a.model, "sae_a": a.sae, "seed_a": a.seed, "sae_b": b.sae, "seed_b": b.seed}
    return table({**keys, "concept_a": concept_a, "concept_b": concept_b, "cosine": cosine}, MATCHES)


def floor_rows(analysis: Analysis) -> pl.DataFrame:
    """The matched cosines of every dictionary against drawn rows: 20 draws of both floors."""
    found = [empty(FLOORS)]
    for entry, net in analysis.trained():
        for null, floor in (("floor_random", floor_random), ("floor_matched", floor_matched)):
            cosines = floor(net.dictionary.numpy(), DRAWS, entry.seed or 0)
            draws, width = cosines.shape
            columns = {
                **keys_of(entry), "null": null, "draw": np.repeat(np.arange(draws), width),
                "concept_id": np.tile(np.arange(width), draws), "cosine": cosines.ravel(),
            }  # fmt: skip
            found.append(table(columns, FLOORS))
    return pl.concat(found)
