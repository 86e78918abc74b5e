"""Frozen twins in the analysis: the settings that they are twins of, and the table that statistics of a study read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from parts_case import analyse, given_of, study_of, tables_of

import analysis.joined
from storage.catalog import open_catalog
from storage.record import write_run
from storage.runs import Key, last_run

TWIN = "main-frozen_encoder"


@pytest.mark.slow
def test_twins_reach_the_view_of_saes_and_the_statistics_of_the_study(
    store: Path, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = last_run(store, study)
    # The SAEs of both settings are the same files, so that every figure of the twin is that of the setting.
    copies = [e.model_copy(update={"sae": TWIN}) for e in run.entries if e.sae is not None]
    given = given_of(store, [*run.entries, *copies], study_of([0, 1], nulls=["frozen_encoder"]))
    seen: list[tuple[Any, ...]] = []
    compute = analysis.joined.compute

    def seeing(con: Any, part: Any, per: str) -> int:
        seen.extend(con.execute("FROM twins").fetchall())
        return compute(con, part, per)

    monkeypatch.setattr(analysis.joined, "compute", seeing)
    assert Key("matching", "planted", TWIN, 0, other_seed=1) in analyse(given)
    assert seen == [("planted", TWIN, "main", "frozen_encoder")]
    saes = tables_of(given)["saes"].select("sae", "seed", "twin_of").rows()
    assert saes == [("main", 0, None), ("main", 1, None), (TWIN, 0, "main"), (TWIN, 1, "main")]
    write_run(store, run.model_copy(update={"entries": list(given.state.values())}))
    with open_catalog(store, study) as con:
        query = "SELECT trained, best_twin, excess FROM frozen_figures('planted', 'main') WHERE figure = 'stability'"
        ((trained, best, excess),) = con.execute(query).fetchall()
    assert trained is not None
    assert (best, excess) == (TWIN, pytest.approx(0))
