"""A store that cannot be written, a server that does not answer, and a locked database. Later the study resumes.

Each condition is real and affects a separate process. tests/deploy tests a full disk and a second process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from tests_support import RUN, begin, end, random_sae, write_study

from flows.failures import explained, is_of_surroundings
from storage.errors import BadInput
from storage.lease import running
from storage.runs import numbers

pytestmark = pytest.mark.slow

# This code changes to the user 65534, who cannot write the store. It first imports all modules, since the user 65534
# may be unable to read this installation.
NOBODY = "import flows.cli, flows.signals, flows.study, os\nif os.getuid() == 0: os.setuid(65534)\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), images=60)


def resumed(study: Path, store: Path, **environment: str) -> None:
    """Check that the same command completes after the obstacle is removed."""
    clean = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    code, errors = end(begin(RUN, study, store, clean | environment))
    assert code == 0, errors
    assert numbers(store, "small") == [1]
    assert list(store.glob("studies/small/running/*.lease")) == []


def test_a_store_that_may_not_be_written_is_bad_input(study: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # other users cannot read pytest's own folders
        os.chmod(folder, 0o755)
        store = Path(folder) / "store"
        store.mkdir(mode=0o555)
        readable = shutil.copy(study, folder)
        code, errors = end(begin(NOBODY + RUN, Path(readable), store, os.environ | {}))
        assert code == 2
        assert f"the store {store} is not writable" in errors
        assert list(store.iterdir()) == []
        store.chmod(0o755)
        resumed(study, store)


def test_a_server_that_does_not_answer_is_named(study: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    code, errors = end(begin(RUN, study, tmp_path / "store", environment))
    assert code == 1
    assert "the Prefect server http://127.0.0.1:9/api does not answer: start it (make server)" in errors
    assert "Traceback" not in errors
    resumed(study, tmp_path / "store")


def test_a_locked_database_of_prefect_is_reported(study: Path, tmp_path: Path) -> None:
    home = tmp_path / "prefect"
    home.mkdir()
    environment = os.environ | {"PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    with contextlib.closing(sqlite3.connect(home / "prefect.db")) as con:
        con.execute("CREATE TABLE held (x)")
        con.execute("BEGIN EXCLUSIVE")
        code, errors = end(begin(RUN, study, tmp_path / "store", environment))
        assert code == 1
        assert f"failed: Prefect's database {home}/prefect.db is locked by another process: wait" in errors
        assert "Traceback" not in errors
    resumed(study, tmp_path / "store", PREFECT_HOME=str(home))


def test_causes_are_looked_at_and_other_errors_are_not_explained() -> None:
    wrapped = RuntimeError("the writer stopped")
    wrapped.__cause__ = OSError(28, "No space left on device", "saes/x")
    assert explained(wrapped) == (
        "saes/x: the disk is full: free some space (in the store: bridgescope gc) "
        "([Errno 28] No space left on device: 'saes/x')"
    )
    assert explained(ValueError("k is 0")) is None


def test_the_path_that_failed_is_named_and_whether_it_lies_in_the_store(tmp_path: Path) -> None:
    store, model = tmp_path / "store", tmp_path / "model.bin"
    theirs, ours = (PermissionError(errno.EACCES, "Permission denied", str(path)) for path in (model, store / "own"))
    assert str(explained(theirs, store)).startswith(f"{model}: this user may not read or write it")
    assert str(explained(ours, store)).startswith(f"{store}/own, in the store: this user may not read or write it")
    assert not is_of_surroundings(theirs, store)  # an unreadable model does not stop the other models
    assert is_of_surroundings(ours, store)
    quoted = RuntimeError(f"seed 0: OSError: [Errno 28] No space left on device: '{store}/saes/x'")
    assert "in the store: the disk is full: free some space (in the store: bridgescope gc)" in str(
        explained(quoted, store)
    )
    full = OSError(errno.ENOSPC, "No space left on device", "/elsewhere/cache")
    assert "gc" not in str(explained(full, store))
    files = OSError(errno.EMFILE, "Too many open files", "/lib/x.so")
    assert "too many open files: raise the limit (ulimit -n)" in str(explained(files, store))


def test_failed_jobs_leave_no_connection_that_would_be_reported_as_a_leak(tmp_path: Path) -> None:
    study = write_study(tmp_path, images=1)  # no image is held out, so that the jobs of the analysis fail
    code, errors = end(begin(RUN, study, tmp_path / "store", os.environ | {}))
    assert code == 2
    assert "jobs failed, the others ended:" in errors
    assert "no images in the split 'heldout'" in errors
    assert "nanobind" not in errors
    assert "leaked" not in errors


def test_a_lease_cannot_be_taken_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "studies").write_text("a file in the way")
    with pytest.raises(BadInput, match="the store cannot be written: "), running(tmp_path, "small"):
        pass


def test_a_failed_run_leaves_no_file_of_prefect_in_the_store(study: Path, tmp_path: Path) -> None:
    random_sae(8, 0).save(tmp_path / "narrow")  # found out in the task: the model's rows have 12 dimensions
    text = (
        study.read_text()
        .replace('"vectors"', f'"{study.parent}/vectors"')
        .replace("embeddings:v", f"embeddings:{study.parent}/v")
    )
    imported = f'[[saes]]\nname = "theirs"\ncheckpoint = "{tmp_path}/narrow"\n[analyze]'
    failing = tmp_path / "failing.toml"
    failing.write_text(text.replace("[analyze]", imported))
    code, errors = end(begin(RUN, failing, tmp_path / "store", os.environ | {"PREFECT_API_URL": ""}))
    assert code in (1, 2), errors
    assert "takes rows of 8 dimensions" in errors
    assert [path.name for path in (tmp_path / "store").iterdir() if path.is_file() and path.suffix != ".lock"] == []
    assert list((tmp_path / "store").glob("saes/*/cached.json")) != []
