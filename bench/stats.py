"""Cost and correctness of the statistics: the table of `make bench-stats`.

python bench/stats.py [--work DIR] [--only SECTION ...]

Sections: planted, paper, whole, kernel, geometry, labels, stability, adhoc, growth. Each runs in a separate process, so
that its peak memory is measured alone. Writes bench/results/stats.json, a list of {name, value, unit, bar, holds}; bar
is empty for a result that is only printed. Ends with 1 when a bar is not met. Run it while nothing else is running. The
synthetic data is written to --work at the first run.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import bars  # noqa: E402
from bars import Bar  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "stats.json"
GROWTH = {75_000: 14_750, 150_000: 29_500, 300_000: 59_000, 600_000: 118_000}  # pairs: images


def row(name: str, value: float, unit: str, bar: float | None = None, *, least: bool = False) -> Bar:
    """One result. `bar` is its upper bound, or its lower bound with `least`; without a bar, it is only printed."""
    if bar is None:
        return bars.shown(name, value, unit)
    return bars.at_least(name, value, bar, unit) if least else bars.at_most(name, value, bar, unit)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Call `work`. Returns its seconds and its result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def planted_store(work: Path, pairs: int) -> Path:
    """A store with a synthetic study of this number of pairs, made if it is missing."""
    store = work / f"paper-{pairs}"
    if not (store / "studies").exists():
        plant = [sys.executable, str(ROOT / "bench" / "plant_activations.py"), "--store", str(store)]
        subprocess.run([*plant, "--images", str(GROWTH[pairs]), "--captions", str(pairs)], check=True)
    return store


def concepts_and_bridges(store: Path, out: Path) -> dict[str, float]:
    """Compute the tables concepts and bridges from activations and write them to `out`. Returns seconds per table."""
    import duckdb
    import numpy as np

    from analysis.bridges import BRIDGES, bridge_rows, bridges_of, pairs_of
    from analysis.inputs import classes_of, counted_pairs, keys_of
    from analysis.statistic import create_inner
    from analysis.tables import add_piece, fill, open_pieces, write_table
    from analysis.usage import CountedSAE, fill_concepts
    from sae import SAE
    from storage.catalog import create_views, frame
    from storage.runs import last_run

    run = last_run(store, "paper-scale")
    trained = run.of("train")[0]
    keys, net = keys_of(trained), SAE.load(store / trained.dataset.path)
    seconds = {}
    with duckdb.connect(config={"threads": 1}) as con:
        create_views(con, store, [e for e in run.entries if e.kind != "analyze"], 0.0)
        create_inner(con)

        def concepts() -> None:
            fill_concepts(con, [CountedSAE(**keys, width=net.config.width)], "all")
            fill(con, "concepts")
            write_table(out, "concepts", frame(con, "FROM concepts"))

        def bridges() -> None:
            pairs = pairs_of(con, counted_pairs(con, "all"), net.config.width)
            D = net.dictionary.numpy().astype(np.float64)
            scored = bridges_of(pairs, D, classes_of(con, keys), 10)
            with open_pieces(out, "bridges", BRIDGES) as file:
                add_piece(file, bridge_rows({**keys, "split": "all"}, scored))

        seconds["concepts"], _ = timed(concepts)
        seconds["bridges"], _ = timed(bridges)
    return seconds


def paper(work: Path) -> Iterator[Bar]:
    """Time and memory at the paper's scale. Compiled kernels come from numba's cache, as in every run but the first."""
    store = planted_store(work, 600_000)
    with tempfile.TemporaryDirectory() as out:
        seconds = concepts_and_bridges(store, Path(out))
    yield row("paper scale: energies, rates, scores, AUC", seconds["concepts"], "s")
    yield row("paper scale: three bridges with counts", seconds["bridges"], "s")
    yield row("paper scale: both, from Parquet", sum(seconds.values()), "s", 40)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield row("paper scale: peak memory", peak, "GB", 6)


def whole(work: Path) -> Iterator[Bar]:
    """Time and memory of all statistics of a model with three SAEs, as a study computes them; see stats_whole.py."""
    from stats_whole import run

    store = work / "whole-600000"
    if not (store / "studies").exists():  # in a process of its own, whose memory does not count
        plant = [sys.executable, str(ROOT / "bench" / "plant_activations.py"), "--store", str(store), "--whole"]
        subprocess.run(plant, check=True)
    with tempfile.TemporaryDirectory(dir=work) as out:
        seconds, done = timed(lambda: run(store, Path(out)))
    for name in sorted({cost.statistic for cost in done.costs}):
        own = [cost.seconds for cost in done.costs if cost.statistic == name]
        yield row(f"whole: {name}, the mean of {len(own)}", sum(own) / len(own), "s")
    for name, of_step in done.steps.items():
        yield row(f"whole: step {name}", of_step, "s")
    yield row("whole: all statistics of one model, three SAEs", seconds, "s", 180)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield row("whole: peak memory", peak, "GB", 8)


def kernel(work: Path) -> Iterator[Bar]:
    """Time the co-activation kernel on 600,000 pairs, against scipy's sparse product and plain SQL."""
    import duckdb
    import numpy as np
    import scipy.sparse as sp
    from plant_activations import plant

    from analysis.coactivation import Codes, coactivation
    from storage.statements import SQL

    width, k = 8192, 20
    planted = plant(600_000, 600_000, k, width)
    random = np.random.default_rng(2)
    codes = [
        Codes(np.arange(0, x.size + 1, k), x.ravel(), random.exponential(1, x.size).astype(np.float32))
        for x in (planted.image, planted.text)
    ]
    rows = np.arange(600_000)
    first = Codes(np.array([0, 1]), np.array([0], np.int32), np.array([1], np.float32))
    yield row("kernel: compilation or loading from numba's cache", timed(
        lambda: coactivation(first, first, np.array([0]), np.array([0]), 1))[0], "s")  # fmt: skip
    from analysis import coactivation as room

    seconds, index = timed(lambda: room._index(*codes, rows, rows, width))
    yield row("kernel: conversion of the codes to the order of its loops", seconds, "s")
    seconds, sums = timed(lambda: _all_blocks(room, index, width))
    yield row("kernel: sums and counts of 600,000 pairs, 20 codes per side, 8,192 concepts", seconds, "s", 4)
    matrices = [sp.csr_matrix((c.values, c.concepts, c.indptr), shape=(600_000, width)) for c in codes]
    seconds, product = timed(lambda left=matrices[0], right=matrices[1]: left.T.tocsr() @ right)
    yield row("kernel: scipy's sparse product, sums alone", seconds, "s")
    if abs(product.sum() / sums - 1) > 1e-4:  # a tolerance, because scipy sums in float32
        raise AssertionError(f"the kernel's sums {sums} are not scipy's {product.sum()}")
    del product, matrices
    with duckdb.connect() as con:
        items = np.repeat(rows, k)
        for name, c in zip(("image", "text"), codes, strict=True):
            con.register("codes", {"item_id": items, "concept_id": c.concepts, "activation": c.values})
            con.execute(f"CREATE TABLE {name}_codes AS FROM codes")
        con.execute("CREATE TABLE pairs AS SELECT item_id AS pair_id, item_id AS image_id, 'all' AS split "
                    "FROM (SELECT DISTINCT item_id FROM image_codes)")  # fmt: skip
        con.execute(
            "CREATE VIEW activations AS SELECT 'm' AS model, 's' AS sae, 0 AS seed, 'image' AS modality, * FROM "
            "image_codes UNION ALL SELECT 'm', 's', 0, 'text', * FROM text_codes"
        )
        sql = (SQL / "reference" / "coactivation.sql").read_text()
        values = {"model": "m", "sae": "s", "seed": 0, "split": "all"}
        seconds, _ = timed(lambda: con.execute(f"CREATE TABLE reference AS {sql}", values))
    yield row("kernel: plain SQL, sums and counts", seconds, "s")


