"""Probes: L2 logistic regressions that predict labels from a few features, or from all features together.

Both classes of a label have the same weight, so that a probe of a rare label does not answer "no" to everything.
Features are divided by their standard deviation on the fitted items, so that the penalty is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csc_array, csr_array, sparray
from scipy.special import expit
from threadpoolctl import threadpool_limits

from analysis.workers import cores, in_order

STEPS = 30  # most steps of Newton's method; it converges in about five
CLOSE = 1e-8  # Newton's method ends when a step would lower the loss by less than this
SMALLEST_STEP = 1e-6  # least part of a Newton step that is tried
ITERATIONS = 200  # most iterations of L-BFGS
#: L-BFGS ends when an iteration lowers the loss by less than this share of it. On 900 drawn problems the loss is then
#: within 2e-4 of the minimum; with 1e-3 it was .025 above for some.
TOLERANCE = 1e-4
MEMORY = 5  # corrections that L-BFGS stores, each as large as the weights of all labels

Features: TypeAlias = Any  # [n, F]: an array of numpy, or a sparse array of scipy, which has no types


class Items(NamedTuple):
    """n items with F features and L labels."""

    features: Features  # [n, F]
    has: np.ndarray  # [n, L] bool: whether an item has a label

    def of(self, rows: np.ndarray) -> Items:
        """Some of the items. rows: their positions, or a mask [n] bool."""
        return Items(self.features[rows], self.has[rows])


def balanced_accuracy(scores: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Mean of the shares of positive items above 0 and of negative items not above 0, for each column, [L] float64.

    scores, has [n, L]. NaN for a label that no item has, or all items.
    """
    with np.errstate(invalid="ignore"):
        found = ((scores > 0) & has).sum(0) / has.sum(0)
        refused = ((scores <= 0) & ~has).sum(0) / (~has).sum(0)
    return np.asarray((found + refused) / 2)


def mean_differences(items: Items) -> np.ndarray:
    """|Mean of a feature over items with a label - mean over the items without it|, [F, L] float64."""
    positives = items.has.sum(0)
    with_label = np.asarray(items.features.T @ items.has.astype(np.float32), np.float64)
    total = np.asarray(items.features.sum(0, dtype=np.float64))[:, None]
    negatives = np.maximum(len(items.has) - positives, 1)
    return np.asarray(np.abs(with_label / np.maximum(positives, 1) - (total - with_label) / negatives))


def few_features(fitted: Items, tested: Items, sizes: Sequence[int], penalty: float) -> np.ndarray:
    """Balanced accuracy [sizes, L] on `tested` of one probe per label on the `size` features that differ most.

    For each label, these are the features with the largest `mean_differences` on the fitted items; among equal ones,
    the first.
    Source: docs/definitions.md, "Probing".
    """
    differences = mean_differences(fitted)
    scale = deviations(fitted.features)
    of_fitted, of_tested = _by_column(fitted.features), _by_column(tested.features)

    def of_label(label: int) -> list[float]:
        chosen = np.argsort(-differences[:, label], kind="stable")[: max(sizes)]
        x, x_tested = (_dense(part, chosen) / scale[chosen] for part in (of_fitted, of_tested))
        has = fitted.has[:, label]
        accuracies = []
        for size in sizes:
            weights = newton(x[:, :size], has, penalty)
            scores = x_tested[:, :size] @ weights[:-1] + weights[-1]
            accuracies.append(float(balanced_accuracy(scores[:, None], tested.has[:, label, None])[0]))
        return accuracies

    with threadpool_limits(1):  # each label has a thread; threads of small matrix products would wait for each other
        found = list(in_order(of_label, range(fitted.has.shape[1]), cores()))
    return np.array(found).T.reshape(len(sizes), fitted.has.shape[1])


def all_features(fitted: Items, tested: Items, penalty: float) -> np.ndarray:
    """Balanced accuracy [L] on `tested` of one probe per label on all features.

    Source: docs/definitions.md, "Probing".
    """
    scale = deviations(fitted.features)
    # The constant is not penalised, so that centring changes no probe; L-BFGS then needs fewer iterations.
    centre = None if isinstance(fitted.features, sparray) else fitted.features.mean(0, dtype=np.float64)
    x, x_tested = (_scaled(items.features, centre, scale) for items in (fitted, tested))
    weights = lbfgs(x, fitted.has, penalty)
    return balanced_accuracy(x_tested @ weights[:-1] + weights[-1], tested.has)


