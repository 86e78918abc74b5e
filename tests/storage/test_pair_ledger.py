"""The macro pair_ledger against `sae.ledger`, for every kind of SAE, over files as the store keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from ledger_cases import DIM, cases

from sae import SAE
from sae.ledger import pair_ledger, split, without
from sae.model import MEANS
from storage.activations import write_activations, write_atoms
from storage.definitions import define
from storage.embeddings import CHUNK, DESCRIPTION, chunks_of_array, finish, write_modality
from storage.listing import SHARD_ROWS
from storage.statements import SQL, statement
from tasks.export import encode

Array = np.ndarray[Any, Any]
CASES = cases()
QUERY = "SELECT term, image_concept, text_concept, contribution, similarity FROM pair_ledger('m', 's', 0, $1, $2)"
FAILED = 6  # an image that was acquired and not embedded
GONE = 2  # an image that was not acquired


class Study:
    """Embeddings of two shards, of which the first has more captions than a chunk holds. Ids are not row numbers."""

    def __init__(self, root: Path) -> None:
        self.root, self.x = root, dict[tuple[str, int], Array]()
        random = np.random.default_rng(0)
        for shard, (images, captions) in enumerate(((20, CHUNK + 76), (5, 5))):
            at, first = root / str(shard), shard * SHARD_ROWS
            ids = {"image": first + 2 * np.arange(images), "text": first + 3 * np.arange(captions)}
            rows = {name: random.standard_normal((len(each), DIM)).astype(np.float16) for name, each in ids.items()}
            rows["image"][ids["image"] == FAILED] = np.nan
            for name, x in rows.items():
                write_modality(at, name, *x.shape, lambda a, b, x=x: x[a:b].astype(np.float32), lambda done: None)
                self.x |= {(name, int(item)): row for item, row in zip(ids[name], x, strict=True)}
            finish(at, {})
            error = ["gone" if item == GONE else None for item in ids["image"]]
            pl.DataFrame({"image_id": ids["image"], "error": pl.Series(error, dtype=pl.String)}).write_parquet(
                at / "images.parquet"
            )
            pl.DataFrame({"pair_id": ids["text"]}).write_parquet(at / "captions.parquet")

    def unit(self, modality: str, item: int) -> Array:
        """The embedding of an item as stages read it: of norm 1, in float32."""
        x = self.x[modality, item].astype(np.float32)
        return np.asarray(x / np.linalg.norm(x))

    def opened(self, net: SAE, pair: tuple[int, int]) -> duckdb.DuckDBPyConnection:
        """A connection with the macro, and the codes of one image and one caption by an SAE."""
        codes = [
            encode(net, self.unit(modality, item)[None], np.array([item]), modality)
            for modality, item in zip(MEANS, pair, strict=True)
        ]
        write_activations(self.root / "codes.parquet", *codes)
        means = {name: None if (mean := getattr(net, key)) is None else mean.numpy() for name, key in MEANS.items()}
        write_atoms(self.root, net.dictionary.numpy(), net.bias.numpy(), means)
        con = duckdb.connect(config={"threads": 1})
        define(con)
        files = {"activations": "codes.parquet", "atoms": "atoms.parquet", "sae_offsets": "offsets.parquet"}
        for view, name in files.items():
            text = statement(f"views/{view}", model="m", sae="s", seed=0, files=[self.root / name])
            con.execute(f"CREATE VIEW {view} AS {text}")
        shards = [self.root / "0", self.root / "1"]
        chunks = [
            statement(
                "views/embedding_chunks",
                model="m",
                modality=modality,
                shard=shard,
                files=chunks_of_array(path),
                described=path / DESCRIPTION,
            )
            for shard, at in enumerate(shards)
            for modality in MEANS
            for path in [at / modality]
        ]
        con.execute("CREATE VIEW embedding_chunks AS " + " UNION ALL ".join(chunks))
        tables = {name: [at / f"{name}.parquet" for at in shards] for name in ("images", "captions")}
        con.execute(statement("views/embedding_rows", **tables))
        for macro in ("embedding", "pair_ledger"):
            con.execute((SQL / "macros" / f"{macro}.sql").read_text())
        return con


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("pairs"))


@pytest.mark.parametrize(("place", "name"), enumerate(CASES))
def test_rows_sum_to_the_cosine_and_are_those_of_the_function(study: Study, place: int, name: str) -> None:
    net = CASES[name]
    image = (2 * (place % 20), SHARD_ROWS)[place % 7 == 0] if 2 * (place % 20) not in (FAILED, GONE) else 8
    text = (3 * (CHUNK + place), 3 * place, SHARD_ROWS + 12)[place % 3]
    x = [study.unit("image", image), study.unit("text", text)]
    with study.opened(net, (image, text)) as con:
        rows = con.execute(QUERY, [image, text]).fetchall()
    cosine = float(x[0].astype(np.float64) @ x[1])
    assert sum(row[3] for row in rows) == pytest.approx(cosine, abs=1e-5)
    assert [row[4] for row in rows] == pytest.approx([cosine] * len(rows), abs=1e-6)
    ledger = pair_ledger(net, *x)
    pairs = {(i, j): value for term, i, j, value, _ in rows if term == "concepts"}
    expected = zip(ledger.image_concept.tolist(), ledger.text_concept.tolist(), ledger.contribution, strict=True)
    size = 1 + np.abs(ledger.contribution).max(initial=0)  # an imported SAE with atoms of large norm has large terms
    assert pairs == pytest.approx({(i, j): value for i, j, value in expected}, abs=1e-6 * size)
    terms = {term: sum(row[3] for row in rows if row[0] == term) for term in {row[0] for row in rows} - {"concepts"}}
    # A term of the function that no concept has a part in is 0, and has no row.
    assert {term: terms.get(term, 0.0) for term in ledger.terms} == pytest.approx(ledger.terms, abs=2e-5 * size)
    assert terms.keys() <= ledger.terms.keys()
    # Leaving out concepts is leaving out their rows.
    gone = {*ledger.image_concept[:1].tolist(), *ledger.text_concept[-1:].tolist()}
    left = [without(net, split(net, row, modality), gone) for row, modality in zip(x, MEANS, strict=True)]
    kept = sum(row[3] for row in rows if not gone & {row[1], row[2]})
    assert kept == pytest.approx(left[0] @ left[1], abs=2e-5 * size)


def test_an_item_without_an_embedding_has_no_ledger(study: Study) -> None:
    with study.opened(CASES["topk bias=True centring=False"], (0, 0)) as con:
        for image, text in ((FAILED, 0), (GONE, 0), (1, 0), (0, 1), (5 * SHARD_ROWS, 0)):
            assert con.execute(QUERY, [image, text]).fetchall() == []
        assert con.execute("SELECT * FROM embedding('m', 'image', $1)", [FAILED]).fetchall() == []
        (vector,) = con.execute("SELECT vector FROM embedding('m', 'text', (SELECT 3 * 1024))").fetchone() or ([],)
        np.testing.assert_allclose(vector, study.unit("text", 3 * CHUNK), atol=1e-6)


@pytest.mark.parametrize("size", [CHUNK * DIM, 2 * CHUNK * DIM - 2, 4 * CHUNK * DIM, 0])
def test_a_chunk_of_another_length_is_an_error_that_names_its_file(tmp_path: Path, size: int) -> None:
    study = Study(tmp_path)
    (_, damaged) = chunks_of_array(tmp_path / "0" / "text")
    whole = damaged.read_bytes()
    assert len(whole) == 2 * CHUNK * DIM
    damaged.write_bytes((whole * 2)[:size])
    with study.opened(CASES["topk bias=True centring=False"], (0, 0)) as con:
        with pytest.raises(duckdb.Error) as refused:
            con.execute("SELECT vector FROM embedding('m', 'text', $1)", [3 * CHUNK]).fetchall()
        assert (
            f"{damaged} is damaged: it has {size} bytes, and zarr.json states {2 * CHUNK * DIM}: delete the folder 0, "
            "and the next run makes it again"
        ) in str(refused.value)
        assert len(con.execute("SELECT vector FROM embedding('m', 'text', $1)", [SHARD_ROWS]).fetchall()) == 1
        assert len(con.execute("SELECT vector FROM embedding('m', 'image', 8)").fetchall()) == 1
        (tmp_path / "0" / "image" / DESCRIPTION).write_text('{"shape": [')
        with pytest.raises(duckdb.Error, match=r"and zarr\.json states no number"):
            con.execute("SELECT vector FROM embedding('m', 'image', 8)").fetchall()


def test_every_half_is_read_exactly() -> None:
    halves = np.arange(2**16).astype(np.uint16).view(np.float16)
    with duckdb.connect() as con:
        define(con)
        (read,) = con.execute("SELECT float16s($1::BLOB)", [halves.tobytes()]).fetchone() or ([],)
    np.testing.assert_array_equal(np.array(read), halves.astype(np.float64))
