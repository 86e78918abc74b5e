"""The frontier of a study (R2 against L0 of SAEs and baselines): its view and its cache.

A frontier that differs only in its measured times counts as unchanged.
"""

from __future__ import annotations

import typing
from pathlib import Path

import polars as pl
import pytest
from tests_support import computed, write_study

from flows.config import load_study
from flows.sections import Frontier
from flows.status import status
from flows.study import Finished, run_study
from sae.architectures import METHODS
from storage import open_catalog
from storage.runs import last_run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]
SECTION = '[frontier]\nmethods = ["batchtopk", "pca", "kmeans"]\nk = [2, 3]\n'


def run(study: Path, store: Path, *changes: str, **options: object) -> Finished:
    return run_study(load_study(study, list(changes)), store, progress=False, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("frontier")
    study = write_study(folder, images=500)
    study.write_text(study.read_text().replace("seeds = [0, 1]", "seeds = [0]") + SECTION)
    (folder / "store").mkdir()
    run(study, folder / "store")
    return study, folder / "store"


def test_the_view_has_a_row_a_method_encoder_and_k(finished: tuple[Path, Path]) -> None:
    _, store = finished
    con = open_catalog(store, guarded=True)
    rows = con.execute("SELECT * FROM frontier ORDER BY method, encoder, k").fetchall()
    columns = [column[0] for column in con.description]
    assert columns == [
        "model", "method", "encoder", "k", "width", "split", "r2", "r2_image", "r2_text", "cosine", "l0", "r2_at_k",
        "r2_image_at_k", "r2_text_at_k", "seconds",
    ]  # fmt: skip
    assert [row[:6] for row in rows] == [
        ("own", method, encoder, k, width, "heldout")
        for method, width, ks in (("batchtopk", 24, (2, 3)), ("kmeans", 24, (1,)), ("pca", 12, (2, 3)))
        for encoder, of_encoder in (("own", ks), ("pursuit", (2, 3)))
        for k in of_encoder
    ]
    assert all(0 < row[6] < 1 and row[14] > 0 for row in rows)
    assert all(0 < row[11] < 1 for row in rows if row[2] == "pursuit")


def test_the_row_of_the_studys_own_setting_is_its_own_sae(finished: tuple[Path, Path]) -> None:
    # The frontier trains batchtopk at k = 3 with the rows, the setting and the seed of the SAE `main` seed 0. So both
    # SAEs have the same figures on held-out rows.
    _, store = finished
    con = open_catalog(store)
    own = con.execute("SELECT r2, l0 FROM saes").fetchone()
    frontier = con.execute(
        "SELECT r2, l0 FROM frontier WHERE method = 'batchtopk' AND encoder = 'own' AND k = 3"
    ).fetchone()
    assert frontier == pytest.approx(own, rel=1e-6)


def test_nothing_is_measured_twice_and_times_are_no_change(finished: tuple[Path, Path]) -> None:
    study, store = finished
    assert computed(run(study, store).run) == []
    before = last_run(store, "small").of("frontier")[0].dataset
    seconds = pl.read_parquet(store / before.path / "seconds.parquet")
    forced = run(study, store, only="analyze", force=True).run.of("frontier")[0].dataset
    assert forced == before
    assert not pl.read_parquet(store / before.path / "seconds.parquet").equals(seconds)
    assert {row.state for row in status(load_study(study), store)} == {"fresh"}
    stale = {str(row.key): row for row in status(load_study(study, ["frontier.k=[2, 4]"]), store)}
    assert stale["frontier own"].why == "changed: k"
    assert stale["train own main seed 0"].state == "fresh"


def test_a_study_may_name_every_method_there_is() -> None:
    literals = typing.get_args(typing.get_args(Frontier.model_fields["methods"].annotation)[0])
    assert [name for literal in literals for name in typing.get_args(literal)] == list(METHODS)
