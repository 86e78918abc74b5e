"""How busy the embedding stage keeps a device, and what several models on one folder save: parts of `bench/embed.py`.

The device is simulated: its forward pass takes a fixed time per picture, during which no core works, and batches queue
for it as they do on a GPU. Its busy share is the time of these passes divided by that of the pass over the shard, from
the first picture to the last written row. The stage then hashes and syncs the files, which is shown apart.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bars import Bar, at_least, at_most, shown
from embed_inputs import photo, shard
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from transformers import CLIPImageProcessor, SiglipImageProcessor

import tasks.embed
from storage.dataset import Dataset
from tasks.embed import Loaded, Wanted
from tasks.stage import Runtime
from tasks.together import embed_together
from vlm.decoders import Work, fill, layout_of, slots_in
from vlm.encoder import Encoder, Tokens
from vlm.feed import Feed
from vlm.pixels import Pixels, of_processor, of_transform
from vlm.thin import unchanged

DIM = 512


class Played(Encoder):
    """A model on a simulated device. It takes `seconds` per picture; all its batches queue for the device."""

    def __init__(self, rate: float, pixels: Pixels, name: str = "played") -> None:
        self.dim, self.device, self.dtype = DIM, "played", torch.float32
        self.identity = {"model": name, "dtype": "float32"}
        self.seconds, self.pixels = 1 / rate, pixels
        self.busy, self._free, self._lock = 0.0, 0.0, threading.Lock()

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.zeros(3, 224, 224)

    def pixel_features(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self._play(len(next(iter(inputs.values()))))

    def image_features(self, batch: Any) -> torch.Tensor:
        return self._play(len(batch))

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        count = len(texts)
        return Tokens({"ids": torch.zeros(count, 1)}, torch.ones(count), torch.zeros(count, dtype=torch.bool))

    def token_features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._play(len(inputs["ids"]))

    def _play(self, rows: int) -> torch.Tensor:
        with self._lock:
            self._free = max(self._free, time.perf_counter()) + rows * self.seconds
            self.busy += rows * self.seconds
            due = self._free
        time.sleep(max(0.0, due - time.perf_counter()))
        return torch.ones(rows, DIM)


GREY = torch.zeros(224, 224, 3, dtype=torch.uint8)


def constant(image: Image.Image) -> Mapping[str, torch.Tensor]:
    """A picture at model size that costs nothing; it is still copied into the batch."""
    return {"rows": GREY}


def same(batch: Any) -> Any:
    return batch


FREE = Pixels(constant, same, "free")


def preparations() -> dict[str, Pixels]:
    """The preparations of four models: CLIP of open_clip and of transformers, and two SigLIPs of transformers."""
    transform = image_transform_v2(PreprocessCfg(size=224), False)
    found = {"open_clip CLIP": of_transform(transform, transform, unchanged)}
    processors = {
        "CLIP": CLIPImageProcessor(),
        "SigLIP": SiglipImageProcessor(),
        "SigLIP2": SiglipImageProcessor(resample=2, size={"height": 256, "width": 256}),
    }
    for name, processor in processors.items():

        def preprocess(image: Image.Image, processor: Any = processor) -> torch.Tensor:
            values: torch.Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
            return values

        found[name] = of_processor(processor, preprocess, unchanged)
    return found


def made(store: Path, pairs: Dataset, encoders: Sequence[Encoder], batch: int | str = "auto") -> None:
    """Run the stage embed again, with models that are already loaded, in one pass for all of them."""
    loaded = dict(zip([wanted(each) for each in encoders], encoders, strict=True))
    feeds: dict[tuple[Wanted, ...], Loaded] = {}

    def load(asked: tuple[Wanted, ...], *_: Any) -> Loaded:
        feed = Feed([loaded[each] for each in asked], batch)
        return feeds.setdefault(asked, Loaded(feed, {each: n for n, each in enumerate(asked)}, {}))

    runtime = Runtime(store=store, device=encoders[0].device, progress=False, force=True)
    jobs = [{"pairs": pairs, "model": each.model, "dtype": each.dtype, "spec": each.spec} for each in loaded]
    with patch.object(tasks.embed, "load_encoders", load), patch("tasks.stage.machine", lambda *_: {}):
        embed_together(jobs, runtime)


def wanted(encoder: Encoder) -> Wanted:
    return Wanted(str(encoder.identity["model"]), "bench", str(encoder.identity["dtype"]))


def busy_decoding_free(rate: float, count: int, bar: float, runs: int) -> list[Bar]:
    """Busy share of a simulated device when decoding costs nothing."""
    shares, rates = [], []
    seconds: list[float] = []
    run_pass = tasks.embed.run_pass

    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        found = run_pass(*arguments)
        seconds.append(time.perf_counter() - began)
        return found

    with (
        tempfile.TemporaryDirectory() as folder,
        patch("vlm.decoders.decode", lambda data, most: None),
        patch.object(tasks.embed, "run_pass", timed),
    ):
        store = Path(folder)
        pairs = shard(store, [number.to_bytes(8, "little") for number in range(count)], [], "free")
        for _ in range(runs):
            encoder = Played(rate, FREE)
            began = time.perf_counter()
            made(store, pairs, [encoder])
            shares.append(encoder.busy / seconds[-1])
            rates.append(count / (time.perf_counter() - began))
            print(
                f"played at {rate:,.0f} images/s: pass {count / seconds[-1]:,.0f}, stage {rates[-1]:,.0f}", flush=True
            )
    name = f"device played at {rate:,.0f} images/s, decoding free"
    return [at_least(f"{name}: busy share", max(shares), bar), shown(f"{name}: whole stage", max(rates), "images/s")]


def photos(count: int) -> list[bytes]:
    """JPEGs of 640 x 480, drawn in turn from 64. The stage decodes each, since their rows in the shard differ.

    Each has bytes of its own in memory, as those that the stage reads: 64 pictures alone would stay in the caches.
    """
    drawn = [photo(number) for number in range(64)]
    return [bytes(bytearray(drawn[number % 64])) for number in range(count)]


def decode_alone(images: Sequence[bytes], pixels: Pixels, cores: int) -> float:
    """Seconds that decoding and resizing alone take on some cores."""
    layout = layout_of([pixels])
    slots = [slots_in(torch.zeros(2**26, dtype=torch.uint8), layout, 16, 1)[0] for _ in range(cores)]
    parts = [images[start : start + 16] for start in range(0, len(images), 16)]
    free = list(slots)

    def work(part: Sequence[bytes]) -> None:
        slot = free.pop()
        fill([pixels], slot, Work(0, list(range(len(part))), list(part), 2**30))
        free.append(slot)

    began = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(work, parts))
    return time.perf_counter() - began


def busy_with_jpegs(count: int, runs: int) -> list[Bar]:
    """Rate of the stage with real JPEGs around a device that is never the bound, against decoding alone."""
    images = photos(count)
    pixels, cores = preparations()["CLIP"], os.cpu_count() or 1
    torch.set_num_threads(1)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        pairs = shard(Path(folder), images, [], "jpegs")
        for _ in range(runs):  # what else runs on the machine changes the rates, so both are measured in turn
            began = time.perf_counter()
            made(Path(folder), pairs, [Played(11_300, pixels)])
            stage = time.perf_counter() - began
            alone = decode_alone(images, pixels, cores)
            ratios.append(alone / stage)
            print(f"JPEGs: images/s stage {count / stage:.0f}, decoding alone {count / alone:.0f}", flush=True)
    return [at_least(f"JPEGs, simulated device, {cores} cores: images/s against decoding alone", max(ratios), 0.9)]


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Seconds of a core that this process spends on some work."""
    began = time.process_time()
    work()
    return time.process_time() - began


