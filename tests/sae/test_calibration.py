"""The calibrated threshold is the exact quantile of all pre-activations, whether or not bfloat16 helps to find it."""

import numpy as np
import pytest
import torch

from sae import calibration
from sae.calibration import calibrate, calibrate_encoder, screened


def once(x, weight, chunk=2048):
    """Rows and their weights, in the form that `calibrate` takes."""
    return lambda stride: zip(x[::stride].split(chunk), weight[::stride].split(chunk), strict=True)


def test_threshold_of_worked_example():
    # Both rows have the weight 1/2, so each code adds 1/2 to the mean number of codes per row. The positive values are
    # 5, 4, 3 and 2, so k = 1 keeps 5 and 4. The threshold lies half-way to the next value: (4 + 3) / 2 = 3.5.
    pre = torch.tensor([[5.0, 2.0, -1.0], [4.0, 3.0, -1.0]])
    threshold = calibrate(lambda x: x, once(pre, torch.tensor([0.5, 0.5], dtype=torch.float64)), 1)
    assert threshold == 3.5


def test_rows_weigh_as_in_the_training_mixture():
    # The first row is the only image and weighs .5; the other two are texts and weigh .25 each. The weights of the
    # codes 5, 4 and 3 sum to k = 1: .5 + .25 + .25. The threshold lies half-way to the next value: (3 + 2) / 2 = 2.5.
    pre = torch.tensor([[5.0, 2.0], [4.0, 1.0], [3.0, 0.5]])
    weight = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert calibrate(lambda x: x, once(pre, weight), 1) == 2.5


def test_threshold_is_never_negative():
    pre = torch.tensor([[1.0, -1.0], [-1.0, -1.0]])
    assert calibrate(lambda x: x, once(pre, torch.tensor([0.5, 0.5], dtype=torch.float64)), 2) == 0


@pytest.mark.parametrize("chunk", [7, 64, 5000])
def test_streaming_finds_the_same_threshold_as_a_full_sort(chunk):
    # Rows are sorted by size, so a sample of the first rows is useless. Small chunks make every sample poor.
    random = np.random.default_rng(0)
    x = torch.from_numpy(np.sort(random.standard_normal((3000, 40)).astype(np.float32), axis=0))
    flat = x.flatten().sort(descending=True).values
    weight = torch.full((3000,), 1 / 3000, dtype=torch.float64)
    threshold = calibrate(lambda rows: rows, once(x, weight, chunk), 3)
    assert flat[3 * 3000 - 1] > threshold >= flat[3 * 3000]
    assert int((x > threshold).sum()) == 3 * 3000


def encoder(seed, rows=30_000, concepts=150, dim=24):
    """Random rows and encoder rows of different norms, a shift per concept, and uneven weights of the rows."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, dim, generator=draws) * torch.rand(rows, 1, generator=draws).add(2)
    weights = torch.randn(concepts, dim, generator=draws) * torch.rand(concepts, 1, generator=draws).mul(3)
    shift = torch.randn(concepts, generator=draws)
    row_weight = torch.rand(rows, generator=draws, dtype=torch.float64) + 0.5
    return x, weights, shift, row_weight / row_weight.sum()


@pytest.mark.parametrize("common", [0, 40])
@pytest.mark.parametrize("seed", range(4))
def test_bfloat16_finds_the_quantile_of_float32(seed, common):
    # `common` adds common^2 to every product, and the shift subtracts it again. Rounding to bfloat16 then moves a
    # pre-activation by more than the width of the band of values in which the threshold is searched.
    x, weights, shift, row_weight = encoder(seed)
    x[:, 0], weights[:, 0] = common, common
    shift -= common**2
    threshold = screened(weights, shift, once(x, row_weight, 700), 9)
    assert threshold is not None
    exact = x.double() @ weights.double().T + shift.double()
    count = (exact > threshold).double().sum(1) @ row_weight
    assert count == pytest.approx(9, abs=float(row_weight.max()))  # off by at most the one code of one row
    other = calibrate(lambda rows: torch.addmm(shift, rows, weights.T), once(x, row_weight, 700), 9)
    assert float(threshold) == pytest.approx(float(other), rel=1e-6, abs=1e-6 * common**2)  # sums in another order


def test_rounding_to_bfloat16_moves_that_quantile():
    # Plain bfloat16 must miss the quantile. Otherwise test_bfloat16_finds_the_quantile_of_float32 would prove nothing.
    x, weights, shift, row_weight = encoder(0)
    exact = x.double() @ weights.double().T + shift.double()
    threshold = calibrate(
        lambda rows: (rows.bfloat16() @ weights.bfloat16().T).float() + shift, once(x, row_weight, 700), 9
    )
    assert abs(float((exact > threshold).double().sum(1) @ row_weight) - 9) > 2 * float(row_weight.max())


def test_a_misleading_sample_is_detected_and_the_threshold_is_still_exact(monkeypatch):
    x, weights, shift, row_weight = encoder(1)
    x[:: calibration.SAMPLED] *= 5  # enlarges only the rows of the sample
    rows = once(x, row_weight)
    assert screened(weights, shift, rows, 9) is None
    monkeypatch.setattr(calibration, "has_bfloat16", lambda device: True)
    threshold = calibrate_encoder(weights, shift, rows, 9)
    assert ((x @ weights.T + shift) > threshold).double().sum(1) @ row_weight == pytest.approx(9, abs=0.002)


def test_without_enough_positive_pre_activations_everything_positive_is_kept(monkeypatch):
    monkeypatch.setattr(calibration, "has_bfloat16", lambda device: True)
    x, weights, shift, row_weight = encoder(2)
    assert calibrate_encoder(weights, shift - 100, once(x, row_weight), 9) == 0
