"""Where the two modalities lie: the rows that geometry looks at, and subspaces that tell images from captions.

Fitted on training rows, measured on held-out ones; of one model, whatever its SAEs are. Both classes weigh the same.
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
from storage.rows import Rows

GEOMETRY: Schema = {
    "model": pl.String, "subspace": pl.String, "rank": pl.Int32, "heldout_accuracy": pl.Float64,
}  # fmt: skip
NORMALS: Schema = {"model": pl.String, "subspace": pl.String, "row": pl.Int32, "normal": pl.List(pl.Float64)}
ROWS = 20_000  # of a modality and split, at most
PENALTY = 1e-3  # lambda of the logistic regression, whose loss is a weighted mean over the rows
CHANCE = 0.02  # a held-out balanced accuracy this near to .5 says that nothing is left to tell the modalities apart
RANK = 32  # normals that inlp may collect
NOISE = 1e-6  # the first step of a logistic regression below which it would fit the rounding of float32 rows
SUBSPACES = ("mean_gap", "logistic", "lda", "inlp")
log = logging.getLogger("bridgescope")


class Modalities(NamedTuple):
    """Embeddings of both modalities on one side of the split; see `modalities`, which checks them."""

    image: np.ndarray  # [n_I, d] float32
    text: np.ndarray  # [n_T, d] float32


class Subspace(NamedTuple):
    """A subspace that defines modality."""

    name: str  # one of SUBSPACES
    basis: np.ndarray  # U [r, d] float64, orthonormal rows; the one row of a rank-1 subspace points to the images
    rank: int  # r; 0 where inlp found nothing to tell the modalities apart
    heldout_accuracy: float  # balanced; of the classifier itself, for inlp of a classifier fitted on what U leaves over


class _Classifier(NamedTuple):
    """Says image where <x, normal> > threshold."""

    normal: np.ndarray  # [d] float64, unit norm
    threshold: float


def make(con: duckdb.DuckDBPyConnection, analysis: Analysis) -> dict[str, Table]:
    """The tables of this statistic; both are empty where no image is held out."""
    geometry, normals = [empty(GEOMETRY)], [empty(NORMALS)]
    if analysis.heldout == 0:
        log.warning("no image is held out (pairs.heldout = 0): alignment and direction accuracy are left empty")
    else:
        for model in analysis.models():
            fitted = subspaces(*both_sides(analysis, model))
            geometry.append(geometry_rows(model, fitted))
            normals.append(normal_rows(model, fitted))
    return {"geometry": pl.concat(geometry), "subspace_normals": pl.concat(normals)}


def both_sides(analysis: Analysis, model: str) -> tuple[Modalities, Modalities]:
    """Training and held-out rows of a model, those with the smallest split_u."""
    train, heldout = (_nearest(analysis.rows(model, side), f"{side} rows of {model}") for side in ("train", "heldout"))
    return train, heldout


def _nearest(rows: Rows, where: str) -> Modalities:
    image, text = smallest(rows.split_u), smallest(rows.split_u[rows.owner])
    return modalities(rows.image[image], rows.text[text], where)


def geometry_rows(model: str, fitted: dict[str, Subspace]) -> pl.DataFrame:
    """The subspaces of one model, in the order they are fitted in."""
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


def fitted_subspaces(con: duckdb.DuckDBPyConnection, model: str, dim: int) -> dict[str, Subspace]:
    """The subspaces of a model from the tables geometry and subspace_normals, as they were fitted, to the last bit."""
    fitted = {}
    for name, rank, accuracy in con.execute(
        "SELECT subspace, rank, heldout_accuracy FROM geometry WHERE model = $model", {"model": model}
    ).fetchall():
        of = {"model": model, "subspace": name}
        sql = 'SELECT normal FROM subspace_normals WHERE model = $model AND subspace = $subspace ORDER BY "row"'
        basis = np.array(frame(con, sql, of)["normal"].to_list(), np.float64).reshape(rank, dim)
        fitted[name] = Subspace(name, basis, rank, accuracy)
    return {name: fitted[name] for name in SUBSPACES}


def smallest(split_u: np.ndarray, limit: int = ROWS) -> np.ndarray:
    """Positions of the `limit` smallest split_u [n], or of all; ascending, equal numbers in the order they came in.

    A caption has the split_u of its image, so captions of one image are chosen together, but for the last image.
    """
    return np.argsort(np.asarray(split_u), kind="stable")[:limit]


def modalities(image: np.ndarray, text: np.ndarray, where: str) -> Modalities:
    """Rows image [n_I, d] and text [n_T, d] as float32, checked. `where` names them in errors: "heldout rows of clip".

    Raises ValueError where a modality has no rows, a row holds NaN or infinity, or widths differ.
    """
    rows = Modalities(np.asarray(image, np.float32), np.asarray(text, np.float32))
    check(rows, where)
    return rows


def check(rows: Modalities, where: str) -> None:
    """Raise ValueError where a modality has no rows, a row holds NaN or infinity, or widths differ."""
    for modality, x in rows._asdict().items():
        if x.ndim != 2 or len(x) == 0:
            raise ValueError(f"{where}: no {modality} rows; both modalities are needed, as rows [n, d]")
        bad = ~np.isfinite(x).all(1)
        if bad.any():
            raise ValueError(f"{where}: {bad.sum()} {modality} rows hold NaN or infinity, the first is {bad.argmax()}")
    if rows.image.shape[1] != rows.text.shape[1]:
        raise ValueError(f"{where}: image rows of width {rows.image.shape[1]}, text rows of {rows.text.shape[1]}")


def subspaces(train: Modalities, heldout: Modalities) -> dict[str, Subspace]:
    """All four modality subspaces of one model, by name, in the order of SUBSPACES.

    mean_gap: normalised mean_I - mean_T, with its threshold midway between the means. logistic: normal of an L2
    logistic regression. lda: normal under the Ledoit-Wolf within-class covariance, with its threshold midway. inlp:
    logistic normals, each added and projected out, until held-out balanced accuracy is within CHANCE of .5.
    Raises ValueError where the two means coincide, widths differ, or `check` finds fault.
    Source: DEFINITIONS "geometry"; for inlp Ravfogel et al. 2020, "Null It Out".
    """
    check(train, "training rows")
    check(heldout, "held-out rows")
    if train.image.shape[1] != heldout.image.shape[1]:
        raise ValueError(f"training rows of width {train.image.shape[1]}, held-out rows of {heldout.image.shape[1]}")
    means = train.image.mean(0, dtype=np.float64), train.text.mean(0, dtype=np.float64)
    problem = _problem(train, means)
    first = _logistic(problem, np.empty((0, len(means[0]))))
    if not first.normal.any():
        raise ValueError("image and text rows have the same mean: no direction defines their modality")
    lines = {"mean_gap": _halfway(means[0] - means[1], means), "logistic": first, "lda": _lda(train, means)}
    heldout = Modalities(*(x.astype(np.float64) for x in heldout))  # once, for all the normals that are tried on it
    fitted = {name: Subspace(name, line.normal[None], 1, _accuracy(line, heldout)) for name, line in lines.items()}
    return {**fitted, "inlp": _inlp(problem, first, heldout)}


def alignment(subspace: Subspace, D: np.ndarray) -> np.ndarray:
    """Alignment [C] float64 of the unit rows of D [C, d]: U D_i, signed (+ image), or for inlp the length |U D_i|."""
    parts = np.asarray(D, np.float64) @ subspace.basis.T
    return np.linalg.norm(parts, axis=1) if subspace.name == "inlp" else parts[:, 0]


def _inlp(problem: _Problem, line: _Classifier, heldout: Modalities) -> Subspace:
    """From the first logistic classifier on: add its normal, fit the next one on what is left."""
    U = np.empty((0, len(line.normal)))
    while True:
        accuracy = _accuracy(line, heldout)
        if abs(accuracy - 0.5) <= CHANCE or len(U) == RANK:
            return Subspace("inlp", U, len(U), accuracy)
        U = np.concatenate([U, line.normal[None]])
        line = _logistic(problem, U)


class _Problem(NamedTuple):
    """Both modalities as one problem of two classes, half the weight on each."""

    X: np.ndarray  # [n, d] float64, about `center`
    y: np.ndarray  # [n] 1 image, -1 text
    weights: np.ndarray  # [n], 1 in all
    center: np.ndarray  # [d], midway between the means
    whiten: np.ndarray  # T [d, d]: in v, w = T v, the loss of the logistic regression curves by 1 everywhere at w = 0


def _problem(train: Modalities, means: tuple[np.ndarray, np.ndarray]) -> _Problem:
    center = (means[0] + means[1]) / 2
    counts = [len(train.image), len(train.text)]
    parts = [x - center for x in train]
    curvature = PENALTY * np.eye(len(center)) + sum(x.T @ x / (8 * len(x)) for x in parts)
    whiten = solve_triangular(np.linalg.cholesky(curvature), np.eye(len(center)), lower=True).T
    y, weights = np.repeat([1.0, -1.0], counts), np.repeat([0.5 / n for n in counts], counts)
    return _Problem(np.concatenate(parts), y, weights, center, whiten)


def _logistic(problem: _Problem, U: np.ndarray) -> _Classifier:
    """min over w with U w = 0, and c, of sum_i weights_i log(1 + exp(-y_i (<x_i, w> + c))) + PENALTY / 2 |w|^2.

    U [r, d] orthonormal. That is the same as fitting rows from which U was projected out. Where what is left of the
    rows differs by less than NOISE, the normal is 0, which tells nothing apart. Raises RuntimeError where the search
    does not converge.
    """
    X, y, weights, center, T = problem
    Q = np.linalg.qr(T.T @ U.T)[0].T  # U w = 0 where v stands on these

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        w, c = T @ v[:-1], 2 * v[-1]
        margin = y * (X @ w + c)
        slope = -weights * y * expit(-margin)
        gradient = _outside(T.T @ (X.T @ slope + PENALTY * w), Q)
        # log(1 + exp(-m)) - log 2, without cancellation: late normals of inlp lower the loss by a millionth only.
        gain = np.log1p(2 * np.sinh(margin / 4) ** 2) - margin / 2
        return float(weights @ gain + PENALTY / 2 * w @ w), np.append(gradient, 2 * slope.sum())

    # One Newton step from 0, where all curvatures are 1; away from it none is larger, so the step never overshoots.
    # Late normals end there. The first needs about ten steps more.
    newton = -loss(np.zeros(X.shape[1] + 1))[1]
    steepest = float(np.abs(newton).max())
    if steepest < NOISE:
        return _Classifier(np.zeros_like(center), 0.0)
    options = {"maxiter": 2000, "maxcor": 20, "gtol": 1e-7 * steepest, "ftol": 0}
    minimum = minimize(loss, newton, jac=True, method="L-BFGS-B", options=options)
    if not np.abs(minimum.jac).max() <= 1e-5 * steepest:
        raise RuntimeError(f"the logistic regression of the modalities did not converge: {minimum.message}")
    w, c = _outside(T @ minimum.x[:-1], U), 2 * minimum.x[-1]
    length = float(np.linalg.norm(w))
    return _Classifier(w / length, float(center @ w - c) / length)


def _outside(w: np.ndarray, U: np.ndarray) -> np.ndarray:
    """The part of w [d] that is left without the rows of U, projected out twice against rounding."""
    for _ in range(2):
        w = w - (w @ U.T) @ U
    return w


def _lda(train: Modalities, means: tuple[np.ndarray, np.ndarray]) -> _Classifier:
    """Fisher's discriminant; the within-class covariance is the mean of both classes', each shrunk on its own."""
    within = (ledoit_wolf(train.image.astype(np.float64))[0] + ledoit_wolf(train.text.astype(np.float64))[0]) / 2
    # Shrinkage is 0 where a class has one row, or rows all equal; then the ridge decides.
    ridge = 1e-9 + 1e-6 * np.trace(within) / len(within)
    return _halfway(solve(within + ridge * np.eye(len(within)), means[0] - means[1], assume_a="pos"), means)


def _halfway(normal: np.ndarray, means: tuple[np.ndarray, np.ndarray]) -> _Classifier:
    """The classifier along a normal [d] whose threshold lies midway between the two means."""
    normal = normal / np.linalg.norm(normal)
    return _Classifier(normal, float(normal @ (means[0] + means[1]) / 2))


def _accuracy(line: _Classifier, rows: Modalities) -> float:
    """Balanced accuracy: the mean of the shares of images and of captions told right."""
    images, texts = (x @ line.normal > line.threshold for x in rows)
    return float(images.mean() + 1 - texts.mean()) / 2


STATISTIC = Statistic(
    name="subspaces",
    version="1",
    tables={"geometry": GEOMETRY},
    inner={"subspace_normals": NORMALS},
    make=make,
)
