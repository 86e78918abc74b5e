"""The runner "ray": the cached tasks of a stage run in parallel on a Ray cluster whose machines share the store.

Only handles of datasets are sent to the machines, no data. When a machine is lost, its tasks run again on another.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import sys
from typing import Any, TypeVar

from prefect import Task
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import TaskRunner

from flows.sections import RuntimeSection
from flows.server import own_url
from flows.stages import STAGES
from storage.errors import BadInput

log = logging.getLogger("bridgescope")
T = TypeVar("T")

#: Tasks submitted for each task that can run at once. With tens of thousands of submitted tasks Ray slows down, then
#: stops.
AHEAD = 4

NO_CLUSTER = (
    "the Ray cluster at {} does not answer: start it (ray start), or set RAY_AUTH_MODE=token if the cluster asks for "
    "a token"
)
ANSWERS_WITHIN = 10  # seconds that a cluster may take to answer

# Ray reads these variables when it is imported. They turn telemetry off, and each log line is printed unchanged.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"}


class ClusterError(RuntimeError):
    """The Ray cluster cannot be reached or started."""


class Here:
    """Holds a function that only this process calls. When pickled, it is empty.

    Prefect sends the flow along with every task, together with everything that the flow refers to.
    """

    def __init__(self, body: Any = None) -> None:
        self.body = body

    def __reduce__(self) -> tuple[type[Here], tuple[()]]:
        return Here, ()


def begin_worker() -> None:
    """Set up logging in a process that runs tasks. Ray calls this, and prints the lines on the study's machine."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)


def check_installed() -> None:
    """Raise BadInput when a package that the runner "ray" needs is not installed."""
    missing = [name for name in ("ray", "prefect_ray") if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput(
            f'runtime.runner: "ray" needs {" and ".join(missing)}: install the extra with '
            "pip install -c constraints.txt -e '.[ray]', or set runtime.runner = \"threads\""
        )


def check_answers(address: str | None) -> None:
    """Raise ClusterError when nothing listens at host:port. Ray itself retries for many minutes.

    Addresses of another form are not checked.
    """
    host, _, port = (address or "").rpartition(":")
    if "://" in host or not port.isdigit():
        return  # there is no address, or it is "auto", "local" or a URL of a form that only Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"{NO_CLUSTER.format(address)} ({error})") from error


class Cluster:
    """A Ray cluster as a context manager. It is joined when the first stage needs it, and left at the end of the block.

    The address is `runtime.ray_address`, or else the variable RAY_ADDRESS. If neither is set, a cluster is started on
    this machine and ended with the block. Raises BadInput when Ray is not installed.
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

            ray.shutdown()  # this also ends the tasks of this run that are still running

    def task_runner(self, stage: str) -> TaskRunner[PrefectFuture[Any]]:
        """Join the cluster and return Prefect's task runner for the flow of a stage.

        Raises ClusterError when no cluster answers at the address, and BadInput when its machines cannot reach Prefect
        or none of them has the cores and GPUs of a task.
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
        variables = {name: value for name, value in os.environ.items() if name.startswith("PREFECT_LOGGING_")}
        worker = {"env_vars": variables, "worker_process_setup_hook": f"{__name__}.begin_worker"}
        try:
            ray.init(**options, namespace="bridgescope", logging_level=logging.ERROR, runtime_env=worker)
        except (ConnectionError, RuntimeError, ValueError) as error:
            problem = NO_CLUSTER.format(address) if address else "Ray does not start on this machine"
            raise ClusterError(f"{problem} ({str(error).splitlines()[0]})") from error
        self.joined = True
        machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        if machines != {ray.util.get_node_ip_address()} and own_url() is not None:
            raise BadInput(
                f"the Ray cluster has {len(machines)} machines, which do not reach a Prefect server in this process: "
                "start one that they reach (make server, docs/operations.md) and name it in PREFECT_API_URL"
            )
        total = ray.cluster_resources()
        log.info("Ray: %d machines, %g cores, %g GPUs", len(machines), total.get("CPU", 0), total.get("GPU", 0))

    def options(self, stage: str) -> dict[str, Any]:
        """Options of a stage's Ray tasks: the cores that Ray reserves per task, and the GPUs for embed and train."""
        import ray

        settings, gpus = self.settings, 0.0
        if STAGES[stage].gpu and settings.device != "cpu":
            has_gpu = ray.cluster_resources().get("GPU", 0) > 0
            gpus = settings.num_gpus if settings.num_gpus is not None else float(has_gpu)
            if stage == "train" and settings.num_gpus_sae is not None:
                gpus = settings.num_gpus_sae
        # Without max_calls=0 Ray ends a process after each task with a GPU, and the model it has loaded is lost.
        return {"num_cpus": settings.num_cpus, "num_gpus": gpus, "max_calls": 0}

    def check_room(self, stage: str) -> None:
        """Check that one machine has enough cores and GPUs for a task of a stage. Otherwise no task would ever start.

        Raises BadInput for a cluster that this run started. For other clusters it logs a warning, since machines may
        join later.
        """
        import ray

        reserved = self.options(stage)
        sizes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needs = {"CPU": reserved["num_cpus"], "GPU": reserved["num_gpus"]}
        if any(all(size.get(resource, 0) >= count for resource, count in needs.items()) for size in sizes):
            return
        problem = (
            f"a task of {stage} needs {needs['CPU']} cores and {needs['GPU']:g} GPUs ([runtime] num_cpus, num_gpus), "
            "and no machine of the Ray cluster has both"
        )
        if not self.address:
            raise BadInput(problem)
        log.warning("%s: the task waits until such a machine joins", problem)

    def ahead(self, stage: str) -> int:
        """Number of tasks of a stage to submit before waiting for the first: AHEAD per task that can run at once."""
        return AHEAD * self.slots(stage)

    def slots(self, stage: str) -> int:
        """Number of tasks of a stage that can run at once, at least 1."""
        import ray

        total, reserved = ray.cluster_resources(), self.options(stage)
        slots = total.get("CPU", 1) / reserved["num_cpus"]
        if reserved["num_gpus"]:
            slots = min(slots, total.get("GPU", 0) / reserved["num_gpus"])
        return max(1, int(slots))

    def submit(self, stage: str, task: Task[..., T], inputs: dict[str, Any]) -> PrefectFuture[T]:
        """Submit a task. Must be called inside a flow whose runner is that of `task_runner`."""
        from prefect_ray.context import remote_options

        context = FlowRunContext.get()
        assert context is not None
        # Without PREFECT_API_URL the server runs inside this process, so its address is passed to the task.
        url = PREFECT_API_URL.value() or str(context.client.api_url)
        with temporary_settings({PREFECT_API_URL: url}), remote_options(**self.options(stage)):
            return task.submit(**inputs)
