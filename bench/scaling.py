"""Bytes, FLOPs and GPU-hours of a study at three sizes, each number with its formula.

No GPU was measured. FLOPs of encoders are published, and rates of a CPU were measured in this project. The share of a
GPU's peak that is reached is assumed. `python bench/scaling.py` prints the tables of docs/scaling.md.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

# Published.
GFLOPS = {  # GFLOP of an image and of a text at full context (by open_clip's model profile); width d of the joint space
    "CLIP ViT-B-32": (8.82, 5.96, 512),
    "SigLIP ViT-B-16": (35.42, 11.02, 768),
    "SigLIP2 ViT-B-16": (35.42, 11.02, 768),  # both towers have the same shape as SigLIP's
    "AIMv2 ViT-L-14": (162.0, 13.3, 768),  # the shape of ViT-L-14: 24 layers, width 1024, 257 tokens
}
PEAK = 312e12  # FLOP/s, bfloat16 without sparsity, of an A100, by its maker
DOWNLOAD = 1350 / 16  # images per second per core that img2dataset states (16 cores)
JPEG = 100_000  # bytes of a web image after resizing; assumed, not published (an image of COCO has 160 kB)

# Assumed.
REACHED = 0.35  # share of PEAK that a vision transformer reaches in bfloat16
REACHED_SAE = 0.25  # share of PEAK that an SAE's dense step reaches

# Measured in this project, on 2 cores without a GPU.
DECODE = 134  # JPEGs of 640x480 decoded and preprocessed, per second per core
SAE_ROWS = 36_238  # rows per second, d = 512, C = 4096, k = 20, batch 2048, 2 cores
ACTIVATION = 5.0  # bytes per non-zero code, Parquet v2, zstd, sorted by concept
COACTIVATION = 227e6 / 2.75  # products of codes per second, 2 cores: 600 k pairs, 20 codes per item
INTO_TRAINER = 1_130_000  # rows per second, whole array in memory
FLOORS = 72  # seconds of cores for both floors of an SAE, 20 draws each, C = 8192, d = 512 (bench/floors.py)

# The study.
C, K, SEEDS, BATCH = 8192, 20, 5, 4096
ROWS_SEEN = 50e6  # most rows that an SAE is trained on
CODES = 2 * K  # non-zero codes per pair


class Size(NamedTuple):
    """Number of images and captions of a study."""

    name: str
    images: float
    captions: float


SIZES = (
    Size("600 thousand", 118_287, 591_753),  # COCO train2017, five captions per image
    Size("12 million", 12e6, 12e6),
    Size("400 million", 400e6, 400e6),
)
GPUS = (1, 8, 64)


class Row(NamedTuple):
    """One quantity: its value at each size, its unit, its formula."""

    what: str
    values: list[float]
    unit: str
    formula: str


def embed_flops(size: Size) -> float:
    """FLOPs of all models over all images and captions."""
    return sum(size.images * image + size.captions * text for image, text, _ in GFLOPS.values()) * 1e9


def train_flops(size: Size) -> float:
    """FLOPs of all SAEs: 12 d C per row. Dense encoder and decoder take 2 d C each, their gradients twice as much."""
    rows = min(ROWS_SEEN, 20 * (size.images + size.captions))  # 20 epochs, but at most ROWS_SEEN
    return sum(SEEDS * rows * 12 * dim * C for _, _, dim in GFLOPS.values())


def export_flops(size: Size) -> float:
    """FLOPs of encoding every row with every SAE: 2 d C per row."""
    return sum(SEEDS * (size.images + size.captions) * 2 * dim * C for _, _, dim in GFLOPS.values())


def rows() -> list[Row]:
    """The table."""
    models = len(GFLOPS)

    def each(value: object) -> list[float]:
        assert callable(value)
        return [float(value(size)) for size in SIZES]

    return [
        Row("images on disk", each(lambda s: s.images * JPEG / 1e9), "GB", f"images x {JPEG / 1e3:.0f} kB (assumed)"),
        Row(
            "embeddings",
            each(lambda s: sum((s.images + s.captions) * 2 * dim for *_, dim in GFLOPS.values()) / 1e9),
            "GB",
            "sum over models of (images + captions) x d x 2 bytes",
        ),
        Row(
            "activations",
            each(lambda s: models * SEEDS * (s.images + s.captions) * K * ACTIVATION / 1e9),
            "GB",
            f"models x {SEEDS} seeds x (images + captions) x k = {K} x {ACTIVATION} bytes",
        ),
        Row(
            "embed",
            each(lambda s: embed_flops(s) / 1e18),
            "EFLOP",
            "sum over models of images x image + captions x text",
        ),
        Row(
            "train",
            each(lambda s: train_flops(s) / 1e18),
            "EFLOP",
            f"models x {SEEDS} x rows x 12dC, C = {C}; rows = 20 epochs, at most {ROWS_SEEN / 1e6:.0f} M",
        ),
        Row(
            "export", each(lambda s: export_flops(s) / 1e18), "EFLOP", f"models x {SEEDS} x (images + captions) x 2 d C"
        ),
        Row(
            "GPU-hours: embed",
            each(lambda s: embed_flops(s) / (PEAK * REACHED) / 3600),
            "h",
            f"FLOP / ({PEAK / 1e12:.0f} TFLOP/s x {REACHED}) / 3600",
        ),
        Row(
            "GPU-hours: train and export",
            each(lambda s: (train_flops(s) + export_flops(s)) / (PEAK * REACHED_SAE) / 3600),
            "h",
            f"FLOP / ({PEAK / 1e12:.0f} TFLOP/s x {REACHED_SAE}) / 3600",
        ),
        Row(
            "core-hours: download",
            each(lambda s: s.images / DOWNLOAD / 3600),
            "h",
            f"images / {DOWNLOAD:.0f} per second per core / 3600",
        ),
        Row(
            "core-hours: decode",
            each(lambda s: models * s.images / DECODE / 3600),
            "h",
            f"models x images / {DECODE} per second per core / 3600",
        ),
        Row(
            "core-hours: co-activation",
            each(lambda s: models * SEEDS * s.captions * K * K * 2 / COACTIVATION / 3600),
            "h",
            f"models x {SEEDS} x pairs x k^2 products x 2 cores / {COACTIVATION / 1e6:.0f} M per second / 3600",
        ),
        Row(
            "core-hours: floors of stability",
            each(lambda s: sum(SEEDS * FLOORS * dim / 512 for *_, dim in GFLOPS.values()) / 3600),
            "h",
            f"models x {SEEDS} x {FLOORS} s x d / 512 / 3600, C = {C}, 20 draws of two floors",
        ),
        Row(
            "core-hours: train, without a GPU",
            each(
                lambda s: (
                    sum(
                        SEEDS * min(ROWS_SEEN, 20 * (s.images + s.captions)) * 2 * (dim * C) / (512 * 4096) / SAE_ROWS
                        for *_, dim in GFLOPS.values()
                    )
                    / 3600
                )
            ),
            "h",
            f"models x {SEEDS} x rows x 2 cores x (d C) / (512 x 4096) / {SAE_ROWS:,} per second / 3600",
        ),
    ]


class Wall(NamedTuple):
    """Hours from start to end on a number of GPUs, and the cores that must decode for them."""

    embed: float
    train: float
    decode_cores: float  #: number of cores that decode as fast as the GPUs embed


def wall(size: Size, gpus: int) -> Wall:
    """Embedding and export use all GPUs, training at most one per SAE (models x seeds). No other stage is counted."""
    embed = embed_flops(size) / (PEAK * REACHED) / 3600 / gpus
    saes = len(GFLOPS) * SEEDS
    train = train_flops(size) / (PEAK * REACHED_SAE) / 3600 / min(gpus, saes)
    export = export_flops(size) / (PEAK * REACHED_SAE) / 3600 / gpus
    cores = len(GFLOPS) * size.images / DECODE / 3600 / embed
    return Wall(embed, train + export, cores)


def number(value: float) -> str:
    """A number as text, rounded to the precision that its inputs allow."""
    if value >= 1000:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def tables() -> str:
    """Both tables, in Markdown."""
    lines = ["| | " + " | ".join(size.name for size in SIZES) + " | unit | formula |", "|---" * (len(SIZES) + 3) + "|"]
    for row in rows():
        lines.append(f"| {row.what} | {' | '.join(map(number, row.values))} | {row.unit} | {row.formula} |")
    lines += ["", "| pairs | GPUs | embed, hours | train and export, hours | cores that decode for them |"]
    lines += ["|---" * 5 + "|"]
    for size in SIZES:
        for gpus in GPUS:
            hours = wall(size, gpus)
            figures = [number(hours.embed), number(hours.train), number(hours.decode_cores)]
            lines.append(f"| {size.name} | {gpus} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "").parse_args()
    print(tables())