def four_models(count: int, runs: int) -> list[Bar]:
    """CPU time outside the forward pass of four models on one folder, in one pass and in four runs."""
    images = photos(count)
    torch.set_num_threads(1)
    encoders = [Played(11_300, pixels, name) for name, pixels in preparations().items()]
    together = apart = float("inf")
    with tempfile.TemporaryDirectory() as folder:
        store, pairs = Path(folder), shard(Path(folder), images, [], "folder")
        for _ in range(runs):
            together = min(together, cpu_seconds(lambda: made(store, pairs, encoders)))
            apart = min(apart, sum(cpu_seconds(lambda each=each: made(store, pairs, [each])) for each in encoders))
    print(f"four models: {together:.2f} s of a core together, {apart:.2f} s apart", flush=True)
    return [
        at_most("four models on one folder: CPU time outside forward, against four runs", together / apart, 0.7),
        shown("four models on one folder: milliseconds of a core per image", together / count * 1000, "ms"),
    ]


def rows(runs: int) -> list[Bar]:
    """All rows of this part of the table."""
    return [
        *busy_decoding_free(11_300, 40_960, 0.9, runs),
        *busy_decoding_free(40_000, 81_920, 0.6, runs),
        *busy_with_jpegs(8192, runs),
        *four_models(384, runs),
    ]
