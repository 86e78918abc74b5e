"""How well planted concepts and their modality scores are recovered from each start (`saes.init`), in short trainings.

Usage: python bench/starts.py DATA.npz [--pairs 36000 --epochs 2 --width 2048 --k 14 --learning-rate 3e-3 --seeds 3]
DATA.npz holds image, text [pairs, d], atoms [concepts, d] and rate [2, concepts], how often each fires on images and on
captions. Prints one line per start and seed: R2 and L0 on the pairs left out of training, planted concepts that an atom
matches at a cosine of .8, the mean distance of their modality scores from the planted ones, how many are within .1,
dead concepts, and the first points of R2.
"""

import argparse

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

import sae
from sae.initial import INITS
from sae.model import SAE

MATCHED, FIRINGS = 0.8, 10


def judge(net: SAE, data: dict[str, np.ndarray], start: int) -> dict[str, float]:
    """Results of an SAE on the pairs from `start` on, and against the planted concepts."""
    sums, codes = {}, {}
    for modality in ("image", "text"):
        rows = data[modality][start:].astype(np.float32)
        x = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        codes[modality] = net.encode(x)
        sums[modality] = sae.metrics.Reconstruction()
        sums[modality].update(x, net.decode(codes[modality]).numpy(), codes[modality].numpy())
    energy = {modality: z.mean(0).numpy() for modality, z in codes.items()}
    firings = sum((z > 0).sum(0) for z in codes.values()).numpy()
    cosines = net.dictionary.numpy() @ data["atoms"].T
    own, planted = linear_sum_assignment(-cosines)
    found = (cosines[own, planted] > MATCHED) & (firings[own] >= FIRINGS)
    score = energy["image"][own] / np.maximum(energy["image"] + energy["text"], 1e-12)[own]
    apart = np.abs(score - data["rate"][0][planted] / data["rate"][:, planted].sum(0))[found]
    figures = sae.metrics.combine(sums["image"], sums["text"])
    return {
        "R2": figures["r2"], "L0": figures["l0"], "matched": int(found.sum()),
        "score apart": float(apart.sum() / max(len(apart), 1)), "within .1": int((apart < 0.1).sum()),
    }  # fmt: skip


def main() -> None:
    """Train from every start with every seed, and print a line of results for each."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    defaults = {"pairs": 36_000, "epochs": 2, "width": 2048, "k": 14, "learning_rate": 3e-3, "seeds": 3}
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    given = vars(parser.parse_args())
    data = dict(np.load(given.pop("data")))
    pairs, seeds = given.pop("pairs"), given.pop("seeds")
    for init in INITS:
        for seed in range(seeds):
            trained = sae.train(data["image"][:pairs], data["text"][:pairs], sae.Settings(init=init, **given), seed)
            figures = judge(trained.sae, data, pairs)
            figures["dead"] = trained.curve[-1]["dead_fraction"]
            first = " ".join(f"{point['r2']:.2f}" for point in trained.curve[:5])
            print(f"{init:12} {seed}  " + "  ".join(f"{k} {v:.3g}" for k, v in figures.items()), " first", first)


if __name__ == "__main__":
    main()
