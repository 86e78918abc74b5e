"""The catalog: views and table macros over exactly the files of one run. It holds no data and writes none."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from storage.dataset import Dataset, manifest_of
from storage.definitions import define
from storage.errors import BadInput
from storage.runs import Entry, Run, last_run, narrowed, studies
from storage.statements import SQL, literal, statement

if TYPE_CHECKING:
    import polars as pl


def create_views(con: duckdb.DuckDBPyConnection, store: Path, entries: Iterable[Entry], heldout: float) -> list[str]:
    """Create the definitions, every view whose data the entries hold, and the macros that these views allow.

    Returns the paths of all files that the views read. Raises BadInput that names a file which is gone.
    """
    define(con)
    entries = list(entries)
    files: list[str] = []

    def paths(kind: str, name: str, **wanted: Any) -> list[str]:
        listed = [str(store / e.dataset.path / name.format(shard=e.shard)) for e in narrowed(entries, kind, **wanted)]
        for path in listed:
            if not os.path.exists(path):
                raise BadInput(f"{path} is missing from the store: bridgescope run STUDY.toml makes it again")
        files.extend(listed)
        return listed

    if images := paths("acquire", "images.parquet"):
        con.execute(statement("views/images", images=images, heldout=heldout))
        con.execute(statement("views/image_bytes", images=images))
        con.execute(statement("views/pairs", captions=paths("acquire", "captions.parquet")))
    if ledger := paths("ledger", "ledger.parquet"):
        con.execute(statement("views/ledger", ledger=ledger))
    for view, kind, name in (("training", "train", "training.parquet"), ("activations", "export", "{shard}.parquet")):
        keys = dict.fromkeys((e.model, e.sae, e.seed) for e in entries if e.kind == kind)
        selects = [
            statement(
                f"views/{view}",
                model=model,
                sae=sae,
                seed=seed,
                files=paths(kind, name, model=model, sae=sae, seed=seed),
            )
            for model, sae, seed in keys
        ]
        if selects:
            con.execute(f"CREATE VIEW {view} AS\n" + "\nUNION ALL\n".join(selects))
    measured = [
        statement(
            "views/frontier",
            model=model,
            figures=paths("frontier", "frontier.parquet", model=model),
            seconds=paths("frontier", "seconds.parquet", model=model),
        )
        for model in dict.fromkeys(e.model for e in entries if e.kind == "frontier")
    ]
    if measured:
        con.execute("CREATE VIEW frontier AS\n" + "\nUNION ALL\n".join(measured))
    if any(entry.kind == "analyze" for entry in entries):
        tables = {table for e in entries if e.kind == "analyze" for table in tables_of(store, e.dataset)}
        for table in sorted(tables):
            written = paths("analyze", f"{table}.parquet")
            described = (SQL / "views" / f"{table}.sql").exists()  # else its columns are, where SQL makes it
            view = f"CREATE VIEW {table} AS FROM read_parquet({literal(written)})"
            con.execute(statement(f"views/{table}", files=written) if described else view)
        for macro in sorted((SQL / "macros").glob("*.sql")):
            con.execute(macro.read_text())
    return files


def tables_of(store: Path, analyzed: Dataset) -> list[str]:
    """Names of the tables that an analyze dataset holds, from its manifest, sorted."""
    files = [Path(name) for name in manifest_of(store, analyzed)["files"]]
    return sorted(file.stem for file in files if file.suffix == ".parquet")


def open_catalog(
    store: str | os.PathLike[str], study: str | None = None, *, guarded: bool = False, run: Run | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a study's catalog, in memory, over its newest run (or `run`).

    `study` may be left out when the store holds one. With `guarded` the connection can read the catalog's own files and
    nothing else, and its configuration is locked. Raises BadInput when the study has not run.
    """
    root = Path(store).resolve()
    if run is None:
        name = study or the_only_study(root)
        run = last_run(root, name)
        if run is None:
            raise BadInput(f"study {name!r} has not run in {root}: it holds {', '.join(studies(root)) or 'no study'}")
    con = duckdb.connect()
    files = create_views(con, root, run.entries, heldout_of(run))
    if guarded:
        con.execute(f"SET allowed_paths = {literal(files)}")
        con.execute("SET temp_directory = ''")  # who answers cannot write: too large a query says so
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
    return con


def frame(con: duckdb.DuckDBPyConnection, query: str, values: dict[str, Any] | None = None) -> pl.DataFrame:
    """The answer to a query as a polars table."""
    import polars as pl

    return pl.DataFrame(con.sql(query, params=values).to_arrow_table())


def heldout_of(run: Run) -> float:
    """The share of groups that a run held out."""
    return float(run.config["pairs"]["heldout"])


def the_only_study(store: Path) -> str:
    """The store's study when there is one. Raises BadInput that lists them when there are more, or none."""
    found = studies(store)
    if len(found) == 1:
        return found[0]
    if not found:
        raise BadInput(f"no study has run in {store} yet: bridgescope run STUDY.toml")
    raise BadInput(f"{store} holds {len(found)} studies: name one with --study: {', '.join(found)}")


def write_catalog_file(store: Path, run: Run) -> Path:
    """Write `studies/<name>/catalog.duckdb`, for DuckDB's own shell: absolute paths, replaced whole."""
    final = store / "studies" / run.study / "catalog.duckdb"
    partial = final.with_name(f"catalog.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    with duckdb.connect(str(partial)) as con:
        create_views(con, store, run.entries, heldout_of(run))
    os.replace(partial, final)
    final.with_suffix(".root").write_text(str(store))
    return final


def refresh_catalog_file(store: Path, run: Run) -> None:
    """Rewrite the catalog file when the store was moved since it was written, or when it is missing."""
    root = store / "studies" / run.study / "catalog.root"
    final = root.with_suffix(".duckdb")
    if os.access(root.parent, os.W_OK) and not (final.exists() and root.exists() and root.read_text() == str(store)):
        write_catalog_file(store, run)
