"""A small catalog in memory, with the tables and columns of a study, for tests of the page. No store is used."""

from __future__ import annotations

import io
import itertools
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pytest
from PIL import Image

from analysis.joined import Twin, create_twins
from analysis.statistic import create_inner
from analysis.tables import fill
from analysis.usage import CountedSAE, fill_concepts
from storage.definitions import define
from storage.macros import create_macros

AWKWARD = "<script>alert(1)</script> & \"quotes\" 'single'"
WIDTH = 16
RUN = "model VARCHAR, sae VARCHAR, seed INTEGER"
TABLES = {
    "images": """image_id BIGINT, source_key VARCHAR, group_key VARCHAR, width INTEGER, height INTEGER, sha256 VARCHAR,
        split_u DOUBLE, split VARCHAR""",
    "pairs": "pair_id BIGINT, image_id BIGINT, caption VARCHAR, source_key VARCHAR, split VARCHAR",
    "image_bytes": "image_id BIGINT, image BLOB",
    "ledger": "source_key VARCHAR, shard INTEGER, cause VARCHAR, detail VARCHAR",
    "saes": f"""{RUN}, architecture VARCHAR, dim BIGINT, width BIGINT, k BIGINT, decoder_bias BOOLEAN,
        image_share VARCHAR, data_half VARCHAR, split VARCHAR, r2 DOUBLE, r2_image DOUBLE, r2_text DOUBLE,
        r2_scalar_mean DOUBLE,
        cosine DOUBLE, l0 DOUBLE, l0_image DOUBLE, l0_text DOUBLE, hoyer DOUBLE, rows_seen BIGINT, path VARCHAR,
        dead_fraction DOUBLE, settings VARCHAR, frozen VARCHAR, twin_of VARCHAR""",
    "training": f"""{RUN}, step BIGINT, epoch DOUBLE, loss DOUBLE, r2 DOUBLE, l0 DOUBLE, dead_fraction DOUBLE,
        rows_per_second DOUBLE""",
    "activations": f"{RUN}, modality VARCHAR, item_id BIGINT, concept_id INTEGER, activation FLOAT",
    "matches": """model VARCHAR, sae_a VARCHAR, seed_a INTEGER, sae_b VARCHAR, seed_b INTEGER, concept_a INTEGER,
        concept_b INTEGER, cosine FLOAT""",
    "bridges": f"""{RUN}, split VARCHAR, image_concept INTEGER, text_concept INTEGER, pairs BIGINT,
        coactivation DOUBLE, cosine DOUBLE, bridge DOUBLE, covariance_bridge DOUBLE, correlation_bridge DOUBLE""",
    "bridge_totals": f"""{RUN}, split VARCHAR, class_image VARCHAR, class_text VARCHAR, self BOOLEAN, kind VARCHAR,
        total DOUBLE, positive DOUBLE, negative DOUBLE""",
    "floors": f'{RUN}, "null" VARCHAR, draw INTEGER, concept_id INTEGER, cosine FLOAT',
    "retrieval": f"""{RUN}, split VARCHAR, intervention VARCHAR, direction VARCHAR, gallery BIGINT, captions BIGINT,
        r1 DOUBLE, r5 DOUBLE, r10 DOUBLE, concepts DOUBLE, energy_share DOUBLE""",
    "bridge_groups": f"{RUN}, split VARCHAR, statistic VARCHAR, jackknife_group INTEGER, value DOUBLE",
    "retrieval_groups": f"""{RUN}, split VARCHAR, intervention VARCHAR, direction VARCHAR, jackknife_group INTEGER,
        queries BIGINT, hits BIGINT""",
    "partners": """model VARCHAR, sae VARCHAR, seed_a INTEGER, seed_b INTEGER, split VARCHAR, modality_a VARCHAR,
        modality_b VARCHAR, concept_a INTEGER, concept_b INTEGER, correlation FLOAT, match_confidence FLOAT,
        assigned INTEGER, assigned_correlation FLOAT, sampled_correlation FLOAT, floor FLOAT""",
    "partner_floors": """model VARCHAR, sae VARCHAR, seed_a INTEGER, seed_b INTEGER, split VARCHAR, modality_a VARCHAR,
        modality_b VARCHAR, draw INTEGER, value DOUBLE""",
    "correspondence": """model_a VARCHAR, model_b VARCHAR, sae VARCHAR, seed INTEGER, split VARCHAR, modality_a VARCHAR,
        modality_b VARCHAR, concept_a INTEGER, concept_b INTEGER, correlation FLOAT, match_confidence FLOAT,
        assigned INTEGER, assigned_correlation FLOAT, sampled_correlation FLOAT, floor FLOAT""",
    "correspondence_floors": """model_a VARCHAR, model_b VARCHAR, sae VARCHAR, seed INTEGER, split VARCHAR,
        modality_a VARCHAR, modality_b VARCHAR, draw INTEGER, value DOUBLE""",
    "subspace_matches": """model VARCHAR, sae VARCHAR, seed_a INTEGER, seed_b INTEGER, concept_id INTEGER,
        atoms INTEGER, projection FLOAT""",
    "concept_labels": f"""{RUN}, concept_id INTEGER, modality VARCHAR, name VARCHAR, label VARCHAR,
        training_auc DOUBLE, auc DOUBLE, null_mean DOUBLE, null_q975 DOUBLE, above_null BOOLEAN, positives BIGINT,
        draws INTEGER""",
    "probing": f"""{RUN}, modality VARCHAR, probe VARCHAR, features INTEGER, name VARCHAR, label VARCHAR,
        balanced_accuracy DOUBLE, penalty DOUBLE, positives BIGINT, training BIGINT, heldout BIGINT""",
    "matched_similarity": f"{RUN}, split VARCHAR, term VARCHAR, value DOUBLE",
    "concept_names": f"""{RUN}, concept_id INTEGER, modality VARCHAR, words VARCHAR, is_scored BOOLEAN, score DOUBLE,
        low DOUBLE, high DOUBLE, chance DOUBLE, firings BIGINT, items BIGINT""",
    "concept_words": f"{RUN}, concept_id INTEGER, word VARCHAR, score DOUBLE",
}
GEOMETRY = "model VARCHAR, subspace VARCHAR, rank INTEGER, heldout_accuracy DOUBLE"
FRONTIER = """model VARCHAR, method VARCHAR, encoder VARCHAR, k BIGINT, width BIGINT, split VARCHAR, r2 DOUBLE,
    r2_image DOUBLE, r2_text DOUBLE, cosine DOUBLE, l0 DOUBLE, r2_at_k DOUBLE, r2_image_at_k DOUBLE,
    r2_text_at_k DOUBLE, seconds DOUBLE"""
