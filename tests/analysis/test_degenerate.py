"""Studies in which figures are undefined: the figures are NULL, with a warning, and the study goes on."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import numpy as np
import pytest
from parts_case import analyse, given_of, study_of, tables_of

from storage.activations import Activations, write_activations
from storage.catalog import open_catalog
from storage.embeddings import finish, write_modality
from storage.macros import SUBJECTS, all_macros
from storage.record import write_run
from storage.runs import Key, last_run
from storage.statements import SQL, statement

NAMES = "'planted', 'main'"
MACROS = {
    "bridge_figures": NAMES, "bridge_precision": f"{NAMES}, 10", "concept_profile": f"{NAMES}, 0, 3",
    "concept_shift": f"{NAMES}, 0, 'both', (SELECT list(image_id) FROM images), (SELECT list(image_id) FROM pairs)",
    "correspondence_summary": "'main'", "diet_stability": NAMES, "energy_concentration": NAMES,
    "frozen_figures": NAMES, "label_figures": NAMES, "matched_share": NAMES,
    "modality_histogram": f"{NAMES}, 10", "nulls_of": NAMES,
    "partner_summary": NAMES, "probing_figures": NAMES, "subspace_stability": NAMES,
    "embedding": "'planted', 'image', 0", "pair_ledger": f"{NAMES}, 0, 0, 0",
    "retrieval_chance": "", "sensitivity": NAMES, "stability": NAMES, "stability_by_energy": NAMES,
    "stability_by_energy_share": NAMES,
    "top_bridges": f"{NAMES}, 0, 5", "top_items": f"{NAMES}, 0, 3, 'image', 5",
}  # fmt: skip
HEADLINES = {"saes": {}, "retrieval": {}, "stability": {"model": "planted", "sae": "main"}}

Rows = dict[str, np.ndarray[Any, Any]]


def embeddings_of(rows: Rows) -> Any:
    """Return a function that writes the given rows in place of the planter's embeddings."""

    def write(out: Path, *_: Any) -> int:
        for modality, x in rows.items():
            x = x.astype(np.float32)
            write_modality(out, modality, *x.shape, lambda start, stop, x=x: x[start:stop], lambda done: None)
        finish(out, {"failed_rows": [], "model": {}})
        return sum(map(len, rows.values()))

    return write


def silent(out: Path, *_: Any) -> int:
    """Write an empty file of activations in place of the planter's activations."""
    none = Activations(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    return write_activations(out / "0.parquet", none, none)


def random_rows(images: int, captions: int, dim: int, shift: float = 0.5) -> Rows:
    random = np.random.default_rng(0)
    image, text = (random.standard_normal((n, dim)) for n in (images, captions))
    return {"image": image + shift, "text": text - shift}


SAME = np.random.default_rng(1).standard_normal((60, 16))
CASES: dict[str, tuple[int, Rows, bool, str | None]] = {
    # number of images and of captions, their embeddings, whether concepts fire, the start of the warning
    "the captions' vectors are the images'": (60, {"image": SAME, "text": SAME}, True, "image and text rows have the"),
    "all vectors are equal": (60, {name: np.ones((60, 16)) for name in ("image", "text")}, True, "image and text rows"),
    "one vector per modality": (60, {"image": np.ones((60, 16)), "text": -np.ones((60, 16))}, True, None),
    "one dimension": (60, {"image": np.ones((60, 1)), "text": -np.ones((60, 1))}, True, None),
    "no concept fires": (60, random_rows(60, 60, 16), False, None),
    "one image with one caption": (1, random_rows(1, 1, 16), True, "heldout rows of planted: no image rows"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_figures_without_a_value_are_null_and_end_no_study(
    case: str, planter: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    count, rows, fires, warning = CASES[case]
    monkeypatch.setattr(planter, "_embeddings", embeddings_of(rows))
    if not fires:
        monkeypatch.setattr(planter, "_activations", silent)
    planted = planter.plant(count, count, 2, 16)
    run = planter.write(planted, tmp_path, 16, dim=rows["image"].shape[1], seeds=2, embedded=True)
    # A single image may fall on either side of the split. With a heldout of almost 0 it is not held out.
    study = study_of(heldout=0.25 if count > 1 else 1e-9, analyze={"split": "all", "min_pairs": 1})
    given = given_of(tmp_path, run.entries, study)
    with caplog.at_level(logging.WARNING, "bridgescope"):
        assert Key("analyze") in analyse(given)
    warned = [message for message in caplog.messages if "alignment and direction accuracy are left empty" in message]
    assert len(warned) == (warning is not None)
    assert all(f"model planted: alignment and direction accuracy are left empty: {warning}" in text for text in warned)
    tables = tables_of(given)
    assert tables["geometry"].height == (0 if warning else 4)
    assert tables["concepts"].height == 2 * 16
    assert tables["concepts"]["align_lda"].null_count() == (2 * 16 if warning else 0)
    for name, table in tables.items():
        for column in (c for c in table.columns if table[c].dtype.is_float()):
            assert table[column].drop_nulls().is_finite().all(), f"{name}.{column}"
    write_run(tmp_path, run.model_copy(update={"entries": list(given.state.values())}))
    check_answers(tmp_path)


def check_answers(store: Path) -> None:
    """Check that every macro and every headline can be queried, and that no figure is NaN or infinite."""
    assert last_run(store, "paper-scale").of("analyze")
    assert {path.stem for path in (SQL / "macros").glob("*.sql")} == MACROS.keys()
    assert {path.stem for path in (SQL / "headlines").glob("*.sql")} == HEADLINES.keys()
    queries = [f"FROM {name}({arguments})" for name, arguments in MACROS.items()]
    queries += [statement(f"headlines/{name}", **values) for name, values in HEADLINES.items()]
    with open_catalog(store) as con:
        for query in queries:
            for row in con.execute(query).fetchall():
                assert not [x for x in row if isinstance(x, float) and not math.isfinite(x)], (query, row)
        for macro in (each for each in all_macros() if each.is_checked):
            arguments = MACROS[macro.name].split(", ")
            for place, name in enumerate(macro.names):
                if name in SUBJECTS:
                    wrong = [("999" if name in ("seed", "concept") else "'none'") if i == place else given
                             for i, given in enumerate(arguments)]  # fmt: skip
                    with pytest.raises(duckdb.InvalidInputException, match=r"^Invalid Input Error: No .* Available: "):
                        con.execute(f"FROM {macro.name}({', '.join(wrong)})")
