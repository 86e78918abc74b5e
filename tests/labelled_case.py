"""A planted study with labels, as tables in memory."""

from __future__ import annotations

import duckdb
import numpy as np
from sql_case import catalog

from analysis.statistic import create_inner
from analysis.tables import fill
from analysis.usage import CountedSAE, fill_concepts


def study(random: np.random.Generator, planted: bool) -> duckdb.DuckDBPyConnection:
    """600 images with two captions each. Half of six concepts fire on images, half on captions, one per label of three.

    planted: a concept fires on 97 % of the items with its label and on 3 % of the others; else on half of all items.
    """
    images, width = 600, 6
    label = random.integers(0, 3, images)
    owner = np.repeat(np.arange(images), 2)
    z = []
    for of_item, own in ((label, (0, 1, 2)), (label[owner], (3, 4, 5))):
        of_concept = np.arange(width) % 3
        rate = np.where(of_item[:, None] == of_concept, 0.97, 0.03) if planted else np.full((len(of_item), width), 0.5)
        fires = (random.random(rate.shape) < rate) & np.isin(np.arange(width), own)
        z.append(np.where(fires, random.exponential(1.0, rate.shape) + 0.1, 0).astype(np.float32))
    con = catalog(z[0], z[1], owner, random.random(images), heldout=0.4)
    con.execute("CREATE TABLE labels (image_id BIGINT, name VARCHAR, label VARCHAR)")
    rows = [(i, "kind", f"label {one}") for i, one in enumerate(label)] + [(0, "kind", "rare")]
    con.executemany("INSERT INTO labels VALUES (?, ?, ?)", rows)
    create_inner(con)
    fill_concepts(con, [CountedSAE("m", "s", 0, width)], "heldout")
    fill(con, "concepts")
    return con
