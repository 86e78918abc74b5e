"""Adding a source, an architecture, a statistic and a stage to a copy of the checkout, as CONTRIBUTING describes.

A study in the copy uses all four. They must appear in the study's file, tables, page and explorer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny_models import build

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
ROOMS = ("flows", "explorer", "tasks", "analysis", "report", "vlm", "sae", "storage")

SOURCE = {
    "storage/sources/swatches.py": '''
"""Plain colours with their names: a source for tests."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from storage.sources import Arrived, Caption, Item, Listing, Source, SourceError
from storage.sources.section import FilesSection


class SwatchesSection(FilesSection):
    """The section [pairs] of a study with this source."""

    source: Literal["swatches"]
    colours: int = Field(40, ge=2, description="colours in the source")

    def place(self) -> dict[str, Any]:
        """Return the same identity for all sources of this kind, since the colours are drawn, not stored."""
        return {"at": "everywhere"}

    def reader(self, own: Path, identity: dict[str, Any]) -> Source:
        """Return the source that draws the colours."""
        return Swatches(self.colours, identity)


class Swatches(Source):
    """Source of plain colours."""

    name = "swatches"

    def __init__(self, colours: int, identity: dict[str, Any]) -> None:
        self.colours, self.identity = colours, identity

    def list(self) -> Listing:
        """List the colours."""
        items = []
        for i in range(self.colours):
            captions = (Caption(f"{i:04d}#a", f"colour {i}"), Caption(f"{i:04d}#b", f"a {i} square"))
            items.append(Item(f"{i:04d}", "", str(i), captions, f"{i}"))
        return Listing(items, [])

    def read(self, locators: Sequence[str], arrived: Arrived | None = None) -> Iterator[bytes | SourceError | None]:
        """Draw the colours."""
        from PIL import Image

        for locator in locators:
            i = int(locator)
            out = io.BytesIO()
            Image.new("RGB", (24, 24), (i * 37 % 256, i * 91 % 256, i * 53 % 256)).save(out, "PNG")
            yield out.getvalue()
'''
}
ARCHITECTURE = {
    "sae/architectures.py": (
        """
ARCHITECTURES: dict[str, Architecture] = {
    row.name: row
    for row in (
""",
        """
FLATNESS = Parameter(
    Annotated[float, Field(ge=0, lt=1)],
    0.0,
    "share that flattopk takes off every code",
    "flatness is for {owners}; {name} takes codes as they are",
)

ARCHITECTURES: dict[str, Architecture] = {
    row.name: row
    for row in (
        Architecture(
            name="flattopk", label="Flat TopK", legend=9, colour="third", mark="s",
            threshold="calibrated", parameters={"flatness": FLATNESS},
        ),
""",
    ),
    "sae/sparsity.py": (
        """SELECT: dict[str, Select] = {
""",
        """SELECT: dict[str, Select] = {
    "flattopk": lambda pre_BC, theta_C, settings, bandwidth: Selected(
        batch_topk(pre_BC, settings.k) * (1 - settings.flatness)
    ),
""",
    ),
}
STATISTIC = {
    "analysis/span.py": '''
"""Span: how many dimensions the atoms of an SAE spread over."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import numpy as np
import polars as pl

from analysis.inputs import Analysis, keys_of
from analysis.statistic import Statistic
from analysis.tables import SAE_KEYS, Schema

SPANS: Schema = {**SAE_KEYS, "dimensions": pl.Float64}


def spans(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> Mapping[str, pl.DataFrame]:
    """One row per SAE: the participation ratio of the variances of its atoms."""
    rows = []
    for entry, net in analysis.trained():
        variances = np.linalg.svd(net.dictionary.numpy().astype(np.float64), compute_uv=False) ** 2
        rows.append({**keys_of(entry), "dimensions": float(variances.sum() ** 2 / (variances**2).sum())})
    return {"spans": pl.DataFrame(rows, schema=SPANS)}


STATISTIC = Statistic("span", "1", {"spans": SPANS}, spans)
''',
    "storage/sql/views/spans.sql": """-- Purpose: how many dimensions the atoms of an SAE spread over.
