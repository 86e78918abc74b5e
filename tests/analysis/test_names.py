"""Names of concepts: words of training captions, and their score on held-out items."""

from __future__ import annotations

import math
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sql_case import KEYS, catalog

from analysis.label_auc import Wins, wins_of
from analysis.names import CONCEPT_NAMES, interval, of_sae
from analysis.tables import empty, fill
from storage.dataset import Dataset
from storage.rows import Rows
from storage.statements import statement
from tasks.analyze import _text_encoder
from tasks.embed import load_encoder
from tasks.stage import Runtime

CAPTIONS = ["a red cat", "a red cat sleeps", "a blue dog", "a red dog"]


def named_study(*firings: tuple[str, int, int, float], captions: list[str] = CAPTIONS) -> duckdb.DuckDBPyConnection:
    """Training images with one caption each, and a held-out image at the end. firings: (modality, concept, item, z)."""
    n, width = len(captions) + 1, 2
    z = {name: np.zeros((n, width), np.float32) for name in ("image", "text")}
    for modality, concept, item, value in firings:
        z[modality][item, concept] = value
    con = catalog(z["image"], z["text"], np.arange(n), np.full(n, 0.9))
    con.execute("UPDATE images SET split = 'heldout' WHERE image_id = ?", [n - 1])
    con.execute("UPDATE pairs SET split = 'heldout' WHERE pair_id = ?", [n - 1])
    for pair, caption in enumerate([*captions, "a red secret secret"]):
        con.execute("UPDATE pairs SET caption = ? WHERE pair_id = ?", [caption, pair])
    fill(con, "codes", **KEYS, split="heldout")
    return con


def words_of(con: duckdb.DuckDBPyConnection, top: int = 24, least: float = 0.5, n: int = 8) -> list[tuple[Any, ...]]:
    for name in ("caption_words", "caption_counts"):
        fill(con, name)
    fill(con, "concept_words", **KEYS, top=top, prior=2, least=least, n=n)
    return con.execute("SELECT concept_id, word, score FROM concept_words").fetchall()


def test_words_are_letters_once_a_training_caption() -> None:
    odd = "It's a CAFÉ-bar: 42 dogs, dogs! " + "y" * 41
    con = named_study(captions=[odd, "三つ星 <b>bold</b> 1-2", "a dog", "a dog"])
    words_of(con)
    words = con.execute("SELECT pair_id, list(word ORDER BY word) FROM caption_words GROUP BY ALL ORDER BY ALL")
    # A single letter, a number, and a run of 41 letters are no words. The held-out caption 4 is left out.
    assert words.fetchall() == [(0, ["café-bar", "dogs", "it's"]), (1, ["bold", "三つ星"]), (2, ["dog"]), (3, ["dog"])]
    assert dict(con.execute("FROM caption_counts").fetchall())["dog"] == 2


def test_distinctive_words_by_hand() -> None:
    # n is the weight of all captions of a concept, y the weight of the concept's captions that contain a word. Concept
    # 0 fires at 2 on caption 0 and at 1 on caption 1, so these captions weigh 1 and .5, and n is 1.5. There are 4
    # training captions. The prior weighs as much as 2 captions. Both fire most on the held-out item 4, which is no
    # training item: its caption names nothing.
    firings = [("text", 0, 0, 2.0), ("text", 0, 1, 1.0), ("image", 1, 2, 3.0), ("image", 1, 3, 3.0)]
    con = named_study(*firings, ("text", 0, 4, 9.0), ("image", 1, 4, 9.0))
    words = words_of(con)
    # cat has y = 1.5 and is in 2 of 4 captions, so its prior is 1. The log-odds ratio is
    # ln((1.5 + 1) / (1.5 + 2 - 1.5 - 1)) - ln((2 + 1) / (4 + 2 - 2 - 1)) = ln(2.5 / 1) - ln(3 / 3). The variance of
    # this ratio is 1 / 2.5 + 1 / 3.
    cat = math.log(2.5) / math.sqrt(1 / 2.5 + 1 / 3)
    # red has y = 1.5 and is in 3 of 4 captions, so its prior is 1.5. The log-odds ratio is
    # ln(3 / .5) - ln(4.5 / 1.5). The variance of this ratio is 1 / 3 + 1 / 4.5.
    red = (math.log(6) - math.log(3)) / math.sqrt(1 / 3 + 1 / 4.5)
    # Concept 1 fires on images 2 and 3, so the captions of these two images count, each with weight 1. dog has y = 2
    # and is in 2 of 4 captions. The log-odds ratio is ln(3 / 1) - ln(3 / 3). The variance of this ratio is
    # 1 / 3 + 1 / 3. red and blue are each in only one caption of concept 1, so they are left out.
    dog = math.log(3) / math.sqrt(2 / 3)
    assert [(concept, word) for concept, word, _ in words] == [(0, "cat"), (0, "red"), (1, "dog")]
    assert [score for *_, score in words] == pytest.approx([cat, red, dog])
    assert [row[1] for row in words_of(con, least=1.0)] == ["cat", "dog"]
    assert [row[1] for row in words_of(con, n=1)] == ["cat", "dog"]
    assert words_of(con, top=1) == []  # one caption alone shares no word with another


