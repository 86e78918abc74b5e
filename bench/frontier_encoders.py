"""What the encoder does to the frontier: R2 at equal L0 of SAEs and baselines, by their own encoders and by pursuit.

Usage: python -m bench.frontier_encoders IMAGE.npy TEXT.npy [--methods topk ...] [--k 4 8] [--width 256] [--seeds 3]
       [--epochs 12]

Row i of both files belongs to pair i. The last quarter of the pairs is held out. Prints a line per k, encoder and
method: mean R2 at an L0 of k on the held-out rows with its range over the seeds, and the L0 that was measured. Then,
per k, the best SAE and the best baseline with the same encoder, and across encoders, which is no fair comparison.
"""

import argparse
from statistics import fmean

import numpy as np

from sae import Settings
from sae.architectures import ARCHITECTURES, METHODS
from sae.frontier import Pair, frontier

Figures = dict[tuple[int, str, str], list[tuple[float, float]]]  # (k, encoder, method) -> (R2 at k, L0) of each seed


def measure(
    image: np.ndarray, text: np.ndarray, methods: list[str], k: list[int], settings: Settings, seeds: int
) -> Figures:
    """The results of every method that has an R2 at k."""
    training = len(image) - len(image) // 4
    sides = Pair(image[:training], text[:training]), Pair(image[training:], text[training:])
    figures: Figures = {}
    for seed in range(seeds):
        for row in frontier(*sides, methods, k, settings, seed):
            if row["r2_at_k"] is not None:
                key = row["k"], row["encoder"], row["method"]
                figures.setdefault(key, []).append((row["r2_at_k"], row["l0"]))
    return figures


def best(figures: Figures, k: int, encoder: str, is_sae: bool) -> str:
    """The method of highest mean R2 at k, with its result."""
    means = {
        method: fmean(r2 for r2, _ in values)
        for (at, by, method), values in figures.items()
        if (at, by) == (k, encoder) and (method in ARCHITECTURES) == is_sae
    }
    name = max(means, key=means.__getitem__)
    return f"{name} {means[name]:.3f}"


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("text")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--k", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    settings = Settings(width=given.width, k=min(given.k), epochs=given.epochs, batch_size=128, learning_rate=3e-3)
    figures = measure(np.load(given.image), np.load(given.text), given.methods, given.k, settings, given.seeds)
    for (k, encoder, method), values in sorted(figures.items()):
        r2, l0 = zip(*values, strict=True)
        print(
            f"k {k}  {encoder:7}  {method:9}  R2 {fmean(r2):.3f} ({min(r2):.3f} to {max(r2):.3f})  L0 {fmean(l0):.2f}"
        )
    for k in given.k:
        for sae, baseline in (("own", "own"), ("pursuit", "pursuit"), ("own", "pursuit")):
            pair = best(figures, k, sae, True), best(figures, k, baseline, False)
            print(f"k {k}: SAEs by {sae}, baselines by {baseline}: {pair[0]} against {pair[1]}")


if __name__ == "__main__":
    main()
