"""Decoding processes fill the slots as threads do, report failures, and end with their feed."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from feed_support import BROKEN, ROWS, Greys, embedded, expected, png

from vlm import decoders
from vlm.batches import Images, Target
from vlm.decoders import TOGETHER, Field, Processes, Work, bytes_of, fill, layout_of, slots_in
from vlm.feed import Feed
from vlm.pixels import Pixels, _by_steps, _finish_rows
from vlm.thin import unchanged

SMALL = functools.partial(_by_steps, unchanged, (functools.partial(lambda image: image.resize((2, 1))),))


def test_slots_do_not_overlap_and_have_the_stated_size() -> None:
    layout = [[Field("rows", (3, 5), "uint8")], [Field("values", (7,), "float32"), Field("shape", (2,), "int64")]]
    rows, count = 5, 3
    # 75 bytes are padded to 128, 140 to 192 and 80 to 128: 448 bytes a slot
    assert bytes_of(layout, rows) == 448
    memory = torch.zeros(448 * count, dtype=torch.uint8)
    tensors = [each for slot in slots_in(memory, layout, rows, count) for view in slot for each in view.values()]
    assert [tuple(each.shape) for each in tensors[:3]] == [(5, 3, 5), (5, 7), (5, 2)]
    for number, each in enumerate(tensors):
        each.fill_(number)
    assert all(bool((each == number).all()) for number, each in enumerate(tensors))


def test_a_picture_is_written_for_every_view_and_a_broken_one_is_reported() -> None:
    views = [ROWS, Pixels(SMALL, _finish_rows)]
    # layouts are found with a grey picture of ordinary size; here every picture has 2 x 2 pixels
    layout = [[Field("rows", (2, 2, 3), "uint8")], [Field("rows", (1, 2, 3), "uint8")]]
    slot = slots_in(torch.zeros(bytes_of(layout, 4), dtype=torch.uint8), layout, 4, 1)[0]
    found = fill(views, slot, Work(0, [1, 2, 3], [png(10), BROKEN, png(30)], 100))
    assert {place: list(causes) for place, causes in found.failures.items()} == {2: [None]}
    assert slot[0]["rows"][:, 0, 0, 0].tolist() == slot[1]["rows"][:, 0, 0, 0].tolist() == [0, 10, 0, 30]
    assert layout_of(views) == [[Field("rows", (480, 640, 3), "uint8")], [Field("rows", (1, 2, 3), "uint8")]]


def test_pictures_are_written_at_their_places_in_groups_with_broken_ones_between() -> None:
    layout = [[Field("rows", (2, 2, 3), "uint8")]]
    count = 4 * TOGETHER + 3
    slot = slots_in(torch.zeros(bytes_of(layout, count + 1), dtype=torch.uint8), layout, count + 1, 1)[0]
    broken = {0, 2, 3, TOGETHER, 2 * TOGETHER - 1, count - 2}
    data = [BROKEN if n in broken else png(n + 1) for n in range(count)]
    found = fill([ROWS], slot, Work(0, list(range(1, count + 1)), data, 100))
    assert set(found.failures) == {n + 1 for n in broken}
    assert slot[0]["rows"][:, 1, 0, 2].tolist() == [0, *(0 if n in broken else n + 1 for n in range(count))]


def test_pixels_of_another_shape_are_an_error_and_no_row_is_resized() -> None:
    layout = [[Field("rows", (2, 3, 3), "uint8")]]
    slot = slots_in(torch.zeros(bytes_of(layout, 4), dtype=torch.uint8), layout, 4, 1)[0]
    with pytest.raises(ValueError, match=r"rows of a picture: shape \(2, 2, 3\), expected \(2, 3, 3\)"):
        fill([ROWS], slot, Work(0, [1], [png(10)], 100))
    assert not slot[0]["rows"].any()


@pytest.fixture
def feed() -> Iterator[Feed]:
    made = Feed([Greys(4)], 8, "processes", cores=2)
    assert made.in_processes
    yield made
    made.close()


def test_processes_give_the_rows_that_threads_give_and_a_dead_one_is_an_error(feed: Feed) -> None:
    images = [BROKEN if grey % 7 == 3 else png(grey) for grey in range(50)]
    with feed:
        rows = embedded(feed, images, chunk=20)
    for grey in range(50):
        np.testing.assert_allclose(rows[grey], [np.nan] * 2 if grey % 7 == 3 else expected(grey), atol=1e-6)
    assert feed._processes is not None
    for process, _ in feed._processes._started:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with pytest.raises(RuntimeError, match="a decoding process died"), feed:
        embedded(feed, images)
    assert feed._processes is None  # the next pass starts others


def running(feed: Feed) -> Processes:
    """The processes of a feed, after they have made a slot."""
    number = feed.take(threading.Event())
    assert number is not None
    assert feed._processes is not None
    assert feed._processes.fill(Work(number, [0], [png(9)], 100)).failures == {}
    return feed._processes


def test_every_call_after_the_death_of_a_process_says_that_it_died(feed: Feed) -> None:
    processes = running(feed)
    for process, _ in processes._started:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    for _ in range(2 * len(processes._started)):
        with pytest.raises(RuntimeError, match="a decoding process died"):
            processes.fill(Work(0, [0], [png(9)], 100))


def test_the_end_takes_every_step_although_one_fails_and_one_process_hangs(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "ENDING", 0.5)
    processes, undone = running(feed), []

    def fails() -> None:
        raise OSError("the pages are not locked")

    processes.undo += [fails, lambda: undone.append(True)]
    started = [process for process, _ in processes._started]
    os.kill(started[0].pid, signal.SIGSTOP)
    with pytest.raises(OSError, match="the pages are not locked"):
        feed.close()
    assert undone == [True]
    assert started[0].returncode == -signal.SIGKILL
    assert started[1].returncode is not None
    assert all(pipe.closed for _, pipe in processes._started)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(processes._file)
    assert feed._processes is None  # the next pass starts others


def test_a_view_that_cannot_be_sent_to_processes_is_resized_in_threads() -> None:
    encoder = Greys(4)
    encoder.pixels = encoder.pixels._replace(key=None)
    assert not Feed([encoder], 8, "processes").in_processes
    assert not Feed([Greys(4)], 8, "auto", cores=8).in_processes
    assert Feed([Greys(4)], 8, "auto", cores=9).in_processes
    assert not Feed([Greys(4)], 8, "threads", cores=9).in_processes


def test_models_that_resize_alike_share_their_pixels() -> None:
    models = [Greys(4), Greys(8), Greys(4)]
    models[1].pixels = models[1].pixels._replace(key="b")
    feed = Feed(models, 4, "threads")
    assert len(feed.views) == 2
    assert feed.view_of == [0, 1, 0]
    with feed:
        targets = [Target(number, 0, lambda rows: rows) for number in range(3)]
        images = Images(feed, lambda start: iter([png(9)] * 3), np.arange(3), targets)
        ((_, _, found),) = images.chunks()
    for block in found:
        np.testing.assert_allclose(block, np.stack([expected(9)] * 3), atol=1e-6)
