"""The catalog: views and table macros over the files of one run. It stores no data."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from storage.dataset import Dataset, manifest_of
from storage.definitions import define
from storage.errors import BadInput
from storage.runs import Entry, Run, narrowed, shown_run, studies
from storage.statements import SQL, literal, statement

if TYPE_CHECKING:
    import polars as pl


def create_views(con: duckdb.DuckDBPyConnection, store: Path, entries: Iterable[Entry], heldout: float) -> list[str]:
    """Create the shared definitions, the views whose data the entries hold, and the macros over these views.

    Returns the paths of all files that the views read. Raises BadInput, naming the file, when one is missing.
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
    frontiers = [
        statement(
            "views/frontier",
            model=model,
            figures=paths("frontier", "frontier.parquet", model=model),
            seconds=paths("frontier", "seconds.parquet", model=model),
        )
        for model in dict.fromkeys(e.model for e in entries if e.kind == "frontier")
    ]
    if frontiers:
        con.execute("CREATE VIEW frontier AS\n" + "\nUNION ALL\n".join(frontiers))
    if any(entry.kind == "analyze" for entry in entries):
        tables = {table for e in entries if e.kind == "analyze" for table in tables_of(store, e.dataset)}
        for table in sorted(tables):
            parquet = paths("analyze", f"{table}.parquet")
            # A table without a statement of its own is documented in storage/sql/tables.
            has_statement = (SQL / "views" / f"{table}.sql").exists()
            view = f"CREATE VIEW {table} AS FROM read_parquet({literal(parquet)})"
            con.execute(statement(f"views/{table}", files=parquet) if has_statement else view)
        for macro in sorted((SQL / "macros").glob("*.sql")):
            con.execute(macro.read_text())
    return files


def tables_of(store: Path, analyzed: Dataset) -> list[str]:
    """Names of the tables in an analyze dataset, from its manifest, sorted."""
    files = [Path(name) for name in manifest_of(store, analyzed)["files"]]
    return sorted(file.stem for file in files if file.suffix == ".parquet")


def open_catalog(
    store: str | os.PathLike[str], study: str | None = None, *, guarded: bool = False, run: Run | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a study's catalog, in memory, over its newest complete run, else its newest run (or over `run`).

    `study` may be omitted when the store holds only one. With `guarded`, the connection can read the catalog's own
    files and nothing else, and its configuration is locked. Raises BadInput when the study has not run.
    """
    root = Path(store).resolve()
    if run is None:
        name = study or the_only_study(root)
        run = shown_run(root, name)
    con = duckdb.connect()
    files = create_views(con, root, run.entries, heldout_of(run))
    if guarded:
        con.execute(f"SET allowed_paths = {literal(files)}")
        con.execute("SET temp_directory = ''")  # this process may not write, so a query too large for memory fails
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
    return con


def frame(con: duckdb.DuckDBPyConnection, query: str, values: dict[str, Any] | None = None) -> pl.DataFrame:
    """Return the result of a query as a polars table."""
    import polars as pl

    return pl.DataFrame(con.sql(query, params=values).to_arrow_table())


def heldout_of(run: Run) -> float:
    """The share of groups that a run held out."""
    return float(run.config["pairs"]["heldout"])


def the_only_study(store: Path) -> str:
    """The name of the only study in the store. Raises BadInput when there is none, or when there are several."""
    names = studies(store)
    if len(names) == 1:
        return names[0]
    if not names:
        raise BadInput(f"no study has run in {store} yet: bridgescope run STUDY.toml")
    raise BadInput(f"{store} holds {len(names)} studies: name one with --study: {', '.join(names)}")


def write_catalog_file(store: Path, run: Run) -> Path:
    """Write `studies/<name>/catalog.duckdb` for DuckDB's own shell, with absolute paths, by one rename."""
    final = store / "studies" / run.study / "catalog.duckdb"
    partial = final.with_name(f"catalog.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    with duckdb.connect(str(partial)) as con:
        create_views(con, store, run.entries, heldout_of(run))
    os.replace(partial, final)
    final.with_suffix(".root").write_text(str(store))
    return final


def refresh_catalog_file(store: Path, run: Run) -> None:
    """Rewrite the catalog file when it is missing, or when the store was moved since it was written."""
    root = store / "studies" / run.study / "catalog.root"
    final = root.with_suffix(".duckdb")
    if os.access(root.parent, os.W_OK) and not (final.exists() and root.exists() and root.read_text() == str(store)):
        write_catalog_file(store, run)