INTERVENTIONS = (
    "mean_removed", "reconstructions", "without_unimodal", "random_for_unimodal", "without_bimodal",
    "random_for_bimodal", "without_aligned", "random_for_aligned", "only_bridging",
)  # fmt: skip
Name = tuple[str, str, int]  # model, sae, seed


@pytest.fixture(scope="session")
def catalog() -> Callable[..., duckdb.DuckDBPyConnection]:
    """The function `small_catalog`."""
    return small_catalog


@pytest.fixture(scope="session")
def config() -> Callable[..., dict[str, Any]]:
    """The function `study`, which returns the study file of the catalog."""
    return study


def small_catalog(
    models: Sequence[str] = ("one", "two"),
    saes: Sequence[str] = ("main",),
    seeds: int = 2,
    pictures: bool = True,
    whole: bool = False,
) -> duckdb.DuckDBPyConnection:
    """A catalog of 40 images with two captions each, and 16 concepts per SAE.

    Even concepts fire on images, odd concepts on captions, and concept 0 on both. `whole` adds optional parts:
    geometry, interventions, a frontier and two halves of the data.
    """
    saes = (*saes, "main-half-a", "main-half-b") if whole else saes
    con = duckdb.connect(config={"threads": 1})  # as in the stages: sums in a fixed order give equal bytes
    define(con)
    for table, columns in TABLES.items():
        con.execute(f"CREATE TABLE {table} ({columns})")
    rng = random.Random(0)
    _fill_pairs(con, pictures)
    runs: list[Name] = [(m, s, seed) for m in models for s in saes for seed in range(seeds)]
    for run in runs:
        _fill_run(con, rng, run)
    for (m, s, a), (n, t, b) in itertools.permutations(runs, 2):
        if m == n and (s == t or whole):
            _insert(con, "matches", [(m, s, a, t, b, i, i, 0.8 if i < 8 else 0.4) for i in range(WIDTH)])
        if (m, s) == (n, t):
            _insert(con, "subspace_matches", [(m, s, a, b, i, k, 0.5 + k / 40) for i in range(WIDTH) for k in (1, 16)])
            for sides, height in ((("image", "image"), 0.8), (("image", "text"), 0.5)):
                figures = (height, 0.1, 0, height, height, 0.2)
                _insert(con, "partners", [(m, s, a, b, "heldout", *sides, i, 0, *figures) for i in range(WIDTH)])
                _insert(con, "partner_floors", [(m, s, a, b, "heldout", *sides, draw, 0.2) for draw in range(3)])
        elif s == t and a == b:
            figures = (0.4, 0.1, 0, 0.4, 0.4, 0.2)
            at = (m, n, s, a, "heldout", "image", "image")
            _insert(con, "correspondence", [(*at, i, 0, *figures) for i in range(WIDTH)])
            _insert(con, "correspondence_floors", [(*at, draw, 0.2) for draw in range(3)])
    for model in models:
        for direction in ("image_to_text", "text_to_image"):
            _insert(
                con,
                "retrieval",
                [(model, None, None, "heldout", "embeddings", direction, 10, 20, 0.7, 0.9, 1.0, None, None)],
            )
    create_inner(con)
    if whole:
        _fill_whole(con, rng, runs)
    fill_concepts(con, [CountedSAE(*run, WIDTH) for run in runs], "heldout")
    fill(con, "concepts")
    _name(con)
    fill(con, "nulls")
    if whole:
        create_twins(con, [Twin(model, "main-half-a", "main", "frozen_decoder") for model in models])
        fill(con, "findings")
    create_macros(con)
    return con


