"""Rates of embedding and of SAE training on a GPU, each beside what it is measured against.

    python -m bench.gpu [--device cuda] [--only embed|train] [--share 1.0]

Runs from the root of the project on a machine with CUDA, torch, transformers and timm (and pydantic, which the settings
of an SAE are made of); of the project it imports `sae` and `vlm` alone. timm's own models are compared where timm is
installed. Weights are random and rows are drawn here, so that nothing is downloaded. Writes bench/results/gpu.json.

On a GPU the bars are .9 of the forward pass alone and, on an H100 or H200, 2 million rows/s an SAE at d = 768,
C = 4,096, k = 25. With `--device cpu` everything has a tenth of the size (layers, batches, dimensions, concepts), half
precision is run for the first model alone, there is no bar, and no result says anything about a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch

from bench.photos import photo

#: Dense bfloat16 TFLOP/s of cards by their makers' data sheets, without sparsity. A name is looked up in this order.
PEAKS = {
    "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125,
    "RTX 4090": 165, "RTX 3090": 71,
}  # fmt: skip
DTYPES = ("bfloat16", "float16", "float32")
RESULTS = Path(__file__).parent / "results"
BATCH, BATCHES = 256, 12  # pictures per batch, and batches that are timed
JPEGS = 2048
STACKED = 4  # SAEs that are stacked in the row on stacking
#: d, C, k, batch, rows that are drawn, steps that are timed
SAES = ((768, 4096, 25, 1024, 131_072, 600), (1152, 32768, 25, 1024, 131_072, 200))
SAELENS = {"rows in 20 minutes": 2e8 / 1200, "rows in 15 minutes": 2e8 / 900}  # 200 M rows on an H100
WARM = 32  # steps before those that are timed
GOAL = 2e6  # rows/s of an SAE at 768/4,096/25 on an H100
SHARE_OF_FORWARD = 0.9


class Row(NamedTuple):
    """A result and what it is measured against."""

    name: str
    value: float
    unit: str
    anchor: float | None = None
    what: str = ""  #: what the anchor is
    bar: float | None = None  #: the least ratio of value to anchor

    @property
    def ratio(self) -> float | None:
        """The result divided by its anchor."""
        return None if self.anchor is None else self.value / self.anchor

    @property
    def holds(self) -> bool:
        """Whether the bar is met; a result without a bar holds."""
        return self.bar is None or (self.ratio is not None and self.ratio >= self.bar)


class Machine(NamedTuple):
    """The device with the rates that bounds are computed from."""

    device: str
    name: str
    share: float  #: of the full size that is measured
    bfloat16: float  #: FLOP/s by the data sheet, or of a matrix product where the card is not in PEAKS
    float32: float  #: FLOP/s of a float32 matrix product as torch runs it by default
    bandwidth: float  #: bytes/s of a copy within the device's memory, read and written

    @property
    def is_gpu(self) -> bool:
        return self.device.startswith("cuda")

    def scaled(self, count: int, least: int = 1) -> int:
        """A size at this machine's share."""
        return max(least, round(count * self.share))


def wait(device: str) -> None:
    """Wait until the device has finished everything; nothing to do for the CPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds_of(device: str, work: Callable[[], Any], rounds: int = 2) -> float:
    """The shortest time of `rounds` runs, after one that is not timed."""
    work()
    best = float("inf")
    for _ in range(rounds):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        best = min(best, time.perf_counter() - began)
    return best


def machine(device: str, share: float) -> Machine:
    """Measure the rates of a device."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"CPU, {os.cpu_count()} cores"
    edge = max(256, round(8192 * share))

    def product(dtype: torch.dtype) -> float:
        a = torch.randn(edge, edge, device=device).to(dtype)
        return 2 * edge**3 / seconds_of(device, lambda: a @ a)

    words = torch.zeros(max(1 << 22, round((1 << 28) * share)), device=device)
    copied = seconds_of(device, lambda: words.clone())
    listed = next((peak * 1e12 for card, peak in PEAKS.items() if card in name), None)
    float32 = product(torch.float32)
    own = float32 if device == "cpu" else product(torch.bfloat16)
    return Machine(device, name, share, listed or own, float32, 2 * words.nbytes / copied)


# Embedding


def embedding(at: Machine) -> Iterator[Row]:
    """Rows of every model and dtype: forward alone, the batches with decoding free, and real JPEGs."""
    from bench.gpu_models import SIZES

    images = [photo(seed) for seed in range(at.scaled(JPEGS) if at.is_gpu else 4)]
    for size in SIZES:
        for dtype in DTYPES if at.is_gpu or size is SIZES[0] else ("float32",):
            yield from _embedding_of(at, size, dtype, images)
            gc.collect()
            if at.is_gpu:
                torch.cuda.empty_cache()


