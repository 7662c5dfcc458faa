"""Starts Ray on this machine or joins a cluster, quietly, and describes its nodes."""

import atexit
import logging
import os
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout

from segstrat.errors import UserError
from segstrat.parallel import cpu_cores
from study.planning.resources import Node
from study.planning.space_files import ship_space_folder

ROOT = Path(__file__).parents[2]
# Tune keeps its own state there; trials write their data to the study's storage.
OBJECT_STORE_BYTES = 80 << 20
WORKER_ENVIRONMENT = {
    # Trials must see relative paths as the user meant them, not from a scratch folder of Tune.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # A trial without GPUs asks for the CPU; Ray need not hide the GPUs and warn about it.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
DRIVER_ENVIRONMENT = {
    # Under `uv run` Ray would zip the working directory, data and results included, and let every worker
    # build an environment from it: minutes, and a failure above 512 MiB. Workers on this machine share the
    # driver's interpreter, and a cluster gets the three source folders below.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # A thread that calls Ray after it was shut down would join whatever other cluster runs on this machine.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The study has its own console, records and TensorBoard files, and handles its own signals.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "300",
}
LOCAL_ENVIRONMENT = {
    # Ray replaces 127.0.0.1 by the machine's public address and then listens on every interface. This
    # switch, made for systems whose firewalls ask about that, keeps all of its sockets on the loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
QUIET_ENVIRONMENT = {
    # Messages of Ray's daemons, such as a long one for each worker that was killed: the table shows it.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}
# On a machine under load an agent may miss Ray's start-up deadline, which cannot be set.
START_ATTEMPTS = 3
# How long a cluster may take to give the first node for trials.
NODE_SECONDS = 300.0
# How often Ray's services and the nodes are looked at, and how long a service may be silent. The GCS of a
# cluster may be started again on another machine; Ray waits a minute for it and then ends the process.
CHECK_SECONDS = 1.0
NODES_SECONDS = 5.0
CONNECT_SECONDS = 1.0
LOST_SECONDS = 3.0
LOST_SECONDS_ELSEWHERE = 12.0
# Of the one temporary folder for all that a running driver needs.
PREFIX = "segstrat-run-"
LOCK = "lock"
# A folder without a lock file may be one that another driver is just making.
MAKING_SECONDS = 600.0
# Ray puts sockets into its folder, whose paths a kernel limits to 107 bytes; theirs are 62 bytes longer.
LONGEST = 44
# Where a Ray that is started here keeps the token that its own clients use.
TOKEN = Path(".ray") / "auth_token"


class ClusterLostError(Exception):
    """A part of Ray without which no trial runs has ended."""


def accepts(address: tuple[str, int]) -> bool:
    """Whether something listens at a host and port."""
    try:
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


class ClusterWatch:
    """Notices that Ray has ended, and that nodes come and go: Ray tells a driver neither.

    Without the raylet of its own node a driver waits for ever, and without the GCS Ray's C++ code ends the
    process after a minute. Both are asked for by their ports, because calls of Ray would wait for them.

    Args:
        services: name of a part of Ray -> host and port at which it listens.
        nodes: the nodes that are alive.
        crowded: whether something waits for resources of the cluster.
        silence: seconds without an answer after which a service is given up.
        answers, clock: replaced in tests.
    """

    def __init__(
        self,
        services: Mapping[str, tuple[str, int]],
        *,
        nodes: Callable[[], Sequence[Node]],
        crowded: Callable[[], bool] = lambda: False,
        silence: float = LOST_SECONDS,
        answers: Callable[[tuple[str, int]], bool] = accepts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = services
        self._nodes = nodes
        self._crowded = crowded
        self._silence = silence
        self._answers = answers
        self._clock = clock
        self._heard = dict.fromkeys(services, clock())
        self._next = clock()
        self._known: dict[str, Node] | None = None
        self._lines: list[str] = []
        self.crowded = False

    @contextmanager
    def looking(self) -> Iterator["ClusterWatch"]:
        """Looks at the nodes for the length of the block, in a thread: calls of Ray may never return."""
        ended = threading.Event()

        def look() -> None:
            while not ended.is_set():
                with suppress(Exception):
                    self.look_at_nodes()
                ended.wait(NODES_SECONDS)

        threading.Thread(target=look, name="ray-nodes", daemon=True).start()
        try:
            yield self
        finally:
            ended.set()

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """An error of the block is a ClusterLostError where Ray has ended."""
        try:
            yield
        except Exception as error:
            self._raise_if_lost(0.0, error)
            raise

    def look_at_nodes(self) -> None:
        """Compares the nodes with those of the last time."""
        found = {node.node_id: node for node in self._nodes()}
        for known, now, event in ((self._known, found, "was lost"), (found, self._known, "has joined")):
            for node in (known or {}).values():
                if now is not None and node.node_id not in now:
                    cores = f"{node.cpus} core{'s' * (node.cpus > 1)}"
                    left = len(found)
                    self._lines.append(f"node {node.address} with {cores} {event}; nodes now: {left}")
        self._known = found
        self.crowded = self._crowded()

    def news(self) -> list[str]:
        """What has happened to nodes since the last call, in words.

        Raises:
            ClusterLostError: if a part of Ray does not answer any more.
        """
        if self._clock() >= self._next:
            self._next = self._clock() + CHECK_SECONDS
            self._raise_if_lost(self._silence)
        lines, self._lines = self._lines, []
        return lines

    def _raise_if_lost(self, silence: float, cause: Exception | None = None) -> None:
        for name, address in self._services.items():
            if self._answers(address):
                self._heard[name] = self._clock()
            elif self._clock() - self._heard[name] >= silence:
                at = f"{address[0]}:{address[1]}"
                raise ClusterLostError(f"{name} has ended (nothing answers at {at})") from cause


def watch_cluster(*, joined: bool) -> AbstractContextManager[ClusterWatch]:
    """Watches the Ray that this process is connected to.

    Args:
        joined: it was not started here, and its GCS may be started again elsewhere.
    """
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    watch = ClusterWatch(
        {
            "Ray's GCS": (host, int(port)),
            "the raylet of this node": (here["NodeManagerAddress"], here["NodeManagerPort"]),
        },
        nodes=living_nodes,
        crowded=_resources_are_awaited,
        silence=LOST_SECONDS_ELSEWHERE if joined else LOST_SECONDS,
    )
    return watch.looking()


def _resources_are_awaited() -> bool:
    import ray

    return any(group["state"] == "PENDING" for group in ray.util.placement_group_table().values())


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A running Ray: its living nodes, and where it can be watched ('' where it cannot).

    Args:
        scratch: a temporary folder that is deleted when this Ray ends.
        neighbors: other studies that ran on this machine when this Ray started.
        watch: notices when it ends.
    """

    nodes: Sequence[Node]
    dashboard_url: str
    metrics_url: str
    watch: ClusterWatch
    scratch: Path | None = None
    neighbors: int = 0


def prepare_environment(*, joining: bool, verbose: bool = False) -> None:
    """Sets the environment that Ray reads when it is imported; call before the first `import ray`.

    Args:
        joining: a running cluster will be joined, so this machine must be reachable.
    """
    variables = WORKER_ENVIRONMENT | DRIVER_ENVIRONMENT
    variables |= ({} if joining else LOCAL_ENVIRONMENT) | ({} if verbose else QUIET_ENVIRONMENT)
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def keep_bytecode(folder: Path) -> None:
    """Lets this process, and those that it starts, keep compiled modules under `folder`.

    Container images often set PYTHONDONTWRITEBYTECODE; each worker of a study then compiles torch and Ray
    again, which takes longer than importing them. Does nothing where Python keeps compiled modules already.
    """
    if not sys.dont_write_bytecode or sys.pycache_prefix:
        return
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(folder)


def end_process(code: int) -> NoReturn:
    """Ends this process as `sys.exit` does, but leaves its modules to the system.

    Python takes them apart one by one, which lasts three seconds where torch's compiler was imported.
    """
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        # Nobody reads it any more.
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)


@contextmanager
def ray_session(
    *, address: str | None, dashboard: bool, verbose: bool, space_file: Path | None = None
) -> Iterator["Runtime"]:
    """Ray, ready for trials, for the duration of the block.

    Without an address Ray is started on this machine and listens on the loopback interface alone. A process
    that has initialized Ray itself keeps its Ray.

    Args:
        address: `HOST:PORT` of a running cluster's head, or `auto` for one that runs on this machine.
        space_file: a search space outside the project; its folder's code is sent to a cluster that is joined.

    Raises:
        UserError: if the cluster cannot be reached, or Ray does not start.
    """
    prepare_environment(joining=address is not None, verbose=verbose)
    import ray

    if ray.is_initialized():
        with watch_cluster(joined=True) as watch:
            yield Runtime(
                nodes=nodes_for_trials(0), dashboard_url="", metrics_url=_metrics_url(), watch=watch
            )
        return
    if address is not None:
        check_address(address)
    neighbors = 0
    with scratch_folder() as scratch:
        if address is not None:
            options = _joining(address, ship_space_folder(space_file, scratch) if space_file else None)
        else:
            options = _starting(dashboard=dashboard, folder=ray_folder(scratch))
            neighbors = running_drivers(scratch)
            if neighbors:
                options["num_cpus"] = share_of_cores(neighbors)
        options |= {"log_to_driver": verbose, "logging_level": "INFO" if verbose else "ERROR"}
        if not verbose:
            # Tune logs failed trials as errors; they have their rows in the table.
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        dashboard_url = _init(options, attempts=1 if address is not None else START_ATTEMPTS)
        if address is None:
            keep_private(Path.home() / TOKEN)
        try:
            nodes = nodes_for_trials(NODE_SECONDS)
            with watch_cluster(joined=address is not None) as watch:
                yield Runtime(
                    nodes=nodes,
                    dashboard_url=dashboard_url,
                    metrics_url=_metrics_url(),
                    watch=watch,
                    scratch=scratch,
                    neighbors=neighbors,
                )
        finally:
            ray.shutdown()


def check_address(address: str) -> None:
    """Raises a UserError for an address that cannot be joined, at once instead of after Ray's minute."""
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address}: the Ray client is not supported; run this command on the cluster with "
            "`ray job submit`, see docs/cluster.md"
        )
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--address {address}: expected HOST:PORT of the cluster's head node, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(
            f"--address {address}: nothing answers there ({error}); start Ray on that node, or let this "
            "machine reach it"
        ) from error


def living_nodes() -> list[Node]:
    """The nodes of the cluster that Ray is connected to, those without CPUs left out."""
    import ray

    nodes = []
    for node in ray.nodes():
        resources = node["Resources"]
        if node["Alive"] and resources.get("CPU", 0) >= 1:
            nodes.append(
                Node(
                    address=node["NodeManagerAddress"],
                    cpus=int(resources["CPU"]),
                    gpus=int(resources.get("GPU", 0)),
                    node_id=node["NodeID"],
                )
            )
    return sorted(nodes, key=lambda node: (node.address, node.node_id))


def nodes_for_trials(wait_seconds: float) -> list[Node]:
    """The living nodes, as soon as there is one; a cluster that scales on demand may start without any.

    Raises:
        UserError: if there is none after `wait_seconds`.
    """
    deadline = time.monotonic() + wait_seconds
    while not (nodes := living_nodes()):
        if time.monotonic() > deadline:
            raise UserError("the Ray cluster has no node with a CPU for trials; start one with `ray start`")
        time.sleep(1)
    return nodes


def share_of_cores(neighbors: int) -> int:
    """The cores of a study that starts while others run on this machine: an equal share, at least one."""
    return max(1, cpu_cores() // (neighbors + 1))


def _starting(*, dashboard: bool, folder: str | None) -> dict[str, Any]:
    return {
        "_temp_dir": folder,
        "address": "local",
        "include_dashboard": dashboard,
        "dashboard_host": "127.0.0.1",
        "object_store_memory": OBJECT_STORE_BYTES,
    }


def _joining(address: str, space_folder: Path | None) -> dict[str, Any]:
    # The code travels with the job; a driver that itself runs inside a job has it on the nodes already.
    packages = [str(ROOT / name) for name in ("segstrat", "study", "search_spaces")]
    packages += [str(space_folder)] if space_folder else []
    environment = {"env_vars": WORKER_ENVIRONMENT, "py_modules": packages, "excludes": ["__pycache__"]}
    return {"address": address, "runtime_env": environment}


def _metrics_url() -> str:
    """Prometheus endpoint of this machine's node."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == here)
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


def _init(options: dict[str, Any], *, attempts: int) -> str:
    """Initializes Ray and returns the dashboard's address, '' where there is none."""
    import ray

    for attempt in range(1, attempts + 1):
        try:
            return _url(ray.init(**options).dashboard_url)
        except Exception as error:
            ray.shutdown()
            if attempt < attempts:
                continue
            if options["address"] != "local" and _wants_token(error):
                raise UserError(
                    f"--address {options['address']}: the cluster asks for a token; set RAY_AUTH_MODE=token, "
                    "and copy ~/.ray/auth_token from its head node where this machine has another one or none"
                ) from error
            where = "on this machine" if options["address"] == "local" else f"at {options['address']}"
            raise UserError(
                f"Ray {where} cannot be used: {_first_line(error)}; --verbose shows its messages"
            ) from error
    raise AssertionError("the last attempt returns or raises")


def _wants_token(error: BaseException) -> bool:
    """Whether a cluster refused this machine's token, or that it has none; Ray says so in the cause."""
    cause: BaseException | None = error
    while cause is not None:
        if "InvalidAuthToken" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _url(address: str | None) -> str:
    return f"http://{address}" if address else ""


def _first_line(error: Exception) -> str:
    """The first line of an error; all of them where it announces others, as that of versions that differ."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if lines and lines[0].endswith(":"):
        return " ".join(lines)
    return lines[0] if lines else type(error).__name__


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder that exists for the length of the block.

    A driver that is killed leaves its folder; the next one deletes it. Whether its owner is alive is known
    from a lock, which the system releases when a process ends, however it ends.
    """
    delete_leftovers(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with FileLock(folder / LOCK):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def delete_leftovers(parent: Path) -> list[Path]:
    """Deletes the folders of drivers that are no longer alive; returns them."""
    deleted = [folder for folder in _own_folders(parent) if is_abandoned(folder)]
    for folder in deleted:
        shutil.rmtree(folder, ignore_errors=True)
    return deleted


def running_drivers(own: Path) -> int:
    """How many other drivers are running on this machine, as far as their folders are next to this one."""
    others = (folder for folder in _own_folders(own.parent) if folder != own)
    return sum(is_abandoned(folder) is False for folder in others)


def _own_folders(parent: Path) -> Iterator[Path]:
    """Folders of this user's drivers. Others may put links and folders of that name where all may write."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
                yield folder


def is_abandoned(folder: Path) -> bool | None:
    """Whether nobody holds the folder's lock; None where that is unknown.

    So it is of another user's folder, of one that has just been deleted, and of one that is being made.
    """
    try:
        if not (folder / LOCK).exists():
            return time.time() - folder.stat().st_mtime > MAKING_SECONDS or None
        with FileLock(folder / LOCK, blocking=False):
            return True
    except Timeout:
        return False
    except OSError:
        return None


def ray_folder(scratch: Path) -> str | None:
    """Ray's folder for logs and sockets; None, which is Ray's default, where the path would be too long.

    It lies below a folder of this user alone, because Ray lets everybody write into its own.
    """
    folder = scratch / "ray"
    if len(str(folder)) > LONGEST:
        return None
    folder.mkdir()
    return str(folder)


def keep_private(file: Path) -> None:
    """Takes a file from other users of the machine, where it is this user's."""
    with suppress(OSError):
        file.chmod(0o600)