def _all_blocks(room: Any, index: Any, width: int) -> float:
    """Add up all co-activations block by block. No block is kept in memory."""
    return sum(room._in_order(
        lambda start: float(room._coactivated(index, start, min(start + room.BLOCK, width), width)[0].sum()), width
    ))  # fmt: skip


def geometry(work: Path) -> Iterator[Bar]:
    """Time four subspaces of 20,000 rows per modality (d = 512), alignment of 8,192 concepts, and monosemanticity."""
    import numpy as np
    from plant_activations import plant

    from analysis.coactivation import Codes
    from analysis.geometry import modality
    from analysis.monosemanticity import monosemanticity
    from analysis.subspaces import Modalities, subspaces

    random = np.random.default_rng(0)
    spectrum = 1 / np.sqrt(np.arange(1, 513))
    gap = random.standard_normal(512)
    gap *= 0.4 / np.linalg.norm(gap)

    def rows(count: int, side: float) -> np.ndarray:
        x = random.standard_normal((count, 512)) * spectrum
        x = x / np.linalg.norm(x, axis=1, keepdims=True) + side * gap
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    train, heldout = (Modalities(rows(20_000, 1), rows(20_000, -1)) for _ in range(2))
    D = rows(8192, 0).astype(np.float64)
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    concepts = plant(118_000, 118_000, 20, 8192).image
    values = random.exponential(1, concepts.size).astype(np.float32)
    codes = Codes(np.arange(0, concepts.size + 1, 20), concepts.ravel(), values)
    image = rows(118_000, 1)

    seconds, spaces = timed(lambda: subspaces(train, heldout))
    yield row("geometry: four subspaces of a model", seconds, "s")
    of_sae, _ = timed(lambda: modality(D, spaces, train, heldout, 0))
    yield row("geometry: alignment and direction accuracy of 8,192 concepts, with nulls", of_sae, "s")
    mono, _ = timed(lambda: monosemanticity(codes, image, 8192))
    yield row("geometry: monosemanticity over 118,000 images", mono, "s")
    yield row("geometry: one model and SAE", seconds + of_sae + mono, "s", 120)


