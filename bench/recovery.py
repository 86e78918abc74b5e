"""How well found codes and atoms agree with planted ones: MCC, F1, AUC, matched cosine, modality scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

FEWEST_FIRINGS = 30  # modality scores of atoms that fire less often on the counted rows are not compared
MATCHED = 0.8  # cosine from which a concept counts as matched to its atom


class Agreement(NamedTuple):
    """Codes of planted atoms and of the concepts that are matched to them by the correlations of their codes."""

    mcc: float  # mean over the atoms of the absolute correlation with the matched concept
    f1: float  # mean over the same pairs of the F1 score of firing
    auc: float  # mean over the same pairs of the AUC of the concept's code as a classifier of whether the atom fires
    atoms: int  # atoms that were compared


def agreement(planted: sparse.csr_array, found: sparse.csr_array) -> Agreement:
    """MCC, F1 and AUC of codes: planted [n, A] and found [n, C], of the same rows in the same order.

    An atom that never fires on these rows has no correlation and is left out. A concept whose code is constant has the
    correlation 0. The matching is the assignment with the largest sum of absolute correlations; where there are
    fewer concepts than atoms, the atoms that are left over count 0 in MCC and F1, and .5 in AUC. Raises ValueError if
    no atom fires, or if the numbers of rows differ. Source: Hyvarinen and Morioka 2016, "Unsupervised feature
    extraction by time-contrastive learning".
    """
    if planted.shape[0] != found.shape[0]:
        raise ValueError(f"planted codes have {planted.shape[0]} rows and found codes {found.shape[0]}")
    planted = planted.tocsc()[:, np.flatnonzero(np.bincount(planted.indices, minlength=planted.shape[1]))]
    if planted.shape[1] == 0:
        raise ValueError("no planted atom fires on these rows")
    rows = planted.shape[0]
    means = [np.asarray(codes.mean(0), np.float64).ravel() for codes in (planted, found)]
    sds = [
        np.sqrt(np.maximum(np.asarray(codes.multiply(codes).mean(0), np.float64).ravel() - mean**2, 0))
        for codes, mean in zip((planted, found), means, strict=True)
    ]
    covariance = (planted.T @ found).toarray().astype(np.float64) / rows - np.outer(*means)
    scale = np.outer(*sds)
    correlation = np.abs(np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 1e-12))
    left, right = linear_sum_assignment(-correlation)
    fires = [(codes > 0).astype(np.float32) for codes in (planted, found)]
    together = (fires[0].T @ fires[1]).tocsr()[left, right]
    counts = [np.asarray(each.sum(0)).ravel() for each in fires]
    f1 = 2 * np.asarray(together).ravel() / (counts[0][left] + counts[1][right])
    atoms = planted.shape[1]
    auc = aucs(planted[:, left], found.tocsc()[:, right])
    mean_auc = (auc.sum() + 0.5 * (atoms - len(left))) / atoms
    return Agreement(float(correlation[left, right].sum() / atoms), float(f1.sum() / atoms), float(mean_auc), atoms)


def aucs(planted: sparse.csc_array, found: sparse.csc_array) -> np.ndarray:
    """AUC [P] of each column of found [n, P] as a classifier of whether that column of planted [n, P] is above 0.

    Exact, with half a win for a tie; codes are 0 or above. An atom that fires on every row has .5.
    """
    rows = planted.shape[0]
    scores = np.full(planted.shape[1], 0.5)
    for pair in range(planted.shape[1]):
        positive = planted.indices[planted.indptr[pair] : planted.indptr[pair + 1]]
        at = slice(found.indptr[pair], found.indptr[pair + 1])
        fires, zeros = found.indices[at], rows - (found.indptr[pair + 1] - found.indptr[pair])
        rank = zeros + rankdata(found.data[at])
        inside = np.isin(fires, positive)
        total = rank[inside].sum() + (len(positive) - inside.sum()) * (zeros + 1) / 2
        negative = rows - len(positive)
        if len(positive) and negative:
            scores[pair] = (total - len(positive) * (len(positive) + 1) / 2) / (len(positive) * negative)
    return scores


def matched(atoms: np.ndarray, dictionary: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The assignment of concepts [C, d] to atoms [A, d] with the largest sum of cosines, all rows of unit norm.

    Returns the atoms that got a concept, their concepts, and the cosines of these pairs. With fewer concepts than
    atoms, only C atoms get one.
    """
    similarity = atoms @ dictionary.T
    left, right = linear_sum_assignment(-similarity)
    return left, right, similarity[left, right]


def modality_scores(image: sparse.csr_array, text: sparse.csr_array) -> np.ndarray:
    """Modality score of each column, from codes of both modalities; NaN where it fires in neither."""
    energy = [np.asarray(codes.mean(0), np.float64).ravel() for codes in (image, text)]
    total = energy[0] + energy[1]
    return np.divide(energy[0], total, out=np.full(len(total), np.nan), where=total > 0)


def score_errors(
    atoms: np.ndarray, truth: np.ndarray, dictionary: np.ndarray, found: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Absolute errors of the modality scores of concepts that are matched to an atom with a cosine of MATCHED or more.

    truth, asked: [A], the scores of the atoms, and whether an atom is compared. found: [C], NaN counts as .5.
    """
    left, right, cosines = matched(atoms, dictionary)
    compared = (cosines >= MATCHED) & asked[left]
    return np.abs(np.nan_to_num(found[right], nan=0.5) - truth[left])[compared]
