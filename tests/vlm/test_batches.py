"""Batches: rows keep their place after failures, repeats are encoded once, and batches shrink when memory runs out.

Several models share one decoding.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
import torch
from feed_support import BROKEN, embedded, expected, none_earlier, png, read_from, unrepeated
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import vlm.decoders
from vlm.batches import Images, Target
from vlm.encoder import Encoder, Tokens, is_out_of_memory
from vlm.feed import Feed
from vlm.precision import cast_checked
from vlm.spec import SpecError
from vlm.texts import Texts


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

    def pixel_features(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self.image_features(self.pixels.finish(inputs))  # copied to no device: torch knows no "accelerator"

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


@settings(max_examples=30, deadline=None)
@given(
    greys=st.lists(st.one_of(st.integers(0, 255), st.sampled_from([None, "broken"])), min_size=1, max_size=40),
    batch=st.integers(1, 9),
    chunk=st.integers(1, 16),
    workers=st.integers(1, 3),
    device=st.sampled_from(["cpu", "accelerator"]),
    data=st.data(),
)
def test_row_i_is_image_i_whatever_failed_around_it(greys, batch, chunk, workers, device, data) -> None:
    images = [BROKEN if grey == "broken" else None if grey is None else png(grey) for grey in greys]
    start = chunk * data.draw(st.integers(0, (len(images) - 1) // chunk), label="first chunk")
    with Feed([Shades(device=device)], batch, workers=workers) as feed:
        rows = embedded(feed, images, start, chunk)
    for row, grey in enumerate(greys[start:]):
        np.testing.assert_allclose(rows[row], expected(grey) if isinstance(grey, int) else [np.nan] * 2, atol=1e-6)
    assert feed.forwarded == sum(isinstance(grey, int) for grey in greys[start:])


def test_repeats_are_encoded_once_and_get_the_row_of_the_first() -> None:
    greys = [10, 20, 10, 30, 20, 40, 10]  # chunks of 3: 10 20 10 | 30 20 40 | 10
    first_of = np.array([0, 1, 0, 3, 1, 5, 0])
    written = dict[int, np.ndarray]()
    with Feed([Shades()], 2, workers=2) as feed:
        target = Target(0, 0, lambda rows: np.stack([written[row] for row in rows]))
        images = Images(feed, read_from([png(grey) for grey in greys]), first_of, [target], chunk=3)
        for start, _, blocks in images.chunks():
            written.update(enumerate(blocks[0], start))
    for row, grey in enumerate(greys):
        np.testing.assert_allclose(written[row], expected(grey), atol=1e-6)
    assert feed.forwarded == 4


def test_a_batch_that_does_not_fit_is_halved_and_those_after_it_stay_so(caplog: pytest.LogCaptureFixture) -> None:
    encoder = Shades(room=3)
    images = [png(grey) for grey in range(40)]
    with caplog.at_level(logging.WARNING, "bridgescope"), Feed([encoder], 16, workers=1) as feed:
        rows = embedded(feed, images)
    np.testing.assert_allclose(rows, np.stack([expected(grey) for grey in range(40)]), atol=1e-6)
    # Batches of 16, 8 and 4 rows do not fit; batches of 2 rows fit.
    assert max(len(batch) for batch in encoder.batches) == 2
    assert [record.args[1:] for record in caplog.records] == [(16, 8), (8, 4), (4, 2)]


def test_one_row_that_does_not_fit_and_any_other_error_end_the_stage() -> None:
    for encoder, error in ((Shades(room=0), torch.OutOfMemoryError), (Shades(), ZeroDivisionError)):
        if error is ZeroDivisionError:
            encoder.image_features = lambda batch: 1 / 0  # type: ignore[method-assign]
        with Feed([encoder], 4) as feed, pytest.raises(error):
            embedded(feed, [png(1)] * 9, chunk=4)


def test_a_picture_is_decoded_once_for_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    decode = vlm.decoders.decode
    monkeypatch.setattr("vlm.decoders.decode", lambda data, most: decoded.append(data) or decode(data, most))
    models = [Shades(), Shades(), Shades()]
    models[1].noise = 0.5
    images = [png(grey) for grey in range(20)]
    with Feed(models, 4) as feed:
        targets = [Target(number, start, none_earlier) for number, start in enumerate((0, 10, 0))]
        found = [
            blocks for *_, blocks in Images(feed, read_from(images), unrepeated(images), targets, chunk=5).chunks()
        ]
    assert sorted(decoded) == sorted(images)
    assert [blocks[1] is None for blocks in found] == [True, True, False, False]
    for row in (0, 7, 19):
        np.testing.assert_allclose(found[row // 5][0][row % 5], expected(row), atol=1e-6)
    np.testing.assert_allclose(found[3][1][4], expected(69), atol=1e-6)  # .5 radians are 50 greys


def test_a_model_that_fails_does_not_stop_the_others() -> None:
    bad, good = Shades(room=0), Shades()
    images = [png(grey) for grey in range(12)]
    with Feed([bad, good], 4) as feed:
        targets = [Target(number, 0, none_earlier) for number in range(2)]
        found = [
            blocks for *_, blocks in Images(feed, read_from(images), unrepeated(images), targets, chunk=6).chunks()
        ]
    assert isinstance(targets[0].error, torch.OutOfMemoryError)
    assert targets[1].error is None
    assert [blocks[0] is None for blocks in found] == [True, True]
    rows = np.concatenate([blocks[1] for blocks in found])
    np.testing.assert_allclose(rows, np.stack([expected(grey) for grey in range(12)]), atol=1e-6)


def test_a_picture_that_fails_for_one_model_is_embedded_by_the_others() -> None:
    picky = Shades()

    def preprocess(image: Image.Image) -> torch.Tensor:
        if image.getpixel((0, 0))[0] == 3:
            raise KeyError("sinks")
        return Shades.preprocess(picky, image)

    picky.preprocess = preprocess  # type: ignore[method-assign]
    images = [png(grey) for grey in range(6)]
    with Feed([picky, Shades()], 4) as feed:
        targets = [Target(number, 0, none_earlier) for number in range(2)]
        ((_, _, (one, two)),) = Images(feed, read_from(images), unrepeated(images), targets, chunk=6).chunks()
    assert np.flatnonzero(np.isnan(one[:, 0])).tolist() == [3]
    assert targets[0].failures == {3: ("cannot be preprocessed", "2 x 2: 'sinks'")}
    assert not np.isnan(two).any()
    assert targets[1].failures == {}


def test_an_accelerator_has_two_batches_under_way() -> None:
    meet = threading.Barrier(2, timeout=20)
    encoder = Shades(device="accelerator")

    def features(batch: torch.Tensor) -> torch.Tensor:
        meet.wait()  # only if a second batch arrives before the first is done
        return encoder._record(batch)

    encoder.image_features = features  # type: ignore[method-assign]
    images = [png(grey) for grey in range(12)]
    with Feed([encoder], 3) as feed:
        rows = embedded(feed, images, chunk=12)
    np.testing.assert_allclose(rows, np.stack([expected(grey) for grey in range(12)]), atol=1e-6)


def test_an_interrupted_pass_gives_its_slots_back() -> None:
    images = [png(grey % 256) for grey in range(300)]
    feed = Feed([Shades(device="accelerator")], 2)
    for _ in range(2):
        with feed:
            chunks = Images(feed, read_from(images), unrepeated(images), [Target(0, 0, none_earlier)], chunk=2).chunks()
            next(chunks)
            chunks.close()
        with feed:
            assert len(embedded(feed, images)) == 300


def test_an_error_of_the_reader_ends_the_pass() -> None:
    def read(start: int) -> Iterator[bytes]:
        yield png(1)
        raise OSError("the disk is gone")

    with Feed([Shades()], 2) as feed, pytest.raises(OSError, match="the disk is gone"):
        list(Images(feed, read, unrepeated([0] * 9), [Target(0, 0, none_earlier)]).chunks())


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_cpu_has_a_worker_a_core_and_gives_the_threads_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with Feed([Shades()]) as feed:
            assert feed.workers == 3
            assert feed.forward(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_captions_go_shortest_first_and_come_back_in_order() -> None:
    captions = ["aaaa", "a", "aaa", "aaaaa", "aa", "a" * 12, "aaaaaaa"]
    encoder = Shades()
    with Feed([encoder], 1, workers=1) as feed:  # a batch size of 1 image means 4 captions
        texts = Texts(feed, encoder, lambda a, b: captions[a:b], unrepeated(captions), none_earlier, chunk=5)
        rows = np.concatenate([block for *_, block in texts.chunks()])
    np.testing.assert_allclose(rows, np.stack([expected(len(text)) for text in captions]), atol=1e-6)
    assert encoder.batches == [[1, 2, 3, 4], [5], [7, 12]]
    assert texts.truncated() == 1


@pytest.mark.parametrize("start", [0, 2, 4, 6])
def test_truncated_captions_are_counted_over_the_whole_shard_when_resumed(start: int) -> None:
    captions = ["a", "b" * 12, "b" * 12, "c" * 10, "d", "e" * 11]
    first_of = np.array([0, 1, 1, 3, 4, 5])
    encoder = Shades()
    with Feed([encoder], 1) as feed:
        texts = Texts(
            feed, encoder, lambda a, b: captions[a:b], first_of, lambda rows: np.zeros((len(rows), 2), np.float32),
            start=start, chunk=2,
        )  # fmt: skip
        assert sum(len(block) for *_, block in texts.chunks()) == 6 - start
        assert texts.truncated() == 4  # the captions b (twice), c and e


def test_bfloat16_that_moves_an_embedding_too_far_is_refused() -> None:
    images = [Image.new("RGB", (2, 2))]
    with pytest.raises(SpecError, match=r'has cosine 0\.99875 .* use dtype = "float32"') as caught:
        cast_checked(Shades(), lambda: iter(images), ["a"], "bfloat16", "shades")
    assert caught.value.exit_code == 2
    mild = Shades()
    mild.cast = lambda dtype: setattr(mild, "noise", 0.04)  # type: ignore[method-assign]
    assert cast_checked(mild, lambda: iter(images), ["a"], "bfloat16", "shades") == pytest.approx(
        np.cos(0.04), abs=1e-6
    )
