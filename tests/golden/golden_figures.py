"""The figures of a dataset: counts, means and root mean squares of the data in its files, and a few single values.

Figures are compared, not bytes, since another CPU rounds differently and a compressor may change.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import zarr
from safetensors.numpy import load_file

from storage.manifest import files_in

Figures = dict[str, Any]
WHOLE = ("dictionary",)  #: tensors whose rows are kept, since a mean says little about directions
#: Columns without figures. Times differ between runs. `dead_fraction` may move by a whole concept if a CPU rounds
#: differently.
LEFT_OUT = {"seconds", "rows_per_second", "dead_fraction"}
#: Tensors of the towers of a demo model. They are weights from packages, not results, and have no figures.
FROZEN = re.compile(r"text\.transformer\.|visual\.trunk\.")
ROWS = 8  #: rows that are kept of arrays of vectors


def figures_of(folder: Path) -> Figures:
    """{file or array: figures} of the data files of a dataset."""
    found: Figures = {}
    for name in files_in(folder):
        path = folder / name
        if path.suffix == ".parquet":
            found |= {f"{name}: {column}": values for column, values in _of_table(pl.read_parquet(path)).items()}
        elif path.suffix == ".safetensors":
            for tensor, values in sorted(load_file(path).items()):
                if not FROZEN.match(tensor):
                    found[f"{name}: {tensor}"] = _of_array(values, len(values) if tensor in WHOLE else 0)
        elif path.suffix == ".npy":
            found[name] = _of_array(np.load(path), ROWS)
        elif name.endswith("zarr.json") and path.parent != folder:
            found[path.parent.name] = _of_array(np.asarray(zarr.open_array(path.parent, mode="r")[:]), ROWS)
        elif path.suffix == ".html":
            found[name] = {"headings": re.findall(r"<h[1-3][^>]*>(.*?)</h[1-3]>", path.read_text(), re.DOTALL)}
        elif path.suffix == ".zip":
            found[name] = {"files": sorted(zipfile.ZipFile(path).namelist())}
    return found


def _of_table(table: pl.DataFrame) -> Figures:
    """Figures of each column: numbers and truth values by their moments, other types by the number of values."""
    found: Figures = {"table": {"height": table.height}}
    for column in sorted(set(table.columns) - LEFT_OUT):
        series = table[column]
        if series.dtype == pl.Boolean:
            series = series.cast(pl.Int8)
        if series.dtype.is_numeric():
            found[column] = _of_array(series.drop_nulls().to_numpy(), 0)
        else:
            found[column] = {"values": series.len() - series.null_count()}
    return found


def _of_array(values: np.ndarray[Any, Any], rows: int) -> Figures:
    """Shape, and number, mean and root mean square of the finite values. Also the first `rows` rows."""
    array = np.asarray(values, np.float64)
    finite = array[np.isfinite(array)]
    found: Figures = {"shape": list(array.shape), "finite": int(finite.size)}
    if finite.size:
        found |= {"mean": round_of(finite.mean()), "rms": round_of(np.sqrt((finite**2).mean()))}
    if rows:
        found["rows"] = [[round_of(value) for value in row] for row in np.atleast_2d(array)[:rows]]
    return found


def round_of(value: float) -> float:
    """Round a value to six significant digits."""
    return float(f"{value:.6g}")


#: A mean may differ by this share of the root mean square. Noise of float32 moves a mean by less, and a change of a
#: constant moves a mean by more.
SHARE = 2e-3
COSINE = 0.99995  # the lowest allowed mean cosine of kept rows; noise moves the cosine a fifth as far from 1


def differences(golden: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """A sentence for each figure that has moved, or that only one of `golden` and `found` has."""
    moved = [f"{name}: is in one of the two alone" for name in sorted(golden.keys() ^ found.keys())]
    for name in sorted(golden.keys() & found.keys()):
        moved += [f"{name}: {sentence}" for sentence in _moved(golden[name], found[name])]
    return moved


def _moved(golden: Any, found: Any) -> list[str]:
    if not isinstance(golden, dict) or not isinstance(found, dict):
        return [] if golden == found else [f"{golden} -> {found}"]
    sentences = []
    scale = max(abs(golden.get("rms", 0.0)), 1e-6)
    for key in sorted(golden.keys() | found.keys()):
        old, new = golden.get(key), found.get(key)
        if key in ("mean", "rms") and old is not None and new is not None:
            if abs(old - new) > SHARE * scale:
                sentences.append(f"{key} {old} -> {new}")
        elif key == "rows" and np.shape(old) == np.shape(new):
            cosine = _cosine(np.asarray(old), np.asarray(new))
            if cosine < COSINE:
                sentences.append(f"mean cosine of its rows {cosine:.5f}, under {COSINE}")
        elif old != new:
            sentences.append(f"{key} {old} -> {new}")
    return sentences


def _cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Mean cosine of row i of `a` and row i of `b`. Two rows that are both 0, or both not finite, count as equal."""
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both = (np.abs(a).sum(1) == 0) & (np.abs(b).sum(1) == 0)
    return float(np.where(both, 1.0, (a * b).sum(1) / np.maximum(norms, 1e-12)).mean())
