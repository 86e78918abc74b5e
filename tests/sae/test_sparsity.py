"""BatchTopK keeps exactly the k*B largest codes; codes and gradients follow the rule of each architecture."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.sparsity import above, batch_topk, jumprelu, relu, topk

integers = st.integers(-4, 4)  # few values, so that ties are frequent


@st.composite
def pre_activations(draw):
    rows, concepts = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    values = draw(st.lists(integers, min_size=rows * concepts, max_size=rows * concepts))
    return torch.tensor(values, dtype=torch.float32).view(rows, concepts), draw(st.integers(1, concepts))


def test_keeps_the_largest_of_the_whole_batch_not_of_each_row():
    # k = 2 and B = 2 keep the four largest of the batch, 9, 8, 7 and 3: three in the first row, one in the second.
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
        assert (pre[codes == 0] <= codes[codes > 0].min()).all()  # no larger value was left out


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
    # theta is .5 and the kernel .03 wide. Row 0 (.51) is above theta and within .015 of it. Row 1 (.49) is below theta
    # and within .015. Row 2 (2) is above theta, but not within .015. So the codes are .51, 0 and 2, and the counts are
    # 1, 0 and 1. The loss is 3 * codes + 7 * counts. So d loss / d pre is 3 where the concept fires, and d loss / d
    # theta is -(1/.03) (.5 * 3 + 7) for each of the two rows within .015: -2 * 8.5 / .03.
    pre = torch.tensor([[0.51], [0.49], [2.0]], requires_grad=True)
    theta = torch.tensor([0.5], requires_grad=True)
    codes, counts = jumprelu(pre, theta, torch.tensor(0.03))
    assert codes.flatten().tolist() == pytest.approx([0.51, 0, 2])
    assert counts.flatten().tolist() == [1, 0, 1]
    (3 * codes + 7 * counts).sum().backward()
    assert pre.grad.flatten().tolist() == [3, 0, 3]
    assert float(theta.grad) == pytest.approx(-2 * 8.5 / 0.03)


def test_gradient_flows_through_kept_entries_only():
    pre = torch.tensor([[2.0, 1.0, -1.0]], requires_grad=True)
    batch_topk(pre, 1).sum().backward()
    assert pre.grad.tolist() == [[1, 0, 0]]


def test_above_is_strict_and_never_keeps_what_is_not_positive():
    pre = torch.tensor([[0.5, 0.25, -1.0]])
    assert above(pre, torch.tensor(0.25)).tolist() == [[0.5, 0, 0]]
    assert above(pre, torch.tensor(-1.0)).tolist() == [[0.5, 0.25, 0]]
    assert above(pre, torch.tensor([0.5, 0.0, 0.0])).tolist() == [[0, 0.25, 0]]  # one threshold per concept
