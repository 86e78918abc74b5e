"""A store that cannot be written, a server that does not answer, a locked database; afterwards the study resumes.

Each condition is real and affects a separate process. A full disk and a second process: tests/deploy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from tests_support import RUN, begin, end, write_study

from flows.failures import DatabaseLocked, check_database, explained
from storage.errors import BadInput
from storage.lease import running

pytestmark = pytest.mark.slow

# Changes to the user 65534, who cannot write the store. All modules are imported before, since that user may be unable
# to read this installation.
NOBODY = "import flows.study, os\nif os.getuid() == 0: os.setuid(65534)\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), images=60)


def resumed(study: Path, store: Path, **environment: str) -> None:
    """Check that the same command completes after the obstacle is removed."""
    clean = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    code, errors = end(begin(RUN, study, store, clean | environment))
    assert code == 0, errors
    assert [path.name for path in store.glob("studies/small/runs/*.json")] == ["1.json"]
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
    url = f"sqlite+aiosqlite:///{home}/prefect.db"
    with contextlib.closing(sqlite3.connect(home / "prefect.db")) as con:
        con.execute("CREATE TABLE held (x)")
        con.execute("BEGIN EXCLUSIVE")
        code, errors = end(begin(RUN, study, tmp_path / "store", environment))
        assert code == 1
        assert "bridgescope: failed: Prefect's database is locked by another process: wait for it" in errors
        assert "Traceback" not in errors
        with pytest.raises(DatabaseLocked, match=r"prefect\.db"):
            check_database(url, patience=0.1)
    check_database(url)  # unlocked: no error is raised
    resumed(study, tmp_path / "store", PREFECT_HOME=str(home))


def test_causes_are_looked_at_and_other_errors_are_not_explained() -> None:
    wrapped = RuntimeError("the writer stopped")
    wrapped.__cause__ = OSError(28, "No space left on device", "saes/x")
    assert explained(wrapped) == (
        "the disk of the store is full: free some space (bridgescope gc) ([Errno 28] No space left on device: 'saes/x')"
    )
    assert explained(ValueError("k is 0")) is None


def test_a_lease_cannot_be_taken_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "studies").write_text("a file in the way")
    with pytest.raises(BadInput, match="the store cannot be written: "), running(tmp_path, "small"):
        pass


def test_a_failed_run_leaves_no_file_of_prefect_in_the_store(study: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    text = study.read_text().replace('"vectors"', f'"{study.parent}/vectors"').replace("embeddings:v", f"embeddings:{study.parent}/v")
    imported = f'[[saes]]\nname = "theirs"\ncheckpoint = "{tmp_path}/broken.safetensors"\n[analyze]'
    failing = tmp_path / "failing.toml"
    failing.write_text(text.replace("[analyze]", imported))
    code, errors = end(begin(RUN, failing, tmp_path / "store", os.environ | {"PREFECT_API_URL": ""}))
    assert code in (1, 2), errors
    assert "broken.safetensors" in errors
    assert [path.name for path in (tmp_path / "store").iterdir() if path.is_file() and path.suffix != ".lock"] == []
    assert list((tmp_path / "store").glob("saes/*/cached.json")) != []