def labels(work: Path) -> Iterator[Bar]:
    """Time the statistics of labels, of one SAE and of a model, with as many categories as COCO has."""
    import duckdb
    import numpy as np
    import polars as pl

    from analysis import embedding_probing, probing
    from analysis import labels as of_concepts
    from analysis.inputs import keys_of
    from analysis.statistic import create_inner
    from analysis.tables import fill
    from analysis.usage import CountedSAE, fill_concepts
    from storage.catalog import create_views
    from storage.runs import last_run

    run = last_run(planted_store(work, 600_000), "paper-scale")
    keys, width, random = keys_of(run.of("train")[0]), 8192, np.random.default_rng(0)
    with duckdb.connect(config={"threads": 1}) as con:
        create_views(con, work / "paper-600000", [e for e in run.entries if e.kind != "analyze"], 0.2)
        create_inner(con)
        # An image has three categories on average; the rarest is on one image of 600, as in COCO.
        rates = np.clip(random.lognormal(-3.8, 1, 80), 0.0017, 0.5)
        image, category = np.nonzero(random.random((118_000, 80)) < rates * 3 / rates.sum())
        given = pl.DataFrame({"image_id": image, "name": "category", "label": [f"category {c}" for c in category]})
        con.register("labels", given.to_arrow())
        fill_concepts(con, [CountedSAE(**keys, width=width)], "heldout")
        fill(con, "concepts")
        fill(con, "codes", **keys, split="all")
        seconds, (best, _) = timed(lambda: of_concepts.of_sae(con, keys, width))
        yield row("labels: best label of every concept, with permutations", seconds, "s", 20)
        own, rows = timed(lambda: probing.of_sae(con, keys, width))
        yield row("labels: probes on concepts", own, "s", 15)
        drawn = list(probing.drawn_items(con))
        vectors = [random.standard_normal((20_000, 512)).astype(np.float32) for _ in drawn]
        of_model, _ = timed(
            lambda: [embedding_probing.baselines(con, d, x) for d, x in zip(drawn, vectors, strict=True)]
        )
        yield row("labels: probes on embeddings, once per model", of_model, "s", 30)
        yield row("labels: mean AUC of labels without meaning", float(best["auc"].mean()), "")
        yield row("labels: mean accuracy of probes of them", float(rows["balanced_accuracy"].mean()), "")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield row("labels: peak memory", peak, "GB", 6)


def stability(work: Path) -> Iterator[Bar]:
    """Time the matching of two related dictionaries: the second is the first with noise, in another order."""
    import numpy as np

    from analysis.stability import match

    random = np.random.default_rng(0)
    a = random.standard_normal((8192, 512))
    noise = np.where(random.random((8192, 1)) < 0.5, 0.3, 1.5)  # half of the concepts can be matched
    b = (a + noise * random.standard_normal(a.shape))[random.permutation(8192)]
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    seconds, matches = timed(lambda: match(a, b))
    yield row("stability: one pair of seeds, 8,192 x 8,192", seconds, "s", 5)
    yield row("stability: its mean matched cosine", float(matches.cosines.mean()), "")


def adhoc(work: Path) -> Iterator[Bar]:
    """Time queries at the paper's scale, in an open connection and from the shell."""
    from storage import open_catalog

    store = analysed(planted_store(work, 600_000))
    questions = {
        "concept_profile": "FROM concept_profile('planted', 'main', 0, 4000)",
        "top_items": "FROM top_items('planted', 'main', 0, 4000, 'text', 20)",
        "top 100 bridges": "FROM top_bridges('planted', 'main', 0, 100)",
    }
    with open_catalog(store, guarded=True) as con:
        for name, query in questions.items():
            con.execute(query).fetchall()  # the first query reads Parquet footers, so it is not timed
            seconds = min(timed(lambda q=query: con.execute(q).fetchall())[0] for _ in range(5))
            yield row(f"ad-hoc: {name}, open connection", seconds, "s", 0.2)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    for name, query in questions.items():
        command = [sys.executable, "-m", "flows.cli", "sql", query, "--store", str(store)]
        seconds = min(
            timed(lambda c=command: subprocess.run(c, check=True, capture_output=True, env=environment, cwd=ROOT))[0]
            for _ in range(3)
        )
        yield row(f"ad-hoc: {name}, from the shell", seconds, "s", 1.5)


