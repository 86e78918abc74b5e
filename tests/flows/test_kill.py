"""A study that is killed with SIGKILL and run again has the tables of a study that was never interrupted.

Each case is a process that kills itself at one exact place; a second process then runs the study again. All cases
share one Prefect server, which takes ten seconds to start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from prefect.settings import PREFECT_API_URL
from tests_support import computed, tables, write_study

from storage.runs import Run, last_run, newest_complete

RUN = """
import sys
from flows.cli import main
sys.exit(main(["run", sys.argv[1], "--store", sys.argv[2]]))
"""
DIE = "import os, signal\ndef die(): os.kill(os.getpid(), signal.SIGKILL)\n"
IN_EMBED = """
from storage.embeddings import Writer
write = Writer.write
def dying(self, start, block):
    if self.modality == "image" and start == 1024:
        die()
    write(self, start, block)
Writer.write = dying
"""
IN_TRAIN = """
import sys, threading, time
from pathlib import Path
import tasks.train
fit = tasks.train.fit_in_process
def dying(job):
    if job.seed == 1:  # once the other seed is whole, and while the process of this one is running
        while not list((Path(sys.argv[2]) / "saes").glob("*/dataset.json")):
            time.sleep(0.005)
        threading.Timer(0.2, die).start()
    return fit(job)
tasks.train.fit_in_process = dying
"""
BEFORE_THE_RECORD = """
import tasks.stage
materialize = tasks.stage.materialize
def dying(store, at, body, **options):
    dataset = materialize(store, at, body, **options)
    if at.stage == "embeddings":
        die()
    return dataset
tasks.stage.materialize = dying
"""
CHUNKS = """
from storage.embeddings import Writer
write = Writer.write
def counting(self, start, block):
    print("chunk", self.modality, start)
    write(self, start, block)
Writer.write = counting
"""


class Done(NamedTuple):
    """Exit code and output of a process."""

    returncode: int
    stdout: str
    stderr: str


def python(code: str, study: Path, store: Path) -> Done:
    """Run Python code in a new process group. At the end all child processes that it leaves (trainings) are killed.

    Output goes to files, since an orphan that holds a pipe open would block the test.
    """
    command = [sys.executable, "-c", code, str(study), str(store)]
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        try:
            returncode = process.wait(timeout=180)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        out.seek(0)
        err.seek(0)
        return Done(returncode, out.read(), err.read())


PAGES = ("report", "layout", "item_layout", "explorer")
TABLES = ("space", "matching", "measures", "names", "partners", "analyze")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> tuple[Path, Path, Run]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    study, store = write_study(folder), folder / "store"
    done = python(RUN, study, store)
    assert done.returncode == 0, done.stderr
    run = last_run(store, "small")
    assert run is not None
    return study, store, run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "left", "again"),
    [
        (IN_EMBED, ["embeddings"], {"embed", "checks", "train", "export", "atoms", *TABLES, *PAGES}),
        (IN_TRAIN, ["embeddings", "saes"], {"train", "export", "atoms", *TABLES, *PAGES}),
        (BEFORE_THE_RECORD, ["embeddings"], {"embed", "checks", "train", "export", "atoms", *TABLES, *PAGES}),
    ],
    ids=["in embed", "in train", "between a rename and its record"],
)
def test_kill_9_then_run_again(
    uninterrupted: tuple[Path, Path, Run], tmp_path: Path, where: str, left: list[str], again: set[str]
) -> None:
    study, reference_store, reference = uninterrupted
    store = tmp_path / "store"
    killed = python(DIE + where + RUN, study, store)
    assert killed.returncode == -9, killed.stderr
    # The record of a run exists from the first finished dataset on, and shows that the run did not end.
    cut = last_run(store, "small")
    assert cut is not None
    assert cut.ended is None
    assert cut.of("acquire")
    assert newest_complete(store, "small") is None
    assert all((store / folder).is_dir() for folder in left)
    finished = {path.parent.name: path.stat().st_mtime_ns for path in store.glob("*/*/dataset.json")}
    done = python(CHUNKS + RUN, study, store)
    assert done.returncode == 0, done.stderr
    run = last_run(store, "small")
    assert run is not None
    assert {stage for stage, _ in computed(run)} <= again
    # Datasets that were complete when the first process died were not written again.
    now = {path.parent.name: path.stat().st_mtime_ns for path in store.glob("*/*/dataset.json")}
    assert finished
    assert finished.items() <= now.items()
    if where is IN_EMBED:
        assert done.stdout.splitlines()[0] == "chunk image 1024"  # the chunk before 1024 was already on disk
    if where is IN_TRAIN:
        assert len([stage for stage, _ in computed(run) if stage == "train"]) == 2  # one SAE is adopted, one is trained
        assert sum(path in now and now[path] == time for path, time in finished.items()) == len(finished)
    for name, table in tables(reference_store, reference).items():
        assert tables(store, run)[name].equals(table), name
    for stage in PAGES:
        assert [entry.dataset for entry in run.of(stage)] == [entry.dataset for entry in reference.of(stage)]
