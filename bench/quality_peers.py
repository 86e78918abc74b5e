"""Train an SAE with another library and save it, in a new process: python -m bench.quality_peers '{"library": ...}'

The libraries are installed in another environment than this project (bench/peers.txt). Each is imported only in the
function that runs it, and is used as its README describes. `load` reads the saved files with this project.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.sae_run import peer_rows, steps_of

Spec = dict[str, Any]


def drawn(spec: Spec) -> Iterator[Tensor]:
    """Batches of the training rows, without end; every epoch is a new permutation, drawn from the seed."""
    rows = peer_rows(spec)
    order = torch.Generator().manual_seed(spec["seed"])
    while True:
        yield from rows[torch.randperm(len(rows), generator=order)].split(spec["batch"])


class Counted:
    """A loader of a given number of batches."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def __iter__(self) -> Iterator[Any]:
        for batch, _ in zip(drawn(self.spec), range(len(self)), strict=False):
            yield (batch,) if self.spec["library"] == "overcomplete" else batch

    def __len__(self) -> int:
        return steps_of(self.spec)


def overcomplete(spec: Spec, out: Path) -> None:
    """A BatchTopKSAE, trained by train_sae with Adam and clipping 1.0. top_k is per batch."""
    from overcomplete.sae import BatchTopKSAE, train_sae

    net = BatchTopKSAE(spec["dim"], nb_concepts=spec["width"], top_k=spec["k"] * spec["batch"], device="cpu")
    optimiser = torch.optim.Adam(net.parameters(), lr=spec["learning_rate"])

    def criterion(x: Tensor, x_hat: Tensor, pre_codes: Tensor, codes: Tensor, dictionary: Tensor) -> Tensor:
        return (x - x_hat).square().mean()

    train_sae(net, Counted(spec), criterion, optimiser, nb_epochs=1, device="cpu")
    net.eval()
    torch.save(net.state_dict(), out / "sae.pt")


def dictionary_learning(spec: Spec, out: Path) -> None:
    """BatchTopKTrainer through trainSAE. Steps of its schedules are scaled to the length of the training."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.training import trainSAE

    steps = steps_of(spec)
    config = {
        "trainer": BatchTopKTrainer, "steps": steps, "activation_dim": spec["dim"], "dict_size": spec["width"],
        "k": spec["k"], "layer": 0, "lm_name": "planted", "device": "cpu", "seed": spec["seed"],
        "lr": spec["learning_rate"], "warmup_steps": max(1, steps // 20), "decay_start": steps * 4 // 5,
        "threshold_start_step": steps // 2, "threshold_beta": 0.9,
    }  # fmt: skip
    trainSAE(Counted(spec), [config], steps=steps, save_dir=str(out), device="cpu")


def saelens(spec: Spec, out: Path) -> None:
    """BatchTopKTrainingSAE through SAETrainer, with a warm-up and a decay as long as this project's."""
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    steps = steps_of(spec)
    net = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=spec["dim"], d_sae=spec["width"], k=spec["k"]))
    config = SAETrainerConfig(
        total_training_samples=steps * spec["batch"],
        train_batch_size_samples=spec["batch"],
        lr=spec["learning_rate"],
        lr_end=spec["learning_rate"] / 10,
        lr_warm_up_steps=max(1, steps // 20),
        lr_decay_steps=steps // 5,
        dead_feature_window=max(1, steps // 20),
    )
    whole = (batch for batch in drawn(spec) if len(batch) == spec["batch"])  # it counts batches of equal length
    SAETrainer(config, net, whole).fit()
    net.save_inference_model(str(out))


LIBRARIES = {"overcomplete": overcomplete, "dictionary_learning": dictionary_learning, "saelens": saelens}


def load(library: str, out: Path, k: int) -> Any:
    """The trained SAE as an object of this project that keeps all positive codes, however many.

    So that a cut can be chosen at which every library has equal L0: the thresholds of the libraries are left out.
    """
    from sae import SAE
    from sae.interchange import from_overcomplete, from_saelens
    from sae.model import Config

    if library == "dictionary_learning":
        state = torch.load(out / "trainer_0" / "ae.pt", weights_only=True)
        atoms, encoder, bias = state["decoder.weight"].T, state["encoder.weight"], state["b_dec"]
        encoder_bias, norm = state["encoder.bias"], atoms.norm(dim=1)
        weights = (encoder * norm[:, None], encoder_bias * norm, atoms / norm[:, None], bias)
    else:
        net = from_saelens(out) if library == "saelens" else from_overcomplete(out / "sae.pt", architecture="relu")
        weights = (net.encoder, net.encoder_bias, net.dictionary, net.bias)
    width, dim = weights[0].shape
    config = Config(
        architecture="relu", dim=dim, width=width, k=k, decoder_bias=True, image_share=0.5, seed=0, epochs=0,
        batch_size=0, learning_rate=0.0, auxk=0.0, dead_after_epochs=0.0, rows_seen=0,
    )  # fmt: skip
    return SAE(*weights, torch.tensor(0.0), config)


def main() -> None:
    """Train what the first argument describes."""
    spec: Spec = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(spec["seed"])
    LIBRARIES[spec["library"]](spec, Path(spec["out"]))


if __name__ == "__main__":
    main()
