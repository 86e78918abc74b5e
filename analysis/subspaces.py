"""Modality subspaces: directions that separate the image embeddings of a model from its caption embeddings.

The subspaces are fitted on training rows and measured on held-out rows, without SAEs. Both modalities have the same
weight.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import duckdb
import numpy as np
import polars as pl
from scipy.linalg import solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.covariance import ledoit_wolf

from analysis.inputs import Analysis
from analysis.statistic import Statistic, Table
from analysis.tables import Schema, empty
from storage.catalog import frame

GEOMETRY: Schema = {
    "model": pl.String, "subspace": pl.String, "rank": pl.Int32, "heldout_accuracy": pl.Float64,
}  # fmt: skip
NORMALS: Schema = {"model": pl.String, "subspace": pl.String, "row": pl.Int32, "normal": pl.List(pl.Float64)}
ROWS = 20_000  # maximum number of rows per modality and split
PENALTY = 1e-3  # lambda of the logistic regression, whose loss is a weighted mean over the rows
CHANCE = 0.02  # a held-out balanced accuracy within this distance of .5 counts as chance
RANK = 32  # maximum number of normals of inlp
NOISE = 1e-6  # a logistic regression with a smaller first step would fit rounding errors of the float32 rows
SUBSPACES = ("mean_gap", "logistic", "lda", "inlp")
log = logging.getLogger("bridgescope")


class Modalities(NamedTuple):
    """Embeddings of both modalities on one side of the split; see `modalities`, which checks them."""

    image: np.ndarray  # [n_I, d] float32
    text: np.ndarray  # [n_T, d] float32


class Subspace(NamedTuple):
    """A subspace that separates the modalities of one model."""

    name: str  # one of SUBSPACES
    basis: np.ndarray  # U [r, d] float64, orthonormal rows; the one row of a rank-1 subspace points to the images
    rank: int  # r; 0 where inlp finds no direction that separates the modalities
    heldout_accuracy: float  # balanced accuracy of the classifier; inlp: of the classifier fitted with U projected out


class NoSubspaceError(ValueError):
    """No direction can be fitted that separates the modalities of these rows."""


class _Classifier(NamedTuple):
    """A linear classifier: a row x is classified as an image if <x, normal> > threshold."""

    normal: np.ndarray  # [d] float64, unit norm
    threshold: float


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The two tables of this statistic. Both are empty, with a warning, where no subspace can be fitted."""
    model = analysis.model
    try:
        if analysis.heldout == 0:
            raise NoSubspaceError("no image is held out (pairs.heldout = 0)")
        fitted = subspaces(*both_sides(analysis))
    except NoSubspaceError as error:
        log.warning("model %s: alignment and direction accuracy are left empty: %s", model, error)
        return {"geometry": empty(GEOMETRY), "subspace_normals": empty(NORMALS)}
    return {"geometry": geometry_rows(model, fitted), "subspace_normals": normal_rows(model, fitted)}


def both_sides(analysis: Analysis) -> tuple[Modalities, Modalities]:
    """Training rows and held-out rows of a model, at most ROWS per side and modality.

    The rows with the smallest split_u are taken. split_u is the number that assigns an image to a side of the split.
    Raises NoSubspaceError where a side has no rows of a modality.
    """
    train, heldout = (_first_rows(analysis, side) for side in ("train", "heldout"))
    return train, heldout


def _first_rows(analysis: Analysis, side: str) -> Modalities:
    rows, on_side = analysis.embedded, analysis.is_on(side)
    u_text = rows.split_u[rows.owner]
    image, text = np.flatnonzero(on_side), np.flatnonzero(on_side[rows.owner])
    image, text = image[smallest(rows.split_u[image])], text[smallest(u_text[text])]
    return modalities(rows.image[image], rows.text[text], f"{side} rows of {analysis.model}")


def geometry_rows(model: str, fitted: dict[str, Subspace]) -> pl.DataFrame:
    """One row per subspace of one model, in the order of SUBSPACES."""
    rows = [
        {"model": model, "subspace": one.name, "rank": one.rank, "heldout_accuracy": one.heldout_accuracy}
        for one in fitted.values()
    ]
    return pl.DataFrame(rows, schema=GEOMETRY)


def normal_rows(model: str, fitted: dict[str, Subspace]) -> pl.DataFrame:
    """One row per basis vector of the subspaces of one model."""
    rows = [
        {"model": model, "subspace": one.name, "row": row, "normal": normal.tolist()}
        for one in fitted.values()
        for row, normal in enumerate(one.basis)
    ]
    return pl.DataFrame(rows, schema=NORMALS)


def fitted_subspaces(con: duckdb.DuckDBPyConnection, dim: int) -> dict[str, Subspace]:
    """Read the subspaces of a model, exactly as fitted, from the tables geometry and subspace_normals.

    The result is empty where no subspace could be fitted.
    """
    fitted = {}
    for name, rank, accuracy in con.execute("SELECT subspace, rank, heldout_accuracy FROM geometry").fetchall():
        sql = 'SELECT normal FROM subspace_normals WHERE subspace = $subspace ORDER BY "row"'
        basis = np.array(frame(con, sql, {"subspace": name})["normal"].to_list(), np.float64).reshape(rank, dim)
        fitted[name] = Subspace(name, basis, rank, accuracy)
    return {name: fitted[name] for name in SUBSPACES if name in fitted}


