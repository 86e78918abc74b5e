"""The feed's paths for CUDA without a GPU: what the host waits for, the order of the streams, and what is copied.

`fake_streams` plays the device. Decoding threads are those of the feed; the numbers of these paths are tested on the
CPU.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from fake_streams import StreamCuda, fake_streams
from feed_support import BROKEN, Greys, embedded, png

import vlm.pixels
from bench.gpu_models import Size, built
from vlm.feed import Feed
from vlm.texts import Texts

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
PICTURE = {**TOWER, "image_size": 32, "patch_size": 8}
FAMILIES = [
    Size("clip", "clip", PICTURE, TOWER, 16, "", {}),
    Size("siglip", "siglip", PICTURE, TOWER, None, "", {}),
    Size("aimv2", "aimv2", {**PICTURE, "use_head": True, "is_native": False}, TOWER, 16, "", {}),
]
Elsewhere = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StreamCuda, Elsewhere]]:
    """A played device. Constants that lie on it are forgotten afterwards."""
    vlm.pixels._on.cache_clear()
    with fake_streams() as (device, elsewhere):
        forward = Feed.forward
        monkeypatch.setattr(Feed, "forward", lambda feed, work: forward(feed, lambda: elsewhere(work)))
        yield device, elsewhere
        vlm.pixels._on.cache_clear()


def ready(feed: Feed) -> Feed:
    """Make the slots here, where the played device is known, and not in the thread that reads."""
    number = feed.take(threading.Event())
    assert number is not None
    feed.release(number)
    return feed


@pytest.mark.parametrize("size", FAMILIES, ids=[size.name for size in FAMILIES])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_host_waits_once_a_batch(played: tuple[StreamCuda, Elsewhere], size: Size, dtype: str) -> None:
    """It waits for the embeddings alone. All pixels are copied as bytes from page-locked memory, without a wait."""
    device, _ = played
    encoder = built(size, "cuda", dtype)
    images = [png(grey) for grey in range(1, 23)] + [BROKEN, png(7)]
    with Feed([encoder], 6) as feed:
        ready(feed)
        assert {values.dtype for values in feed.slot(0)[0].values()} == {torch.uint8}
        embedded(feed, images[:6])  # copies the constants of normalising, for which the host waits
        before, copies = len(device.waits), device.copies
        rows = embedded(feed, images)
        waits = device.waits[before:]
    assert [wait.operation for wait in waits] == ["copy from cuda to cpu"] * 4
    assert {wait.line for wait in waits} == {"_on_cuda: found = rows.cpu()"}
    assert device.copies - copies == 4
    assert np.isnan(rows[22]).all()
    assert np.isfinite(np.delete(rows, 22, 0)).all()
    assert rows.shape == (24, encoder.dim)
    del encoder, feed
    gc.collect()
    assert device.raced == []
    assert device.reused == []


def test_captions_take_the_same_way(played: tuple[StreamCuda, Elsewhere]) -> None:
    device, _ = played
    encoder = built(FAMILIES[0], "cuda", "float32")
    captions = ["a dog", "the cat on a table", "a man in the street with a dog"] * 5
    with Feed([encoder], 4) as feed:
        texts = Texts(feed, encoder, lambda a, b: captions[a:b], np.arange(15), lambda rows: pytest.fail("no repeats"))
        rows = np.concatenate([block for _, _, block in texts.chunks()])
    assert rows.shape == (15, 16)
    assert {wait.line for wait in device.waits if "_on_cuda" in wait.line} == {"_on_cuda: found = rows.cpu()"}
    gc.collect()
    assert device.raced == []
    assert device.reused == []


def test_two_models_share_the_pixels_of_a_batch(played: tuple[StreamCuda, Elsewhere]) -> None:
    device, _ = played
    encoders = [built(FAMILIES[0], "cuda", dtype) for dtype in ("float32", "bfloat16")]
    with Feed(encoders, 4) as feed:
        assert len(feed.views) == 1
        embedded(ready(feed), [png(grey) for grey in range(12)])
    assert device.raced == []


@pytest.mark.parametrize("lost", ["wait", "keep"])
def test_the_played_streams_see_an_order_that_is_lost(
    played: tuple[StreamCuda, Elsewhere], monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Without `wait_event` a copy may not be over when it is read; without `record_stream` its memory is used again."""
    device, _ = played
    encoder = built(FAMILIES[0], "cuda", "float32")
    if lost == "wait":
        monkeypatch.setattr("fake_streams.Stream.wait_event", lambda stream, event: None)
    else:
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    with Feed([encoder], 6) as feed:
        embedded(ready(feed), [png(grey) for grey in range(6)])
    gc.collect()
    assert bool(device.raced) == (lost == "wait")
    assert bool(device.reused) == (lost == "keep")


def test_two_batches_are_under_way(played: tuple[StreamCuda, Elsewhere]) -> None:
    """Two workers, each with a stream of its own for copies; the kernels run on one stream."""
    device, _ = played
    encoder = built(FAMILIES[0], "cuda", "float32")
    streams = set()
    using = device.using

    def noted(stream: Any) -> Any:
        streams.add(stream)
        return using(stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "stream", noted)
        with Feed([encoder], 2) as feed:
            both = threading.Barrier(2)
            for work in [feed._forward.submit(both.wait, 10) for _ in range(2)]:  # both threads are there
                work.result()
            embedded(ready(feed), [png(grey % 200) for grey in range(40)])
    assert feed.workers == 2
    assert 1 <= len(streams) <= 2
    assert device.default not in streams


def test_the_slots_of_processes_are_page_locked_by_their_own_device(
    played: tuple[StreamCuda, Elsewhere], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that sets no device makes a context on GPU 0, which another process uses."""
    device, _ = played
    calls: list[tuple[str, str, int]] = []

    class Runtime:
        def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
            calls.append(("lock", device.place, address))
            return 0

        def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
            calls.append(("unlock", device.place, address))
            return 0

    monkeypatch.setattr(torch.cuda, "cudart", Runtime)
    monkeypatch.setattr(torch.cuda, "check_error", lambda result: None)
    encoder = Greys(4)
    encoder.device = "cuda:1"
    feed = ready(Feed([encoder], 8, "processes", cores=1))
    assert feed._processes is not None
    address = feed._processes.memory.data_ptr()
    feed.close()
    assert calls == [("lock", "cuda:1", address), ("unlock", "cuda:1", address)]
    assert device.place == "cuda:0"