def _name(con: duckdb.DuckDBPyConnection) -> None:
    """Name every concept but number 1, whose words may be chance, and add the columns that the view `concepts` adds."""
    con.execute("""INSERT INTO concept_names
        SELECT model, sae, seed, concept_id, 'image', 'cat, tree, ' || concept_id, true, .7,
            CASE concept_id WHEN 1 THEN .4 ELSE .6 END, .8, .5, 12, 40
        FROM concepts""")
    con.execute("""INSERT INTO concept_words
        SELECT model, sae, seed, concept_id, unnest(['cat', 'tree']), unnest([4.0, 3.0]) FROM concepts""")
    con.execute("""CREATE OR REPLACE TEMP TABLE concepts AS
        SELECT
            c.*, CASE WHEN n.low > 0.5 THEN n.words END AS name, n.score AS name_score, n.low AS name_score_low,
            n.high AS name_score_high, n.chance AS name_chance, m.stability
        FROM concepts AS c
        JOIN concept_names AS n USING (model, sae, seed, concept_id)
        LEFT JOIN (
            SELECT model, sae_a, seed_a, concept_a, avg(cosine::DOUBLE) AS stability
            FROM matches
            WHERE sae_a = sae_b
            GROUP BY model, sae_a, seed_a, concept_a
        ) AS m ON m.model = c.model AND m.sae_a = c.sae AND m.seed_a = c.seed AND m.concept_a = c.concept_id""")


