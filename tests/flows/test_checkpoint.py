"""An SAE from a checkpoint is read once, is identified by its bytes, and is refused if it does not fit the model."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch
from tests_support import computed, random_sae, write_study

import sae
from flows.config import load_study
from flows.status import status
from flows.study import Finished, RunFailed, run_study
from sae.hub import from_hub
from sae.interchange import to_overcomplete, to_saelens
from sae.pursuit import matching_pursuit
from storage import open_catalog
from storage.errors import BadInput
from storage.runs import last_run
from tasks.checkpoint import problem_of
from tasks.publish import publish

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]
SETTINGS = """
[[saes]]
name = "lens"
checkpoint = "lens"
[[saes]]
name = "bare"
checkpoint = "bare.pt"
k = 2
[[saes]]
name = "pursued"
checkpoint = "lens"
k = 2
encoder = "pursuit"
"""


def run(study: Path, store: Path, *changes: str, **options: object) -> Finished:
    return run_study(load_study(study, list(changes)), store, progress=False, **options)  # type: ignore[arg-type]


def write_checkpoints(folder: Path, dim: int = 12, seed: int = 0) -> None:
    to_saelens(random_sae(dim, seed), folder / "lens")
    to_overcomplete(random_sae(dim, seed), folder / "over")
    state = torch.load(folder / "over" / "state_dict.pt", weights_only=True)
    del state["thresholds"]
    torch.save(state, folder / "bare.pt")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoint")
    study = write_study(folder, images=500)
    text = study.read_text().replace("seeds = [0, 1]", "seeds = [0]")
    study.write_text(text.replace("[analyze]", f"{SETTINGS}[analyze]"))
    write_checkpoints(folder)
    (folder / "store").mkdir()
    run(study, folder / "store")
    return study, folder / "store"


def test_what_was_trained_elsewhere_is_analysed_like_the_rest(finished: tuple[Path, Path]) -> None:
    _, store = finished
    con = open_catalog(store)
    saes = con.execute("SELECT sae, seed, architecture, width, rows_seen FROM saes ORDER BY sae").fetchall()
    assert saes[0] == ("bare", 0, "batchtopk", 20, 0)
    assert saes[1] == ("lens", 0, "jumprelu", 20, 0)
    assert saes[2][:2] == ("main", 0)
    counts = dict(con.execute("SELECT sae, count(*) FROM concepts GROUP BY sae").fetchall())
    assert counts == {"bare": 20, "lens": 20, "main": 24, "pursued": 20}
    assert con.execute("SELECT DISTINCT sae FROM training").fetchall() == [("main",)]  # imported SAEs have no curve


def test_codes_are_those_of_the_file(finished: tuple[Path, Path]) -> None:
    _, store = finished
    path = store / last_run(store, "small").of("train", sae="lens")[0].dataset.path
    x = torch.nn.functional.normalize(torch.randn(50, 12), dim=1)
    torch.testing.assert_close(sae.SAE.load(path).encode(x), random_sae(12, 0).encode(x), atol=1e-5, rtol=0)


def test_an_imported_dictionary_can_be_encoded_by_pursuit(finished: tuple[Path, Path]) -> None:
    _, store = finished
    last = last_run(store, "small")
    net = sae.SAE.load(store / last.of("train", sae="pursued")[0].dataset.path)
    x = torch.nn.functional.normalize(torch.randn(50, 12), dim=1)
    expected = matching_pursuit(x - net.bias, random_sae(12, 0).dictionary, 2)
    torch.testing.assert_close(net.encode(x), expected, atol=1e-5, rtol=0)
    codes = pl.read_parquet(store / last.of("export", sae="pursued")[0].dataset.path / "0.parquet")
    assert 0 < len(codes) <= 2 * (500 + 1000)
    l0 = open_catalog(store).execute("SELECT k, l0 FROM saes WHERE sae = 'pursued'").fetchone()
    assert l0[0] == 2
    assert 1 < l0[1] <= 2


def test_pursuit_needs_a_number_of_steps(finished: tuple[Path, Path]) -> None:
    study, _ = finished
    lens = str(study.parent / "lens")
    assert problem_of(lens, "batchtopk", 2, "pursuit") is None
    assert problem_of(lens, "batchtopk", None, "own") is None
    problem = problem_of(lens, "batchtopk", None, "pursuit")
    assert problem == f"{lens}: k is 0; pursuit takes k steps per row, 1 to the width, 20: give k (in a study: saes.k)"


def test_a_threshold_that_the_file_lacks_is_calibrated_on_training_rows(finished: tuple[Path, Path]) -> None:
    _, store = finished
    entry = last_run(store, "small").of("export", sae="bare")[0]
    codes = pl.read_parquet(store / entry.dataset.path / "0.parquet")
    rates = [len(part) / rows for (_, part), rows in zip(codes.group_by("modality"), (1, 1), strict=True)]
    assert codes["activation"].min() > 0
    assert sum(rates) / (500 + 1000) == pytest.approx(2, rel=0.2)  # mean number of codes of an item, over both splits


def test_other_bytes_are_another_sae_and_equal_ones_are_not_read_twice(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    study, store = finished
    assert computed(run(study, store).run) == []
    elsewhere = tmp_path / "moved"
    (elsewhere / "vectors").parent.mkdir()
    (elsewhere / "vectors").symlink_to(study.parent / "vectors")
    write_checkpoints(elsewhere)
    (elsewhere / "small.toml").write_text(study.read_text())
    assert computed(run(elsewhere / "small.toml", store).run) == []  # equal bytes at another path
    to_saelens(random_sae(12, 1), elsewhere / "lens")
    states = {str(row.key): row for row in status(load_study(elsewhere / "small.toml"), store)}
    assert states["train own lens seed 0"].state == "stale"
    assert states["train own lens seed 0"].why.startswith("changed: checkpoint ")
    assert states["train own bare seed 0"].state == "fresh"


def test_a_checkpoint_that_does_not_fit_is_bad_input(finished: tuple[Path, Path], tmp_path: Path) -> None:
    study, store = finished
    to_saelens(random_sae(8, 0), tmp_path / "narrow")
    with pytest.raises(RunFailed, match="the SAE takes rows of 8 dimensions, and the model's rows have 12"):
        run(study, store, f"saes.lens.checkpoint={tmp_path / 'narrow'}", only="train")
    with pytest.raises(BadInput, match=r"sae lens: checkpoint .*nowhere: no such file or folder"):
        run(study, store, f"saes.lens.checkpoint={tmp_path / 'nowhere'}", only="train")


def test_an_sae_is_published_with_the_figures_of_its_run(finished: tuple[Path, Path], tmp_path: Path) -> None:
    _, store = finished
    publish(store, None, "own", "main", 0, tmp_path / "repo")
    r2 = open_catalog(store).execute("SELECT r2_image FROM saes WHERE sae = 'main'").fetchone()[0]
    card = (tmp_path / "repo" / "README.md").read_text()
    assert f"| R2, images | {r2:.4g} |" in card
    assert "setting `main`, seed 0" in card
    assert "Stability" not in card  # stability needs two seeds
    assert from_hub(tmp_path / "repo").config.width == 24
    with pytest.raises(
        BadInput, match="no SAE own main 7; the study has own bare 0, own lens 0, own main 0, own pursued 0"
    ):
        publish(store, None, "own", "main", 7, tmp_path / "repo")
