"""`--upstream`: a dataset of any kind is taken if the stage that makes it comes before the one that is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_runs import planted_run, small_study

from flows.upstream import upstream_of
from storage.errors import BadInput

EARLIER = [
    ("embed", "acquire"), ("train", "embed"), ("export", "train"), ("analyze", "atoms"), ("report", "checks"),
    ("report", "space"), ("report", "measures"), ("report", "frontier"), ("report", "analyze"),
]  # fmt: skip
LATER = [("acquire", "acquire"), ("embed", "train"), ("export", "atoms"), ("analyze", "frontier"), ("report", "layout")]


@pytest.mark.parametrize(("only", "kind"), EARLIER)
def test_a_dataset_of_an_earlier_stage_is_taken_whatever_its_kind(tmp_path: Path, only: str, kind: str) -> None:
    study = small_study(tmp_path)
    run = planted_run(study, tmp_path)
    entry = run.of(kind)[0]
    assert upstream_of(study, tmp_path, run, only, entry.dataset.recipe)[entry.key].dataset == entry.dataset


@pytest.mark.parametrize(("only", "kind"), LATER)
def test_a_dataset_of_the_stage_itself_or_a_later_one_is_refused(tmp_path: Path, only: str, kind: str) -> None:
    study = small_study(tmp_path)
    run = planted_run(study, tmp_path)
    with pytest.raises(BadInput, match=rf"--upstream .*: is {kind}.*, which does not come before {only}"):
        upstream_of(study, tmp_path, run, only, run.of(kind)[0].dataset.recipe)
