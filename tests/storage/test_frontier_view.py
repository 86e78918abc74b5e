"""The view `frontier` over the files of one model, those that this version writes and those of earlier versions."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl

from storage.documentation import columns_of, header_of
from storage.statements import statement

OLD = {"width": [24], "r2": [0.5], "r2_image": [0.4], "r2_text": [0.3], "cosine": [0.9], "l0": [2.5]}


def write(folder: Path, figures: dict[str, list[object]], seconds: dict[str, list[object]]) -> dict[str, object]:
    folder.mkdir()
    split = ["heldout"] * len(figures["method"])
    pl.DataFrame({**figures, "split": split}).write_parquet(folder / "frontier.parquet")
    pl.DataFrame(seconds).write_parquet(folder / "seconds.parquet")
    return {"figures": [folder / "frontier.parquet"], "seconds": [folder / "seconds.parquet"]}


def test_new_and_earlier_files_stand_side_by_side(tmp_path: Path) -> None:
    one = {name: value * 3 for name, value in OLD.items()}
    named = {"method": ["topk", "topk", "kmeans"], "encoder": ["own", "pursuit", "own"], "k": [2, 2, 1]}
    at_k = {name: [0.45, 0.6, None] for name in ("r2_at_k", "r2_image_at_k", "r2_text_at_k")}
    new = write(tmp_path / "new", {**named, **one, **at_k}, {**named, "seconds": [7.0, 7.0, 8.0]})
    keys = {"method": ["topk", "sample", "pca"], "k": [2, 2, 2]}
    old = write(tmp_path / "old", {**keys, **one}, {**keys, "seconds": [1.0, 2.0, 3.0]})
    con = duckdb.connect()
    selects = [statement("views/frontier", model=name, **files) for name, files in (("new", new), ("old", old))]
    con.execute("CREATE VIEW frontier AS\n" + "\nUNION ALL\n".join(selects))
    rows = con.execute("SELECT model, method, encoder, k, r2, r2_at_k, seconds FROM frontier ORDER BY ALL").fetchall()
    assert rows == [
        ("new", "kmeans", "own", 1, 0.5, None, 8.0),
        ("new", "topk", "own", 2, 0.5, 0.45, 7.0),
        ("new", "topk", "pursuit", 2, 0.5, 0.6, 7.0),
        ("old", "pca", "own", 2, 0.5, None, 3.0),
        ("old", "sample", "pursuit", 2, 0.5, None, 2.0),
        ("old", "topk", "own", 2, 0.5, None, 1.0),
    ]
    columns = [row[0] for row in con.execute("DESCRIBE frontier").fetchall()]
    documents = columns_of(header_of("frontier")["Columns"], columns)
    assert [name for name in columns if not documents[name]] == ["model"]