def test_a_caption_counts_by_itself_and_by_its_image() -> None:
    # Caption 0 and its image have the activation 1 each. Their sum is 2, the largest sum of all captions. Caption 1 has
    # the sum 1. So captions 0 and 1 weigh 1 and .5, and cat has the same score as in test_distinctive_words_by_hand.
    con = named_study(("text", 0, 0, 1.0), ("image", 0, 0, 1.0), ("text", 0, 1, 1.0))
    (_, word, score), *_ = words_of(con)
    assert (word, score) == ("cat", pytest.approx(math.log(2.5) / math.sqrt(1 / 2.5 + 1 / 3)))


def test_a_word_of_every_caption_says_nothing() -> None:
    con = named_study(("text", 0, 0, 2.0), ("text", 0, 1, 1.0), captions=[f"photo {text}" for text in CAPTIONS])
    assert "photo" not in [row[1] for row in words_of(con, least=-9.0)]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_wins_are_those_of_all_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, items, total = 3, int(random.integers(1, 40)), int(random.integers(1, 5))
    scores = (random.integers(0, 6, (rows, items)) / 4).astype(np.float32)  # few values, so that ties occur
    groups = random.integers(0, total, items)
    fires = random.random((rows, items)) < random.random()
    start = np.concatenate([[0], np.cumsum(fires.sum(1))])
    wins = wins_of(scores, start, np.nonzero(fires)[1], groups, total)

    def auc(row: int, kept: np.ndarray[Any, Any]) -> float:
        high, low = scores[row, fires[row] & kept], scores[row, ~fires[row] & kept]
        pairs = (high[:, None] > low) + (high[:, None] == low) / 2
        return float(pairs.mean()) if pairs.size else math.nan

    everything = np.ones(items, bool)
    assert wins.auc() == pytest.approx([auc(row, everything) for row in range(rows)], nan_ok=True)
    for group in range(total):
        expected = [auc(row, groups != group) for row in range(rows)]
        assert wins.without(group) == pytest.approx(expected, nan_ok=True)


def test_the_interval_is_a_jackknife_over_the_groups_that_hold_items() -> None:
    # Two groups hold items; the third holds none and is not left out. 10 positives and 10 negatives: the AUC is .9, and
    # without a group it is the AUC of the other one, 1 or .8. The jackknife's sd is sqrt((2 - 1) var_pop) = .1, and
    # the 97.5 % point of Student's distribution with 1 degree of freedom is 12.706.
    wins = Wins(
        of_positives=np.array([[95, 85, 0]]), over_negatives=np.array([[90, 90, 0]]),
        within=np.array([[45, 45, 0]]), positives=np.array([[5, 5, 0]]), negatives=np.array([[5, 5, 0]]),
    )  # fmt: skip
    assert wins.auc() == pytest.approx([0.9])
    assert [wins.without(group)[0] for group in (0, 1)] == pytest.approx([0.8, 1.0])
    low, high = interval(wins)
    assert (low[0], high[0]) == (0.0, 1.0)  # .9 -+ 1.27 is cut to what an AUC can be
    few = interval(wins._replace(positives=np.array([[5, 4, 0]])))
    assert np.isnan(few).all()  # nine firings are too few for an interval


