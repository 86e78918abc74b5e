"""The runner "ray": tasks of a stage side by side on a Ray cluster, whose machines share the store.

The same cached tasks as ever. Handles travel, data does not; a task that is lost with its machine runs again elsewhere.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import sys
from typing import Any

from prefect import Task
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import TaskRunner

from flows.config import RuntimeSection
from flows.stages import STAGES
from storage.dataset import Dataset
from storage.errors import BadInput

log = logging.getLogger("bridgescope")

AHEAD = 4  #: tasks handed over for each that can run: Ray slows down, and in the end stops, with tens of thousands

NO_CLUSTER = (
    "the Ray cluster at {} does not answer: start it (ray start), or see to its token (RAY_AUTH_MODE=token, where it "
    "asks for one)"
)
ANSWERS_WITHIN = 10  # seconds

# Ray reads these as it is imported: no telemetry, and what tasks say line by line as they say it.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"}


class ClusterError(RuntimeError):
    """The Ray cluster cannot be reached or started."""


class Here:
    """What only this process needs of a flow: Prefect sends the flow along with every task, and this as nothing."""

    def __init__(self, body: Any = None) -> None:
        self.body = body

    def __reduce__(self) -> tuple[type[Here], tuple[()]]:
        return Here, ()


def begin_worker() -> None:
    """Called by Ray in each process that runs tasks: what they say goes to whoever started the study."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)


def check_installed() -> None:
    """Raise BadInput when what the runner "ray" needs is not installed."""
    missing = [name for name in ("ray", "prefect_ray") if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput(
            f'runtime.runner: "ray" needs {" and ".join(missing)}: install the extra with '
            "pip install -c constraints.txt -e '.[ray]', or set runtime.runner = \"threads\""
        )


def check_answers(address: str | None) -> None:
    """Raise ClusterError when nothing listens at host:port. Ray itself would ask for many minutes."""
    host, _, port = (address or "").rpartition(":")
    if "://" in host or not port.isdigit():
        return  # none, "auto", "local", or Ray's own kind of address
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"{NO_CLUSTER.format(address)} ({error})") from error


class Cluster:
    """A Ray cluster, joined (or started on this machine) when the first task needs it, and left when the block ends.

    `runtime.ray_address` says which, else the variable RAY_ADDRESS; with neither one is started, and ended with it.
    Raises BadInput when Ray is not installed.
    """

    def __init__(self, settings: RuntimeSection) -> None:
        check_installed()
        self.settings, self.joined = settings, False
        self.address = settings.ray_address or os.environ.get("RAY_ADDRESS")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        if self.joined:
            import ray

            ray.shutdown()  # also ends whatever tasks of this run are still going on

    def task_runner(self, stage: str) -> TaskRunner[PrefectFuture[Any]]:
        """Prefect's task runner for the flow of a stage whose tasks go to the cluster. Joins it first.

        Raises ClusterError when there is none at the address, BadInput when its machines could not reach Prefect or
        have no room for a task.
        """
        self._join()
        self.check_room(stage)
        from prefect_ray import RayTaskRunner

        return RayTaskRunner()

    def _join(self) -> None:
        if self.joined:
            return
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        address = self.address
        check_answers(address)
        options = {"address": address} if address else {"include_dashboard": False}
        told = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_LOGGING_")}
        worker = {"env_vars": told, "worker_process_setup_hook": f"{__name__}.begin_worker"}
        try:
            ray.init(**options, namespace="bridgescope", logging_level=logging.ERROR, runtime_env=worker)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = NO_CLUSTER.format(address) if address else "Ray does not start on this machine"
            raise ClusterError(f"{where} ({str(error).splitlines()[0]})") from error
        self.joined = True
        machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        if machines != {ray.util.get_node_ip_address()} and PREFECT_API_URL.value() is None:
            raise BadInput(
                f"the Ray cluster has {len(machines)} machines, which do not reach a Prefect server in this process: "
                "start one that they reach (make server, docs/operations.md) and name it in PREFECT_API_URL"
            )
        found = ray.cluster_resources()
        log.info("Ray: %d machines, %g cores, %g GPUs", len(machines), found.get("CPU", 0), found.get("GPU", 0))

    def options(self, stage: str) -> dict[str, Any]:
        """What Ray sets aside for a task of a stage: cores, and GPUs for embed and train."""
        import ray

        settings, gpus = self.settings, 0.0
        if STAGES[stage].gpu and settings.device != "cpu":
            there = ray.cluster_resources().get("GPU", 0) > 0
            gpus = settings.num_gpus if settings.num_gpus is not None else float(there)
            if stage == "train" and settings.num_gpus_sae is not None:
                gpus = settings.num_gpus_sae
        # By itself Ray ends a process after each task that had a GPU, and with it the model that the process holds.
        return {"num_cpus": settings.num_cpus, "num_gpus": gpus, "max_calls": 0}

    def check_room(self, stage: str) -> None:
        """See that a machine can take a task of a stage, which else would wait for ever.

        Raises BadInput on a cluster of this run's own; elsewhere machines may still come, and it is only said.
        """
        import ray

        wanted = self.options(stage)
        sizes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needs = {"CPU": wanted["num_cpus"], "GPU": wanted["num_gpus"]}
        if any(all(size.get(what, 0) >= count for what, count in needs.items()) for size in sizes):
            return
        told = (
            f"a task of {stage} needs {needs['CPU']} cores and {needs['GPU']:g} GPUs ([runtime] num_cpus, num_gpus), "
            "and no machine of the Ray cluster has both"
        )
        if not self.address:
            raise BadInput(told)
        log.warning("%s: it waits for one", told)

    def ahead(self, stage: str) -> int:
        """How many tasks of a stage are handed over at once: some for each that can run."""
        import ray

        there, wanted = ray.cluster_resources(), self.options(stage)
        slots = there.get("CPU", 1) / wanted["num_cpus"]
        if wanted["num_gpus"]:
            slots = min(slots, there.get("GPU", 0) / wanted["num_gpus"])
        return AHEAD * max(1, int(slots))

    def submit(self, stage: str, task: Task[..., Dataset], inputs: dict[str, Any]) -> PrefectFuture[Dataset]:
        """Hand a task over. Called inside a flow with the runner of `task_runner`."""
        from prefect_ray.context import remote_options

        context = FlowRunContext.get()
        assert context is not None
        # A server inside this process is at an address that tasks elsewhere on this machine are told.
        url = PREFECT_API_URL.value() or str(context.client.api_url)
        with temporary_settings({PREFECT_API_URL: url}), remote_options(**self.options(stage)):
            return task.submit(**inputs)
