"""Rate of embedding, relative to its parts alone and to loops that users write; all ratios are of one run.

    python bench/embed.py [--device cpu] [--only busy,vit,siglip,demo,captions,memory,growth,thin,acquire]

Full-size models with random weights; JPEGs of 640 x 480 drawn here. Programs that are compared run in turn, twice, and
the better time of each counts. Writes bench/results/embed.json; with --only the rows of other parts are kept. Ends with
1 when a bar is not met. Bars on the speed of bfloat16 apply to devices that multiply it in hardware; elsewhere the
result is shown without a bar.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from bars import RESULTS, Bar, at_least, at_most, finish, shown
from embed_inputs import captions_like_coco, demo_model, full_size, in_bfloat16, photo, shard, small_images, tiny
from PIL import Image

import tasks.embed
from storage.dataset import Dataset
from storage.embeddings import read
from tasks.embed import Loaded, Wanted
from tasks.stage import Runtime
from vlm.encoder import Encoder
from vlm.feed import Feed
from vlm.pictures import decode

PARTS = ("busy", "vit", "siglip", "demo", "captions", "memory", "growth", "thin", "acquire")


def fast_bfloat16(device: str) -> bool:
    """Return whether the device multiplies bfloat16 in hardware. Rates of bfloat16 have bars only on such devices."""
    if device.startswith("cuda"):
        return True
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


# What is compared


def stage(store: Path, pairs: Dataset, encoder: Encoder, device: str) -> Dataset:
    """Run the stage embed with a model that is already loaded."""
    dtype = str(encoder.identity["dtype"])

    def load(wanted: tuple[Wanted, ...], *_: Any) -> Loaded:
        return Loaded(Feed([encoder]), {wanted[0]: 0}, {})

    with patch.object(tasks.embed, "load_encoders", load):
        runtime = Runtime(store=store, device=device, progress=False, force=True)
        return tasks.embed.embed.make(runtime, pairs=pairs, model="bench", dtype=dtype, spec="bench")


def stacked(encoder: Encoder, images: Sequence[bytes]) -> dict[str, torch.Tensor]:
    """The images as a batch of the model's inputs."""
    given = [encoder.pixels.resize(decode(data)) for data in images]
    return {name: torch.stack([each[name] for each in given]) for name in given[0]}


def forward_alone(encoder: Encoder, inputs: dict[str, torch.Tensor], size: int = 16) -> None:
    """Run the forward pass on tensors in memory, on all cores or the device."""
    with Feed([encoder]) as feed:
        parts = [
            dict(zip(inputs, each, strict=True)) for each in zip(*(v.split(size) for v in inputs.values()), strict=True)
        ]
        for future in [feed.forward(lambda part=part: encoder.encode_pixels(part)) for part in parts]:
            future.result()


def decode_alone(encoder: Encoder, images: Sequence[bytes]) -> None:
    """Decode and resize the images on all cores, and drop the result."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for future in [pool.submit(lambda data=data: encoder.pixels.resize(decode(data)) is None) for data in images]:
            future.result()


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def plain_loop(encoder: Any, paths: Sequence[Path]) -> np.ndarray:
    """The loop that a user writes: PIL, the processor, the model, 32 images at a time."""
    out = []
    with torch.no_grad():
        for part in batched(paths, 32):
            batch = torch.stack([encoder.transform(Image.open(path).convert("RGB")) for path in part])
            features = encoder.model.encode_image(batch.to(encoder.device))
            out.append((features / features.norm(dim=-1, keepdim=True)).cpu().numpy())
    return np.concatenate(out)


class Files(torch.utils.data.Dataset):
    """A torch dataset of image files, read as clip-retrieval reads them."""

    def __init__(self, paths: Sequence[Path], transform: Callable[..., torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[place]).convert("RGB"))


def loader_loop(encoder: Any, paths: Sequence[Path]) -> np.ndarray:
    """clip-retrieval's loop: a DataLoader with worker processes, then the model. Returns unit rows."""
    loader = torch.utils.data.DataLoader(
        Files(paths, encoder.transform), batch_size=32, num_workers=torch.get_num_threads(), prefetch_factor=2
    )
    out = []
    with torch.no_grad():
        for batch in loader:
            features = encoder.model.encode_image(batch.to(encoder.device))
            out.append((features / features.norm(dim=-1, keepdim=True)).cpu().numpy())
    return np.concatenate(out)


def best_of(runs: int, *work: Callable[[], Any]) -> list[float]:
    """Shortest seconds of each function in `work` over `runs` rounds; a round calls all of them in turn."""
    seconds = [float("inf")] * len(work)
    for _ in range(runs):
        for place, do in enumerate(work):
            began = time.perf_counter()
            do()
            seconds[place] = min(seconds[place], time.perf_counter() - began)
    return seconds


