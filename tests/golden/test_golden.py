"""Every stage has a golden result beside its version. Results must not move while the version stays.

A dataset is identified by its recipe, which includes the version of the stage. If a change of code moves results
without a new version, old and new results have the same recipe.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from golden_cases import Made, make_all, section, stages, trainings
from golden_figures import Figures, differences

HERE = Path(__file__).parent
NAMES = sorted(stages())


def golden(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return read


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figures]:
    return make_all(tmp_path_factory.mktemp("golden"))


def test_every_stage_has_a_golden_result_and_no_other_has() -> None:
    assert sorted(path.stem for path in HERE.glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_results_of_a_stage_have_not_moved(made: dict[str, Figures], name: str) -> None:
    known, version = golden(name), stages()[name].version
    assert known["version"] == version, f"the version of {name} was raised: write its golden result anew: make golden"
    moved = differences(known["figures"], made[name])
    assert moved == [], (
        f"results of {name} moved: raise the version in its @stage, {version}, and write the golden result anew with "
        f"`make golden`, or undo what moved them"
    )


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    """A function that trains one of the golden trainings and returns a sentence for each figure that moved."""

    def moved(name: str) -> list[str]:
        result: Made = trainings(tmp_path, section(name))
        own = {key: value for key, value in golden("sae")["figures"].items() if f" {name} " in key}
        return differences(own, result.figures["sae"])

    return moved


def test_an_unchanged_trainer_moves_nothing(trained: Any) -> None:
    assert trained("sparse") == []


def scaled(module: str, name: str, factor: float) -> Any:
    """A change that multiplies a constant of the trainer, or the result of a function of the trainer, by a factor."""

    def change(patch: pytest.MonkeyPatch) -> None:
        value = getattr(sys.modules[module], name)
        new = (lambda *a, **k: factor * value(*a, **k)) if callable(value) else factor * value
        patch.setattr(f"{module}.{name}", new)

    return change


def other_noise(patch: pytest.MonkeyPatch) -> None:
    """Give the initial atoms other noise, a tenth of a row in size, as another order of random numbers does."""
    import torch

    normal = torch.randn
    patch.setattr(torch, "randn", lambda *size, **options: normal(*size, **options).flip(0))


def other_auxk(patch: pytest.MonkeyPatch) -> None:
    """Give the AuxK loss the weight 1/24 in place of 1/32."""
    from flows.sections import SAESetting

    setting = SAESetting.setting
    patch.setattr(SAESetting, "setting", lambda self, rows: {**setting(self, rows), "auxk": 1 / 24})


@pytest.mark.parametrize(
    ("training", "change"),
    [
        ("sparse", scaled("sae.training", "learning_rate_at", 1.02)),
        ("dense", scaled("sae.training", "learning_rate_at", 1.02)),
        ("sparse", other_noise),
        ("sparse", other_auxk),
        ("restarted", scaled("sae.training", "SETTLED", 2)),
        ("relu", scaled("sae.penalty", "DRIFT", 1.1)),
        ("jumprelu", scaled("sae.penalty", "DRIFT", 1.1)),
    ],
)
def test_a_changed_constant_of_the_trainer_fails(
    trained: Any, training: str, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    assert trained(training) != []
