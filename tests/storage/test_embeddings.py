"""Embeddings in Zarr: writing resumes at a whole chunk after a real SIGKILL, and reading checks for missing chunks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from storage.dataset import Dataset
from storage.embeddings import CHUNK, EmbeddingError, failed_rows, finish, read, write_modality
from storage.manifest import Damaged

HERE = Dataset(path="e", recipe="r", digest="d", rows=0)


def values(start: int, stop: int) -> np.ndarray:
    """Row i is (cos i, sin i): unit norm, and different for every row."""
    angle = np.arange(start, stop, dtype=np.float64)
    return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def write(out: Path, rows: int, failed: list[int] | None = None) -> None:
    def image(start: int, stop: int) -> np.ndarray:
        block = values(start, stop)
        block[[row - start for row in failed or [] if start <= row < stop]] = np.nan
        return block

    write_modality(out, "image", rows, 2, image, lambda _: None)
    write_modality(out, "text", rows, 2, values, lambda _: None)


def test_rows_come_back_normalised_and_in_order(tmp_path: Path) -> None:
    write(tmp_path / "e", 2500)
    finish(tmp_path / "e", {"failed_rows": [], "shard": 0})
    back = read(tmp_path, HERE)
    np.testing.assert_allclose(back.image, values(0, 2500), atol=1e-3)  # stored as float16
    np.testing.assert_allclose(np.linalg.norm(back.text, axis=1), 1, atol=1e-6)
    assert zarr.open_array(tmp_path / "e" / "image").chunks == (CHUNK, 2)


def test_a_failed_row_is_nan_and_named_and_any_other_nan_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "e", 5, failed=[3])
    finish(tmp_path / "e", {"failed_rows": [3]})
    assert np.isnan(read(tmp_path, HERE).image[3]).all()
    finish(tmp_path / "e", {"failed_rows": []})
    with pytest.raises(EmbeddingError, match="never failed"):
        read(tmp_path, HERE)


@pytest.mark.parametrize("name", ["zarr.json", "c/0/0"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_array_is_named(tmp_path: Path, name: str, share: float) -> None:
    write(tmp_path / "e", 5)
    finish(tmp_path / "e", {"failed_rows": []})
    file = tmp_path / "e" / "image" / name
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(Damaged, match=r"image is damaged: .*: delete the folder .*, and the next run makes it again"):
        read(tmp_path, HERE)


def test_a_chunk_lost_from_the_disk_is_an_error_not_zeros(tmp_path: Path) -> None:
    write(tmp_path / "e", 2500)
    finish(tmp_path / "e", {"failed_rows": []})
    (tmp_path / "e" / "text" / "c" / "1" / "0").unlink()
    with pytest.raises(EmbeddingError, match="never failed"):
        read(tmp_path, HERE)


@pytest.mark.parametrize("bad", [np.inf, 70000.0])
def test_values_that_float16_cannot_hold_are_refused(tmp_path: Path, bad: float) -> None:
    with pytest.raises(EmbeddingError, match="float16 cannot hold"):
        write_modality(tmp_path / "e", "image", 3, 2, lambda a, b: np.full((b - a, 2), bad, np.float32), lambda _: None)


def test_a_zero_row_is_refused(tmp_path: Path) -> None:
    write_modality(tmp_path / "e", "image", 3, 2, lambda a, b: np.zeros((b - a, 2), np.float32), lambda _: None)
    write_modality(tmp_path / "e", "text", 3, 2, values, lambda _: None)
    finish(tmp_path / "e", {"failed_rows": []})
    with pytest.raises(EmbeddingError, match="row 0 is zero"):
        read(tmp_path, HERE)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests_values import values
from storage.embeddings import write_modality
def encode(start, stop):
    if start == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return values(start, stop)
write_modality(Path(sys.argv[1]), "image", 5000, 2, encode, lambda _: None)
"""


