"""Random sparse studies for the tests of SQL, each as tables in memory and as dense numpy arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import duckdb
import numpy as np
import polars as pl

from storage.definitions import define
from storage.split import split_u

KEYS = {"model": "m", "sae": "s", "seed": 0}


class Case(NamedTuple):
    """A study of one SAE with n images, m captions and C concepts. `con` has the same firings in tables."""

    con: duckdb.DuckDBPyConnection
    z_image: np.ndarray[Any, Any]  # [n, C]
    z_text: np.ndarray[Any, Any]  # [m, C]
    owner: np.ndarray[Any, Any]  # [m] row of each caption's image
    heldout: np.ndarray[Any, Any]  # [n] bool: whether an image is held out
    split_u: np.ndarray[Any, Any]  # [n] in [0, 1); images below .5 are held out
    dictionary: np.ndarray[Any, Any]  # [C, 5] rows of norm 1


def random_case(seed: int, images: int = 60, width: int = 9) -> Case:
    """A study in which concept 0 is dead, 1 fires on images only, 2 on captions only, 3 on training rows only.

    Activations are multiples of 1/4, so that ties occur. An image has any number of captions, also none.
    """
    random = np.random.default_rng(seed)
    owner = np.sort(random.integers(0, images, 2 * images))
    z = [
        np.where(random.random((n, width)) < 0.3, random.integers(1, 6, (n, width)) / 4, 0).astype(np.float32)
        for n in (images, len(owner))
    ]
    z[1][1::7] = z[1][0::7][: len(z[1][1::7])]  # some captions have the same codes as another caption
    u = np.array([split_u(f"{seed}-{i}") for i in range(images)])
    heldout = u < 0.5
    z[0][:, [0, 2]] = 0
    z[1][:, [0, 1]] = 0
    z[0][heldout, 3] = 0
    z[1][heldout[owner], 3] = 0
    D = random.standard_normal((width, 5))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    return Case(catalog(z[0], z[1], owner, u), *z, owner, heldout, u, D)


def catalog(z_image: Any, z_text: Any, owner: Any, u: Any, heldout: float = 0.5) -> duckdb.DuckDBPyConnection:
    """Return a connection with the tables images, pairs and activations of a study, made from its dense codes."""
    con = duckdb.connect(config={"threads": 1})
    define(con)
    split = np.where(np.asarray(u) < heldout, "heldout", "train")
    owner = np.asarray(owner)
    images = pl.DataFrame({
        "image_id": np.arange(len(split)), "source_key": [f"i{i}" for i in range(len(split))], "split_u": u,
        "split": split,
    })  # fmt: skip
    captions = pl.DataFrame({
        "pair_id": np.arange(len(owner)), "image_id": owner, "caption": [f"caption {j}" for j in range(len(owner))],
        "source_key": [f"t{j}" for j in range(len(owner))], "split": split[owner],
    })  # fmt: skip
    firings = []
    for modality, z in (("image", np.asarray(z_image)), ("text", np.asarray(z_text))):
        item, concept = np.nonzero(z)
        firings.append(
            pl.DataFrame({"item_id": item, "concept_id": concept, "activation": z[item, concept]}).select(
                pl.lit("m").alias("model"),
                pl.lit("s").alias("sae"),
                pl.lit(0, pl.Int32).alias("seed"),
                pl.lit(modality).alias("modality"),
                pl.col("item_id").cast(pl.Int64),
                pl.col("concept_id").cast(pl.Int32),
                pl.col("activation").cast(pl.Float32),
            )
        )
    for name, frame in (("images", images), ("pairs", captions), ("activations", pl.concat(firings))):
        con.register(f"{name}_arrow", frame.to_arrow())
        con.execute(f"CREATE TABLE {name} AS FROM {name}_arrow")
    return con