def _embedding_of(at: Machine, size: Any, dtype: str, images: list[bytes]) -> Iterator[Row]:
    from bench import gpu_models as models

    encoder = models.built(size, at.device, dtype, at.share)
    batch = at.scaled(BATCH) if at.is_gpu else 4
    times, rounds = (BATCHES, 2) if at.is_gpu else (2, 1)
    pixels = models.batch_on_device(encoder, batch)
    title = f"{size.name} {dtype}: images/s,"
    spent = seconds_of(at.device, lambda: models.forward_alone(encoder, pixels, times), rounds)
    forward = batch * times / spent
    if at.is_gpu and dtype == "bfloat16":
        for card, rate in size.published.items():
            scaled = rate * at.bfloat16 / (PEAKS[card] * 1e12)
            yield Row(f"{title} forward alone", forward, "/s", scaled, f"timm's on an {card}, by bfloat16 peak")
    else:
        yield Row(f"{title} forward alone", forward, "/s")
    if (tower := models.timm_forward(size, at.device, encoder.dtype, at.share)) is not None:
        with torch.inference_mode():
            spent = seconds_of(at.device, lambda: tower(pixels), rounds)
        yield Row(f"{title} forward alone", forward, "/s", batch / spent, "timm's model, here")
        del tower
    blank = [b""] * (batch * times)
    spent = seconds_of(at.device, lambda: models.embed_from_memory(encoder, blank, batch, True), rounds)
    bar = SHARE_OF_FORWARD if at.is_gpu else None
    yield Row(f"{title} decoding free", len(blank) / spent, "/s", forward, "forward alone", bar)
    few = images if at.is_gpu else images[:batch]
    decoded = len(few) / seconds_of("cpu", lambda: models.decode_alone(encoder, few), 1)
    real = len(few) / seconds_of(at.device, lambda: models.embed_from_memory(encoder, few, batch), 1)
    yield Row(f"{title} real JPEGs", real, "/s", min(decoded, forward), "the slower of decoding alone and forward")


# SAE training


def drawn(rows: int, dim: int, atoms: int = 2048, active: int = 16) -> np.ndarray:
    """Rows [rows, dim] float16 that are sums of a few of `atoms` directions, so that an SAE has something to learn."""
    random = np.random.default_rng(0)
    dictionary = random.standard_normal((atoms, dim), np.float32)
    out = np.empty((rows, dim), np.float16)
    for start in range(0, rows, 8192):
        chosen = random.integers(0, atoms, (min(8192, rows - start), active))
        weights = random.exponential(1.0, chosen.shape).astype(np.float32)
        out[start : start + len(chosen)] = sum(weights[:, i, None] * dictionary[chosen[:, i]] for i in range(active))
    return out


def bound(at: Machine, dim: int, width: int, k: int, batch: int, gathers: bool) -> float:
    """Rows/s that a step cannot pass, in float32: by its FLOP, or by the bytes that it must move.

    FLOP: 10 B d C of a dense step, 2 B d C + 8 B k d of one that gathers. Bytes: both matrices C d are read for the two
    products, a gradient is written, and Adam reads four numbers a weight and writes three; the pre-activations B C are
    written and read, and so are the codes.
    """
    flop = 2 * batch * dim * width + 8 * batch * k * dim if gathers else 10 * batch * dim * width
    moved = 4 * (2 * width * dim * (1 + 1 + 4 + 3) + 4 * batch * width)
    return batch / max(flop / at.float32, moved / at.bandwidth)


