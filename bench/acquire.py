"""Compare the rate of the stage acquire with a bare aiohttp loop. 10 % of the loopback server's answers are errors.

python bench/acquire.py [--images 8000] [--concurrency 64] [--latency 0.1]

The stage and the loop request the same pictures from the same server, with the same concurrency and timeout. The loop
reads each body once and drops it. The stage does all that it does in a study: it retries, streams to disk, computes
checksums, decodes every picture, writes Parquet and counts each failure by its cause. The server is a separate process
and waits `latency` seconds before each answer; a tenth of a second is short for the web.
"""

import argparse
import asyncio
import hashlib
import io
import logging
import multiprocessing
import random
import socket
import struct
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import polars as pl
from aiohttp import web
from bars import Bar, at_least, at_most, line, shown
from PIL import Image

from storage.failures import tally
from storage.listing import scan
from storage.sources.registry import open_source
from storage.sources.section import rules_of, source_of
from storage.sources.urls import UrlsSection
from tasks.acquire import fetch
from tasks.stage import Runtime

BAR = 0.7
ERRORS = 0.1
TIMEOUT = 2.0
PICTURES = 64  # different pictures; each URL appends other bytes to its picture, so that no two bodies are equal
#: Kind of error -> cause under which the stage must count it; None if a retry must succeed.
KINDS: dict[str, str | None] = {
    "gone": "HTTP 404",
    "deleted": "HTTP 410",
    "forbidden": "HTTP 403",
    "busy": None,  # 429 with Retry-After, then 200
    "broken": None,  # 500, then 200
    "down": "HTTP 503",
    "reset": None,  # the connection is reset in the middle of the body; the second request gets the rest
    "short": "cut short",
    "stall": "timeout",
    "page": "not an image",
    "empty": "empty file",
    "torn": "corrupt image",
    "redirect": "redirect to another scheme",
    "noai": "X-Robots-Tag",
    "changed": "wrong hash",
}


