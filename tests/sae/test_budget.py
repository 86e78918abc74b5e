"""The numbers that a training gets where the study leaves them to the rows, and the warning of a short training."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sae
from sae.budget import PEAKS, Budget, budget, resolved, rise

ROWS = st.integers(1, 10**8)
WIDTHS = st.integers(2, 2**20)


@pytest.mark.parametrize(
    ("rows", "width", "expected"),
    [
        # sqrt(10,000) = 100, whose nearest power of two is 128; 6,000 steps of 128 rows are 77 epochs of 10,000 rows.
        # 77 * 79 = 6,083 steps: 6e-3 * sqrt(2,000 / 6,083) = 3.4e-3, and 4 ** -.25 of it for 1,024 concepts. Noise:
        # (77 - 8) / 140 = .49, of which .4 are allowed.
        (10_000, 256, Budget(77, 128, 3.4e-3, 0.4)),
        (10_000, 1024, Budget(77, 128, 2.4e-3, 0.4)),
        # 6 * 977 = 5,862 steps of 1,024 rows: 6e-3 * sqrt(2,000 / 5,862 * 1,024 / 256) * 16 ** -.25 = 3.5e-3.
        (1_000_000, 4096, Budget(6, 1024, 3.5e-3, 0)),
        # The bounds: 200 epochs, batches of 32 and 4,096 rows, 4 epochs.
        (200, 64, Budget(200, 32, 7.2e-3, 0.4)),
        (10**8, 256, Budget(4, 4096, 3.4e-3, 0)),
    ],
)
def test_the_rules_by_hand(rows, width, expected):
    assert budget(rows, width) == expected


@pytest.mark.parametrize(
    ("rows", "epochs", "expected"),
    [
        (80_000, 2, 64),  # 160,000 rows / 2,500 steps = 64; the nearest to sqrt(80,000) = 283 is 256
        (80_000, 3, 64),  # 96 would make 2,500 steps
        (80_000, 8, 256),
        (80_000, 100, 256),
        (1000, 1, 32),
    ],
)
def test_few_epochs_get_smaller_batches(rows, epochs, expected):
    assert budget(rows, 256, epochs).batch_size == expected
    assert budget(rows, 256, epochs, batch_size=256).batch_size == 256


@pytest.mark.parametrize(("epochs", "expected"), [(1, 0), (8, 0), (15, 0.05), (36, 0.2), (64, 0.4), (500, 0.4)])
def test_rows_that_are_drawn_often_get_noise(epochs, expected):
    assert budget(1000, 256, epochs).noise == expected  # (15 - 8) / 140 = .05
    assert budget(1000, 256, epochs, noise=0.1).noise == 0.1


@given(ROWS, st.integers(1, 500))
def test_few_epochs_get_as_many_steps_as_the_bounds_allow(rows, epochs):
    chosen = budget(rows, 256, epochs).batch_size
    assert 32 <= chosen <= budget(rows, 256).batch_size
    assert chosen == 32 or epochs * rows / chosen >= 2500
    assert chosen == budget(rows, 256).batch_size or epochs * rows / (2 * chosen) < 2500


@given(ROWS, WIDTHS, st.integers(1, 500), st.integers(2, 4096), st.floats(1e-6, 1), st.floats(0, 1))
def test_numbers_that_are_given_stay_as_they_are(rows, width, epochs, batch_size, rate, noise):
    assert budget(rows, width, epochs, batch_size, rate, noise=noise) == (epochs, batch_size, rate, noise)
    assert budget(rows, width, epochs=epochs).epochs == epochs
    assert budget(rows, width, batch_size=batch_size).batch_size == batch_size


@given(ROWS, WIDTHS, st.integers(1, 500))
def test_the_rate_falls_with_the_steps_and_the_width(rows, width, epochs):
    rate = budget(rows, width, epochs, 64).learning_rate
    assert PEAKS[0] <= rate <= PEAKS[1]
    assert budget(rows, width, 2 * epochs, 64).learning_rate <= rate
    assert budget(rows, 2 * width, epochs, 64).learning_rate <= rate


@given(ROWS, WIDTHS, st.integers(1, 12))
def test_of_two_batch_sizes_with_as_many_steps_the_larger_has_no_lower_rate(rows, width, power):
    smaller, larger = (budget(size * rows, width, 1, size).learning_rate for size in (2**power, 2 ** (power + 1)))
    assert smaller <= larger <= smaller * 1.5 + 1e-4
    assert power >= 8 or smaller == larger


@given(st.integers(1000, 10**7), WIDTHS)
def test_a_half_draws_as_many_rows_in_batches_as_large(rows, width):
    whole, half = budget(rows, width), budget(rows, width, share=0.5)
    assert half.batch_size == whole.batch_size
    assert half.epochs * 0.5 == pytest.approx(whole.epochs, abs=0.8)
    # Rates have two digits. From 1.0e-3 to the next, 1.1e-3, is exactly a tenth, which float64 may round up.
    assert half.learning_rate == pytest.approx(whole.learning_rate, rel=0.1 + 1e-9)
    assert half.noise == pytest.approx(whole.noise, abs=1 / 140 + 0.01)  # an epoch, and two digits of each


def test_a_training_states_the_numbers_that_were_chosen_for_it():
    rows = np.random.default_rng(0).standard_normal((2, 40, 8)).astype(np.float32)
    settings = sae.Settings(width=4, k=1, epochs=2)
    trained = sae.train(*rows, settings, seed=0)
    chosen = budget(80, 4, epochs=2)
    config = trained.sae.config
    assert (config.epochs, config.batch_size, config.learning_rate, config.noise) == chosen
    assert trained.curve[-1]["step"] == 2 * math.ceil(80 / 32)
    again = sae.train(*rows, resolved(settings, 80), seed=0)
    assert np.array_equal(again.sae.dictionary, trained.sae.dictionary)


def test_the_rise_of_r2_before_the_rate_falls():
    def curve(r2):
        return [{"step": 10 * (i + 1), "r2": r2(i)} for i in range(50)]

    # Steps 310 to 350 of 500 have the R2 of the points 15 to 19, and steps 360 to 400 that of the points 35 to 39.
    assert rise(curve(lambda i: i / 100)) == pytest.approx(0.2)
    assert rise(curve(lambda i: 0.5 if i < 40 else 0.9)) == 0
    assert rise(curve(lambda i: math.log(i + 1))) == pytest.approx(math.log(2), abs=0.1)
    assert rise(curve(lambda i: i)[:9]) is None