def training(at: Machine) -> Iterator[Row]:
    """Rows of both sizes, both dtypes of the encoder's product, and on a GPU both paths of the step."""
    for full in SAES:
        dim, width, k, batch, count, steps = full
        if not at.is_gpu:
            dim, width, batch, count = (at.scaled(size, 32) for size in (dim, width, batch, count))
            k, steps = min(k, width // 11), at.scaled(steps, 20)
        rows = drawn(count, dim)
        fastest = 0.0
        for dtype in ("float32", "bfloat16"):
            for path in ("dense", "gathered") if at.is_gpu else ("sparse",):
                rate = trained(at, rows, dtype, path, width=width, k=k, batch_size=batch, steps=steps)
                title = f"SAE d={dim} C={width} k={k} B={batch} {dtype}, {path}: rows/s"
                most = bound(at, dim, width, k, batch, path != "dense")
                yield Row(title, rate, "/s", most, "bound of the step in float32")
                if at.is_gpu:
                    yield from (Row(title, rate, "/s", each, f"SAELens, {what}") for what, each in SAELENS.items())
                fastest = max(fastest, rate)
        size = {"width": width, "k": k, "batch_size": batch, "steps": max(20, steps // STACKED)}
        alone, stacked = (trained(at, rows, "float32", "dense", seeds=seeds, **size) for seeds in (1, STACKED))
        title = f"{STACKED} SAEs stacked, d={dim} C={width} k={k} B={batch} float32: rows/s of all"
        yield Row(title, stacked, "/s", alone, "one after another, dense")
        if at.is_gpu and full == SAES[0]:
            bar = 1.0 if "H100" in at.name or "H200" in at.name else None
            yield Row(f"SAE d={dim} C={width} k={k} B={batch}, fastest: rows/s", fastest, "/s", GOAL, "the goal", bar)
    if at.is_gpu:
        torch.cuda.empty_cache()


def trained(
    at: Machine, rows: np.ndarray, dtype: str, path: str, *, steps: int, batch_size: int, seeds: int = 1, **size: int
) -> float:
    """Rows/s of a training with all its parts, from step WARM on; of several seeds that are stacked, all their rows."""
    import sae
    from sae.together import train_each

    epochs = -(-(steps + WARM) * batch_size // len(rows))
    settings = sae.Settings(
        epochs=epochs, batch_size=batch_size, learning_rate=1e-3, encoder_dtype=dtype, calibration_share=0.0, **size
    )
    began = ended = 0.0
    seen = 0

    def on_step(step: int, last: int, stats: dict[str, float]) -> None:
        nonlocal began, ended, seen
        if step in (WARM, last):
            wait(at.device)
            began, ended = (began, time.perf_counter()) if step == last else (time.perf_counter(), ended)
            seen = (last - WARM) * batch_size * seeds

    half = len(rows) // 2
    with (
        patch("sae.trainer.is_gathering_better", lambda *_: path == "gathered"),
        patch("sae.trainer.is_sparse_better", lambda *_: path == "sparse"),
        patch("sae.together.is_stacking_better", lambda *_: seeds > 1),
    ):
        for _, outcome in train_each(rows[:half], rows[half:], settings, range(seeds), at.device, on_step):
            if isinstance(outcome, Exception):
                raise outcome
    return seen / (ended - began)


def number(value: float) -> str:
    """A number with three digits at least."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(rows: list[Row]) -> str:
    """The results as a table in Markdown."""
    lines = ["| result | measured | against | ratio | what it is against |", "|---|---|---|---|---|"]
    for row in rows:
        against = "" if row.anchor is None else number(row.anchor)
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        if row.bar is not None:
            ratio += f" (bar {row.bar:g}, {'holds' if row.holds else 'MISSED'})"
        lines.append(f"| {row.name} | {number(row.value)} | {against} | {ratio} | {row.what} |")
    return "\n".join(lines)


def told(at: Machine) -> str:
    """The device and its rates in words; on a CPU also that nothing was measured on a GPU."""
    rates = f"{at.float32 / 1e12:.3g} TFLOP/s in float32, {at.bandwidth / 1e9:.3g} GB/s"
    if at.is_gpu:
        return f"{at.name}: {at.bfloat16 / 1e12:.3g} TFLOP/s in bfloat16, {rates}"
    return f"not measured on a GPU: {at.name}, {rates}, {at.share:g} of the size"


PARTS: dict[str, Callable[[Machine], Iterator[Row]]] = {"embed": embedding, "train": training}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write bench/results/gpu.json. Returns 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--share", type=float, help="of the full size; default 1 on a GPU, a tenth on a CPU")
    given = parser.parse_args(arguments)
    if given.device != "cpu" and not torch.cuda.is_available():
        print("no GPU is seen here: --device cpu runs a tenth of the size, which says nothing about a GPU")
        return 2
    at = machine(given.device, given.share or (0.1 if given.device == "cpu" else 1.0))
    rows = []
    for part in given.only or PARTS:
        for row in PARTS[part](at):
            rows.append(row)
            print(f"{row.name} {number(row.value)}", file=sys.stderr, flush=True)
    print(told(at), table(rows), told(at), sep="\n\n")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gpu.json").write_text(json.dumps([told(at), [row._asdict() for row in rows]], indent=1) + "\n")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
