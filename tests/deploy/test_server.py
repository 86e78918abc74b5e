"""Deployments on a real Prefect server: refused values, new pairs, cancelled and killed runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from deploy_support import ROOT, Operator, descendants, until
from tests_support import grow, tables

from storage.runs import last_run, newest_complete

SLOW = "saes.main.epochs=400"  # a training that still runs when the test acts on it


def logs(operator: Operator, run: str) -> list[str]:
    """Lines that the logger `bridgescope` wrote in a run."""
    lines = operator.post("/logs/filter", sort="TIMESTAMP_ASC", logs={"flow_run_id": {"any_": [run]}})
    return [line["message"] for line in lines if line["name"] == "bridgescope"]


def test_wrong_parameters_are_refused_before_a_run_exists(operator: Operator) -> None:
    before = len(operator.runs())
    for parameters, why in [
        ({"study": "demo.json"}, "does not match"),
        ({"upstream": "latest"}, "latest"),
        ({"force": "perhaps"}, "perhaps"),
        ({"set": ["saes.main.k"]}, "does not match"),
    ]:
        with pytest.raises(httpx.HTTPStatusError) as refused:
            operator.run("train/train-alone", **parameters)
        assert refused.value.response.status_code == 409
        assert why in refused.value.response.text
    assert len(operator.runs()) == before


def test_the_schedule_plans_nights(operator: Operator) -> None:
    def planned() -> list[str]:
        runs = operator.post("/flow_runs/filter", limit=200)
        return [run["expected_start_time"] for run in runs if run["auto_scheduled"]]

    assert "T02:00:00" in until(planned, "a night that the schedule plans")[0]


def test_one_landing_starts_the_study_once_and_the_study_lands_nothing(operator: Operator, study_file: Path) -> None:
    parameters = {"study": str(study_file), "set": ["analyze.min_pairs=3"]}

    def studies() -> list[dict[str, object]]:
        return [run for run in operator.runs("study") if run["parameters"]["study"] == str(study_file)]

    first = operator.run("acquire/acquire-alone", **parameters)
    assert operator.ended(first)["state_type"] == "COMPLETED"
    until(studies, "the study that the landing starts")
    run = operator.ended(str(studies()[0]["id"]))
    assert run["state_type"] == "COMPLETED"
    assert run["parameters"] == parameters
    assert {"landed", "study"} <= set(run["tags"])

    def lines_of(run: str, start: str) -> list[str]:  # Prefect may send log lines after the run has ended
        return [line for line in logs(operator, run) if line.startswith(start)]

    digest = until(lambda: lines_of(first, "pairs landed"), "the line of what landed")[0]

    # Acquire again without new pairs, then run the whole study with new pairs. Neither run starts a further run.
    again = operator.run("acquire/acquire-alone", **parameters)
    assert operator.ended(again)["state_type"] == "COMPLETED"
    (nothing,) = until(lambda: lines_of(again, "no new pairs"), "the line that nothing landed")
    assert nothing.split()[-3] in digest
    grow(study_file.parent / "vectors")
    whole = operator.run("study/nightly", **parameters)
    assert operator.ended(whole)["state_type"] == "COMPLETED"
    events = operator.post("/events/filter", filter={"event": {"name": ["pairs landed"]}}, limit=50)["events"]
    assert [e["payload"]["study"] for e in events].count(str(study_file)) == 1
    assert [str(run["id"]) for run in studies()] == [run["id"], whole]
    artifacts = {a["key"]: a for a in operator.post("/artifacts/filter", sort="KEY_ASC")}
    assert f"{study_file.stem}-acquire" in artifacts
    assert "stability of pairs of seeds" in artifacts[f"{study_file.stem}-results"]["data"]


def test_a_night_with_nothing_new_says_so_and_one_stage_takes_a_named_upstream(
    operator: Operator, study_file: Path
) -> None:
    name, parameters = study_file.stem, {"study": str(study_file)}
    assert operator.ended(operator.run("study/nightly", **parameters))["state_type"] == "COMPLETED"
    first = last_run(operator.store, name)
    assert first is not None
    nothing = operator.run("study/nightly", **parameters)
    assert operator.ended(nothing)["state_type"] == "COMPLETED"
    again = last_run(operator.store, name)
    assert again is not None
    assert all(entry.cached for entry in again.entries if entry.is_task)
    until(lambda: "run 2: nothing new, 11 cached" in logs(operator, nothing), "its last line")  # sent in the background
    for what, says in [("train", "nothing new: 2 cached"), ("results", "nothing new: 11 cached")]:
        key = {"key": {"any_": [f"{name}-{what}"]}}
        assert says in operator.post("/artifacts/filter", sort="CREATED_DESC", artifacts=key)[0]["description"]

    trained = first.of("train", seed=0)[0].dataset.recipe
    forced = operator.run("export/export-alone", **parameters, upstream=trained, force=True)
    assert operator.ended(forced)["state_type"] == "COMPLETED"
    now = last_run(operator.store, name)
    assert now is not None
    assert not any(entry.cached for entry in now.of("export"))
    assert now.of("train") == again.of("train")
    unknown = operator.ended(operator.run("export/export-alone", **parameters, upstream="0" * 20))
    assert unknown["state_type"] == "FAILED"
    assert "no run of" in unknown["state"]["message"]


def training(operator: Operator) -> list[int]:
    """The worker's descendant processes that train an SAE."""
    worker = int((operator.home / "worker.pid").read_text())
    pids = []
    for pid in descendants(worker):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in command:
            pids.append(pid)
    return pids


