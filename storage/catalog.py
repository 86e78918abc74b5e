"""The catalog: views and table macros over the files of one run. It stores no data."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from storage.dataset import Dataset, locked, manifest_of, sync, write_atomically
from storage.definitions import define
from storage.embeddings import DESCRIPTION, chunks_of_array, failures_of
from storage.errors import BadInput
from storage.macros import create_macros
from storage.runs import Entry, Run, narrowed, shown_run, studies
from storage.statements import SQL, exact, literal, statement

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger("bridgescope")


def create_views(con: duckdb.DuckDBPyConnection, store: Path, entries: Iterable[Entry], heldout: float) -> list[Path]:
    """Create the shared definitions, the views whose data the entries hold, and the macros over these views.

    Returns the paths of all files that the views read. Raises BadInput, naming the file, when one is missing.
    """
    define(con)
    entries = list(entries)
    files: list[Path] = []

    def paths(kind: str, name: str, **wanted: Any) -> list[Path]:
        listed = [store / e.dataset.path / name.format(shard=e.shard) for e in narrowed(entries, kind, **wanted)]
        for path in listed:
            if not os.path.exists(path):
                raise BadInput(f"{path} is missing from the store: bridgescope run STUDY.toml makes it again")
        files.extend(listed)
        return listed

    if images := paths("acquire", "images.parquet"):
        con.execute(statement("views/images", images=images, heldout=heldout))
        con.execute(statement("views/image_bytes", images=images))
        captions = paths("acquire", "captions.parquet")
        con.execute(statement("views/pairs", captions=captions))
        con.execute(statement("views/embedding_rows", images=images, captions=captions))
    if ledger := paths("ledger", "ledger.parquet"):
        failed = failures_of(store, [entry.dataset for entry in entries if entry.kind == "checks"])
        files.extend(failed)
        con.execute(statement("views/ledger", ledger=ledger, failures=failed or ledger, failed=len(failed)))
    if labels := paths("labels", "labels.parquet"):
        con.execute(statement("views/labels", labels=labels))
    of_saes = (
        ("training", "train", "training.parquet"),
        ("activations", "export", "{shard}.parquet"),
        ("atoms", "atoms", "atoms.parquet"),
        ("sae_offsets", "atoms", "offsets.parquet"),
    )
    for view, kind, name in of_saes:
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
        _join(con, view, selects)
    joined = [
        statement("views/consensus_members", model=model, sae=sae, seed=seed, files=files_of_sae)
        for model, sae, seed in dict.fromkeys((e.model, e.sae, e.seed) for e in entries if _is_consensus(store, e))
        if (files_of_sae := paths("train", "consensus.parquet", model=model, sae=sae, seed=seed))
    ]
    if _join(con, "consensus_members", joined):
        con.execute(statement("views/consensus"))
    chunks = []
    for e in narrowed(entries, "embed"):
        for modality in ("image", "text"):
            if found := chunks_of_array(store / e.dataset.path / modality):
                (described,) = paths("embed", f"{modality}/{DESCRIPTION}", model=e.model, shard=e.shard)
                files.extend(found)
                at = {"model": e.model, "modality": modality, "shard": e.shard, "described": described}
                chunks.append(statement("views/embedding_chunks", **at, files=found))
    _join(con, "embedding_chunks", chunks)
    checked = [
        statement("views/embedding_checks", model=model, files=paths("checks", "checks.parquet", model=model))
        for model in dict.fromkeys(e.model for e in entries if e.kind == "checks")
    ]
    _join(con, "embedding_checks", checked)
    frontiers = [
        statement(
            "views/frontier",
            model=model,
            figures=paths("frontier", "frontier.parquet", model=model),
            seconds=paths("frontier", "seconds.parquet", model=model),
        )
        for model in dict.fromkeys(e.model for e in entries if e.kind == "frontier")
    ]
    _join(con, "frontier", frontiers)
    if any(entry.kind == "analyze" for entry in entries):
        tables = {table for e in entries if e.kind == "analyze" for table in tables_of(store, e.dataset)}
        for table in sorted(tables):
            parquet = paths("analyze", f"{table}.parquet")
            # A table without a statement of its own is documented in storage/sql/tables.
            has_statement = (SQL / "views" / f"{table}.sql").exists()
            view = f"CREATE VIEW {table} AS FROM read_parquet({literal(parquet)}, hive_partitioning = false)"
            beside: dict[str, Any] = {}
            if table == "concepts":
                for value, name, count in (("names", "concept_names", "named"), ("matches", "matches", "matched")):
                    found = paths("analyze", f"{name}.parquet") if name in tables else []
                    beside |= {value: found or parquet, count: len(found)}
            con.execute(statement(f"views/{table}", files=parquet, **beside) if has_statement else view)
        create_macros(con)
    return files


def _join(con: duckdb.DuckDBPyConnection, view: str, selects: list[str]) -> bool:
    """Create the view that joins SELECTs by UNION ALL, if there are any. Returns whether there are."""
    if selects:
        con.execute(f"CREATE VIEW {view} AS\n" + "\nUNION ALL\n".join(selects))
    return bool(selects)


def _is_consensus(store: Path, entry: Entry) -> bool:
    """Whether an entry is a consensus SAE, which has a table of the concepts that it was made from."""
    return entry.kind == "train" and (store / entry.dataset.path / "consensus.parquet").exists()


def tables_of(store: Path, analyzed: Dataset) -> list[str]:
    """Names of the tables in an analyze dataset, from its manifest, sorted."""
    files = [Path(name) for name in manifest_of(store, analyzed)["files"]]
    return sorted(file.stem for file in files if file.suffix == ".parquet")


def open_catalog(
    store: str | os.PathLike[str], study: str | None = None, *, guarded: bool = False, run: Run | None = None
) -> duckdb.DuckDBPyConnection:
    """Open the catalog of `run`, in memory; by default, of the study's newest complete run, else its newest run.

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
        con.execute(f"SET allowed_paths = {literal([*map(str, files), *map(exact, files)])}")
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
    """Write `studies/<name>/catalog.duckdb` for DuckDB's own shell, with absolute paths, by one rename.

    Whatever a session of the shell wrote into an earlier file is lost, and so is the session's log. The file is
    read-only, so that a shell reports an error when it is told to change the file.
    """
    final = store / "studies" / run.study / "catalog.duckdb"
    partial = final.with_name("catalog.partial")
    with locked(final), tempfile.TemporaryDirectory() as folder:
        for left in (partial, _log_of(partial)):  # left by a process that was killed here
            left.unlink(missing_ok=True)
        made = Path(folder) / final.name  # in a temporary folder, as a `?` in the store's path would start options
        with duckdb.connect(str(made)) as con:
            create_views(con, store, run.entries, heldout_of(run))
        shutil.copyfile(made, partial)
        partial.chmod(0o444)
        sync(partial)
        _log_of(final).unlink(missing_ok=True)  # before the rename: DuckDB rejects the log of another file
        os.replace(partial, final)
        write_atomically(final.with_suffix(".root"), _place(store, run))
    return final


