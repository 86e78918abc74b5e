"""Whether a consensus SAE has more of the planted atoms and fewer others than the seeds that it is made from.

python -m bench.consensus [--pairs 6000 --dim 48 --atoms 256 --width 384 --k 6 --architecture batchtopk --groups 3]

Trains groups of three seeds on vectors of bench/planted.py, and joins each group. Prints for every SAE its concepts, R2
and L0 on the fifth of the pairs that no training saw, its precision (share of its concepts that are matched one to one
to a planted atom at a cosine of .8 or more) and its recall (share of the planted atoms that are). For comparison:
as many of a seed's most energetic concepts, so that a smaller dictionary alone does not count as better; the atoms by
the number of seeds that hold them; and the consensus without the training of its encoder, whose rows are then the means
of the seeds'. Ends with 1 if the consensus has no higher precision than each of its seeds, in any group.
"""

import argparse
import sys

import numpy as np
import torch

import sae
from analysis.stability import match
from bench.planted import plant
from bench.recovery import MATCHED, matched
from sae.consensus import Shared, consensus, merged_weights, settings_of
from sae.model import SAE
from sae.rows import Groups, training_rows
from sae.trainer import Trainer
from sae.training import split_rows

SEEDS = 3  # of a group
Rows = dict[str, np.ndarray]


def matcher(D_a: np.ndarray, D_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The project's exact assignment."""
    assigned, cosines, *_ = match(D_a, D_b)
    return assigned, cosines


def hits(dictionary: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """[C] bool: whether a concept is matched to an atom at a cosine of MATCHED or more."""
    _, concepts, cosines = matched(atoms, dictionary)
    found = np.zeros(len(dictionary), bool)
    found[concepts[cosines >= MATCHED]] = True
    return found


def judge(net: SAE, rows: Rows, atoms: np.ndarray) -> dict[str, float]:
    """The results of one SAE on held-out rows, and against the planted atoms."""
    sums = {}
    for modality, x in rows.items():
        codes = net.encode(x, modality)
        sums[modality] = sae.metrics.Reconstruction()
        sums[modality].update(x, net.decode(codes, modality).numpy(), codes.numpy())
    figures = sae.metrics.combine(sums["image"], sums["text"])
    found = hits(net.dictionary.numpy(), atoms)
    return {
        "concepts": net.config.width, "R2": figures["r2"], "L0": figures["l0"],
        "precision": found.mean(), "recall": found.sum() / len(atoms),
    }  # fmt: skip


def energetic(net: SAE, rows: Rows, atoms: np.ndarray, number: int) -> float:
    """Precision of a seed's most energetic concepts."""
    energy = np.sum([net.encode(x, modality).mean(0).numpy() for modality, x in rows.items()], axis=0)
    return float(hits(net.dictionary.numpy()[np.argsort(-energy)[:number]], atoms).mean())


def untrained(nets: list[SAE], shared: Shared, image: np.ndarray, text: np.ndarray, groups: Groups) -> SAE:
    """The consensus SAE whose encoder is the mean of the seeds', with a threshold of its own."""
    settings = settings_of(nets[shared.medoid], shared)
    rows, held = split_rows(training_rows(image, text, settings.image_share, "cpu"), settings, 0, groups)
    return Trainer(rows, settings, 0, held=held, start=merged_weights(nets, shared)).finish()


def shown(name: str, figures: dict[str, float]) -> None:
    """Print one line."""
    print(f"{name:36}" + "  ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True)


def main() -> int:
    """Train and join every group, and print its results."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"pairs": 6000, "dim": 48, "atoms": 256, "width": 384, "k": 6, "groups": 3, "architecture": "batchtopk"}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    given = parser.parse_args()
    planted = plant(given.pairs, given.dim, given.atoms)
    cut = given.pairs * 4 // 5
    train = planted.image[:cut], planted.text[:cut]
    held = {"image": planted.image[cut:].astype(np.float32), "text": planted.text[cut:].astype(np.float32)}
    rows = {name: x / np.linalg.norm(x, axis=1, keepdims=True) for name, x in held.items()}
    groups = np.arange(cut), np.arange(cut)
    settings = sae.Settings(architecture=given.architecture, width=given.width, k=given.k)
    better = []
    for group in range(given.groups):
        seeds = range(SEEDS * group, SEEDS * (group + 1))
        nets = [sae.train(*train, settings, seed, groups=groups).sae for seed in seeds]
        singles = [judge(net, rows, planted.atoms) for net in nets]
        for seed, figures in zip(seeds, singles, strict=True):
            shown(f"seed {seed}", figures)
        made = consensus(nets, *train, matcher, groups=groups)
        joined = judge(made.sae, rows, planted.atoms)
        shown(f"consensus of {', '.join(map(str, seeds))}", joined)
        found, number = hits(made.sae.dictionary.numpy(), planted.atoms), made.sae.config.width
        for count in np.unique(made.shared.seeds):
            of = made.shared.seeds == count
            shown(f"  atoms that {count} seeds hold", {"concepts": of.sum(), "precision": found[of].mean()})
        same = np.mean([energetic(net, rows, planted.atoms, number) for net in nets])
        shown("  as many energetic ones of a seed", {"concepts": number, "precision": same})
        if made.curve:
            shown("  encoder not trained", judge(untrained(nets, made.shared, *train, groups), rows, planted.atoms))
        better.append(joined["precision"] > max(figures["precision"] for figures in singles))
    return 0 if all(better) else 1


if __name__ == "__main__":
    sys.exit(main())
