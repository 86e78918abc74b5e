"""BatchTopK keeps exactly the k*B largest; the calibrated threshold is the exact quantile of all pre-activations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.sparsity import above, batch_topk, calibrate

integers = st.integers(-4, 4)  # few values, so that ties are the rule


@st.composite
def pre_activations(draw):
    rows, concepts = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    values = draw(st.lists(integers, min_size=rows * concepts, max_size=rows * concepts))
    return torch.tensor(values, dtype=torch.float32).view(rows, concepts), draw(st.integers(1, concepts))


def test_keeps_the_largest_of_the_whole_batch_not_of_each_row():
    # k=2, B=2: the four largest above 0 are 9, 8, 7 and 3: three in the first row and one in the second.
    pre = torch.tensor([[9.0, 8.0, 7.0, 1.0], [3.0, 2.0, -5.0, 0.5]])
    codes, threshold = batch_topk(pre, 2)
    assert codes.tolist() == [[9, 8, 7, 0], [3, 0, 0, 0]]
    assert threshold == 3


def test_keeps_fewer_when_fewer_are_positive():
    codes, threshold = batch_topk(torch.tensor([[1.0, -2.0], [-3.0, -4.0]]), 2)
    assert codes.tolist() == [[1, 0], [0, 0]]
    assert threshold == 1
    assert batch_topk(-torch.ones(2, 2), 1).threshold == torch.inf


@given(pre_activations())
@settings(max_examples=60, deadline=None)
def test_count_is_exact_under_ties(case):
    pre, k = case
    codes, threshold = batch_topk(pre, k)
    positive = int((pre > 0).sum())
    assert int((codes > 0).sum()) == min(k * len(pre), positive)
    assert torch.equal(codes[codes > 0], pre[codes > 0])
    if positive:
        assert codes[codes > 0].min() == threshold
        assert (pre[codes == 0] <= threshold).all()  # nothing larger was left out


def test_gradient_flows_through_kept_entries_only():
    pre = torch.tensor([[2.0, 1.0, -1.0]], requires_grad=True)
    batch_topk(pre, 1).codes.sum().backward()
    assert pre.grad.tolist() == [[1, 0, 0]]


def test_above_is_strict_and_never_keeps_what_is_not_positive():
    pre = torch.tensor([[0.5, 0.25, -1.0]])
    assert above(pre, torch.tensor(0.25)).tolist() == [[0.5, 0, 0]]
    assert above(pre, torch.tensor(-1.0)).tolist() == [[0.5, 0.25, 0]]


def test_threshold_of_worked_example():
    # Two rows of weight 1/2. Candidates sorted: 5 4 3 2; each adds 1/2 to the mean count, so k=1 keeps 5 and 4.
    # Half-way to the next value: (4 + 3) / 2 = 3.5.
    pre = torch.tensor([[5.0, 2.0, -1.0], [4.0, 3.0, -1.0]])
    threshold = calibrate(lambda x: x, pre, torch.tensor([0.5, 0.5], dtype=torch.float64), 1)
    assert threshold == 3.5


def test_rows_weigh_as_in_the_training_mixture():
    # The first row is the only image (weight .5), the other two are texts (.25 each). k=1: 5 (.5) + 4 (.75) + 3 (1.0).
    pre = torch.tensor([[5.0, 2.0], [4.0, 1.0], [3.0, 0.5]])
    weight = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert calibrate(lambda x: x, pre, weight, 1) == 2.5
    # With no images at all: 4 (.5) + 3 (1.0) are kept, the next is 1.
    assert calibrate(lambda x: x, pre, torch.tensor([0, 0.5, 0.5], dtype=torch.float64), 1) == 2


def test_threshold_is_never_negative():
    pre = torch.tensor([[1.0, -1.0], [-1.0, -1.0]])
    assert calibrate(lambda x: x, pre, torch.tensor([0.5, 0.5], dtype=torch.float64), 2) == 0


@pytest.mark.parametrize("chunk", [7, 64, 5000])
def test_streaming_finds_the_same_threshold_as_a_full_sort(chunk):
    # Rows sorted by size make the first rows useless as a sample, small chunks make every sample poor.
    random = np.random.default_rng(0)
    x = torch.from_numpy(np.sort(random.standard_normal((3000, 40)).astype(np.float32), axis=0))
    flat = x.flatten().sort(descending=True).values
    weight = torch.full((3000,), 1 / 3000, dtype=torch.float64)
    threshold = calibrate(lambda rows: rows, x, weight, 3, chunk)
    assert flat[3 * 3000 - 1] > threshold >= flat[3 * 3000]
    assert int((x > threshold).sum()) == 3 * 3000