def refresh_catalog_file(store: Path, run: Run) -> None:
    """Rewrite the catalog file if it is missing, was written for another run or store path, or cannot be opened.

    Only DuckDB's own shell needs the file, so that a command goes on without it: if it cannot be written, since a file
    of the run is missing or damaged or the disk is full, a warning says so. Does nothing if the store may not be
    written.
    """
    root = store / "studies" / run.study / "catalog.root"
    if not os.access(root.parent, os.W_OK):
        return
    file = root.with_suffix(".duckdb")
    try:
        known = root.read_bytes() if root.exists() else b""
        if known != _place(store, run).encode() or not _opens(file):
            write_catalog_file(store, run)
    except (BadInput, OSError, duckdb.Error) as error:
        log.warning("%s is not written again: %s", file, error)


def refresh_catalog_of(store: Path, study: str) -> None:
    """Refresh the catalog file of a study that has run. If no run can be shown, a warning says so."""
    try:
        run = shown_run(store, study)
    except BadInput as error:
        log.warning("the catalog file of %s is not written again: %s", study, error)
    else:
        refresh_catalog_file(store, run)


def _place(store: Path, run: Run) -> str:
    """The contents of `catalog.root`: the store, and a hash of the datasets that the catalog file was written for."""
    text = json.dumps([heldout_of(run), sorted([str(entry.key), entry.dataset.path] for entry in run.entries)])
    return f"{store}\n{hashlib.sha256(text.encode()).hexdigest()}\n"


def _log_of(file: Path) -> Path:
    """DuckDB's log of changes that are not in the file yet; a session that was killed leaves it."""
    return file.with_name(f"{file.name}.wal")


def _opens(file: Path) -> bool:
    """Whether the catalog file can be opened and has no log beside it. A log means that a session changed the file."""
    if not file.exists() or _log_of(file).exists():
        return False
    if "?" in str(file):  # DuckDB can open no file at such a path
        return True
    try:
        duckdb.connect(str(file), read_only=True).close()
    except duckdb.Error:
        return False
    return True
