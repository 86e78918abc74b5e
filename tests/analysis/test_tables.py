"""Tables of a planted study, computed from its datasets, and the errors for unusable input."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
import torch
import zarr

from analysis import bridges, floors
from analysis.inputs import Analysis, open_part
from analysis.stability import write_matches
from analysis.statistic import create_inner, statistics
from analysis.tables import fill
from analysis.usage import CountedSAE, count_codes
from sae import SAE
from storage.catalog import open_catalog
from storage.dataset import Dataset
from storage.documentation import header_of
from storage.errors import BadInput
from storage.runs import Entry, last_run
from storage.statements import SQL

STUDY = "paper-scale"  # the study in the planted store


def analysis_of(store: Path, entries: list[Entry] | None = None, **of: Any) -> Analysis:
    """The input of the analysis of the first SAE (seed 0) of the planted store."""
    entries = last_run(store, STUDY).entries if entries is None else entries
    first = [entry for entry in entries if entry.seed in (None, 0)]
    return Analysis(**{"store": store, "entries": first, "out": store, "min_pairs": 3, **of})


def opened(analysis: Analysis) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config={"threads": 1})
    open_part(con, analysis)
    return con


def with_concepts(analysis: Analysis) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection for an analysis, with its table `concepts`."""
    con = opened(analysis)
    create_inner(con)
    fill(con, "group_sizes", split="all")
    count_codes(con, CountedSAE("planted", "main", 0, 32), "all")
    fill(con, "concepts")
    return con


def matched(analysis: Analysis, *seeds: int, out: Path) -> pl.DataFrame:
    """The table `matches` of the SAEs of some seeds."""
    out.mkdir()
    entries = [entry for entry in analysis.entries if entry.kind == "train" and entry.seed in seeds]
    return pl.read_parquet(write_matches(dataclasses.replace(analysis, entries=entries, out=out)))


def with_another_sae(store: Path, analysis: Analysis, name: str, seed: int, width: int) -> Analysis:
    """Add an SAE with the activations of the first SAE, and with the atoms of the first SAE in another order."""
    first = next(entry for entry in analysis.entries if entry.kind == "train")
    net = SAE.load(store / first.dataset.path)
    order = torch.randperm(net.config.width, generator=torch.manual_seed(1))[:width]
    changed = SAE(
        net.encoder[order], net.encoder_bias[order], net.dictionary[order], net.bias, net.threshold,
        type(net.config)(**{**net.config.__dict__, "width": width, "seed": seed}),
    )  # fmt: skip
    path = f"saes/{name}-{seed}"
    changed.save(store / path)
    shutil.copy(store / first.dataset.path / "training.parquet", store / path)
    exported = next(entry for entry in analysis.entries if entry.kind == "export")
    dataset = Dataset(path=path, recipe="r", digest="d", rows=1)
    more = [
        first.model_copy(update={"sae": name, "seed": seed, "dataset": dataset}),
        exported.model_copy(update={"sae": name, "seed": seed}),
    ]
    return dataclasses.replace(analysis, entries=[*analysis.entries, *more])


def test_an_image_that_could_not_be_embedded_is_not_counted_and_neither_are_its_captions(store: Path) -> None:
    analysis = analysis_of(store)
    embedded = next(entry for entry in analysis.entries if entry.kind == "embed")
    all_images = opened(analysis).execute("FROM images SELECT image_id ORDER BY image_id").fetchall()
    captions = opened(analysis).execute("SELECT count(*) FROM pairs").fetchone()
    (of_failed,) = opened(analysis).execute("SELECT count(*) FROM pairs WHERE image_id = ?", all_images[3]).fetchone()
    array = zarr.open_array(store / embedded.dataset.path / "image", mode="r+")
    array[3] = float("nan")
    array.attrs["failed_rows"] = [3]
    con = opened(analysis)
    assert con.execute("FROM images SELECT image_id ORDER BY image_id").fetchall() == all_images[:3] + all_images[4:]
    assert con.execute("SELECT count(*) FROM pairs").fetchone() == (captions[0] - of_failed,)
    assert of_failed > 0
    fill(con, "group_sizes", split="all")
    sums = con.execute("SELECT sum(images), sum(texts) FROM group_sizes").fetchone()
    assert sums == (len(analysis.counted.image), len(analysis.counted.text))