class Site(NamedTuple):
    """States how the server answers. The bench and the server's process each have an equal copy."""

    images: int
    latency: float

    def kind(self, number: int) -> str:
        """Return the kind of error of a URL, or "" for a valid picture. Every tenth URL fails; the kinds take turns."""
        every = round(1 / ERRORS)
        return list(KINDS)[number // every % len(KINDS)] if number % every == 0 else ""


def picture(number: int) -> bytes:
    """A JPEG of 640 x 480 with the detail of a photograph, about 45 kB."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(
        (640, 480), Image.Resampling.BICUBIC
    )
    grain = np.asarray(small).astype(int) + rng.normal(0, 8, (480, 640, 3))
    out = io.BytesIO()
    Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(out, "jpeg", quality=75)
    return out.getvalue()


def body(pictures: list[bytes], number: int) -> bytes:
    """The bytes of the valid picture at a URL."""
    return pictures[number % PICTURES] + b"%09d" % number


def serve(site: Site, pictures: list[bytes], ready: Any) -> None:
    """Serve the site. This function runs in a separate process."""
    asked: Counter[str] = Counter()
    logging.disable()  # no log of clients that disconnect: they are expected

    async def answer(request: web.Request) -> web.StreamResponse:
        asked[request.path] += 1
        number = int(request.match_info["number"])
        await asyncio.sleep(site.latency)
        whole, kind = body(pictures, number), site.kind(number)
        first = asked[request.path] == 1
        match kind:
            case "gone" | "deleted" | "forbidden" | "down":
                return web.Response(status={"gone": 404, "deleted": 410, "forbidden": 403, "down": 503}[kind])
            case "busy" if first:
                return web.Response(status=429, headers={"Retry-After": "1"})
            case "broken" if first:
                return web.Response(status=500)
            case "redirect":
                return web.Response(status=302, headers={"Location": "file:///etc/hostname"})
            case "page":
                whole = b"<!doctype html><title>Sign in</title>"
            case "empty":
                whole = b""
            case "torn":
                whole = whole[: len(whole) // 2]
            case "stall":
                await asyncio.sleep(3 * TIMEOUT)
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {"Content-Length": str(len(whole) - start)}
        if kind != "short":  # with an entity tag, the client could fetch the rest and join the parts
            headers["ETag"] = f'"{number}"'
        if kind == "noai":
            headers["X-Robots-Tag"] = "noai"
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        if kind == "short" or (kind == "reset" and first):
            await response.write(whole[start : start + 20_000])
            if kind == "reset":
                plug = request.transport.get_extra_info("socket")  # type: ignore[union-attr]
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.transport.close()  # type: ignore[union-attr]
            return response
        await response.write(whole[start:])
        await response.write_eof()
        return response

    async def run() -> None:
        application = web.Application()
        application.router.add_get("/{who}/{number}", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        listening = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await listening.start()
        ready.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


async def bare(urls: list[str], concurrency: int) -> int:
    """The loop that a user would write: request, read, count. Returns the number of bodies with status 200."""
    received, left = 0, iter(urls)

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal received
        for url in left:
            try:
                async with session.get(url) as response:
                    await response.read()
                    received += response.status == 200
            except (aiohttp.ClientError, TimeoutError):
                pass

    limits = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(limit=concurrency)) as session:
        await asyncio.gather(*(worker(session) for _ in range(concurrency)))
    return received


def stage(urls: list[str], sums: list[str], concurrency: int, folder: Path) -> tuple[int, Counter[str]]:
    """Run the stage without Prefect: scan, fetch, count. Returns the numbers of images and of failures by cause."""
    listed = folder / "list.parquet"
    pl.DataFrame({"url": urls, "caption": [f"picture {n}" for n in range(len(urls))], "sha256": sums}).write_parquet(
        listed
    )
    pairs = UrlsSection(
        source="urls", path=str(listed), concurrency=concurrency, timeout=TIMEOUT, allow_private_addresses=True
    )
    store = folder / "store"
    store.mkdir()
    source, runtime = source_of(pairs), Runtime(store=store)
    listings = scan(store, open_source(source, store), pairs.shard_size).listings
    shards = [fetch.make(runtime, listing=one, source=source, rules=rules_of(pairs)) for one in listings]
    return sum(shard.rows for shard in shards), tally(store, shards).causes


def rows(images: int = 8000, concurrency: int = 64, latency: float = 0.1) -> list[Bar]:
    """Measure the stage and the bare loop. Returns both rates, their ratio, and the number of miscounted failures."""
    site = Site(images, latency)
    pictures = [picture(number) for number in range(PICTURES)]
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(site, pictures, there), daemon=True)
    process.start()
    try:
        port = here.recv()
        # Each client has separate paths, so that URLs which fail only on the first request fail for both clients.
        warm, loop, urls = (
            [f"http://127.0.0.1:{port}/{who}/{number}" for number in range(images)] for who in ("warm", "loop", "stage")
        )
        sums = [
            "0" * 64 if site.kind(number) == "changed" else "" if site.kind(number) in ("page", "empty", "torn")
            else hashlib.sha256(body(pictures, number)).hexdigest()
            for number in range(images)
        ]  # fmt: skip
        order = list(range(images))
        random.Random(0).shuffle(order)
        asyncio.run(bare(warm[:200], concurrency))  # warms up client and server
        began = time.perf_counter()
        received = asyncio.run(bare([loop[number] for number in order], concurrency))
        bare_rate = received / (time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            images_kept, causes = stage(urls, sums, concurrency, Path(folder))
            rate = images_kept / (time.perf_counter() - began)
    finally:
        process.terminate()
        process.join()
    expected = Counter(cause for number in range(images) if (kind := site.kind(number)) and (cause := KINDS[kind]))
    wrong = sum(((expected - causes) + (causes - expected)).values()) + abs(images - images_kept - causes.total())
    at = f"{concurrency} at once, {latency * 1000:g} ms latency, {ERRORS:.0%} errors of {len(KINDS)} kinds"
    return [
        shown(f"acquire, {at}", rate, "images/s"),
        shown(f"bare aiohttp loop, {at}", bare_rate, "images/s"),
        at_least("acquire against a bare aiohttp loop", rate / bare_rate, BAR),
        at_most("failures that are not counted, or under another cause", wrong, 0, "images"),
    ]


def main() -> None:
    """Run the benchmark and print one row per measured result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.1, metavar="SECONDS")
    arguments = parser.parse_args()
    for row in rows(arguments.images, arguments.concurrency, arguments.latency):
        print(line(row))


if __name__ == "__main__":
    main()
