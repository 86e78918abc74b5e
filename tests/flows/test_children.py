"""Child processes report errors, are kept for the next job, and do not outlive their study."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tqdm import tqdm

from tasks.children import ChildFailed, ChildRefused, Watch, in_process, side_by_side


def whose(job: int, watch: Watch) -> int:
    return os.getpid()


def locks(job: int, watch: Watch) -> None:
    tqdm.get_lock()  # a progress bar takes this semaphore too; a normal exit releases it


def fails(job: str, watch: Watch) -> None:
    raise ValueError(f"cannot do {job}")


class Refused(ValueError):
    """An error about what the user gave."""

    exit_code = 2


def refuses(job: str, watch: Watch) -> None:
    raise Refused(f"no captions in {job}")


def waits(folder: str, watch: Watch) -> None:
    """Tell the test that the job runs, then wait until the test ends the process."""
    Path(folder, str(os.getpid())).touch()
    while True:
        watch()
        time.sleep(0.05)


def dies(job: str, watch: Watch) -> None:
    Watch(watch.parent + 1)()  # a parent with another pid, as after the study was killed


def script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a program that can import this file."""
    (folder / "program.py").write_text(text)
    here = Path(__file__)
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}{os.pathsep}{here.parents[2]}"}
    command = [sys.executable, str(folder / "program.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def is_running(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def until_ended(pid: int) -> None:
    end = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < end, f"process {pid} goes on"
        time.sleep(0.02)


@pytest.mark.slow
def test_an_error_in_a_process_is_reported() -> None:
    with pytest.raises(ChildFailed, match="frontier, pca: ValueError: cannot do it"):
        in_process(fails, "it", "frontier, pca")
    with pytest.raises(ChildFailed, match=r"frontier, pca: its process died \(exit code 1\)"):
        in_process(dies, "it", "frontier, pca")


@pytest.mark.slow
def test_bad_input_that_a_process_meets_stays_bad_input() -> None:
    with pytest.raises(ChildRefused) as refused:
        in_process(refuses, "the study", "seed 0")
    assert str(refused.value) == "no captions in the study"
    assert refused.value.exit_code == 2
    with side_by_side(2) as pool:
        both = [pool.submit(in_process, refuses, name, "seed 0") for name in ("a", "b")]
        assert [str(job.exception()) for job in both] == ["no captions in a", "no captions in b"]


INTERRUPTED = """
import sys
from test_children import waits
from tasks.children import in_process, side_by_side
if __name__ == "__main__":
    try:
        if sys.argv[2] == "alone":
            in_process(waits, sys.argv[1], "it")
        with side_by_side(2) as pool:
            jobs = [pool.submit(in_process, waits, sys.argv[1], "it") for _ in range(2)]
            [job.result() for job in jobs]
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize(("how", "count"), [("alone", 1), ("together", 2)])
def test_ctrl_c_ends_the_processes_which_print_nothing(tmp_path: Path, how: str, count: int) -> None:
    (tmp_path / "program.py").write_text(INTERRUPTED)
    running = tmp_path / "running"
    running.mkdir()
    here = Path(__file__)
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}{os.pathsep}{here.parents[2]}"}
    command = [sys.executable, str(tmp_path / "program.py"), str(running), how]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    study = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)  # type: ignore[call-overload]
    end = time.monotonic() + 60
    while len(list(running.iterdir())) < count:
        assert study.poll() is None, study.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    os.killpg(study.pid, signal.SIGINT)  # what Ctrl-C in a terminal does
    out, errors = study.communicate(timeout=30)
    assert (out, errors) == ("interrupted\n", "")
    for pid in running.iterdir():
        until_ended(int(pid.name))


@pytest.mark.slow
def test_a_process_does_one_job_after_another_side_by_side_and_one_alone() -> None:
    with side_by_side(1) as pool:
        first, second = (pool.submit(in_process, whose, n, "it").result() for n in range(2))
        assert first == second != os.getpid()
        with pytest.raises(ChildFailed, match="cannot do it"):
            pool.submit(in_process, fails, "it", "it").result()
        third = pool.submit(in_process, whose, 3, "it").result()
        assert third != first
        os.kill(third, signal.SIGKILL)  # the process waits for a job; the kernel kills in this way when memory runs out
        until_ended(third)
        fourth = pool.submit(in_process, whose, 4, "it").result()
        assert fourth != third
    until_ended(fourth)
    alone = in_process(whose, 0, "it")
    assert not is_running(alone)


def test_a_pool_that_closes_ends_its_own_processes_alone(tmp_path: Path) -> None:
    """As where each of several GPUs has a pool of its own, and one of them is out of work first."""
    with side_by_side(1) as other:
        waiting = other.submit(in_process, whose, 0, "it").result()
        with side_by_side(1) as pool:
            running = pool.submit(in_process, waits, str(tmp_path), "it")
            end = time.monotonic() + 60
            while not list(tmp_path.iterdir()):
                assert time.monotonic() < end
                time.sleep(0.02)
        (own,) = (int(path.name) for path in tmp_path.iterdir())
        until_ended(own)
        assert isinstance(running.exception(), ChildFailed)
        assert other.submit(in_process, whose, 1, "it").result() == waiting
    until_ended(waiting)


KILLED = """
import os, signal
from test_children import whose
from tasks.children import in_process, side_by_side
if __name__ == "__main__":
    with side_by_side(1) as pool:
        print(pool.submit(in_process, whose, 0, "it").result(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


ENDS = """
from test_children import locks
from tasks.children import in_process, side_by_side
if __name__ == "__main__":
    with side_by_side(1) as pool:
        pool.submit(in_process, locks, 0, "it").result()
"""


def test_a_kept_process_leaves_nothing_behind(tmp_path: Path) -> None:
    # At exit Python prints a warning about a semaphore that was not released. So stderr must be empty.
    ended = script(tmp_path, ENDS)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""


def test_a_kept_process_does_not_outlive_the_one_that_kept_it(tmp_path: Path) -> None:
    killed = script(tmp_path, KILLED)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    until_ended(int(killed.stdout))
