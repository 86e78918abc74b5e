"""One measurement of the speed bench in a separate process: python -m bench.sae_run '{"library": ...}'

Prints one line of JSON. Peers are other SAE libraries, installed in another environment than this project. Each library
is imported only in the function that runs it, so that this file works in both environments. Each peer is used as its
README describes.
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
DTYPES = ("bfloat16", "float32")


class Clock:
    """Time from the end of the warm-up steps to `stop`."""

    def __init__(self, warmup: int) -> None:
        self.warmup, self.began, self.stopped = warmup, 0.0, 0.0

    def step(self, done: int) -> None:
        """Record that `done` steps are finished."""
        if done == self.warmup:
            self.began = time.perf_counter()

    def stop(self) -> None:
        self.stopped = time.perf_counter()

    def rate(self, spec: Spec) -> float:
        """Rows per second after the warm-up."""
        return (spec["epochs"] * spec["rows"] - self.warmup * spec["batch"]) / (self.stopped - self.began)


def steps_of(spec: Spec) -> int:
    """Number of steps of a training. The last batch of an epoch may be short."""
    return spec["epochs"] * -(-spec["rows"] // spec["batch"])


def train_rows(spec: Spec) -> tuple[np.ndarray, ...]:
    """Training rows of both modalities, as stored."""
    return tuple(np.load(path, mmap_mode="r") for path in spec["train"])


def peer_rows(spec: Spec) -> Tensor:
    """The rows of `train_rows` as a peer library takes them: one float32 tensor, both modalities shuffled together."""
    rows = torch.from_numpy(np.concatenate([np.asarray(part, np.float32) for part in train_rows(spec)]))
    rows = rows[torch.from_numpy(np.random.default_rng(0).permutation(len(rows)))]
    return torch.nn.functional.normalize(rows, dim=1)


class TimedLoader:
    """Repeats a peer's loader until `steps` batches were yielded, and reports each to the clock."""

    def __init__(self, loader: Any, steps: int, clock: Clock) -> None:
        self.loader, self.steps, self.clock = loader, steps, clock

    def __iter__(self) -> Iterator[Any]:
        batches = 0
        while batches < self.steps:
            for batch in self.loader:
                self.clock.step(batches)
                yield batch
                batches += 1
                if batches == self.steps:
                    return

    def __len__(self) -> int:
        return self.steps


def overcomplete(spec: Spec, clock: Clock) -> Callable[[Tensor], Encoded]:
    """Train a BatchTopKSAE by train_sae, with Adam 5e-4 and clipping 1.0 as in its README. top_k is per batch."""
    from overcomplete.sae import BatchTopKSAE, train_sae
    from torch.utils.data import DataLoader, TensorDataset

    sae = BatchTopKSAE(spec["dim"], nb_concepts=spec["width"], top_k=spec["k"] * spec["batch"], device="cpu")
    loader = DataLoader(TensorDataset(peer_rows(spec)), batch_size=spec["batch"])
    optimiser = torch.optim.Adam(sae.parameters(), lr=spec.get("learning_rate", 5e-4))

    def criterion(x: Tensor, x_hat: Tensor, pre_codes: Tensor, codes: Tensor, dictionary: Tensor) -> Tensor:
        return (x - x_hat).square().mean()

    train_sae(sae, TimedLoader(loader, steps_of(spec), clock), criterion, optimiser, nb_epochs=1, device="cpu")
    clock.stop()
    sae.eval()

    def encode(x: Tensor) -> Encoded:
        codes = sae.encode(x)[1]
        return codes, sae.decode(codes)

    return encode