def smallest(split_u: np.ndarray, limit: int = ROWS) -> np.ndarray:
    """Positions of the `limit` smallest values of split_u [n], or all positions where n is smaller.

    The positions are sorted by value; equal values keep the order of the input. A caption has the split_u of its image,
    so the captions of an image are chosen together; the limit can separate only the captions of the last image.
    """
    return np.argsort(np.asarray(split_u), kind="stable")[:limit]


def modalities(image: np.ndarray, text: np.ndarray, where: str) -> Modalities:
    """Convert the rows image [n_I, d] and text [n_T, d] to float32, and check them.

    where: name of the rows in errors, such as "heldout rows of clip". Raises NoSubspaceError where a modality has no
    rows, and ValueError where a row holds NaN or infinity or the modalities differ in width.
    """
    rows = Modalities(np.asarray(image, np.float32), np.asarray(text, np.float32))
    check(rows, where)
    return rows


def check(rows: Modalities, where: str) -> None:
    """Raise NoSubspaceError where a modality has no rows.

    Raise ValueError where a row is not finite or the modalities differ in width.
    """
    for modality, x in rows._asdict().items():
        if x.ndim != 2 or len(x) == 0:
            raise NoSubspaceError(f"{where}: no {modality} rows; both modalities are needed, as rows [n, d]")
        bad = ~np.isfinite(x).all(1)
        if bad.any():
            raise ValueError(f"{where}: {bad.sum()} {modality} rows hold NaN or infinity, the first is {bad.argmax()}")
    if rows.image.shape[1] != rows.text.shape[1]:
        raise ValueError(f"{where}: image rows of width {rows.image.shape[1]}, text rows of {rows.text.shape[1]}")


def subspaces(train: Modalities, heldout: Modalities) -> dict[str, Subspace]:
    """All four modality subspaces of one model, by name, in the order of SUBSPACES.

    mean_gap: mean_I - mean_T, normalised. logistic: the normal of an L2-regularised logistic regression. lda: the
    normal of Fisher's discriminant with the Ledoit-Wolf within-class covariance. The thresholds of mean_gap and lda lie
    midway between the means. inlp: normals of successive logistic regressions, each fitted after the earlier normals
    are projected out, until held-out balanced accuracy is within CHANCE of .5 or there are RANK normals.
    Raises NoSubspaceError where the two means coincide, where a modality has one training row, and where a fit does not
    converge; ValueError where train and heldout differ in width, and the errors of `check`.
    Source: docs/definitions.md, "Geometry"; for inlp Ravfogel et al. 2020, "Null It Out".
    """
    check(train, "training rows")
    check(heldout, "held-out rows")
    if min(map(len, train)) < 2:
        raise NoSubspaceError("a modality has one training row: the spread within it is not known")
    if train.image.shape[1] != heldout.image.shape[1]:
        raise ValueError(f"training rows of width {train.image.shape[1]}, held-out rows of {heldout.image.shape[1]}")
    means = train.image.mean(0, dtype=np.float64), train.text.mean(0, dtype=np.float64)
    problem = _problem(train, means)
    first = _logistic(problem, np.empty((0, len(means[0]))))
    if not first.normal.any():
        raise NoSubspaceError("image and text rows have the same mean: no direction defines their modality")
    classifiers = {"mean_gap": _halfway(means[0] - means[1], means), "logistic": first, "lda": _lda(train, means)}
    heldout = Modalities(*(x.astype(np.float64) for x in heldout))  # converted once for all classifiers
    fitted = {name: Subspace(name, one.normal[None], 1, _accuracy(one, heldout)) for name, one in classifiers.items()}
    return {**fitted, "inlp": _inlp(problem, first, heldout)}


def alignment(subspace: Subspace, D: np.ndarray) -> np.ndarray:
    """Alignment [C] float64 of each unit row D_i of D [C, d] with the subspace, whose basis is U.

    The alignment is U D_i, which is positive towards images; for inlp it is |U D_i|.
    """
    parts = np.asarray(D, np.float64) @ subspace.basis.T
    return np.linalg.norm(parts, axis=1) if subspace.name == "inlp" else parts[:, 0]


def _inlp(problem: _Problem, classifier: _Classifier, heldout: Modalities) -> Subspace:
    """Add the normal of the logistic classifier to U, project U out, fit the next classifier, and repeat."""
    U = np.empty((0, len(classifier.normal)))
    while True:
        accuracy = _accuracy(classifier, heldout)
        # At .52 exactly, the last bit depends on which modality comes first; 1e-9 is far below the share of one row.
        if abs(accuracy - 0.5) <= CHANCE + 1e-9 or len(U) == RANK:
            return Subspace("inlp", U, len(U), accuracy)
        U = np.concatenate([U, classifier.normal[None]])
        classifier = _logistic(problem, U)