-- Inputs:  the run's table spans.
-- Columns: model, sae, seed; dimensions (participation ratio of the variances of the atoms).
-- Page:    Dimensions that dictionaries span.
CREATE VIEW spans AS FROM read_parquet($files);
""",
}
STAGE = {
    "flows/stages.py": (
        """        StageInfo("report",""",
        """        StageInfo("audit", "Count the datasets of the study.", deployed=False),
        StageInfo("report",""",
    ),
    "flows/jobs/audit.py": '''
"""The job of the stage audit."""

from __future__ import annotations

from flows.jobs.analyze import ANALYZED
from flows.jobs.job import Given, Job, entries_of, step_of
from storage.runs import Key
from tasks.audit import audit


@step_of("audit")
def audits(given: Given) -> list[Job]:
    """One job over the whole study."""
    return [Job(Key("audit"), audit, {"entries": entries_of(given, ANALYZED)})]
''',
    "tasks/audit.py": '''
"""Audit: the number of datasets of a study, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.stage import Runtime, stage


@stage("audits", version="1")
def audit(out: Path, entries: list[dict[str, Any]], runtime: Runtime) -> int:
    """Write the number of entries into a file, and return it."""
    (out / "count.txt").write_text(str(len(entries)))
    return len(entries)
''',
}
STUDY = """
name = "grown"
[pairs]
source = "swatches"
colours = 80
heldout = 0.3
[[models]]
name = "tiny"
spec = "hf:local-dir:clip"
[[saes]]
name = "main"
architecture = "flattopk"
flatness = 0.25
width = 16
k = 3
epochs = 6
batch_size = 32
seeds = [0, 1]
[frontier]
methods = ["flattopk", "pca"]
k = [2]
[analyze]
split = "all"
min_pairs = 1
"""


def digests(checkout: Path) -> dict[str, str]:
    """The sha256 of every file of a checkout."""
    return {
        path.relative_to(checkout).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(checkout.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def apply(checkout: Path, changes: dict[str, str | tuple[str, str]]) -> int:
    """Write new files, and replace text in others. Returns the number of changed files."""
    before = digests(checkout)
    for name, change in changes.items():
        path = checkout / name
        if isinstance(change, str):
            assert not path.exists(), name
            path.write_text(change)
        else:
            text = path.read_text()
            assert text.count(change[0]) == 1, (name, change[0])
            path.write_text(text.replace(*change))
    after = digests(checkout)
    return sum(before.get(name) != digest for name, digest in after.items())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project's Python packages."""
    copy = tmp_path_factory.mktemp("checkout")
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__", "web"))
    return copy


@pytest.fixture(scope="module")
def touched(checkout: Path) -> dict[str, int]:
    """The number of files that each addition changed."""
    return {
        "source": apply(checkout, SOURCE),
        "architecture": apply(checkout, ARCHITECTURE),
        "statistic": apply(checkout, STATISTIC),
        "stage": apply(checkout, STAGE),
    }


@pytest.fixture(scope="module")
def folder(checkout: Path, touched: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study that uses all additions and was run by the code of the copy."""
    folder = tmp_path_factory.mktemp("grown")
    build("clip", folder / "clip")
    (folder / "grown.toml").write_text(STUDY)
    code, output = command(checkout, "run", str(folder / "grown.toml"), "--store", str(folder / "store"))
    assert code == 0, output
    return folder


def command(checkout: Path, *arguments: str) -> tuple[int, str]:
    """Run a command with the code of the copy. Returns its exit code and output."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_each_addition_touches_as_few_files_as_contributing_says(touched: dict[str, int]) -> None:
    assert touched == {"source": 1, "architecture": 2, "statistic": 2, "stage": 3}


def test_the_source_and_the_architecture_are_checked_in_the_study_file(checkout: Path, folder: Path) -> None:
    study = folder / "grown.toml"
    for change, sentence in (
        ("pairs.colours=1", "pairs.colours: Input should be greater than or equal to 2"),
        ("saes.main.flatness=2", "saes.0.flatness: Input should be less than 1"),
        ('saes.main.architecture="topk"', "flatness is for flattopk; topk takes codes as they are"),
    ):
        code, output = command(checkout, "status", str(study), "--store", str(folder / "store"), "--set", change)
        assert code == 2, output
        assert sentence in output


def test_the_catalog_answers_for_all_of_them(checkout: Path, folder: Path) -> None:
    query = (
        "SELECT (SELECT count(*) FROM images) AS images, (SELECT list(DISTINCT architecture) FROM saes) AS used, "
        "(SELECT count(*) FROM spans WHERE dimensions BETWEEN 1 AND 16) AS spans, "
        "(SELECT count(*) FROM frontier WHERE method = 'flattopk') AS frontier"
    )
    code, output = command(checkout, "sql", query, "--store", str(folder / "store"), "--format", "json")
    assert code == 0, output
    answer, _ = json.JSONDecoder().raw_decode(output)  # standard error, which names the run, comes after it
    assert answer == [{"images": 80, "used": ["flattopk"], "spans": 2, "frontier": 2}]


def test_the_stage_is_in_the_status_and_in_the_help(checkout: Path, folder: Path) -> None:
    code, output = command(checkout, "status", str(folder / "grown.toml"), "--store", str(folder / "store"))
    assert code == 0
    assert "fresh    audit" in output
    assert "0 stale, 0 missing" in output
    assert "export, analyze, audit, report" in " ".join(command(checkout, "run", "--help")[1].split())


def test_the_page_shows_the_statistic_and_the_architecture(folder: Path) -> None:
    page = (folder / "store" / "report" / "grown" / "index.html").read_text()
    assert "Dimensions that dictionaries span" in page
    assert "Flat TopK" in page


def test_the_explorer_documents_the_statistic_and_names_the_architecture(folder: Path) -> None:
    with zipfile.ZipFile(folder / "store" / "report" / "grown" / "explorer.zip") as site:
        manifest, catalog = (json.loads(site.read(f"data/{name}.json")) for name in ("manifest", "catalog"))
    assert {run["architecture"] for run in manifest["runs"]} == {"flattopk"}
    (view,) = [view for view in catalog["views"] if view["name"] == "spans"]
    assert view["columns"][-1]["doc"] == "participation ratio of the variances of the atoms"