def scored_study(seed: int = 0) -> tuple[duckdb.DuckDBPyConnection, Rows, np.ndarray[Any, Any]]:
    """400 held-out images with embeddings in 8 dimensions. Concept c fires where dimension c is above its 80 % point.

    Concepts 0 to 2 fire on images. Concept 3 fires on captions, whose embeddings are those of their images.
    """
    random = np.random.default_rng(seed)
    n = 400
    x = random.standard_normal((n, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    z = np.where(x > np.quantile(x, 0.8, axis=0), 1.0, 0.0)[:, :4]
    on_image, on_text = z * [1, 1, 1, 0], z * [0, 0, 0, 1]
    u = random.random(n) * 0.5
    con = catalog(on_image, on_text, np.arange(n), u)
    fill(con, "codes", **KEYS, split="heldout")
    con.execute("CREATE TABLE concepts (model VARCHAR, sae VARCHAR, seed INTEGER, concept_id INTEGER, "
                "modality_score DOUBLE, energy DOUBLE)")  # fmt: skip
    for concept, score in enumerate((1.0, 0.9, 0.8, 0.0)):
        con.execute("INSERT INTO concepts VALUES ('m', 's', 0, ?, ?, ?)", [concept, score, 4.0 - concept])
    order = random.permutation(n)  # the rows of embeddings lie in another order than the ids
    return con, Rows(x[order], x[order], order, order, np.arange(n), u[order]), x


def named_by(concepts: list[int], words: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"concept_id": pl.Series(concepts, dtype=pl.Int32), "words": words})


def encoder_of(vectors: dict[str, list[float]]) -> Any:
    return lambda texts: np.array([vectors[text] for text in texts], np.float32)


def test_a_good_name_is_told_from_a_bad_one() -> None:
    con, rows, x = scored_study()
    unit = np.eye(8, dtype=np.float32)
    vectors = {"first": unit[0], "wrong": unit[7], "third": unit[2], "fourth": unit[3]}
    named = named_by([0, 1, 2, 3], list(vectors))
    found = of_sae(con, KEYS, named, encoder_of({k: v.tolist() for k, v in vectors.items()}), rows)
    assert dict(found.schema) == CONCEPT_NAMES
    assert found["concept_id"].to_list() == [0, 1, 2, 3]
    assert found["modality"].to_list() == ["image", "image", "image", "text"]
    assert found["is_scored"].all()
    assert found["firings"].to_list() == [80] * 4
    assert found["items"].to_list() == [400] * 4
    score, low = found["score"].to_numpy(), found["low"].to_numpy()
    assert score[[0, 2, 3]] == pytest.approx([1.0] * 3)  # the name's direction ranks exactly the items that fire first
    assert (low[[0, 2, 3]] > 0.5).all()
    assert low[1] < 0.5 < found["high"][1]  # the direction of the wrong name has nothing to do with the concept
    # Chance is the AUC of the name of the concept next in energy; the last concept takes the one before it.
    for concept, axis in ((0, 7), (1, 2), (2, 7)):
        fires = x[:, concept] > np.quantile(x[:, concept], 0.8)
        assert found["chance"][concept] == pytest.approx(np.mean(x[fires, axis][:, None] > x[~fires, axis]))
    assert found["chance"][3] is None  # the only concept on captions


def test_large_studies_score_names_on_the_items_of_the_smallest_split_u(monkeypatch: pytest.MonkeyPatch) -> None:
    con, rows, _ = scored_study()
    unit = np.eye(8).tolist()
    names, encoder = named_by([0, 3], ["a", "b"]), encoder_of({"a": unit[0], "b": unit[3]})
    monkeypatch.setattr("analysis.names.ITEMS", 100)
    found = of_sae(con, KEYS, names, encoder, rows)
    assert found["items"].to_list() == [100, 100]
    kept = set(rows.image_id[np.argsort(rows.split_u)[:100]].tolist())
    query = "SELECT item_id FROM codes WHERE is_image AND concept_id = 0"
    assert found["firings"][0] == len(kept & {item for (item,) in con.execute(query).fetchall()})
    monkeypatch.setattr("analysis.names.BLOCK", 1)  # one concept at a time
    assert of_sae(con, KEYS, names, encoder, rows).equals(found)


def test_without_an_encoder_words_have_no_score() -> None:
    con, *_ = scored_study()
    named = named_by([0, 3], ["one", "two"])
    found = of_sae(con, KEYS, named, None, None)
    assert found["words"].to_list() == ["one", "two"]
    assert not found["is_scored"].any()
    assert found.select("score", "low", "high", "chance", "firings", "items").null_count().row(0) == (2,) * 6
    assert of_sae(con, KEYS, named.clear(), None, None).equals(empty(CONCEPT_NAMES))


def test_a_concept_that_never_fires_on_held_out_items_has_no_score() -> None:
    con, rows, _ = scored_study()
    con.execute("DELETE FROM codes WHERE concept_id = 1")
    unit = np.eye(8).tolist()
    named = named_by([0, 1], ["a", "b"])
    found = of_sae(con, KEYS, named, encoder_of({"a": unit[0], "b": unit[1]}), rows)
    assert found["score"].is_null().to_list() == [False, True]
    assert found["firings"].to_list() == [80, 0]
    con.execute("INSERT INTO codes SELECT true, i, 1, 1.0, 0, true, false FROM range(400) AS t(i)")
    found = of_sae(con, KEYS, named, encoder_of({"a": unit[0], "b": unit[1]}), rows)
    assert found["score"].is_null().to_list() == [False, True]  # nor has one that fires on all of them
    assert found["firings"].to_list() == [80, 400]


class Encoder:
    """Stands in for a text encoder: the embedding of a text is its length, in the encoder's dtype at that time."""

    def __init__(self) -> None:
        self.identity = {"dtype": "float32"}

    def cast(self, dtype: str) -> None:
        self.identity = {"dtype": dtype}

    def encode_texts(self, texts: list[str]) -> list[tuple[int, str]]:
        return [(len(text), self.identity["dtype"]) for text in texts]


def test_texts_are_encoded_in_the_dtype_of_the_embeddings(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[Any, ...]] = []

    def load(*arguments: Any, **options: Any) -> Encoder:
        loaded.append((arguments, options))
        return Encoder()

    monkeypatch.setattr("vlm.load", load)
    load_encoder.cache_clear()
    model = Dataset(path="models/m", recipe="r", digest="d", rows=1)
    encode = _text_encoder(model, "hf:model", "bfloat16", Runtime(store=tmp_path, device="cpu"))
    assert loaded == []  # a study without words loads no model
    assert encode(["a", "bird"]) == [(1, "bfloat16"), (4, "bfloat16")]
    assert encode(["b"]) == [(1, "bfloat16")]
    assert loaded == [(("hf:model",), {"device": "cpu"})]  # and another loads it once
    load_encoder.cache_clear()


def test_the_view_of_concepts_shows_names_that_hold(tmp_path: Any) -> None:
    keys = {"model": "m", "sae": "s", "seed": 0}
    seeds = pl.Series("seed", [0] * 4, pl.Int32)
    pl.DataFrame({**keys, "concept_id": list(range(4))}).with_columns(seeds).write_parquet(
        tmp_path / "concepts.parquet"
    )
    names = pl.DataFrame({
        **keys, "concept_id": [0, 1, 2], "words": ["good", "bad", "unscored"], "is_scored": [True, True, False],
        "score": [0.9, 0.6, None], "low": [0.8, 0.5, None], "high": [1.0, 0.7, None], "chance": [0.5, 0.5, None],
    })  # fmt: skip
    names.write_parquet(tmp_path / "names.parquet")
    matches = pl.DataFrame({
        "model": "m", "sae_a": "s", "seed_a": 0, "sae_b": ["s", "s", "diet"], "seed_b": [1, 2, 1],
        "concept_a": 0, "concept_b": 0, "cosine": [0.5, 0.7, 0.1],
    })  # fmt: skip
    matches.write_parquet(tmp_path / "matches.parquet")
    files = {name: [tmp_path / f"{name}.parquet"] for name in ("concepts", "names", "matches")}
    query = "SELECT name, name_score, stability FROM concepts ORDER BY concept_id"
    with duckdb.connect() as con:
        con.execute(statement("views/concepts", files=files["concepts"], names=files["names"], named=1,
                              matches=files["matches"], matched=1))  # fmt: skip
        rows = con.execute(query).fetchall()
        # An interval that reaches .5 is no name. Stability leaves the diet out.
        assert rows == [("good", 0.9, pytest.approx(0.6)), (None, 0.6, None), ("unscored", None, None), (None,) * 3]
        con.execute("DROP VIEW concepts")
        con.execute(statement("views/concepts", files=files["concepts"], names=files["concepts"], named=0,
                              matches=files["concepts"], matched=0))  # fmt: skip
        assert con.execute(query).fetchall() == [(None,) * 3] * 4  # a run of an earlier version