class _Problem(NamedTuple):
    """Both modalities as one problem of two classes; each class has half of the weight."""

    X: np.ndarray  # [n, d] float64, rows minus `centre`
    y: np.ndarray  # [n], 1 for an image, -1 for a caption
    weights: np.ndarray  # [n], with sum 1
    centre: np.ndarray  # [d], midway between the mean image and the mean caption
    whiten: np.ndarray  # T [d, d]: with w = T v, the Hessian in v of the logistic regression at 0 is the identity


def _problem(train: Modalities, means: tuple[np.ndarray, np.ndarray]) -> _Problem:
    centre = (means[0] + means[1]) / 2
    counts = [len(train.image), len(train.text)]
    parts = [x - centre for x in train]
    curvature = PENALTY * np.eye(len(centre)) + sum(x.T @ x / (8 * len(x)) for x in parts)
    whiten = solve_triangular(np.linalg.cholesky(curvature), np.eye(len(centre)), lower=True).T
    y, weights = np.repeat([1.0, -1.0], counts), np.repeat([0.5 / n for n in counts], counts)
    return _Problem(np.concatenate(parts), y, weights, centre, whiten)


def _logistic(problem: _Problem, U: np.ndarray) -> _Classifier:
    """Minimise sum_i weights_i log(1 + exp(-y_i (<x_i, w> + c))) + PENALTY / 2 |w|^2 over c and w with U w = 0.

    x_i and y_i are the rows and labels of `problem`. U: [r, d], orthonormal rows. The result is the same as for rows
    x_i from which U is projected out. If the first step is smaller than NOISE, no direction outside U separates the
    modalities, and the normal is 0. Raises NoSubspaceError where the minimisation does not converge.
    """
    X, y, weights, centre, T = problem
    Q = np.linalg.qr(T.T @ U.T)[0].T  # with w = T v, U w = 0 if and only if v is orthogonal to the rows of Q

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        w, c = T @ v[:-1], 2 * v[-1]
        margin = y * (X @ w + c)
        slope = -weights * y * expit(-margin)
        gradient = _outside(T.T @ (X.T @ slope + PENALTY * w), Q)
        # This is log(1 + exp(-margin)) - log 2 in a form without cancellation, which is needed because the late normals
        # of inlp lower the loss by only a millionth.
        gain = np.log1p(2 * np.sinh(margin / 4) ** 2) - margin / 2
        return float(weights @ gain + PENALTY / 2 * w @ w), np.append(gradient, 2 * slope.sum())

    # The start is one Newton step from 0, where all curvatures are 1. The curvature is at most 1 at every point, so the
    # step does not overshoot. The late normals of inlp converge in this step; the first normal needs about ten more.
    newton = -loss(np.zeros(X.shape[1] + 1))[1]
    steepest = float(np.abs(newton).max())
    if steepest < NOISE:
        return _Classifier(np.zeros_like(centre), 0.0)
    options = {"maxiter": 2000, "maxcor": 20, "gtol": 1e-7 * steepest, "ftol": 0}
    minimum = minimize(loss, newton, jac=True, method="L-BFGS-B", options=options)
    if not np.abs(minimum.jac).max() <= 1e-5 * steepest:
        raise NoSubspaceError(f"the logistic regression of the modalities did not converge: {minimum.message}")
    w, c = _outside(T @ minimum.x[:-1], U), 2 * minimum.x[-1]
    length = float(np.linalg.norm(w))
    return _Classifier(w / length, float(centre @ w - c) / length)


def _outside(w: np.ndarray, U: np.ndarray) -> np.ndarray:
    """w [d] with the rows of U projected out, twice to remove rounding errors."""
    for _ in range(2):
        w = w - (w @ U.T) @ U
    return w


def _lda(train: Modalities, means: tuple[np.ndarray, np.ndarray]) -> _Classifier:
    """Fisher's discriminant. The within-class covariance is the mean of two class covariances, shrunk separately."""
    within = (ledoit_wolf(train.image.astype(np.float64))[0] + ledoit_wolf(train.text.astype(np.float64))[0]) / 2
    # If a class has one row or only equal rows, its shrinkage is 0. The ridge keeps the matrix invertible in this case.
    ridge = 1e-9 + 1e-6 * np.trace(within) / len(within)
    return _halfway(solve(within + ridge * np.eye(len(within)), means[0] - means[1], assume_a="pos"), means)


def _halfway(normal: np.ndarray, means: tuple[np.ndarray, np.ndarray]) -> _Classifier:
    """The classifier along a normal [d] whose threshold lies midway between the two means."""
    normal = normal / np.linalg.norm(normal)
    return _Classifier(normal, float(normal @ (means[0] + means[1]) / 2))


def _accuracy(classifier: _Classifier, rows: Modalities) -> float:
    """Balanced accuracy: the mean of the share of images and the share of captions that are classified correctly."""
    images, texts = (x @ classifier.normal > classifier.threshold for x in rows)
    return float(images.mean() + 1 - texts.mean()) / 2


STATISTIC = Statistic(
    name="subspaces",
    version="2",
    tables={"geometry": GEOMETRY},
    inner={"subspace_normals": NORMALS},
    per="model",
    make=make,
)
