"""Batches: rows keep their place after failures, repeats are encoded once, and batches shrink when memory runs out.

Several devices share the batches.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm.batches import EncoderPool, ImageBatches, TextBatches, devices, is_out_of_memory
from vlm.encoder import Encoder, Tokens
from vlm.precision import cast_checked
from vlm.spec import SpecError


class Shades(Encoder):
    """An encoder with known embeddings (cos g/100, sin g/100), where g is a picture's grey or a caption's length.

    It records its batches, and runs out of memory when a batch has more than `room` rows.
    """

    def __init__(self, room: int = 1000, device: str = "cpu") -> None:
        self.dim, self.device, self.dtype = 2, device, torch.float32
        self.identity = {"dtype": "float32"}
        self.room, self.batches = room, list[list[int]]()
        self.busy, self.threads = threading.Lock(), set[str]()
        self.noise = 0.0

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.tensor(float(image.getpixel((0, 0))[0]))

    def _record(self, values: torch.Tensor) -> torch.Tensor:
        if len(values) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append([int(value) for value in values])
        self.threads.add(threading.current_thread().name)
        angle = values / 100 + self.noise
        return torch.stack([angle.cos(), angle.sin()], 1)

    def image_features(self, batch: torch.Tensor) -> torch.Tensor:
        return self._record(batch)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        lengths = torch.tensor([len(text) for text in texts])
        return Tokens({"ids": lengths[:, None].expand(-1, 9)}, lengths.clamp(max=9), lengths > 9)

    def token_features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._record(inputs["ids"][:, 0])

    def cast(self, dtype: str) -> None:
        self.identity = {"dtype": dtype}
        self.noise = 0.05  # turns every embedding by .05 radians; the cosine of this angle is .99875


def expected(value: float) -> np.ndarray:
    return np.array([np.cos(value / 100), np.sin(value / 100)], np.float32)


def png(grey: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (2, 2), (grey, grey, grey)).save(out, "png")
    return out.getvalue()


BROKEN = b"<html>404</html>"


def unrepeated(rows: Sequence[object]) -> np.ndarray:
    return np.arange(len(rows), dtype=np.int64)


def none_earlier(rows: np.ndarray) -> np.ndarray:
    raise AssertionError(f"asked for earlier rows {rows}")


def read_from(images: Sequence[bytes | None]):
    return lambda start: iter(images[start:])


def chunks(rows: int, chunk: int, start: int = 0) -> Iterator[tuple[int, int]]:
    return ((at, min(at + chunk, rows)) for at in range(start, rows, chunk))


@settings(max_examples=40, deadline=None)
@given(
    greys=st.lists(st.one_of(st.integers(0, 255), st.sampled_from([None, "broken"])), min_size=1, max_size=40),
    batch=st.integers(1, 9),
    chunk=st.integers(1, 16),
    workers=st.integers(1, 3),
    data=st.data(),
)
def test_row_i_is_image_i_whatever_failed_around_it(greys, batch, chunk, workers, data) -> None:
    images = [BROKEN if grey == "broken" else None if grey is None else png(grey) for grey in greys]
    start = chunk * data.draw(st.integers(0, (len(images) - 1) // chunk), label="first chunk")
    with EncoderPool([Shades() for _ in range(workers)], batch) as pool:
        batches = ImageBatches(pool, read_from(images), unrepeated(images), none_earlier, chunk=chunk)
        rows = np.concatenate([batches.encode(*at) for at in chunks(len(images), chunk, start)])
    for row, grey in enumerate(greys[start:]):
        np.testing.assert_allclose(rows[row], expected(grey) if isinstance(grey, int) else [np.nan] * 2, atol=1e-6)
    assert pool.forwarded == sum(isinstance(grey, int) for grey in greys[start:])


def test_repeats_are_encoded_once_and_get_the_row_of_the_first() -> None:
    greys = [10, 20, 10, 30, 20, 40, 10]  # chunks of 3: 10 20 10 | 30 20 40 | 10
    first_of = np.array([0, 1, 0, 3, 1, 5, 0])
    encoder, written = Shades(), dict[int, np.ndarray]()
    with EncoderPool([encoder, Shades()], 2) as pool:
        batches = ImageBatches(
            pool, read_from([png(grey) for grey in greys]), first_of,
            lambda rows: np.stack([written[row] for row in rows]), chunk=3,
        )  # fmt: skip
        for start, stop in chunks(7, 3):
            written.update(enumerate(batches.encode(start, stop), start))
    for row, grey in enumerate(greys):
        np.testing.assert_allclose(written[row], expected(grey), atol=1e-6)
    assert pool.forwarded == 4


def test_a_batch_that_does_not_fit_is_halved_and_those_after_it_stay_so(caplog: pytest.LogCaptureFixture) -> None:
    encoder = Shades(room=3)
    images = [png(grey) for grey in range(40)]
    with caplog.at_level(logging.WARNING, "bridgescope"), EncoderPool([encoder], 16) as pool:
        batches = ImageBatches(pool, read_from(images), unrepeated(images), none_earlier, chunk=64)
        rows = batches.encode(0, 40)
    np.testing.assert_allclose(rows, np.stack([expected(grey) for grey in range(40)]), atol=1e-6)
    # Batches of 16, 8 and 4 rows do not fit; batches of 2 rows fit.
    assert batches.largest == 2
    assert max(len(batch) for batch in encoder.batches) == 2
    assert [record.args[1:] for record in caplog.records] == [(16, 8), (8, 4), (4, 2)]


def test_one_row_that_does_not_fit_and_any_other_error_end_the_stage() -> None:
    for encoder, error in ((Shades(room=0), torch.OutOfMemoryError), (Shades(), ZeroDivisionError)):
        if error is ZeroDivisionError:
            encoder.image_features = lambda batch: 1 / 0  # type: ignore[method-assign]
        with EncoderPool([encoder], 4) as pool:
            batches = ImageBatches(pool, read_from([png(1)] * 9), unrepeated([0] * 9), none_earlier, chunk=4)
            with pytest.raises(error):
                batches.encode(0, 4)


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_several_devices_have_one_worker_each() -> None:
    meet = threading.Barrier(2, timeout=20)
    here, there = Shades(device="cuda:0"), Shades(device="cuda:1")
    for encoder in (here, there):

        def features(batch: torch.Tensor, encoder: Shades = encoder) -> torch.Tensor:
            assert encoder.busy.acquire(blocking=False)  # one device never runs two batches at once
            meet.wait()  # both devices work at the same time
            encoder.busy.release()
            return encoder._record(batch)

        encoder.image_features = features  # type: ignore[method-assign]
    images = [png(grey) for grey in range(12)]
    with EncoderPool([here, there], 3) as pool:
        batches = ImageBatches(pool, read_from(images), unrepeated(images), none_earlier, chunk=6)
        rows = np.concatenate([batches.encode(*at) for at in chunks(12, 6)])
    np.testing.assert_allclose(rows, np.stack([expected(grey) for grey in range(12)]), atol=1e-6)
    assert len(here.batches) == len(there.batches) == 2


def test_auto_and_cuda_mean_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices("auto") == devices("cuda") == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices("cuda:1") == ["cuda:1"]
    assert devices("cpu") == ["cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices("auto") == ["auto"]


def test_a_cpu_has_a_worker_a_core_and_gives_the_threads_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with EncoderPool([Shades()]) as pool:
            assert len(pool.encoders) == 3
            assert pool.forward(lambda encoder: np.array([torch.get_num_threads()])).result() == [1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_captions_go_shortest_first_and_come_back_in_order() -> None:
    captions = ["aaaa", "a", "aaa", "aaaaa", "aa", "a" * 12, "aaaaaaa"]
    encoder = Shades()
    with EncoderPool([encoder], 1) as pool:  # a batch size of 1 image means 4 captions
        batches = TextBatches(pool, lambda a, b: captions[a:b], unrepeated(captions), none_earlier, chunk=5)
        rows = np.concatenate([batches.encode(*at) for at in chunks(7, 5)])
    np.testing.assert_allclose(rows, np.stack([expected(len(text)) for text in captions]), atol=1e-6)
    assert encoder.batches == [[1, 2, 3, 4], [5], [7, 12]]
    assert batches.truncated() == 1


@pytest.mark.parametrize("start", [0, 2, 4, 6])
def test_truncated_captions_are_counted_over_the_whole_shard_when_resumed(start: int) -> None:
    captions = ["a", "b" * 12, "b" * 12, "c" * 10, "d", "e" * 11]
    first_of = np.array([0, 1, 1, 3, 4, 5])
    with EncoderPool([Shades()], 1) as pool:
        batches = TextBatches(
            pool, lambda a, b: captions[a:b], first_of, lambda rows: np.zeros((len(rows), 2), np.float32), chunk=2
        )
        for at in chunks(6, 2, start):
            batches.encode(*at)
        assert batches.truncated() == 4  # the captions b (twice), c and e


def test_bfloat16_that_moves_an_embedding_too_far_is_refused() -> None:
    images = [Image.new("RGB", (2, 2))]
    with pytest.raises(SpecError, match=r'has cosine 0\.99875 .* use dtype = "float32"') as caught:
        cast_checked(Shades(), images, ["a"], "shades")
    assert caught.value.exit_code == 2
    mild = Shades()
    mild.cast = lambda dtype: setattr(mild, "noise", 0.04)  # type: ignore[method-assign]
    assert cast_checked(mild, images, ["a"], "shades") == pytest.approx(np.cos(0.04), abs=1e-6)
