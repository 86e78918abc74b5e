"""How many concepts serve one modality alone, and how many would if firings fell on items of either by chance."""

import numpy as np

MIN_FIRINGS = 10  # concepts below it have no usable modality score
UNIMODAL = 0.1  # a score below it, or above one minus it
SHUFFLED = 5  # stream of random numbers under a seed


def unimodal_shares(score: np.ndarray, energy: np.ndarray, firings: np.ndarray) -> dict[str, float]:
    """Share of concepts with MIN_FIRINGS that are unimodal, counted equally and by energy; NaN without any.

    score [C] modality scores, energy [C], firings [C].
    """
    counted = (firings >= MIN_FIRINGS) & np.isfinite(score)
    unimodal = counted & ((score < UNIMODAL) | (score > 1 - UNIMODAL))
    whole = float(energy[counted].sum())
    return {
        "unimodal_share": float(unimodal.sum() / counted.sum()) if counted.any() else float("nan"),
        "unimodal_energy_share": float(energy[unimodal].sum()) / whole if whole > 0 else float("nan"),
    }


def shuffled_shares(
    energy: np.ndarray, firings: np.ndarray, images: int, texts: int, draws: int, seed: int
) -> list[dict[str, float]]:
    """`unimodal_shares` of draws in which each concept's firings fall on random items, images and captions alike.

    Every firing counts the same. images, texts: counted items of each modality.
    """
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SHUFFLED,)))
    found = []
    for _ in range(draws):
        on_images = random.hypergeometric(images, texts, firings)
        rates = on_images / images, (firings - on_images) / texts
        both = rates[0] + rates[1]
        score = np.divide(rates[0], both, out=np.full(len(both), np.nan), where=both > 0)
        found.append(unimodal_shares(score, energy, firings))
    return found
