"""Airflow on this machine: its four parts, each a process of its own, on SQLite with the LocalExecutor.

These are the parts that ``airflow standalone`` starts as well. They are started one by one here because ``standalone``

* lets the scheduler and the triggerer serve their logs to the whole network (``--skip-serve-logs`` is theirs, not its),
* goes on without an API server whose port is taken, and never starts a part again that has ended,
* leaves children behind when it ends: every task is in a process group of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import httpx
import psutil

from local_stack.airflow_api import AirflowApi
from local_stack.ports import LOOPBACK, free_port, is_free, without_proxy
from local_stack.processes import BackgroundProcess, LocalStackError

REPOSITORY = Path(__file__).resolve().parents[2]
USERNAME = "admin"
_GENERATED_SETTINGS = ("API__SECRET_KEY", "API_AUTH__JWT_SECRET")

Role = Literal["api-server", "scheduler", "dag-processor", "triggerer", "second-triggerer"]
ROLES: tuple[Role, ...] = ("api-server", "scheduler", "dag-processor", "triggerer")
"""The parts of an Airflow; ``second-triggerer`` runs only where it was started by itself."""

# Under what name a part reports to the database that it works; the API server does not.
_JOB_TYPES: Mapping[Role, str] = {
    "scheduler": "SchedulerJob",
    "dag-processor": "DagProcessorJob",
    "triggerer": "TriggererJob",
    "second-triggerer": "TriggererJob",
}

# Settings of the person who starts it: another Airflow's, those of a real AWS account. Without compiled modules, every
# process would compile them again: Airflow then takes 25 s to start instead of 15 s.
_NOT_INHERITED = ("AIRFLOW_", "AWS_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")

SHORT_LATENCY: Mapping[str, str] = {
    # Workers are forked when the scheduler starts, and every one that is idle costs memory.
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__API__WORKERS": "1",
    # How long a worker goes on waiting for a task whose end it has missed.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    # The API server's first answers take long; a task that gives up on them waits before it asks again.
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
}
"""Settings under which a run on two cores waits as little as possible."""

QUICK_RECOVERY: Mapping[str, str] = {
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "6",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
}
"""Settings under which Airflow notices within seconds that a part was killed; its defaults take minutes."""


@dataclass(frozen=True)
class AirflowProcess:
    """A running process of Airflow. ``role`` is that of the part, or what its child is for."""

    role: str
    pid: int
    title: str


class LocalAirflow:
    """One Airflow with everything it keeps below a directory.

    :param home: AIRFLOW_HOME; created when Airflow is started. Database, logs and password outlive ``stop``.
    :param dags_folder: where the DAG files lie.
    :param plugins_folder: where the plugins lie.
    :param python_path: folders that every process can import from.
    :param environment: more variables for every process, such as AWS_ENDPOINT_URL_S3 or settings of Airflow; they come
        before those that are set here.
    """

    def __init__(
        self,
        home: Path,
        *,
        dags_folder: Path = REPOSITORY / "dags",
        plugins_folder: Path = REPOSITORY / "plugins",
        python_path: Sequence[Path] = (REPOSITORY / "include",),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home.resolve()
        self._dags_folder = dags_folder
        self._plugins_folder = plugins_folder
        self._python_path = tuple(python_path)
        self._environment = dict(environment or {})
        self.parts: dict[Role, BackgroundProcess] = {
            role: BackgroundProcess(role, self.home / "processes", grace_seconds=grace_seconds)
            for role, grace_seconds in _GRACE_SECONDS.items()
        }

    @property
    def is_running(self) -> bool:
        """Whether every part of it is running, no matter who started it."""
        return all(self.parts[role].is_running for role in ROLES)

    @property
    def url(self) -> str:
        """The address of the UI and the REST API; stays the same until its port is taken by somebody else."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def password(self) -> str:
        """The password of the user ``admin``."""
        passwords: dict[str, str] = json.loads(self._passwords_path.read_text())
        return passwords[USERNAME]

    @cached_property
    def api(self) -> AirflowApi:
        """The REST API, as ``admin``."""
        return AirflowApi(self.url, USERNAME, self.password)

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of its processes; holds secrets."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        return {**inherited, **without_proxy(inherited), **self._settings(), **self._environment}

    def start(self, *, seconds: float = 120) -> Self:
        """Start every part that isn't running, and return when all of them are healthy.

        :raises LocalStackError: if one ends or isn't healthy in time; names its log.
        """
        self.prepare()
        self._stop_outdated_parts()
        if not (self.home / "airflow.db").exists():
            self.migrate(seconds=seconds)
        for role in ROLES:
            if not self.parts[role].is_running:
                self.start_part(role)
        for role in ROLES:
            self.wait_until_healthy(role, seconds=seconds)
        return self

    def stop(self) -> None:
        """Stop every part with everything it has started; does nothing to what isn't running."""
        if "api" in self.__dict__:
            self.api.close()
            del self.api
        # The scheduler first: it hands out no new task while its workers end.
        self._at_once(BackgroundProcess.stop)

    def kill(self) -> None:
        """Kill every part and everything it has started at once, as a crash of the machine would."""
        self._at_once(BackgroundProcess.kill)

    def _at_once(self, act: Callable[[BackgroundProcess], None]) -> None:
        with ThreadPoolExecutor(len(self.parts)) as pool:
            for done in [pool.submit(act, part) for part in self.parts.values()]:
                done.result()

    def migrate(self, *, seconds: float = 120) -> None:
        """Create the database, or bring it to this version of Airflow."""
        migration = BackgroundProcess("db-migrate", self.home / "processes")
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        exit_code = migration.run(command, environment=self.environment, seconds=seconds)
        if exit_code:
            raise LocalStackError(migration.explain(f"Airflow's database could not be created (exit code {exit_code})"))

    def start_part(self, role: Role) -> None:
        """Start one part without waiting for it, such as one that was killed."""
        self.parts[role].start(
            [sys.executable, "-m", "airflow", *ARGUMENTS[role]],
            environment=self.environment,
            working_directory=self.home,
            details={"url": self.url, "settings": self._settings_digest(), "since": datetime.now(UTC).isoformat()},
        )

    def stop_part(self, role: Role) -> None:
        """Stop one part and everything it has started."""
        self.parts[role].stop()

    def kill_part(self, role: Role) -> None:
        """Kill one part and everything it has started (the scheduler's workers and their tasks) at once."""
        self.parts[role].kill()

    def kill_alone(self, role: Role) -> None:
        """Kill one part and nothing it has started: a scheduler's workers go on with their tasks.

        They are ended with the part when it is stopped or killed as a whole, or by :meth:`kill_left_behind`.
        """
        self.parts[role].kill_alone()

    def kill_left_behind(self) -> None:
        """Kill what parts that were killed alone have left behind."""
        for part in self.parts.values():
            part.kill_left_behind()

    def wait_until_healthy(self, role: Role, *, seconds: float = 120) -> None:
        """Return as soon as the part works: the API server answers, another part's heartbeat has reached the database.

        A heartbeat of the same part from before it was started the last time counts for nothing.

        :raises LocalStackError: if it ends or isn't healthy in time.
        """
        part = self.parts[role]

        def healthy() -> bool:
            # A moment after it has opened its port the API server may still answer with errors of its own.
            with suppress(httpx.HTTPError, LocalStackError):
                if role == "api-server":
                    return self.api.serves_tasks()
                if (record := part.record) is not None:
                    since = datetime.fromisoformat(record.details["since"])
                    return any(begun > since for begun in self.api.live_jobs(_JOB_TYPES[role]))
            return False

        part.wait_until_ready(healthy, seconds=seconds, what="it was healthy")

    def processes(self) -> list[AirflowProcess]:
        """Return every running process with what it is for.

        Beside the parts' own roles: ``worker`` (of the LocalExecutor), ``task`` (a running task), and for the other
        children ``<role> child``.
        """
        found = []
        for role, part in self.parts.items():
            leader = part.pid
            for process in part.processes():
                with suppress(psutil.NoSuchProcess):
                    title = " ".join(process.cmdline())
                    found.append(AirflowProcess(_role_of(process, title, role, leader), process.pid, title))
        return found

    def __enter__(self) -> Self:
        """Start Airflow."""
        return self.start()

    def __exit__(self, *exception: object) -> None:
        """Stop Airflow."""
        self.stop()

    @property
    def _passwords_path(self) -> Path:
        return self.home / "passwords.json"

    @property
    def _port(self) -> int:
        return int((self.home / "port").read_text())

    def prepare(self) -> None:
        """Choose what must be the same at every start: port, password and secrets."""
        self.home.mkdir(parents=True, exist_ok=True)
        port = self.home / "port"
        if not port.exists() or not (self.parts["api-server"].is_running or is_free(self._port)):
            self._refuse_another_port()
            port.write_text(f"{free_port()}\n")
            self.__dict__.pop("api", None)
        for path, made in (
            (self._passwords_path, {USERNAME: secrets.token_urlsafe(12)}),
            (
                self._secrets_path,
                {name: secrets.token_urlsafe(64) for name in _GENERATED_SETTINGS},
            ),
        ):
            if not path.exists():
                path.touch(mode=0o600)
                path.write_text(json.dumps(made))

    def _refuse_another_port(self) -> None:
        running = [role for role, part in self.parts.items() if part.is_running]
        if running:
            raise LocalStackError(
                f"another program has taken the port of {self.url}, which {', '.join(running)} of {self.home} "
                "still call; stop them first"
            )

    def _stop_outdated_parts(self) -> None:
        """Stop the parts that were started with other settings: they would go on with them."""
        for part in self.parts.values():
            record = part.record
            if record is not None and record.details.get("settings") != self._settings_digest():
                part.stop()

    def _settings_digest(self) -> str:
        chosen = json.dumps({**self._settings(), **self._environment}, sort_keys=True)
        return hashlib.sha256(chosen.encode()).hexdigest()

    @property
    def _secrets_path(self) -> Path:
        return self.home / "secrets.json"

    def _settings(self) -> dict[str, str]:
        generated: dict[str, str] = json.loads(self._secrets_path.read_text())
        return {
            "AIRFLOW_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join(str(folder) for folder in self._python_path),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self._dags_folder),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self._plugins_folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._passwords_path),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            # These three belong together: the first alone leaves the tasks calling port 8080.
            "AIRFLOW__API__PORT": str(self._port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            # Found in the environment, the connection is not looked up over the API by every task.
            "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            **{f"AIRFLOW__{name}": value for name, value in generated.items()},
            **SHORT_LATENCY,
        }


ARGUMENTS: Mapping[Role, tuple[str, ...]] = {
    "api-server": ("api-server",),
    # The log servers listen on all interfaces. Nobody needs them: the API server reads the files themselves.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "second-triggerer": ("triggerer", "--skip-serve-logs"),
}


# The scheduler waits for its running tasks; an idle trigger runner ends only when it is signalled itself.
_GRACE_SECONDS: Mapping[Role, float] = {
    "api-server": 5,
    "scheduler": 6,
    "dag-processor": 5,
    "triggerer": 3,
    "second-triggerer": 3,
}


def _role_of(process: psutil.Process, title: str, role: Role, leader: int | None) -> str:
    if process.pid == leader:
        return role
    if role != "scheduler":
        return f"{role} child"
    if process.ppid() == leader or "LocalExecutor" in title:
        return "worker"
    return "task"