def test_kill_9_in_the_middle_costs_one_chunk_at_most(tmp_path: Path) -> None:
    (tmp_path / "tests_values.py").write_text(
        "import numpy as np\ndef values(start, stop):\n    angle = np.arange(start, stop, dtype=np.float64)\n"
        "    return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)\n"
    )
    command = [sys.executable, "-c", KILLED, str(tmp_path / "e"), str(3 * CHUNK)]
    killed = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    asked: list[tuple[int, int]] = []
    there: list[int] = []

    def encode(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return values(start, stop)

    write_modality(tmp_path / "e", "image", 5000, 2, encode, there.append)
    assert asked == [(3 * CHUNK, 4 * CHUNK), (4 * CHUNK, 5000)]
    assert there[0] == 3 * CHUNK
    write_modality(tmp_path / "whole", "image", 5000, 2, values, lambda _: None)
    resumed, whole = (np.asarray(zarr.open_array(tmp_path / name / "image")[:]) for name in ("e", "whole"))
    assert resumed.tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    ("lost", "chunks"),
    [
        ("image/c/1", [1, 2]),
        ("image/c/0", [0, 1, 2]),
        ("image/c", [0, 1, 2]),
        ("image", [0, 1, 2]),
        ("image/zarr.json", [0, 1, 2]),
        ("image/c/2/0", [2]),
        ("progress.json", [0, 1, 2]),
    ],
)
def test_what_an_interrupted_call_has_lost_is_written_again_and_is_no_failure(
    tmp_path: Path, lost: str, chunks: list[int]
) -> None:
    out, asked = tmp_path / "e", list[int]()

    def image(start: int, stop: int) -> np.ndarray:
        asked.append(start // CHUNK)
        block = values(start, stop)
        block[:2] = np.nan
        return block

    write_modality(out, "image", 2500, 2, image, lambda _: None)
    path = out / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    asked.clear()
    write_modality(out, "image", 2500, 2, image, lambda _: None)
    assert asked == chunks
    assert failed_rows(out) == [0, 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1]


def test_a_chunk_cut_short_and_damaged_progress_are_written_again(tmp_path: Path) -> None:
    write_modality(tmp_path / "e", "image", 2500, 2, values, lambda _: None)
    chunk = tmp_path / "e" / "image" / "c" / "1" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-1])
    write_modality(tmp_path / "e", "image", 2500, 2, values, lambda _: None)
    assert chunk.read_bytes() == whole
    (tmp_path / "e" / "progress.json").write_text('{"image": ')
    asked: list[int] = []
    write_modality(tmp_path / "e", "image", 2500, 2, lambda a, b: asked.append(a) or values(a, b), lambda _: None)
    assert asked == [0, CHUNK, 2 * CHUNK]


def test_a_chunk_of_failures_alone_is_written_and_one_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    def image(start: int, stop: int) -> np.ndarray:
        return np.full((stop - start, 2), np.nan, np.float32) if start == CHUNK else values(start, stop)

    asked: list[int] = []
    write_modality(tmp_path / "e", "image", 2500, 2, image, lambda _: None)
    write_modality(tmp_path / "e", "image", 2500, 2, lambda a, b: asked.append(a) or image(a, b), lambda _: None)
    assert asked == []
    assert failed_rows(tmp_path / "e") == [*range(CHUNK, 2 * CHUNK)]
    (tmp_path / "e" / "image" / "c" / "2" / "0").unlink()
    with pytest.raises(EmbeddingError, match="chunk 2 of the images is gone since it was written"):
        failed_rows(tmp_path / "e")


def test_rows_as_stored_are_half_as_large_and_point_the_same_way(tmp_path: Path) -> None:
    vectors = np.array([[3, 4], [0, 2], [-1, 0]], np.float32)
    out = tmp_path / HERE.path
    for modality in ("image", "text"):
        write_modality(out, modality, 3, 2, lambda start, stop: vectors[start:stop], lambda rows: None)
    finish(out, {"failed_rows": []})
    stored, unit = read(tmp_path, HERE, normalised=False), read(tmp_path, HERE)
    assert stored.image.dtype == np.float16
    assert (stored.image == vectors).all()
    assert unit.image.dtype == np.float32
    # (3, 4) / 5 is (.6, .8), and float32 holds neither number exactly.
    assert np.allclose(unit.text, [[0.6, 0.8], [0, 1], [-1, 0]], atol=1e-7)
