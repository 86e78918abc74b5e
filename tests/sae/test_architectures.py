"""The table of architectures agrees with all that is derived from it. Reading the table does not import torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import sae
from report.drawing import MARKS
from report.figures.frontier import METHODS as DRAWN
from sae.architectures import ARCHITECTURES, BASELINES, METHODS, PARAMETERS
from sae.model import Config
from sae.settings import Settings
from sae.sparsity import SELECT
from tasks.settings import Settings as SettingsOfFlows

ROOT = Path(sae.__file__).parents[1]


def in_new_process(program: str) -> str:
    """The output of a program in a new process."""
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("module", ["sae", "sae.architectures", "sae.settings", "tasks.settings", "flows.config"])
def test_settings_and_the_table_are_read_without_torch_or_prefect(module):
    program = f"import sys, {module}; print([name for name in ('torch', 'prefect', 'numba') if name in sys.modules])"
    assert in_new_process(program) == "[]\n"


def test_train_is_the_function_whatever_was_imported_first():
    program = "import sae.training, sae; print(callable(sae.train), sae.train is sae.training.train)"
    assert in_new_process(program) == "True True\n"


def test_the_package_offers_its_public_names_and_no_others():
    assert all(getattr(sae, name) is not None for name in sae.__all__)
    assert sae.Settings is Settings is SettingsOfFlows
    with pytest.raises(AttributeError, match="'sae' has no attribute 'Settngs'"):
        _ = sae.Settngs


def test_every_method_of_the_table_can_be_computed():
    from sae.baselines import BASELINES as CLASSES

    assert set(SELECT) == {name for name, row in ARCHITECTURES.items() if not row.pursuit}
    assert set(CLASSES) == set(BASELINES)
    for row in ARCHITECTURES.values():
        assert row.threshold != "none" or row.pursuit or row.selection in ("row", "batch")


def test_every_method_is_drawn_in_its_own_way_and_order():
    assert list(DRAWN) == [
        "batchtopk", "topk", "matryoshka", "jumprelu", "relu", "mp",
        "pca", "ica", "nmf", "kmeans", "spherical", "sample", "random",
    ]  # fmt: skip
    assert len({(style.color, style.dash, style.marker) for style in DRAWN.values()}) == len(METHODS)
    assert {style.marker for style in DRAWN.values()} <= set(MARKS)


def test_a_parameter_is_one_thing_in_all_its_architectures_and_settings_have_it():
    for row in ARCHITECTURES.values():
        for name, parameter in row.parameters.items():
            assert parameter is PARAMETERS[name]
            assert Settings.model_fields[name].description == parameter.description
            assert Config.model_fields[name].default == parameter.default


def test_a_setting_that_came_later_is_written_only_where_it_is_set():
    plain = Settings(width=8, k=2)
    assert list(plain.model_dump()) == [
        "architecture", "width", "k", "epochs", "batch_size", "learning_rate", "decoder_bias", "image_share", "auxk",
        "dead_after_epochs", "centring", "penalty", "prefixes", "encoder_dtype",
    ]  # fmt: skip
    changed = Settings(width=8, k=2, k_aux=4)
    assert changed.model_dump() == plain.model_dump() | {"k_aux": 4}
    config = Config(**dict(changed), dim=2, seed=0, rows_seen=1)
    assert config.model_dump()["k_aux"] == 4
    assert "k_aux" not in Config(**dict(plain), dim=2, seed=0, rows_seen=1).model_dump()


def test_settings_travel_through_json():
    settings = Settings(architecture="matryoshka", width=8, k=2, prefixes=(2, 8), image_share="natural")
    assert Settings(**json.loads(settings.model_dump_json())) == settings


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_weights_are_finite(number):
    for change in ({"auxk": number}, {"architecture": "relu", "penalty": number}, {"learning_rate": number}):
        with pytest.raises(ValidationError, match=list(change)[-1]):
            Settings(width=8, k=2, **change)
