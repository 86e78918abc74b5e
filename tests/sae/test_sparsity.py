"""BatchTopK keeps exactly the k*B largest; the calibrated threshold is the exact quantile of all pre-activations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.sparsity import BANDWIDTH, above, batch_topk, calibrate, jumprelu, relu, topk


def once(x, weight, chunk=2048):
    """Rows and their weights as `calibrate` takes them."""
    return lambda: zip(x.split(chunk), weight.split(chunk), strict=True)


integers = st.integers(-4, 4)  # few values, so that ties are the rule


@st.composite
def pre_activations(draw):
    rows, concepts = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    values = draw(st.lists(integers, min_size=rows * concepts, max_size=rows * concepts))
    return torch.tensor(values, dtype=torch.float32).view(rows, concepts), draw(st.integers(1, concepts))


def test_keeps_the_largest_of_the_whole_batch_not_of_each_row():
    # k=2, B=2: the four largest above 0 are 9, 8, 7 and 3: three in the first row and one in the second.
    pre = torch.tensor([[9.0, 8.0, 7.0, 1.0], [3.0, 2.0, -5.0, 0.5]])
    assert batch_topk(pre, 2).tolist() == [[9, 8, 7, 0], [3, 0, 0, 0]]


def test_keeps_fewer_when_fewer_are_positive():
    assert batch_topk(torch.tensor([[1.0, -2.0], [-3.0, -4.0]]), 2).tolist() == [[1, 0], [0, 0]]
    assert not batch_topk(-torch.ones(2, 2), 1).any()


@given(pre_activations())
@settings(max_examples=60, deadline=None)
def test_count_is_exact_under_ties(case):
    pre, k = case
    codes = batch_topk(pre, k)
    positive = int((pre > 0).sum())
    assert int((codes > 0).sum()) == min(k * len(pre), positive)
    assert torch.equal(codes[codes > 0], pre[codes > 0])
    if positive:
        assert (pre[codes == 0] <= codes[codes > 0].min()).all()  # nothing larger was left out


@given(pre_activations())
@settings(max_examples=60, deadline=None)
def test_topk_of_each_row_is_batch_topk_of_that_row_alone(case):
    pre, k = case
    codes = topk(pre, k)
    assert (codes > 0).sum(1).tolist() == [min(k, int((row > 0).sum())) for row in pre]
    for row, kept in zip(pre, codes, strict=True):
        assert sorted(kept.tolist()) == sorted(batch_topk(row[None], k)[0].tolist())


def test_topk_keeps_the_largest_of_each_row():
    pre = torch.tensor([[9.0, 8.0, 7.0, 1.0], [3.0, 2.0, -5.0, 0.5]])
    assert topk(pre, 2).tolist() == [[9, 8, 0, 0], [3, 2, 0, 0]]


def test_relu_keeps_everything_positive():
    assert relu(torch.tensor([[2.0, 0.0, -1.0]])).tolist() == [[2, 0, 0]]


def test_jumprelu_of_worked_example():
    # theta .5, bandwidth .03. Row 0: .51 is above and within .015 of theta, row 1: .49 is below and within, row 2: 2
    # is above and far. Codes .51, 0, 2, counts 1, 0, 1. With loss = 3 * codes + 7 * counts: d pre = 3 where it fires;
    # d theta = -(1/.03)(.5 * 3 + 7) for each of the two rows within = -2 * 8.5 / .03.
    pre = torch.tensor([[0.51], [0.49], [2.0]], requires_grad=True)
    theta = torch.tensor([0.5], requires_grad=True)
    codes, counts = jumprelu(pre, theta)
    assert codes.flatten().tolist() == pytest.approx([0.51, 0, 2])
    assert counts.flatten().tolist() == [1, 0, 1]
    (3 * codes + 7 * counts).sum().backward()
    assert pre.grad.flatten().tolist() == [3, 0, 3]
    assert float(theta.grad) == pytest.approx(-2 * 8.5 / BANDWIDTH)


def test_gradient_flows_through_kept_entries_only():
    pre = torch.tensor([[2.0, 1.0, -1.0]], requires_grad=True)
    batch_topk(pre, 1).sum().backward()
    assert pre.grad.tolist() == [[1, 0, 0]]


def test_above_is_strict_and_never_keeps_what_is_not_positive():
    pre = torch.tensor([[0.5, 0.25, -1.0]])
    assert above(pre, torch.tensor(0.25)).tolist() == [[0.5, 0, 0]]
    assert above(pre, torch.tensor(-1.0)).tolist() == [[0.5, 0.25, 0]]
    assert above(pre, torch.tensor([0.5, 0.0, 0.0])).tolist() == [[0, 0.25, 0]]  # one threshold a concept


def test_threshold_of_worked_example():
    # Two rows of weight 1/2. Candidates sorted: 5 4 3 2; each adds 1/2 to the mean count, so k=1 keeps 5 and 4.
    # Half-way to the next value: (4 + 3) / 2 = 3.5.
    pre = torch.tensor([[5.0, 2.0, -1.0], [4.0, 3.0, -1.0]])
    threshold = calibrate(lambda x: x, once(pre, torch.tensor([0.5, 0.5], dtype=torch.float64)), 1)
    assert threshold == 3.5


def test_rows_weigh_as_in_the_training_mixture():
    # The first row is the only image (weight .5), the other two are texts (.25 each). k=1: 5 (.5) + 4 (.75) + 3 (1.0).
    pre = torch.tensor([[5.0, 2.0], [4.0, 1.0], [3.0, 0.5]])
    weight = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert calibrate(lambda x: x, once(pre, weight), 1) == 2.5


def test_threshold_is_never_negative():
    pre = torch.tensor([[1.0, -1.0], [-1.0, -1.0]])
    assert calibrate(lambda x: x, once(pre, torch.tensor([0.5, 0.5], dtype=torch.float64)), 2) == 0


@pytest.mark.parametrize("chunk", [7, 64, 5000])
def test_streaming_finds_the_same_threshold_as_a_full_sort(chunk):
    # Rows sorted by size make the first rows useless as a sample, small chunks make every sample poor.
    random = np.random.default_rng(0)
    x = torch.from_numpy(np.sort(random.standard_normal((3000, 40)).astype(np.float32), axis=0))
    flat = x.flatten().sort(descending=True).values
    weight = torch.full((3000,), 1 / 3000, dtype=torch.float64)
    threshold = calibrate(lambda rows: rows, once(x, weight, chunk), 3)
    assert flat[3 * 3000 - 1] > threshold >= flat[3 * 3000]
    assert int((x > threshold).sum()) == 3 * 3000
