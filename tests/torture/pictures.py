"""Acquire and embed COUNT mutated pictures under a limit of memory: every one must be embedded or counted.

Pictures of ten kinds get flipped bytes, changed headers, and cut, doubled or zeroed parts. Both stages run in processes
with a limit of their address space (RLIMIT_AS). That of acquire is --limit GB. That of embed is --limit GB more than
the libraries and the model have mapped, since the libraries of a GPU's torch alone map several GB. The run fails if a
stage stops, if a picture is neither embedded nor counted, if acquire fails a picture that decodes or accepts one that
does not, or if embed fails a picture that acquire accepted.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
GB = 1 << 30
HEADER = 64  # bytes of a file that count as its header


def bases() -> list[bytes]:
    """Pictures of ten kinds, with EXIF, colour profiles, palettes, transparency and frames."""
    rng = np.random.default_rng(0)
    plain = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize((96, 72))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    grey16 = Image.fromarray(rng.integers(0, 65535, (20, 30), dtype=np.uint16))
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (plain, "jpeg", {"exif": exif, "icc_profile": bytes(rng.integers(0, 255, 3000, dtype=np.uint8))}),
        (plain, "jpeg", {"progressive": True, "exif": exif}),
        (plain.convert("CMYK"), "jpeg", {}),
        (plain, "png", {"exif": exif, "icc_profile": b"\1" * 4000}),
        (plain.convert("RGBA").quantize(32), "png", {"transparency": 0}),
        (grey16, "png", {}),
        (plain, "webp", {"exif": exif, "lossless": True}),
        (plain, "gif", {"save_all": True, "append_images": [plain.rotate(90)]}),
        (plain, "tiff", {"compression": "tiff_lzw", "exif": exif}),
        (plain, "bmp", {}),
    ]
    made = []
    for image, form, options in kinds:
        out = io.BytesIO()
        image.save(out, form, **options)
        made.append(out.getvalue())
    return made


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A picture with one to three faults. No two of them are equal in practice."""
    out = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        kind = draw.choice(("flip", "flip", "header", "cut", "double", "zero", "number"))
        at = draw.randrange(min(HEADER, len(out)) if kind in ("header", "number") else len(out))
        if kind in ("flip", "header"):
            out[at] ^= 1 << draw.randrange(8)
        elif kind == "number":  # sizes, offsets and counts become extreme
            out[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\1\0\0"))
        elif kind == "cut":
            del out[max(at, 1) :]
        elif kind == "double":
            out[at:at] = out[at : at + draw.randrange(1, 400)]
        else:
            length = min(draw.randrange(1, 200), len(out) - at)
            out[at : at + length] = bytes(length)
    return bytes(out)


def limit_to(limit: float, beside_libraries: bool) -> None:
    """Limit the address space of this process."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") * beside_libraries
    resource.setrlimit(resource.RLIMIT_AS, (mapped + int(limit * GB), mapped + int(limit * GB)))
    print(f"limit {(mapped + limit * GB) / GB:.1f} GB, of which the libraries have {mapped / GB:.1f} GB", flush=True)


def acquire(work: Path, limit: float) -> None:
    """Acquire the folder of pictures; the handles of the shards go to a file."""
    from storage.failures import tally
    from storage.sources.folder import FolderSection
    from storage.sources.section import rules_of, source_of
    from tasks.acquire import fetch
    from tasks.acquire import scan as scan_source
    from tasks.stage import Runtime

    limit_to(limit, beside_libraries=False)
    runtime = Runtime(store=work / "store", device="cpu", progress=False)
    pairs = FolderSection(source="folder", path=str(work / "pictures"), shard_size=2048, min_success=0)
    source = source_of(pairs)
    scanned = scan_source(source, pairs.shard_size, runtime)
    shards = [fetch.make(runtime, listing=one, source=source, rules=rules_of(pairs)) for one in scanned.listings]
    print(tally(runtime.store, shards).told(), flush=True)
    (work / "shards.json").write_text(json.dumps([shard.model_dump() for shard in shards]))


def embed(work: Path, limit: float) -> None:
    """Embed the shards with a tiny CLIP; [source key, cause in acquire, cause in embed] of each row go to a file."""
    from tiny_models import build

    from storage.dataset import Dataset
    from storage.embeddings import read, read_attributes
    from storage.pairs import read_images
    from tasks.embed import Wanted, load_encoders, model_identity
    from tasks.embed import embed as embed_stage
    from tasks.stage import Runtime

    spec = f"hf:local-dir:{build('clip', work / 'clip')}"
    runtime = Runtime(store=work / "store", device="cpu", progress=False)
    identity, spec = model_identity(spec, runtime.store)
    load_encoders((Wanted(identity, spec, "float32"),), "cpu", runtime.store, "auto", "auto", None)
    limit_to(limit, beside_libraries=True)
    rows = []
    for shard in (Dataset(**one) for one in json.loads((work / "shards.json").read_text())):
        made = embed_stage.make(runtime, pairs=shard, model=identity, dtype="float32", spec=spec)
        vectors, attributes = read(runtime.store, made), read_attributes(runtime.store, made)
        here = {row: cause for row, cause, _ in attributes.get("failures", [])}
        images = read_images(runtime.store, shard, ["source_key", "error"])
        for row, (key, error) in enumerate(images.iter_rows()):
            embedded = bool(np.isfinite(vectors.image[row]).all())
            rows.append([key, error, here.get(row), embedded])
    (work / "rows.json").write_text(json.dumps(rows))


def check(work: Path, count: int) -> list[str]:
    """What is wrong with the rows of both stages, at most ten lines of each kind."""
    from vlm.pictures import DecodeError, decode

    rows = json.loads((work / "rows.json").read_text())
    wrong = [] if len(rows) == count else [f"{len(rows)} rows of {count} pictures"]
    for key, error, failure, embedded in rows:
        try:
            decode((work / "pictures" / key).read_bytes())
            cause = None
        except DecodeError as caught:
            cause = caught.cause
        if error != cause:
            wrong.append(f"{key}: acquire says {error}, decode {cause}")
        if failure is not None:
            wrong.append(f"{key}: acquired, and failed in embed: {failure}")
        if embedded == (error is not None):
            wrong.append(f"{key}: embedded is {embedded}, although acquire says {error}")
    causes = Counter(error or "embedded" for _, error, _, _ in rows)
    print(", ".join(f"{number:,} {cause}" for cause, number in causes.most_common()))
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=4.0, help="GB of address space")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        {"acquire": acquire, "embed": embed}[given.stage](given.work, given.limit)
        return 0
    began, draw, sound = time.monotonic(), random.Random(given.seed), bases()
    with tempfile.TemporaryDirectory(prefix="pictures-") as name:
        work = Path(name)
        (work / "pictures").mkdir()
        (work / "store").mkdir()
        for number in range(given.count):
            # The first ten are sound; the extension does not matter.
            data = sound[number % 10] if number < 10 else mutated(sound[number % 10], draw)
            (work / "pictures" / f"{number:06}.png").write_bytes(data)
            (work / "pictures" / f"{number:06}.txt").write_text(f"picture {number}")
        for stage in ("acquire", "embed"):
            command = [sys.executable, __file__, "--stage", stage, "--work", name, "--limit", str(given.limit)]
            done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
            if done.returncode:
                print(f"{stage} ended with {done.returncode}")
                return 1
        wrong = check(work, given.count)
    for line in wrong[:20]:
        print(line)
    print(f"{given.count:,} pictures, {len(wrong)} wrong, {time.monotonic() - began:.0f} s")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