def busy(operator: Operator) -> bool:
    """Return whether the worker is executing a run."""
    return bool(descendants(int((operator.home / "worker.pid").read_text())))


def state(operator: Operator, run: str) -> str:
    """The final state of a run, or "" while it has not ended."""
    record = next(r for r in operator.runs() if r["id"] == run)
    return str(record["state_type"]) if record["end_time"] else ""


def reference(operator: Operator, study_file: Path, *changes: str) -> dict[str, object]:
    """The tables of the same study after a run without interruption, by the command line, in another store."""
    store = study_file.parent / "reference"
    command = [sys.executable, "-m", "flows.cli", "run", str(study_file), "--store", str(store)]
    for change in changes:
        command += ["--set", change]
    done = subprocess.run(command, env=operator.environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    run = last_run(store, study_file.stem)
    assert run is not None
    return dict(tables(store, run))


def test_a_second_night_is_cancelled_and_kill_9_of_worker_and_server_is_made_good_by_the_next_run(
    operator: Operator, study_file: Path
) -> None:
    name, parameters = study_file.stem, {"study": str(study_file), "set": [SLOW]}
    operator.run("study/nightly", **parameters)
    until(lambda: training(operator), "the training")
    second = operator.ended(operator.run("study/nightly", **parameters))
    assert second["state_type"] == "CANCELLED"
    operator.kill("worker")
    assert newest_complete(operator.store, name) is None
    operator.make("worker")

    third = operator.run("study/landed", **parameters)
    until(lambda: training(operator), "the training, again")
    operator.kill("server")
    operator.make("server")
    operator.make("worker")  # the worker may have stopped without its server
    # The run either survives its server or dies with it. If it died, the next run waits until
    # the slot of the dead run is free, and completes.
    until(lambda: state(operator, third) or not busy(operator), "its end, or its death")
    if state(operator, third) != "COMPLETED":
        assert operator.ended(operator.run("study/landed", **parameters))["state_type"] == "COMPLETED"
    run = last_run(operator.store, name)
    assert run is not None
    for table, expected in reference(operator, study_file, SLOW).items():
        assert tables(operator.store, run)[table].equals(expected), table

    # The first nightly run was killed. Its concurrency slot is free when the lease of the slot ends. Then later
    # runs can start.
    until(
        lambda: operator.ended(operator.run("study/nightly", **parameters))["state_type"] == "COMPLETED",
        "a night that is not cancelled",
    )


def test_stop_ends_what_was_started(operator: Operator) -> None:
    pids = [int((operator.home / f"{what}.pid").read_text()) for what in ("server", "worker")]
    operator.make("stop")
    until(lambda: not any(running(pid) for pid in pids), "the end of server and worker")
    refused = subprocess.run(
        [str(ROOT / "deploy" / "local.sh"), "worker"],
        env=operator.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "no server: make server" in refused.stderr


def running(pid: int) -> bool:
    """Return whether a process is alive; a zombie is not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