def test_bridges_of_a_planted_study(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = analysis_of(store, out=tmp_path)
    monkeypatch.setattr(bridges, "DRAWS", 3)
    made = bridges.make(with_concepts(analysis), analysis)
    totals, similarity, draws = (made[name] for name in ("bridge_totals", "matched_similarity", "null_draws"))
    rows = pl.read_parquet(made["bridges"])
    assert rows.height > 0
    assert rows["pairs"].min() >= 3
    assert rows.select("image_concept", "text_concept").equals(
        rows.select("image_concept", "text_concept").sort("image_concept", "text_concept")
    )
    # The sum of all raw bridges is one of the four terms of matched similarity; the other three contain the bias.
    raw = totals.filter(pl.col("kind") == "raw")["total"].sum()
    terms = dict(similarity.select("term", "value").iter_rows())
    assert raw == pytest.approx(terms["bridges"])
    assert terms["matched"] == pytest.approx(
        terms["bridges"] + terms["text_on_bias"] + terms["image_on_bias"] + terms["bias"]
    )
    covariance = totals.filter(pl.col("kind") == "covariance")["total"].sum()
    assert covariance == pytest.approx(terms["matched"] - terms["shuffled"])
    assert set(draws["null"]) == {"images_permuted", "dictionary_permuted", "both_permuted"}
    net = (pl.col("statistic") == bridges.NET) & (pl.col("null") == "images_permuted")
    assert draws.filter(~net)["draw"].max() == 2
    assert draws.filter(net)["draw"].to_list() == list(range(bridges.TOTAL_DRAWS))
    # The total of opposite classes without the matrix is the one of the matrix, and there is one value per group.
    opposite = totals.filter(
        (pl.col("kind") == "covariance")
        & pl.concat_list("class_image", "class_text").list.sort().list.join(" ").eq("image text")
    )
    groups = made["bridge_groups"]
    assert groups["jackknife_group"].to_list() == list(range(20))
    # A jackknife estimate differs from the whole by about 1/20 of it.
    assert groups["value"].mean() == pytest.approx(
        opposite["total"].sum(), abs=0.1 * abs(opposite["total"].sum()) + 1e-9
    )
    # Planted partners fire on the same pairs. With permuted images they do not, so the positive part is smaller.
    gain = draws.filter((pl.col("statistic") == "covariance_positive") & (pl.col("null") == "images_permuted"))
    assert gain["value"].max() < totals.filter(pl.col("kind") == "covariance")["positive"].sum()


def test_seeds_and_diets_of_one_family_are_matched_both_ways(store: Path, tmp_path: Path) -> None:
    analysis = with_another_sae(store, analysis_of(store), "main", 1, 32)
    analysis = with_another_sae(store, analysis, "main-half-a", 0, 32)
    matches = pl.concat([matched(analysis, 0, out=tmp_path / "0"), matched(analysis, 0, 1, out=tmp_path / "0-1")])
    runs = set(matches.select("sae_a", "seed_a", "sae_b", "seed_b").iter_rows())
    family = [("main", 0), ("main", 1), ("main-half-a", 0)]
    assert runs == {(*a, *b) for a in family for b in family if a != b}
    # The atoms of all SAEs are equal up to their order, so every concept is matched with its own copy.
    assert matches["cosine"].min() == pytest.approx(1, abs=1e-5)
    there = matches.filter((pl.col("sae_a") == "main") & (pl.col("seed_a") == 0) & (pl.col("seed_b") == 1))
    back = matches.filter((pl.col("seed_a") == 1) & (pl.col("sae_b") == "main") & (pl.col("seed_b") == 0))
    assert dict(there.select("concept_a", "concept_b").iter_rows()) == dict(
        back.select("concept_b", "concept_a").iter_rows()
    )
    (rows,) = floors.make(opened(analysis_of(store)), analysis_of(store)).values()
    assert rows.height == 2 * 20 * 32


SCHEMAS = {name: schema for statistic in statistics() for name, schema in statistic.tables.items()}


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_column_is_described_in_the_view(table: str) -> None:
    columns = header_of(table)["Columns"]
    assert [name for name in SCHEMAS[table] if not re.search(rf"\b{name}\b", columns)] == []


@pytest.mark.parametrize("folder", ["tables", "macros"])
def test_every_statement_has_its_header(folder: str) -> None:
    for path in (SQL / folder).glob("*.sql"):
        text = path.read_text()
        assert text.startswith("-- Purpose: "), path.name
        assert "\n-- Inputs:  " in text, path.name
        assert "\n-- Columns: " in text, path.name


def test_activations_that_are_missing_are_named(store: Path) -> None:
    entries = [entry for entry in analysis_of(store).entries if entry.kind != "export"]
    with pytest.raises(
        BadInput, match=r"model planted, SAE main, seed 0: no activations of shard 0: run .* --only export"
    ):
        opened(analysis_of(store, entries))


@pytest.mark.parametrize(("name", "seed"), [("main", 1), ("narrow", 0)])
def test_matched_saes_that_differ_in_width_are_named(store: Path, tmp_path: Path, name: str, seed: int) -> None:
    analysis = with_another_sae(store, analysis_of(store), name, seed, 16)
    message = (
        rf"differ in width: .* \(main, seed 0\): 32, saes/{name}-{seed} \({name}, seed {seed}\): 16: run the study"
    )
    with pytest.raises(BadInput, match=message):
        matched(analysis, 0, seed, out=tmp_path / "out")


def test_an_empty_modality_is_bad_input(store: Path) -> None:
    with pytest.raises(BadInput, match=r"no images in the split 'heldout': set another analyze\.split, or"):
        opened(analysis_of(store, split="heldout"))
    captions = store / analysis_of(store).entries[0].dataset.path / "captions.parquet"
    pl.read_parquet(captions).clear().write_parquet(captions)
    with pytest.raises(BadInput, match="no captions in the split 'all'"):
        opened(analysis_of(store))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, None])