def images_of(name: str, encoder: Any, count: int, device: str, runs: int, against_loops: bool) -> list[Bar]:
    """Images per second of one model: the stage against its parts and, with `against_loops`, against users' loops."""
    images = [photo(seed) for seed in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{place:05}.jpg" for place in range(count)]
        for path, data in zip(paths, images, strict=True):
            path.write_bytes(data)
        store = Path(folder) / "store"
        pairs = shard(store, images, [], "images")
        pixels = stacked(encoder, images)
        forward_alone(encoder, stacked(encoder, images[:32]))
        work: list[Callable[[], Any]] = [
            lambda: stage(store, pairs, encoder, device),
            lambda: forward_alone(encoder, pixels),
            lambda: decode_alone(encoder, images),
        ]
        if against_loops:
            work += [lambda: plain_loop(encoder, paths), lambda: loader_loop(encoder, paths)]
        seconds = best_of(runs, *work)
        rates = [count / spent for spent in seconds]
        print(f"{name}: images/s stage {rates[0]:.1f}, forward {rates[1]:.1f}, decode {rates[2]:.1f}", end="")
        print(f", plain loop {rates[3]:.1f}, loader loop {rates[4]:.1f}" if against_loops else "", flush=True)
        title = f"{name} float32: images/s, stage against"
        rows = [at_least(f"{title} the bound of its parts", (seconds[1] + seconds[2]) / seconds[0], 0.9)]
        if "SigLIP" in name:
            rows.append(at_least(f"{title} the forward pass alone", seconds[1] / seconds[0], 0.85))
        if against_loops:
            rows.append(at_least(f"{title} the plain loop", seconds[3] / seconds[0], 1.1))
            rows.append(at_least(f"{title} clip-retrieval's loop", seconds[4] / seconds[0], 1.1))
            ours = read(store, stage(store, pairs, encoder, device)).image
            theirs = plain_loop(encoder, paths)
            lowest = float((ours * theirs).sum(1).min())
            rows.append(at_least(f"{name} float32: lowest cosine to the plain loop", lowest, 0.99999))
            rows += half(name, encoder, images, theirs, (rates[3], rates[4]), device, runs)
    return rows


def half(
    name: str,
    encoder: Any,
    images: list[bytes],
    theirs: np.ndarray,
    rates: tuple[float, float],
    device: str,
    runs: int,
) -> list[Bar]:
    """Images per second of the stage in bfloat16, compared with both loops in float32, whose `rates` are given."""
    fast = fast_bfloat16(device)
    cast = in_bfloat16(encoder)
    few = images if fast else images[:8]
    datasets: list[Dataset] = []
    with tempfile.TemporaryDirectory() as folder:
        pairs = shard(Path(folder), few, [], "images")
        seconds = best_of(runs if fast else 1, lambda: datasets.append(stage(Path(folder), pairs, cast, device)))[0]
        ours = read(Path(folder), datasets[-1]).image
    rate = len(few) / seconds
    lowest = float((ours * theirs[: len(few)]).sum(1).min())
    return [
        with_hardware(
            f"{name} bfloat16: images/s, stage against the plain loop in float32", rate / rates[0], 1.8, fast
        ),
        with_hardware(f"{name} bfloat16: images/s, stage against clip-retrieval's loop", rate / rates[1], 1.8, fast),
        at_least(f"{name} bfloat16: lowest cosine to the plain loop in float32", lowest, 0.999),
    ]


def with_hardware(name: str, value: float, bar: float, fast: bool) -> Bar:
    """A result with its bar if the device has bfloat16 arithmetic (`fast`), else without a bar."""
    return at_least(name, value, bar) if fast else shown(f"{name} (no bfloat16 arithmetic here, so no bar)", value)


def captions_of(name: str, encoder: Any, count: int, bar: float, device: str, runs: int) -> list[Bar]:
    """Captions per second of the stage, compared with a plain loop that pads all captions to the full context."""
    texts = captions_like_coco(count)
    theirs: list[np.ndarray] = []

    def padded() -> None:
        theirs.clear()
        with torch.no_grad():
            for part in batched(texts, 32):
                features = encoder.model.encode_text(encoder.tokenizer(list(part)).to(encoder.device))
                theirs.append((features / features.norm(dim=-1, keepdim=True)).cpu().numpy())

    with tempfile.TemporaryDirectory() as folder:
        pairs = shard(Path(folder), [photo(0)], texts, "texts")
        datasets: list[Dataset] = []
        ours, plain = best_of(runs, lambda: datasets.append(stage(Path(folder), pairs, encoder, device)), padded)
        rows = read(Path(folder), datasets[-1]).text
        print(f"{name}: captions/s stage {count / ours:.1f}, plain {count / plain:.1f}", flush=True)
        lowest = float((rows * np.concatenate(theirs)).sum(1).min())
        cosines = [at_least(f"{name} float32: lowest cosine of captions to the plain loop", lowest, 0.99999)]
        if "SigLIP" not in name:
            return [at_least(f"{name} float32: captions against the plain padded loop", plain / ours, bar), *cosines]
        cosines.append(shown(f"{name} float32: captions against the plain padded loop", plain / ours))
        fast = fast_bfloat16(device)
        few = texts if fast else texts[:32]
        pairs = shard(Path(folder), [photo(0)], few, "few")
        cast = in_bfloat16(encoder)
        seconds = best_of(runs if fast else 1, lambda: stage(Path(folder), pairs, cast, device))[0]
        ratio = len(few) / seconds / (count / plain)
        title = f"{name} bfloat16: captions/s against the plain padded loop in float32"
        return [with_hardware(title, ratio, bar, fast), *cosines]


def growth(encoder: Any, count: int, device: str) -> list[Bar]:
    """Add 1 % new pairs: the number of rows that are embedded, and the time with a model that is already loaded."""
    new = max(1, count // 100)
    images = [photo(seed) for seed in range(count + new)]
    texts = captions_like_coco(count + new)
    counted: list[int] = []

    class Count(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "rows forward" in str(record.msg) and record.args:
                counted.append(int(record.args[3]))  # type: ignore[arg-type, index]

    log, handler = logging.getLogger("bridgescope"), Count()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder)
            old = shard(store, images[:count], texts[:count], "old")
            fresh = shard(store, images[count:], texts[count:], "new")
            whole = best_of(1, lambda: stage(store, old, encoder, device))[0]
            added = best_of(3, lambda: stage(store, fresh, encoder, device))[0]
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    print(f"growth: {count} pairs {whole:.1f} s, {new} more {added:.2f} s", flush=True)
    odd = abs(counted[-1] - new - len(set(texts[count:])))
    return [
        at_most("1 % new pairs: rows forwarded that are not new, or new and not forwarded", odd, 0, "rows"),
        at_most("1 % new pairs: time without loading the model, relative to all pairs", added / whole, 0.02),
    ]


# Memory: each size is embedded in a separate process, which does nothing else


def embed_small(store: Path, count: int, device: str) -> None:
    """Embed an existing shard and print the peak memory of this process, in MB.

    The peak is read from /proc, because getrusage includes the memory of the process that started this one.
    """
    pairs = Dataset(path=f"pairs/{count}", recipe=str(count), digest=str(count), rows=count)
    stage(store, pairs, tiny(device), device)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    print(int(peak.split()[1]) / 1024)


def memory(device: str, sizes: tuple[int, int] = (2000, 100_000)) -> list[Bar]:
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for count in sizes:
            shard(Path(folder), list(small_images(count)), captions_like_coco(count), str(count))
            command = [sys.executable, __file__, "--device", device, "--small", folder, str(count)]
            peaks.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
            print(f"memory: {count} small images, peak {peaks[-1]:.0f} MB", flush=True)
    return [at_most(f"peak memory of {sizes[1]} small images against {sizes[0]}", peaks[1] / peaks[0], 1.1)]


def measured(part: str, device: str, runs: int) -> list[Bar]:
    """The rows of one part of the table."""
    if part == "busy":
        from embed_busy import rows as busy_rows

        return busy_rows(runs)
    if part == "vit":
        return images_of("ViT-B-32", full_size("ViT-B-32", device), 96, device, runs, against_loops=True)
    if part == "siglip":
        name = "ViT-B-16-SigLIP"
        return images_of(name, full_size(name, device), 32, device, runs, against_loops=True)
    if part == "demo":
        with tempfile.TemporaryDirectory() as folder:
            return images_of("demo model", demo_model(Path(folder) / "demo", device), 256, device, runs, False)
    if part == "captions":
        rows = captions_of("ViT-B-32", full_size("ViT-B-32", device), 384, 2.5, device, runs)
        return rows + captions_of("ViT-B-16-SigLIP", full_size("ViT-B-16-SigLIP", device), 96, 1.8, device, 1)
    if part == "memory":
        return memory(device)
    if part == "growth":
        return growth(full_size("ViT-B-32", device), 600, device)
    if part == "thin":
        from thin import rows as thin_rows

        return thin_rows()
    from acquire import rows as acquire_rows

    return list(acquire_rows())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas: {', '.join(PARTS)}")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--small", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.small:
        embed_small(Path(arguments.small[0]), int(arguments.small[1]), arguments.device)
        return 0
    parts = arguments.only.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"--only {','.join(unknown)}: parts are {', '.join(PARTS)}")
    rows = [each for part in parts for each in measured(part, arguments.device, arguments.runs)]
    if set(parts) != set(PARTS) and (RESULTS / "embed.json").exists():
        names = {each["name"] for each in rows}
        before: list[Bar] = json.loads((RESULTS / "embed.json").read_text())
        rows = [each for each in before if each["name"] not in names] + rows
    return finish("embed", rows)


if __name__ == "__main__":
    sys.exit(main())
