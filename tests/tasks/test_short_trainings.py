"""A training whose R2 had not flattened is told to the user."""

import logging

import pytest

from tasks.train import _warn_if_short

SETTING = {"width": 24, "k": 3, "epochs": 5}


def curve(slope: float) -> list[dict[str, float]]:
    return [{"step": i + 1, "r2": slope * i} for i in range(50)]


def test_a_rising_r2_is_a_warning_and_a_flat_one_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="bridgescope"):
        _warn_if_short(curve(0.0004), SETTING, 1)
        assert not caplog.records
        _warn_if_short(curve(0.001), SETTING, 1)
    # Four fifths and two fifths of 50 points are 20 points apart.
    assert "width 24, k 3, seed 1" in caplog.text
    assert "it rose by 0.020; more than 5 epochs" in caplog.text