def test_an_activation_that_is_no_number_is_found(store: Path, value: float | None) -> None:
    entry = last_run(store, STUDY).of("export")[0]
    path = store / entry.dataset.path / "0.parquet"
    rows = pl.read_parquet(path)
    where = (pl.col("modality") == "text") & (pl.col("item_id") == 7)
    rows = rows.with_columns(pl.when(where).then(pl.lit(value, pl.Float32)).otherwise("activation").alias("activation"))
    rows.write_parquet(path)
    with pytest.raises(
        BadInput, match=r"0\.parquet: 5 activations are not numbers above 0; .* on item 7: delete the folder"
    ):
        opened(analysis_of(store))


def test_a_parquet_file_that_is_gone_is_named(store: Path) -> None:
    path = store / last_run(store, STUDY).of("export")[0].dataset.path / "0.parquet"
    path.unlink()
    with pytest.raises(
        BadInput, match=r"0\.parquet is missing from the store: bridgescope run STUDY\.toml makes it again"
    ):
        open_catalog(store)


def test_an_open_catalog_answers_while_a_study_writes(store: Path) -> None:
    from storage.dataset import Address, locked, materialize

    with open_catalog(store, guarded=True) as con:
        before = con.execute("SELECT count(*), sum(activation::DOUBLE) FROM activations").fetchall()

        def writing(out: Path) -> int:
            (out / "half.parquet").write_bytes(b"not yet a file")
            assert con.execute("SELECT count(*), sum(activation::DOUBLE) FROM activations").fetchall() == before
            with open_catalog(store) as another:
                assert another.execute("SELECT count(*) FROM pairs").fetchall() == [(900,)]
            return 0

        with locked(store / "studies" / STUDY / "runs"):
            materialize(store, Address("activations", "new", {}, ()), writing)


def test_threads_do_not_change_bytes(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for threads in (1, 3):
        monkeypatch.setattr("os.cpu_count", lambda count=threads: count)
        monkeypatch.setattr("analysis.coactivation.BLOCK", 5)
        monkeypatch.setattr(bridges, "DRAWS", 1)
        out = tmp_path / str(threads)
        out.mkdir()
        analysis = analysis_of(store, out=out)
        con = with_concepts(analysis)
        made = bridges.make(con, analysis)
        concepts = con.execute("FROM concepts ORDER BY concept_id").fetchall()
        written.append(((out / "bridges.parquet").read_bytes(), made["null_draws"].rows(), concepts))
    assert written[0] == written[1]
