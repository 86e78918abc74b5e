"""Memos: a torn, damaged, shared or read-only memo costs repeated work and nothing else."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from storage.fingerprints import FILES, files_of, fingerprint, stamp
from storage.listing import Attempt, read_attempts, write_attempts
from storage.memo import read_memo, update_memo
from storage.sources.files import digests

WORDS = TypeAdapter(dict[str, str])
DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b'{"a": 1}',
    b'{"a": null}',
    b"\xff\x00\x81",
    b"[" * 5000,
    b'{"a": ["b"]}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_memo_is_empty_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    memo = tmp_path / "memo.json"
    memo.write_bytes(content)
    assert read_memo(memo, WORDS) == {}
    assert update_memo(memo, WORDS, {"k": "v"}) == {"k": "v"}
    assert json.loads(memo.read_text()) == {"k": "v"}


@pytest.mark.parametrize("content", [*DAMAGED, b'{"/x": [1, 2]}', b'{"/x": {"size": "much"}}'])
def test_a_damaged_memo_of_fingerprints_changes_no_fingerprint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.bin").write_bytes(b"three rows")
    memo = tmp_path / "sources" / "fingerprints.json"
    before = fingerprint(tmp_path / "folder", memo)
    memo.write_bytes(content)
    assert fingerprint(tmp_path / "folder", memo) == before
    assert list(read_memo(memo, FILES)) == [str(tmp_path / "folder" / "a.bin")]


def replace(file: Path, content: bytes) -> None:
    """Replace a file by one of the same size and time, as tar, unzip and rsync do."""
    before = file.stat()
    other = file.with_name("other")
    other.write_bytes(content)
    os.utime(other, ns=(before.st_mtime_ns, before.st_mtime_ns))
    os.replace(other, file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_file_that_was_replaced_by_one_of_equal_size_and_time_is_read_again(tmp_path: Path) -> None:
    folder, memo = tmp_path / "folder", tmp_path / "memo.json"
    folder.mkdir()
    (folder / "a").write_bytes(b"one")
    before, stamped = fingerprint(folder, memo), stamp(folder)
    first = digests([folder / "a"], tmp_path / "memo.parquet")
    assert fingerprint(folder, memo) == before
    replace(folder / "a", b"two")
    assert fingerprint(folder, memo) != before
    assert stamp(folder) != stamped
    assert digests([folder / "a"], tmp_path / "memo.parquet") != first


def test_files_behind_links_to_folders_count_and_a_loop_ends(tmp_path: Path) -> None:
    folder, memo = tmp_path / "folder", tmp_path / "memo.json"
    (folder / "own").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(b"one")
    for name in ("linked", "again"):
        (folder / name).symlink_to(tmp_path / "data")
    (folder / "own" / "loop").symlink_to(folder)
    assert [file.relative_to(folder).as_posix() for file in files_of(folder)] == ["again/a", "linked/a"]
    before, stamped = fingerprint(folder, memo), stamp(folder)
    (tmp_path / "data" / "a").write_bytes(b"other")
    assert fingerprint(folder, memo) != before
    assert stamp(folder) != stamped


def test_a_memo_is_written_on_change_only_and_forgets_what_is_gone(tmp_path: Path) -> None:
    folder, memo = tmp_path / "folder", tmp_path / "memo.json"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(name)
    fingerprint(folder, memo)
    written = memo.stat()
    fingerprint(folder, memo)
    assert (memo.stat().st_ino, memo.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    (folder / "b").unlink()
    fingerprint(folder, memo)
    assert list(read_memo(memo, FILES)) == [str(folder / "a")]


def test_what_another_process_wrote_stays_and_can_win(tmp_path: Path) -> None:
    memo = tmp_path / "memo.json"
    update_memo(memo, WORDS, {"a": "first"})
    assert update_memo(memo, WORDS, {"a": "second", "b": "x"}, first_stays=True) == {"a": "first", "b": "x"}
    assert update_memo(memo, WORDS, {"a": "third"}, gone={"b"}) == {"a": "third"}


@pytest.fixture
def without_rights() -> Iterator[Path]:
    """A folder for a test that gives up the rights of root. The fixture takes them back when the test ends."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)
        if os.getuid() == 0:
            os.seteuid(0)
        for path in Path(name).rglob("*"):
            os.chmod(path, 0o755)


def test_a_memo_of_a_store_that_cannot_be_written_is_read_and_left_alone(without_rights: Path) -> None:
    folder, sources = without_rights / "folder", without_rights / "store" / "sources"
    folder.mkdir()
    sources.mkdir(parents=True)
    (folder / "a").write_text("a")
    before = fingerprint(folder, sources / "fingerprints.json")
    (folder / "b").write_text("b")
    written = (sources / "fingerprints.json").read_bytes()
    os.chmod(sources, 0o555)
    os.chmod(sources / "fingerprints.json.lock", 0o444)
    if os.getuid() == 0:
        os.seteuid(65534)
    assert fingerprint(folder, sources / "fingerprints.json") != before
    assert (sources / "fingerprints.json").read_bytes() == written
    assert sorted(path.name for path in sources.iterdir()) == ["fingerprints.json", "fingerprints.json.lock"]


def _look(folder: Path, memo: Path, results) -> None:
    try:
        for _ in range(40):
            for file in folder.iterdir():
                os.utime(file)  # the new time makes every call write the memo
            fingerprint(folder, memo)
        results.put("sound")
    except Exception as error:
        results.put(repr(error))


def test_two_processes_of_one_store_do_not_tear_a_memo(tmp_path: Path) -> None:
    memo = tmp_path / "fingerprints.json"
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        for n in range(20):
            (folder / f"{n}.npy").write_bytes(b"x" * 100)
    both = [context.Process(target=_look, args=(folder, memo, results)) for folder in folders]
    for process in both:
        process.start()
    assert [results.get(timeout=60) for _ in both] == ["sound", "sound"]
    for process in both:
        process.join()
    assert len(read_memo(memo, FILES)) == 40


def test_a_damaged_ledger_of_attempts_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "sources" / "s").mkdir(parents=True)
    write_attempts(
        tmp_path, "s", {"k": Attempt(2, 5.0, "HTTP 503", {"0": ["HTTP 503", ""]}), "gone": Attempt(1, 1.0, "x", {})}
    )
    write_attempts(tmp_path, "s", {"k": Attempt(2, 5.0, "HTTP 503", {"0": ["HTTP 503", ""]})})
    assert read_attempts(tmp_path, "s") == {"k": (2, 5.0, "HTTP 503", {"0": ["HTTP 503", ""]})}
    (tmp_path / "sources" / "s" / "attempts.json").write_text('{"k": [2')
    assert read_attempts(tmp_path, "s") == {}


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\x00" * 100])
def test_a_damaged_memo_of_digests_is_made_again(tmp_path: Path, content: bytes) -> None:
    file, memo = tmp_path / "a.png", tmp_path / "downloads" / "digests.parquet"
    file.write_bytes(b"picture")
    before = digests([file], memo)
    memo.write_bytes(content)
    assert digests([file], memo) == before
    assert memo.stat().st_size > len(content)