def study(models: Sequence[str] = ("one", "two"), saes: Sequence[str] = ("main",)) -> dict[str, Any]:
    """The study file of `small_catalog`, as a dict."""
    return {
        "name": "small",
        "pairs": {"source": "embeddings", "heldout": 0.25, "path": "/somewhere/private/vectors"},
        "models": [{"name": m, "spec": "embeddings:/somewhere/private/vectors", "dtype": "float32"} for m in models],
        "saes": [
            {"name": s, "width": WIDTH, "k": 2, "epochs": 3, "learning_rate": 2e-3, "seeds": [0, 1]} for s in saes
        ],
        "analyze": {"split": "heldout", "min_pairs": 1},
    }


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: list[tuple[Any, ...]]) -> None:
    # one statement with one list per column: executemany takes seconds, and a list of rows half as long again
    columns = [list(column) for column in zip(*rows, strict=True)]
    con.execute(f"INSERT INTO {table} SELECT {', '.join(['unnest(?)'] * len(columns))}", columns)


def _png(color: tuple[int, int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (200, 120), color).save(out, "PNG")
    return out.getvalue()


def _fill_pairs(con: duckdb.DuckDBPyConnection, pictures: bool) -> None:
    split = ["heldout" if i % 4 == 0 else "train" for i in range(40)]
    _insert(con, "images", [(i, f"key{i}", f"key{i}", 200, 120, "", i % 4 / 4 + i / 400, split[i]) for i in range(40)])
    captions = [(i, i // 2, AWKWARD if i in (0, 2) else f"caption {i}", f"c{i}", split[i // 2]) for i in range(80)]
    _insert(con, "pairs", captions)
    if pictures:
        _insert(
            con, "image_bytes", [(i, _png((6 * i, 255 - 6 * i, 90, 255))) for i in range(39)] + [(39, b"no picture")]
        )
    _insert(con, "ledger", [("lost", 0, "not found", "404"), ("broken", 0, "not an image", "")])


def _fill_run(con: duckdb.DuckDBPyConnection, rng: random.Random, run: Name) -> None:
    half = run[1].rpartition("-half-")[2] if "-half-" in run[1] else None
    settings = ("batchtopk", 8, WIDTH, 2, True, "0.5", half, "heldout")
    # r2 (all, image, text, about a scalar mean), cosine, l0 (all, image, text), hoyer
    figures = (0.8, 0.7, 0.6, 0.75, 0.9, 2.05, 2.1, 2.0, 0.5)
    trained = json.dumps({"k": 2, "width": WIDTH} | ({"data_half": half, "epochs": 6} if half else {}))
    _insert(con, "saes", [(*run, *settings, *figures, 960, "saes/x", 0.0625, trained, None, None)])
    _insert(
        con,
        "training",
        [(*run, 10 * i, i / 2, 1 / (i + 1), 0.8 - 1 / (i + 1), 2.0, 0.1 / (i + 1), 9.9) for i in range(7)],
    )
    for modality, items, parity in (("image", 40, 0), ("text", 80, 1)):
        fires = [(*run, modality, item, (2 * item + parity) % WIDTH, 1 + rng.random()) for item in range(items)]
        # concept 0 fires on both modalities
        both = [(*run, modality, item, 0, 3.0) for item in range(items) if item % 8 or parity]
        _insert(con, "activations", fires + both)
    _insert(
        con,
        "bridges",
        [(*run, "heldout", 0, 0, 20, 2.0, 1.0, 2.0, 0.1, 0.2)]
        + [
            (*run, "heldout", 2 * i, 2 * i + 1, 12, 0.1, 0.5, 0.05 * i, 0.04 * i, None if i == 1 else 0.1 * i)
            for i in range(1, 8)
        ],
    )
    for kind, scale in (("raw", 1.0), ("covariance", 0.5)):
        for a, b, own, positive in (
            ("image", "text", False, 6.0),
            ("bimodal", "bimodal", True, 3.0),
            ("image", "bimodal", False, 1.0),
        ):
            _insert(
                con,
                "bridge_totals",
                [(*run, "heldout", a, b, own, kind, scale * positive - 0.5, scale * positive, -0.5)],
            )
    for null, base in (("floor_random", 0.2), ("floor_matched", 0.3)):
        draws = [(*run, null, draw, i, base + 0.02 * rng.random()) for draw in range(4) for i in range(WIDTH)]
        _insert(con, "floors", draws)


def _fill_labels(con: duckdb.DuckDBPyConnection, run: Name) -> None:
    """A label for every two concepts, which a bridge joins, and probes on one concept and on all."""
    sides = ["text" if i % 2 else "image" for i in range(WIDTH)]
    figures = (0.95, 0.9 - run[2] / 10, 0.5, 0.6, True, 20, 40)
    _insert(
        con, "concept_labels", [(*run, i, sides[i], "group", f"{AWKWARD} {i // 2}", *figures) for i in range(WIDTH)]
    )
    _insert(con, "null_draws", [(*run, "label_auc_group", "labels_permuted", draw, 0.5) for draw in range(3)])
    probes = [("concepts", 1, run, 0.7), ("all_concepts", WIDTH, run, 0.8)]
    if run[1:] == ("main", 0):
        without = (run[0], None, None)
        probes += [("pca", 1, without, 0.6), ("pca_chosen", 1, without, 0.65), ("embedding", 8, without, 0.85)]
    rows = [(*of, "image", probe, size, "group", "one", value, 0.1, 20, 40, 20) for probe, size, of, value in probes]
    _insert(con, "probing", rows)


def _fill_whole(con: duckdb.DuckDBPyConnection, rng: random.Random, runs: list[Name]) -> None:
    con.execute(f"CREATE TABLE geometry ({GEOMETRY})")
    con.execute(f"CREATE TABLE frontier ({FRONTIER})")
    for model in dict.fromkeys(model for model, _, _ in runs):
        ranks = {"mean_gap": 1, "logistic": 1, "lda": 1, "inlp": 3}
        _insert(con, "geometry", [(model, name, rank, 1 - rank / 7) for name, rank in ranks.items()])
        for i, method in enumerate(("batchtopk", "topk", "pca", "kmeans", "random", "own-method")):
            r2 = (0.9 - i / 5, 0.8 - i / 5, 0.7 - i / 5)
            figures = [(k, WIDTH, "heldout", *r2, 0.9, k + 0.1 * i, *r2, 1.0) for k in (2, 4)]
            encoders = ("pursuit",) if method == "random" else ("own", "pursuit")
            _insert(con, "frontier", [(model, method, encoder, *row) for encoder in encoders for row in figures])
    for run in runs:
        _fill_labels(con, run)
        directions = [(*run, i, 0.6, 0.9 - i / 8, 0.5, -0.5, abs(0.9 - i / 8)) for i in range(WIDTH)]
        _insert(con, "concept_geometry", directions)
        _insert(con, "concept_monosemanticity", [(*run, i, 0.4, None) for i in range(WIDTH)])
        for name in ("mean_gap", "logistic", "lda", "inlp"):
            _insert(con, "null_summaries", [(*run, f"align_{name}", "floor_random", 0.28, 0.2, 0.01, 0.7, 0)])
        for null in ("images_permuted", "dictionary_permuted", "both_permuted"):
            drawn = [(*run, "covariance_opposite_share", null, draw, 0.1 + 0.01 * rng.random()) for draw in range(3)]
            _insert(con, "null_draws", drawn)
            drawn = [(*run, "covariance_opposite_total", null, draw, 0.1 * rng.random()) for draw in range(3)]
            _insert(con, "null_draws", drawn)
        for group in range(2):
            _insert(con, "bridge_groups", [(*run, "heldout", "covariance_opposite_total", group, 2.5)])
            for direction in ("image_to_text", "text_to_image"):
                hits = [(*run, "heldout", "reconstructions", direction, group, 10, 6)]
                if run[1:] == ("main", 0):
                    hits.append((run[0], None, None, "heldout", "embeddings", direction, group, 10, 7))
                _insert(con, "retrieval_groups", hits)
        for i, name in enumerate(INTERVENTIONS):
            of = (None, None) if name == "mean_removed" else run[1:]
            if of[0] is None and run[1:] != ("main", 0):
                continue  # `mean_removed` has rows once per model
            for direction in ("image_to_text", "text_to_image"):
                recalls = (0.1 * i, 0.9, 1.0) if name != "only_bridging" else (None, None, None)
                rows = [(run[0], *of, "heldout", name, direction, 10, 20, *recalls, 3.0, 0.2)]
                _insert(con, "retrieval", rows)
