"""Quality of reconstructions and sparsity of codes: the results of the view `saes`.

Batches are added to one accumulator per modality. Sums are float64 over all rows; ratios are taken of these sums, never
averaged over batches.
"""

import math

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor


class Reconstruction:
    """Sums over the rows of one modality; feed batches to `update`, read `result`, join two with `combine`."""

    def __init__(self) -> None:
        self.rows = 0
        self.mean: Tensor | None = None  # [d] float64
        self.spread = 0.0  # sum |x - mean|^2
        self.error = 0.0  # sum |x - x_hat|^2
        self.cosine_sum = 0.0
        self.codes = 0  # number of non-zero codes
        self.hoyer_sum = 0.0
        self.hoyer_rows = 0

    def update(self, x: np.ndarray | Tensor, x_hat: np.ndarray | Tensor, codes: np.ndarray | Tensor) -> None:
        """Add rows x [N, d], their reconstructions x_hat [N, d] and codes [N, C]; batches may be of any size."""
        codes_NC = torch.as_tensor(codes).detach()
        l1 = torch.linalg.vector_norm(codes_NC, 1, dim=1, dtype=torch.float64)
        l2 = torch.linalg.vector_norm(codes_NC, 2, dim=1, dtype=torch.float64)
        self._add(x, x_hat, tuple(codes_NC.shape), int(torch.count_nonzero(codes_NC)), l1, l2)

    def update_sparse(self, x: np.ndarray | Tensor, x_hat: np.ndarray | Tensor, codes: csr_array) -> None:
        """Do what `update` does, for codes [N, C] in compressed rows. Their memory does not grow with C."""
        values = abs(codes.astype(np.float64))
        l1, l2 = values.sum(axis=1), np.sqrt(values.power(2).sum(axis=1))
        self._add(x, x_hat, codes.shape, int(codes.count_nonzero()), torch.as_tensor(l1), torch.as_tensor(l2))

    def _add(
        self, x: np.ndarray | Tensor, x_hat: np.ndarray | Tensor, shape: tuple[int, ...], nonzero: int, l1: Tensor,
        l2: Tensor,
    ) -> None:  # fmt: skip
        """Add rows with codes of the given shape [N, C], number of nonzero codes, and norms [N] of each row."""
        x_ND, x_hat_ND = (torch.as_tensor(part).detach().double() for part in (x, x_hat))
        if x_ND.shape != x_hat_ND.shape or x_ND.shape[0] != shape[0]:
            raise ValueError(f"x {tuple(x_ND.shape)}, x_hat {tuple(x_hat_ND.shape)}, codes {shape}")
        if x_ND.shape[0] == 0:
            return
        self._update_spread(x_ND)
        self.error += float((x_ND - x_hat_ND).square().sum())
        self.cosine_sum += float(torch.cosine_similarity(x_ND, x_hat_ND, dim=1, eps=1e-12).sum())
        self.codes += nonzero
        # Hoyer sparsity is undefined (0/0) for rows without codes and for a one-concept dictionary: both are left out.
        width, active = shape[1], l2 > 0
        if width > 1:
            ratio = l1[active] / l2[active]
            self.hoyer_sum += float(((math.sqrt(width) - ratio) / (math.sqrt(width) - 1)).sum())
            self.hoyer_rows += int(active.sum())

    def _update_spread(self, x_ND: Tensor) -> None:
        """Add a batch to the mean and spread so far, without subtracting large sums (Chan et al. 1979)."""
        rows, mean = x_ND.shape[0], x_ND.mean(0)
        spread = float((x_ND - mean).square().sum())
        if self.mean is None:
            self.rows, self.mean, self.spread = rows, mean, spread
            return
        both, shift = self.rows + rows, mean - self.mean
        self.spread += spread + float(shift.square().sum()) * self.rows * rows / both
        self.mean = self.mean + shift * (rows / both)
        self.rows = both

    def result(self) -> dict[str, float]:
        """rows, r2, cosine, l0, hoyer of this modality; NaN where undefined (no rows, or all rows equal)."""
        return {
            "rows": self.rows,
            "r2": 1 - _ratio(self.error, self.spread),
            "cosine": _ratio(self.cosine_sum, self.rows),
            "l0": _ratio(self.codes, self.rows),
            "hoyer": _ratio(self.hoyer_sum, self.hoyer_rows),
        }

    def spread_about(self, point: Tensor | float) -> float:
        """Mean of |x - point|^2 over the rows; point is [d], or one number for all dimensions."""
        if self.mean is None:
            return math.nan
        return self.spread / self.rows + float((self.mean - point).square().sum())


def combine(image: Reconstruction, text: Reconstruction) -> dict[str, float]:
    """The columns of the view `saes`: r2, r2_image, r2_text, r2_scalar_mean, cosine, l0, l0_image, l0_text, hoyer.

    Both modalities weigh the same, however many rows each has. r2 is measured about the mean of the two modality
    means, so that reconstructing the gap between the modalities raises it. r2_scalar_mean (the variant of the library
    overcomplete) is measured about ONE number, the mean over all entries. A column is NaN if a modality that it needs
    has no rows.
    """
    images, texts = image.result(), text.result()
    r2 = scalar = math.nan
    if image.mean is not None and text.mean is not None:
        middle = (image.mean + text.mean) / 2
        error = image.error / image.rows + text.error / text.rows
        r2 = 1 - _ratio(error, image.spread_about(middle) + text.spread_about(middle))
        entry = float(middle.mean())
        scalar = 1 - _ratio(error, image.spread_about(entry) + text.spread_about(entry))
    return {
        "r2": r2,
        "r2_image": images["r2"],
        "r2_text": texts["r2"],
        "r2_scalar_mean": scalar,
        "cosine": (images["cosine"] + texts["cosine"]) / 2,
        "l0": (images["l0"] + texts["l0"]) / 2,
        "l0_image": images["l0"],
        "l0_text": texts["l0"],
        "hoyer": (images["hoyer"] + texts["hoyer"]) / 2,
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