def dictionary_learning(spec: Spec, clock: Clock) -> Callable[[Tensor], Encoded]:
    """Train with BatchTopKTrainer through trainSAE, and read the SAE back from the file that it saves.

    By default the learning rate warms up over 1,000 steps, and the threshold is set from step 1,000 on. A shorter
    training would set no threshold, and every positive concept would fire, so both are scaled to the number of steps.
    """
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE, BatchTopKTrainer
    from dictionary_learning.training import trainSAE
    from torch.utils.data import DataLoader

    steps = steps_of(spec)
    config = {
        "trainer": BatchTopKTrainer, "steps": steps, "activation_dim": spec["dim"],
        "dict_size": spec["width"], "k": spec["k"], "layer": 0, "lm_name": "planted", "device": "cpu", "seed": 0,
        "lr": spec.get("learning_rate"), "warmup_steps": max(1, steps // 20),
        "threshold_start_step": steps // 2, "threshold_beta": 0.9,
    }  # fmt: skip
    loader = DataLoader(peer_rows(spec), batch_size=spec["batch"])
    with tempfile.TemporaryDirectory() as folder:
        trainSAE(TimedLoader(loader, steps, clock), [config], steps=steps, save_dir=folder, device="cpu")
        clock.stop()
        sae = BatchTopKSAE.from_pretrained(str(Path(folder) / "trainer_0" / "ae.pt"))

    def encode(x: Tensor) -> Encoded:
        x_hat, codes = sae(x, output_features=True)
        return codes, x_hat

    return encode


def ours(spec: Spec, clock: Clock) -> Callable[[Tensor], Encoded]:
    """Train with `sae.train` and all its parts: bias, AuxK, clipping, mixed modalities, calibrated threshold."""
    import sae

    settings = our_settings(spec)
    trained = sae.train(*train_rows(spec), settings, seed=0, on_step=lambda step, steps, stats: clock.step(step))
    clock.stop()
    return _of(trained.sae)


def _of(net: Any) -> Callable[[Tensor], Encoded]:
    def encode(x: Tensor) -> Encoded:
        codes = net.encode(x)
        return codes, net.decode(codes)

    return encode


def our_settings(spec: Spec) -> Any:
    """Settings of a training."""
    import sae

    names = {"width": "width", "k": "k", "epochs": "epochs", "batch": "batch_size", "learning_rate": "learning_rate"}
    return sae.Settings(**{ours: spec[name] for name, ours in names.items()}, encoder_dtype=spec["dtype"])


def in_turn(spec: Spec) -> dict[str, float]:
    """Train the seeds one after another, each on all threads. Returns total seconds, and mean held-out R2."""
    import sae

    seconds, r2 = 0.0, []
    for seed in range(spec["seeds"]):
        began = time.time()
        net = sae.train(*train_rows(spec), our_settings(spec), seed=seed).sae
        seconds += time.time() - began
        r2.append(held_out(spec, _of(net))["r2"])
    return {"seconds": seconds, "r2": float(np.mean(r2))}


def one_seed(job: tuple[Spec, int, str], watch: Any) -> tuple[float, float]:
    """Train one seed in a child process of `together` and save it. Returns the times of start and end."""
    import sae

    spec, seed, folder = job
    began = time.time()
    net = sae.train(*train_rows(spec), our_settings(spec), seed=seed).sae
    ended = time.time()
    net.save(Path(folder))
    return began, ended


def together(spec: Spec) -> dict[str, float]:
    """Train the seeds as the stage train does: in parallel, one core each. Returns what `in_turn` does."""
    from sae import SAE
    from tasks.children import in_process, side_by_side
    from tasks.devices import processes_on

    with tempfile.TemporaryDirectory() as folder:
        jobs = [(spec, seed, f"{folder}/{seed}") for seed in range(spec["seeds"])]
        with side_by_side(processes_on("cpu", len(jobs))) as pool:
            futures = [pool.submit(in_process, one_seed, job, f"seed {job[1]}") for job in jobs]
            times = [future.result() for future in futures]
        r2 = [held_out(spec, _of(SAE.load(Path(job[2]))))["r2"] for job in jobs]
    return {"seconds": max(end for _, end in times) - min(begin for begin, _ in times), "r2": float(np.mean(r2))}


def parts(spec: Spec) -> dict[str, float]:
    """Milliseconds of each part of the sparse step, of the whole step, and of the encoder's product alone.

    Each value is a median over the steps of an epoch. The product is timed between steps, so that it and the step meet
    the same caches and clock rate of the CPU.
    """
    from sae.rows import batches, training_rows
    from sae.trainer import Trainer

    rows = training_rows(*train_rows(spec), 0.5, "cpu")
    trainer = Trainer(rows, our_settings(spec), seed=0)
    spent: dict[str, list[float]] = {}
    last = 0.0

    def lap(part: str) -> None:
        nonlocal last
        now = time.perf_counter()
        spent.setdefault(part, []).append(now - last)
        last = now

    if trainer.sparse is None:
        raise SystemExit("the trainer took its dense path: there are no parts to time")
    trainer.sparse.on_part = lambda part: lap(f"part {part}")
    encoder = trainer.weights.encoder.detach()
    outputs = {name: torch.empty(spec["batch"], spec["width"], dtype=getattr(torch, name)) for name in DTYPES}
    for step, index in enumerate(batches(0, 0, rows.images, rows.texts, 0.5, spec["batch"])):
        x = rows.take(index)
        if step == spec["warmup"]:
            spent.clear()
        last = began = time.perf_counter()
        trainer.step_(x, spec["learning_rate"])
        lap("part rest")
        spent.setdefault("step", []).append(last - began)
        for name, out in outputs.items():
            a, b = x.to(out.dtype), encoder.to(out.dtype).T
            last = time.perf_counter()
            torch.mm(a, b, out=out[: len(a)])
            lap(f"gemm {name}")
    return {name: float(np.median(seconds)) * 1e3 for name, seconds in spent.items()}


LIBRARIES = {"overcomplete": overcomplete, "dictionary_learning": dictionary_learning, "ours": ours}
OTHERS = {"in turn": in_turn, "together": together, "parts": parts}


@torch.no_grad()
def held_out(spec: Spec, encode: Callable[[Tensor], Encoded]) -> dict[str, float]:
    """R2, L0 and other metrics on held-out rows, computed by this project for every library."""
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
    """Peak memory of this process, in GB (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9


def main() -> None:
    """Run the measurement that the first argument describes."""
    spec: Spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    if spec["library"] in OTHERS:
        print(json.dumps(OTHERS[spec["library"]](spec)))
        return
    clock = Clock(spec["warmup"])
    encode = LIBRARIES[spec["library"]](spec, clock)
    figures = {"rows_per_second": clock.rate(spec), "peak_gb": peak_memory(), **held_out(spec, encode)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