def analysed(store: Path) -> Path:
    """The store, with concepts and bridges as tables of its run; tables that need several seeds are empty."""
    from analysis.statistic import statistics
    from analysis.tables import empty, write_table
    from storage.dataset import Address, materialize
    from storage.record import write_run
    from storage.runs import Entry, last_run

    run = last_run(store, "paper-scale")
    if run.of("analyze"):
        return store

    def tables(out: Path) -> int:
        for name, schema in ((name, schema) for one in statistics() for name, schema in one.tables.items()):
            write_table(out, name, empty(schema))
        concepts_and_bridges(store, out)
        return 0

    dataset = materialize(store, Address("tables", "bench", {}, ()), tables)
    entries = [*run.entries, Entry(kind="analyze", dataset=dataset)]
    write_run(store, run.model_copy(update={"entries": entries}))
    return store


def growth(work: Path) -> Iterator[Bar]:
    """Time concepts and bridges at an eighth, a quarter, a half and all of the pairs. Fixed costs are included."""
    seconds = {}
    for pairs in GROWTH:
        with tempfile.TemporaryDirectory() as out:
            seconds[pairs] = concepts_and_bridges(planted_store(work, pairs), Path(out))
        yield row(f"growth: concepts, {pairs:,} pairs", seconds[pairs]["concepts"], "s")
        yield row(f"growth: bridges, {pairs:,} pairs", seconds[pairs]["bridges"], "s")
    smallest, largest = min(GROWTH), max(GROWTH)
    for part in ("concepts", "bridges"):
        ratio = seconds[largest][part] / seconds[smallest][part]
        yield row(f"growth: {part}, 8 times the pairs take so many times as long", ratio, "x", 8)


def planted(work: Path) -> Iterator[Bar]:
    """Run a study of vectors made from a known dictionary, and compare its results with this dictionary."""
    from bench.check_planted import figures

    vectors, store = work / "planted-vectors", work / "planted-store"
    if not vectors.exists():
        plant = [sys.executable, str(ROOT / "bench" / "planted.py"), "--to", str(vectors)]
        size = ["--pairs", "100000", "--dim", "256", "--atoms", "768", "--atoms-a-row", "6.9", "4", "8"]
        subprocess.run([*plant, *size], check=True)
    study = str(ROOT / "studies" / "planted-wide.toml")
    changes = [f"pairs.path={vectors}", f"models.planted.spec=embeddings:{vectors}"]
    command = [sys.executable, "-m", "flows.cli", "run", study, "--store", str(store), "--set", changes[0]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    seconds, _ = timed(lambda: subprocess.run([*command, "--set", changes[1]], check=True, env=environment, cwd=ROOT))
    yield row("planted: the study, without datasets that were cached", seconds, "s")
    for one in figures(store, vectors, "planted-wide"):
        yield {**one, "name": f"planted: {one['name']}"}


SECTIONS = (planted, paper, whole, kernel, geometry, labels, stability, adhoc, growth)


def run_section(name: str, work: Path) -> list[Bar]:
    """Run one section in a new process; its rows are printed as they arrive."""
    command = [sys.executable, __file__, "--work", str(work), "--section", name]
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("{"):
                rows.append(json.loads(line))
                print(bars.line(rows[-1]), flush=True)
    if process.returncode:
        rows.append(row(f"{name}: exit code", process.returncode, "", 0))
        print(bars.line(rows[-1]), flush=True)
    return rows


def main() -> int:
    """Run the sections, print and write the results; return 1 when a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [section.__name__ for section in SECTIONS]
    parser.add_argument("--work", type=Path, default=ROOT / "store" / "bench-stats", help="where data is planted")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--section", choices=names, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if arguments.section:
        for one in next(section for section in SECTIONS if section.__name__ == arguments.section)(work):
            print(json.dumps(one), flush=True)
        return 0
    for pairs in GROWTH if {"growth"} & set(arguments.only) else (600_000,):
        planted_store(work, pairs)
    measured = [one for name in arguments.only for one in run_section(name, work)]
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() and set(arguments.only) != set(names) else []
    names_measured = {one["name"] for one in measured}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([one for one in known if one["name"] not in names_measured] + measured, indent=1))
    return 0 if all(one["holds"] for one in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
