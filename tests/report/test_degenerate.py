"""Studies in which most figures have nothing to show: page, model card, explorer and result lines are still made."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from degenerate_support import CASES

from flows.results import summary
from report import write_report
from report.card import study_card
from report.explorer import write_explorer
from report.explorer.shares import Dictionary
from report.page import contents
from report.queries import ask
from storage.rows import Rows
from storage.site import SITE

Make = Callable[..., Any]
#: case -> (a text that the page of the case shows, names of figures that the page does not show)
SAYS = {
    "an_empty_store": ("Not measured: there is no SAE.", "modality stability training models"),
    "one_row_each": ("The gallery is so small that chance finds every item.", "models"),
    "imported_saes_alone": ("No curves are drawn: no SAE was trained by this study.", "training"),
    "no_concept_fires_ten_times": ("0 concepts counted, 32 left out", "alignment"),
    "dead_saes": ("No energies are drawn: no concept fires on a counted item.", "energy bridge-matrix alignment"),
    "one_seed": ("Stability compares two seeds of one setting", "models diets"),
    "two_concepts": (" concepts counted, ", "models"),
    "nothing_held_out": (
        "Not measured: there are no counted images with captions.",
        "retrieval bridge-matrix frontier",
    ),
    "all_numbers_null": ("No alignments are drawn: no concept that is counted has one.", "retrieval alignment energy"),
    "all_numbers_nan": ("No alignments are drawn: no concept that is counted has one.", "retrieval alignment energy"),
    "all_numbers_zero": ("Images", ""),
}


def test_every_case_is_tried() -> None:
    assert SAYS.keys() == CASES.keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CASES)
def test_everything_is_made_and_says_what_could_not_be_computed(
    catalog: Make, config: Make, tmp_path: Path, name: str
) -> None:
    con, study = CASES[name](catalog, config)
    write_report(tmp_path / "page", con, study)
    page = (tmp_path / "page" / "index.html").read_text()
    says, missing = SAYS[name]
    assert says in page
    assert not [figure for figure in missing.split() if f'id="figure-{figure}"' in page]
    shown = {figure["id"] for figure in json.loads((tmp_path / "page" / "figures.json").read_text())}
    assert all((tmp_path / "page" / "figures" / f"{figure}.png").stat().st_size > 1000 for figure in shown)
    text = re.sub(r"<[^>]*>|<style.*?</style>|<code>.*?</code>", " ", page, flags=re.S)
    assert not re.search(r"\b(nan|None|inf)\b", text)

    widths = {
        f"{row['model']}/{row['sae']}/{row['seed']}": row["width"]
        for row in ask(con, "SELECT model, sae, seed, width FROM saes").rows
    }
    (tmp_path / "out").mkdir()
    zeros = {"image": np.zeros(16), "text": np.zeros(16)}
    dictionary = Dictionary(np.eye(16), zeros, np.zeros(16), zeros)
    none = np.empty(0, np.int64)
    rows = Rows(np.empty((0, 16), np.float32), np.empty((0, 16), np.float32), none, none, none, np.empty(0))
    places = {key: np.zeros((width, 2)) for key, width in widths.items()}
    page = tmp_path / "page"
    write_explorer(tmp_path / "out", con, study, page, places, lambda key: dictionary, lambda model: rows, [])
    with zipfile.ZipFile(tmp_path / "out" / SITE) as site:
        assert len(json.loads(site.read("data/manifest.json"))["runs"]) == sum("/main/" in key for key in widths)

    card = study_card(con, study, {"one": {"kind": "vectors"}}, items=True, demo=False)
    lines = summary(con, [("one", "main")])
    assert not re.search(r"\b(nan|None|inf)\b", card + lines)


def test_figures_of_other_saes_stay_where_one_has_no_curve(catalog: Make, config: Make) -> None:
    con = catalog()
    con.execute("DELETE FROM training WHERE model = 'two'")
    drawn = contents(con, config())["figures"]["training"]
    assert [panel.title for panel in drawn.panels] == ["one"]
    assert drawn.columns == 1
