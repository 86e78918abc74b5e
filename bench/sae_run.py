"""One measurement of the speed bench in a process of its own: python -m bench.sae_run '{"library": ...}'

Prints one line of JSON. Imports a peer, or this project, only when asked to run it, so that the same file works in
either environment. Each peer is used as its own README says.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Spec = dict[str, Any]
Encoded = tuple[Tensor, Tensor]  # codes [B, C], x_hat [B, d]


class Clock:
    """Time from the end of the warm-up steps to `stop`."""

    def __init__(self, warmup: int) -> None:
        self.warmup, self.began, self.stopped = warmup, 0.0, 0.0

    def step(self, done: int) -> None:
        """Call with the number of finished steps."""
        if done == self.warmup:
            self.began = time.perf_counter()

    def stop(self) -> None:
        self.stopped = time.perf_counter()

    def rate(self, spec: Spec) -> float:
        """Rows a second after the warm-up."""
        return (spec["steps"] - self.warmup) * spec["batch"] / (self.stopped - self.began)


def train_rows(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """Training rows of both modalities, as they lie on disk."""
    return tuple(np.load(path, mmap_mode="r") for path in spec["train"])


def peer_rows(spec: Spec) -> Tensor:
    """The same rows as one float32 tensor, both modalities shuffled together, as a peer takes them."""
    rows = torch.from_numpy(np.concatenate([np.asarray(part, np.float32) for part in train_rows(spec)]))
    rows = rows[torch.from_numpy(np.random.default_rng(0).permutation(len(rows)))]
    return torch.nn.functional.normalize(rows, dim=1)


class TimedLoader:
    """A loader of a peer's own kind that goes round for `steps` batches and tells the clock."""

    def __init__(self, loader: Any, steps: int, clock: Clock) -> None:
        self.loader, self.steps, self.clock = loader, steps, clock

    def __iter__(self) -> Iterator[Any]:
        given = 0
        while given < self.steps:
            for batch in self.loader:
                self.clock.step(given)
                yield batch
                given += 1
                if given == self.steps:
                    return

    def __len__(self) -> int:
        return self.steps


def overcomplete(spec: Spec, clock: Clock) -> Callable[[Tensor], Encoded]:
    """BatchTopKSAE trained by train_sae; its top_k counts a whole batch; Adam 5e-4, clipping 1.0 as in its README."""
    from overcomplete.sae import BatchTopKSAE, train_sae
    from torch.utils.data import DataLoader, TensorDataset

    sae = BatchTopKSAE(spec["dim"], nb_concepts=spec["width"], top_k=spec["k"] * spec["batch"], device="cpu")
    loader = DataLoader(TensorDataset(peer_rows(spec)), batch_size=spec["batch"])
    optimiser = torch.optim.Adam(sae.parameters(), lr=spec.get("learning_rate", 5e-4))

    def criterion(x: Tensor, x_hat: Tensor, pre_codes: Tensor, codes: Tensor, dictionary: Tensor) -> Tensor:
        return (x - x_hat).square().mean()

    train_sae(sae, TimedLoader(loader, spec["steps"], clock), criterion, optimiser, nb_epochs=1, device="cpu")
    clock.stop()
    sae.eval()

    def encode(x: Tensor) -> Encoded:
        codes = sae.encode(x)[1]
        return codes, sae.decode(codes)

    return encode


def dictionary_learning(spec: Spec, clock: Clock) -> Callable[[Tensor], Encoded]:
    """BatchTopKTrainer through trainSAE, read back from the file it saves.

    Its warm-up of the learning rate and its start of the threshold are 1,000 steps each; here they are scaled to the
    number of steps, since with fewer than 1,001 steps it would never set a threshold, and keep the whole dictionary.
    """
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE, BatchTopKTrainer
    from dictionary_learning.training import trainSAE
    from torch.utils.data import DataLoader

    config = {
        "trainer": BatchTopKTrainer, "steps": spec["steps"], "activation_dim": spec["dim"],
        "dict_size": spec["width"], "k": spec["k"], "layer": 0, "lm_name": "planted", "device": "cpu", "seed": 0,
        "lr": spec.get("learning_rate"), "warmup_steps": max(1, spec["steps"] // 20),
        "threshold_start_step": spec["steps"] // 2, "threshold_beta": 0.9,
    }  # fmt: skip
    loader = DataLoader(peer_rows(spec), batch_size=spec["batch"])
    with tempfile.TemporaryDirectory() as folder:
        trainSAE(
            TimedLoader(loader, spec["steps"], clock), [config], steps=spec["steps"], save_dir=folder, device="cpu"
        )
        clock.stop()
        sae = BatchTopKSAE.from_pretrained(str(Path(folder) / "trainer_0" / "ae.pt"))

    def encode(x: Tensor) -> Encoded:
        x_hat, codes = sae(x, output_features=True)
        return codes, x_hat

    return encode


def ours(spec: Spec, clock: Clock) -> Callable[[Tensor], Encoded]:
    """`sae.train` with everything on: bias, AuxK, clipping, both modalities mixed, threshold calibrated at the end."""
    import sae

    settings = our_settings(spec)
    trained = sae.train(*train_rows(spec), settings, seed=0, on_step=lambda step, steps, stats: clock.step(step))
    clock.stop()
    net = trained.sae

    def encode(x: Tensor) -> Encoded:
        codes = net.encode(x)
        return codes, net.decode(codes)

    return encode


def our_settings(spec: Spec) -> Any:
    """Settings of a training of `steps` steps."""
    import sae

    rows = sum(len(part) for part in train_rows(spec))
    epochs, left = divmod(spec["steps"] * spec["batch"], rows)
    if left:
        raise ValueError(f"{spec['steps']} steps of {spec['batch']} are no whole number of epochs of {rows} rows")
    options = {"encoder_dtype": spec["dtype"]} if "dtype" in spec else {}
    return sae.Settings(
        width=spec["width"], k=spec["k"], epochs=epochs, batch_size=spec["batch"],
        learning_rate=spec["learning_rate"], **options,
    )  # fmt: skip


LIBRARIES = {"overcomplete": overcomplete, "dictionary_learning": dictionary_learning, "ours": ours}


@torch.no_grad()
def held_out(spec: Spec, encode: Callable[[Tensor], Encoded]) -> dict[str, float]:
    """R2, L0 and the rest on held-out rows, by this project's metrics, whoever trained."""
    from sae.metrics import Reconstruction, combine

    sums = []
    for path in spec["heldout"]:
        sums.append(Reconstruction())
        rows = torch.nn.functional.normalize(torch.from_numpy(np.load(path).astype(np.float32)), dim=1)
        for x in rows.split(1024):
            codes, x_hat = encode(x)
            sums[-1].update(x, x_hat, codes)
    return combine(*sums)


def peak_memory() -> float:
    """The most memory that this process ever held, in GB (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9


def main() -> None:
    """Run what the first argument describes."""
    spec: Spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    clock = Clock(spec["warmup"])
    encode = LIBRARIES[spec["library"]](spec, clock)
    found = {"rows_per_second": clock.rate(spec), "peak_gb": peak_memory(), **held_out(spec, encode)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