def newton(x: np.ndarray, has: np.ndarray, penalty: float) -> np.ndarray:
    """Weights [s + 1] of s features and of the constant, which is not penalised.

    They minimise mean over classes of (mean over the class of the logistic loss) + penalty / 2 * |weights|^2, by
    Newton's method with step halving. x [n, s]; has [n] bool.
    """
    # Items on which no feature is above 0 are equal: one item of each class stands for all of them.
    some = x.any(1)
    zero = np.zeros((2, x.shape[1]))
    weight = class_weights(has[:, None])[:, 0]
    x = np.concatenate([x[some], zero])
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    y = np.concatenate([has[some], [True, False]]).astype(np.float64)
    weight = np.concatenate([weight[some], [weight[~some & has].sum(), weight[~some & ~has].sum()]])
    of_weights = np.append(np.full(x.shape[1] - 1, penalty), 0.0)

    def loss(weights: np.ndarray, scores: np.ndarray) -> float:
        losses = np.maximum(scores, 0) - y * scores + np.log1p(np.exp(-np.abs(scores)))
        return float(weight @ losses + of_weights @ weights**2 / 2)

    weights, scores = np.zeros(x.shape[1]), np.zeros(len(x))
    lowest = loss(weights, scores)
    for _ in range(STEPS):
        chance = expit(scores)
        gradient = x.T @ (weight * (chance - y)) + of_weights * weights
        curvature = (x * (weight * chance * (1 - chance))[:, None]).T @ x + np.diag(of_weights + 1e-12)
        step = np.linalg.solve(curvature, gradient)
        gain = gradient @ step
        part = 1.0
        while gain >= CLOSE and part >= SMALLEST_STEP:
            tried = weights - part * step
            scores_tried = x @ tried
            reached = loss(tried, scores_tried)
            if reached <= lowest - 1e-4 * part * gain:
                weights, scores, lowest = tried, scores_tried, reached
                break
            part /= 2
        else:  # no part of the step lowers the loss by enough
            break
    return weights


def lbfgs(x: Features, has: np.ndarray, penalty: float) -> np.ndarray:
    """Weights [F + 1, L] float32: those of `newton`, for all labels at once, by L-BFGS. x [n, F]; has [n, L] bool."""
    transposed = x.T.tocsr() if isinstance(x, sparray) else x.T
    weight, y = class_weights(has).astype(np.float32), has.astype(np.float32)
    shape = (x.shape[1] + 1, has.shape[1])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape).astype(np.float32)
        scores = x @ weights[:-1] + weights[-1]
        losses = np.maximum(scores, 0) - y * scores + np.log1p(np.exp(-np.abs(scores)))
        error = weight * (expit(scores) - y)
        gradient = np.concatenate([transposed @ error + penalty * weights[:-1], error.sum(0)[None]])
        value = (weight * losses).sum(dtype=np.float64) + penalty / 2 * (weights[:-1] ** 2).sum(dtype=np.float64)
        return float(value), gradient.ravel().astype(np.float64)

    options = {"maxiter": ITERATIONS, "ftol": TOLERANCE, "maxcor": MEMORY}
    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x.reshape(shape), np.float32)


def class_weights(has: np.ndarray) -> np.ndarray:
    """Weights [n, L] of items: half for the items with a label together, half for those without. has [n, L] bool."""
    positives = has.sum(0)
    return np.where(has, 0.5 / np.maximum(positives, 1), 0.5 / np.maximum(len(has) - positives, 1))


def deviations(x: Features) -> np.ndarray:
    """Standard deviation [F] float64 of every feature; 1 for a constant one. x [n, F]."""
    n = max(x.shape[0], 1)
    mean = np.asarray(x.sum(0, dtype=np.float64)) / n
    squares = x.power(2).sum(0) if isinstance(x, sparray) else (x.astype(np.float64) ** 2).sum(0)
    variance = np.asarray(squares, np.float64) / n - mean**2
    return np.sqrt(np.where(variance > 1e-10 * np.maximum(mean**2, 1e-30), variance, 1.0))


def _scaled(x: Features, centre: np.ndarray | None, scale: np.ndarray) -> Features:
    if isinstance(x, sparray):
        rows = csr_array(x)
        return csr_array(((rows.data / scale[rows.indices]).astype(np.float32), rows.indices, rows.indptr), rows.shape)
    return ((x - centre) / scale).astype(np.float32)


def _by_column(x: Features) -> Features:
    return csc_array(x) if isinstance(x, sparray) else x


def _dense(x: Features, chosen: np.ndarray) -> np.ndarray:
    part = x[:, chosen]
    return np.asarray(part.toarray() if isinstance(part, sparray) else part, np.float64)
