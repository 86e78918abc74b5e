"""Seconds that the macro `pair_ledger` takes for one pair, at the scale of the paper.

    python bench/pair_ledger.py FOLDER [images] [pairs]

Writes a planted study into FOLDER: 118,000 images and five captions of each, in shards of 8,192 images; one model with
d = 512 and one SAE with 8,192 concepts, of which 32 fire on an item, under three seeds. Its numbers are random, since
only the sizes matter. Then asks for the ledgers of random pairs. It prints the median and the largest of their
seconds, and how far the sum of a ledger is from the similarity. The first pair is shown separately, because it opens
the files.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from storage.activations import Activations, write_activations, write_atoms
from storage.definitions import define
from storage.embeddings import CHUNK, DESCRIPTION, chunks_of_array
from storage.listing import SHARD_ROWS
from storage.statements import SQL, statement

DIM, WIDTH, FIRING, CAPTIONS, SHARD = 512, 8192, 32, 5, 8192


def chunks(folder: Path, rows: int, random: np.random.Generator) -> None:
    """Write the chunks of one array of `rows` embeddings, as the store keeps them."""
    for number in range(-(-rows // CHUNK)):
        path = folder / str(number) / "0"
        path.parent.mkdir(parents=True)
        random.standard_normal((CHUNK, DIM), np.float32).astype(np.float16).tofile(path)


def codes(ids: np.ndarray, random: np.random.Generator) -> Activations:
    """Random codes of items; energetic concepts fire on more items than others."""
    concepts = (WIDTH * random.random((len(ids), FIRING)) ** 2).astype(np.int32)
    values = random.random(len(ids) * FIRING, np.float32)
    return Activations(np.repeat(ids, FIRING), concepts.ravel(), values)


def plant(folder: Path, images: int) -> None:
    """Write all files of the study, unless the folder has them."""
    if (folder / "offsets.parquet").exists():
        return
    random = np.random.default_rng(0)
    for shard in range(-(-images // SHARD)):
        count = min(SHARD, images - shard * SHARD)
        at = folder / str(shard)
        ids, captions = (shard * SHARD_ROWS + np.arange(n) for n in (count, CAPTIONS * count))
        for modality, rows in (("image", count), ("text", CAPTIONS * count)):
            chunks(at / modality / "c", rows, random)
        owner = np.repeat(ids, CAPTIONS)
        none = pl.lit(None, pl.String)
        pl.DataFrame({"image_id": ids}).with_columns(error=none).write_parquet(at / "images.parquet")
        pl.DataFrame({"pair_id": captions, "image_id": owner}).write_parquet(at / "captions.parquet")
        write_activations(at / "codes.parquet", codes(ids, random), codes(captions, random))
    dictionary = random.standard_normal((WIDTH, DIM), np.float32)
    bias = 0.1 * random.standard_normal(DIM).astype(np.float32)
    unit = dictionary / np.linalg.norm(dictionary, axis=1, keepdims=True)
    write_atoms(folder, unit, bias, {"image": None, "text": None})


def views(con: duckdb.DuckDBPyConnection, folder: Path, shards: int) -> None:
    """Create the views and macros that a ledger reads."""
    every = [folder / str(shard) for shard in range(shards)]
    selects = {
        "activations": [
            statement("views/activations", model="m", sae="s", seed=seed, files=[at / "codes.parquet" for at in every])
            for seed in range(3)
        ],
        **{
            view: [
                statement(f"views/{view}", model="m", sae="s", seed=seed, files=[folder / name]) for seed in range(3)
            ]
            for view, name in (("atoms", "atoms.parquet"), ("sae_offsets", "offsets.parquet"))
        },
        "embedding_chunks": [
            statement(
                "views/embedding_chunks",
                model="m",
                modality=modality,
                shard=shard,
                files=chunks_of_array(every[shard] / modality),
                described=every[shard] / modality / DESCRIPTION,
            )
            for shard in range(shards)
            for modality in ("image", "text")
        ],
    }
    for view, parts in selects.items():
        con.execute(f"CREATE VIEW {view} AS\n" + "\nUNION ALL\n".join(parts))
    files = {name: [at / f"{name}.parquet" for at in every] for name in ("images", "captions")}
    con.execute(statement("views/embedding_rows", **files))
    for macro in ("embedding", "pair_ledger"):
        con.execute((SQL / "macros" / f"{macro}.sql").read_text())


def main(folder: Path, images: int = 118_000, pairs: int = 20) -> None:
    """Plant the study, ask for ledgers and print what they took."""
    plant(folder, images)
    con = duckdb.connect(config={"threads": 2})
    define(con)
    views(con, folder, -(-images // SHARD))
    random = np.random.default_rng(1)
    seconds, errors = [], []
    for _ in range(pairs):
        a, b = random.integers(0, images, 2)
        image, text = (int(i // SHARD * SHARD_ROWS + i % SHARD * n) for i, n in ((a, 1), (b, CAPTIONS)))
        began = time.perf_counter()
        query = "SELECT sum(contribution), any_value(similarity), count(*) FROM pair_ledger('m', 's', 0, $1, $2)"
        total, similarity, rows = con.execute(query, [image, text]).fetchall()[0]
        seconds.append(time.perf_counter() - began)
        errors.append(abs(total - similarity))
    print(f"{images:,} images, {CAPTIONS * images:,} captions; {rows:,} rows per ledger")
    print(f"first {seconds[0]:.3f} s, then median {np.median(seconds[1:]):.3f} s, largest {max(seconds[1:]):.3f} s")
    print(f"largest difference between sum and similarity {max(errors):.1e}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
