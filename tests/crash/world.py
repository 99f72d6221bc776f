"""The whole project as real processes, with the proxy between them and S3 and Bedrock, and one library for each point."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import yaml
from deltalake import DeltaTable
from PIL import Image

from bedrock_simulator.admin import SimulatorAdmin
from local_stack.airflow import QUICK_RECOVERY, LocalAirflow
from local_stack.airflow_api import TaskInstance
from local_stack.processes import started_at, wait_until
from local_stack.stack import LocalStack
from tests.crash.breakpoint_proxy import Armed, Breakpoint, BreakpointProxy, Hit, Then, When
from tests.crash.points import Point, Victim
from tests.crash.record import PointResult

MODEL = "marengo-2-7"
REFERENCE = "reference"
RUN_ID = "crash"

_SOURCES, _EMBEDDINGS = "crash-media", "crash-embeddings"
_SETTINGS = {"seconds_per_job": 1.0, "token_lifetime_seconds": None, "list_delay_seconds": 0.0}
_AIRFLOW = {
    **QUICK_RECOVERY,
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    # Nothing changes, and to parse all those DAGs again and again would cost more than the runs do.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
    # Nor may they be taken for stale where a busy machine takes long to parse them once.
    "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "300",
    "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": "86400",
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
    "AIRFLOW__TRIGGERER__RUNNER_HEALTH_CHECK_THRESHOLD": "5",
}
_INVOKED, _INVOKE_ARN = "InvokeModel", ":invoke-model/"
_SECONDS_TO_BREAKPOINT = 120.0
_SECONDS_TO_END = 240.0
_SECONDS_UNTOLD = 5.0
# What of a run must not depend on whether it was disturbed.
_COMPARED = (
    *("media_type", "etag", "size_bytes", "segment_index", "start_sec", "end_sec"),
    *("embedding_option", "embedding_scope", "embedding"),
)


def media() -> dict[str, bytes]:
    """Return the media of every library by key: enough for two batches of more than one request."""

    def picture(colour: tuple[int, int, int]) -> bytes:
        content = io.BytesIO()
        Image.new("RGB", (64, 48), colour).save(content, "PNG")
        return content.getvalue()

    return {
        "red.png": picture((220, 20, 20)),
        "green.png": picture((20, 200, 20)),
        "blue.png": picture((20, 20, 220)),
        "one.txt": b"A red boat on a green lake.",
        "two.txt": b"A blue door.",
    }


class BrokenPromiseError(AssertionError):
    """A run that was disturbed has not done what an undisturbed one does."""


@dataclass(frozen=True)
class Library:
    """Where the library of a point lies."""

    name: str

    @property
    def prefix(self) -> str:
        """The URI below which its media lie."""
        return f"s3://{_SOURCES}/{self.name}/"

    @property
    def tables(self) -> str:
        """The URI of its tables."""
        return f"s3://{_EMBEDDINGS}/{self.name}/tables"

    @property
    def dag_id(self) -> str:
        """The id of its DAG."""
        return "embed_media" if self.name == REFERENCE else f"embed_media_{self.name}"

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return its settings, as they stand in the file of libraries."""
        return {
            "sources": [self.prefix],
            "region": "us-east-1",
            "model": MODEL,
            # AWS ends it on 2026-11-30; the simulator does not.
            "model_lifecycle": "warn",
            "tables": self.tables,
            "work": f"s3://{_EMBEDDINGS}/{self.name}/work",
            "schedule": None,
            "batch_size": 3,
            "max_in_flight": 10,
            "poll_interval_seconds": 1,
            "retry_delay_seconds": 1,
            "lease_seconds": 5,
            "list_lag_seconds": 3,
            "output_grace_seconds": 5,
            "deadline_hours": 0.1,
            # The points are those of jobs.
            "processing": "async",
            **more,
        }


class World:
    """Airflow, S3 and Bedrock, in which one run after the other is disturbed."""

    def __init__(self, stack: LocalStack, airflow: LocalAirflow, proxy: BreakpointProxy) -> None:
        self.airflow = airflow
        self.proxy = proxy
        self.simulator = SimulatorAdmin(stack.simulator.endpoint_url)
        self._stack = stack
        self._reference: list[tuple[Any, ...]] | None = None
        self._charged = self._charges()
        self._stopped: list[psutil.Process] = []

    @property
    def reference(self) -> list[tuple[Any, ...]]:
        """Return the rows of a run that nobody disturbed."""
        if self._reference is None:
            library = Library(REFERENCE)
            with self._running(library):
                self._finish(library)
            self._reference = self.rows(library)
        return self._reference

    def survive(self, point: Point) -> PointResult:
        """Run the point's library, kill at the point, restart what was killed, and compare what came of it.

        :raises BrokenPromiseError: if the run is not what it would have been.
        """
        library, expected = Library(point.library), self.reference
        self.simulator.settings(
            **{**_SETTINGS, **point.circumstances.settings, "seconds_per_job": point.step.seconds_per_job}
        )
        armed = self.proxy.arm(self._breakpoint(point), lambda hit: self._kill(point, hit))
        with self._running(library):
            self._wait_for(armed, library)
            killed_at = time.monotonic()
            if point.victim is Victim.STOPPED:
                self._let_another_take_over()
            self.airflow.start()
            charges, retries = self._finish(library)
            seconds = time.monotonic() - killed_at
            self._end_orphans(library)
        if self.rows(library) != expected:
            raise BrokenPromiseError(f"{library.dag_id}: the rows are not those of the undisturbed run")
        return PointResult(point.name, passed=True, charges=charges, seconds=seconds, retries=retries)

    @contextmanager
    def _running(self, library: Library) -> Iterator[None]:
        """Start the library's run; when something fails, end what is left of it, lest it disturb the next one."""
        self.check_charges()
        self.airflow.api.trigger(library.dag_id, run_id=RUN_ID)
        try:
            yield
        except BaseException:
            self.proxy.disarm()
            self.airflow.start()
            self.airflow.api.fail_run(library.dag_id, RUN_ID)
            self._end_orphans(library)
            raise
        finally:
            self._charged = self._charges()

    def _finish(self, library: Library) -> tuple[int, int]:
        """Wait for the end of the library's run, and check its books; return the numbers of charges and of retries.

        :raises BrokenPromiseError: if it has failed, lost an object or paid twice.
        """
        run = self.airflow.api.wait_for_run(library.dag_id, RUN_ID, seconds=_SECONDS_TO_END)
        instances = self.airflow.api.task_instances(library.dag_id, RUN_ID)
        if run.state != "success":
            raise BrokenPromiseError(f"the run has {run.state}:\n{self._explain(library, instances)}")
        charged = self._check_books(library)
        return charged.total(), sum(max(one.try_number - 1, 0) for one in instances)

    def rows(self, library: Library) -> list[tuple[Any, ...]]:
        """Return the library's rows, by key and segment, without what differs between any two runs."""
        table = self._table(f"{library.tables}/embeddings/{MODEL}").to_pylist()
        return sorted(
            (
                (row["media_uri"].removeprefix(library.prefix), *(_comparable(row[name]) for name in _COMPARED))
                for row in table
            ),
            key=lambda row: (row[0], row[4]),
        )

    def role_of(self, pid: int) -> str | None:
        """Return what the process is for: ``task``, or a part of Airflow; None if it is none of Airflow's."""
        return next((found.role for found in self.airflow.processes() if found.pid == pid), None)

    def _breakpoint(self, point: Point) -> Breakpoint:
        step, wanted = point.step, point.step.made_by
        return Breakpoint(
            step.service,
            step.method,
            point.path,
            step.when,
            step.nth,
            None if wanted is None else self._is(wanted),
        )

    def _is(self, role: str) -> Callable[[int], bool]:
        """Return what tells whether a process is this part of Airflow, or a child of it."""
        return lambda pid: (self.role_of(pid) or "").startswith(role)

    def _kill(self, point: Point, hit: Hit) -> Then:
        match point.victim:
            case Victim.SCHEDULER:
                self.airflow.kill_alone("scheduler")
            case Victim.TRIGGERER:
                self.airflow.kill_part("triggerer")
            case Victim.ALL:
                self.airflow.kill()
            case Victim.TASK:
                self._kill_caller(hit)
            case Victim.STOPPED:
                # It is told the answer now, and reads it when it goes on.
                self._stopped = sorted(self.airflow.parts["triggerer"].processes(), key=lambda one: one.create_time())
                for process in self._stopped:
                    process.suspend()
        caller_lives = hit.pid is not None and started_at(hit.pid) is not None
        return Then.GO_ON if caller_lives and not point.step.answer_is_lost else Then.DROP

    def _kill_caller(self, hit: Hit) -> None:
        pid = _known(hit)
        role = self.role_of(pid)
        assert role in {"task", "triggerer child"}, f"{hit} was called by {role or 'a stranger'}"
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: started_at(pid) is None, seconds=10, what=f"process {pid} was killed")
        if role != "task":
            # Without the process that runs its triggers the triggerer ends by itself.
            part = self.airflow.parts["triggerer"]
            wait_until(lambda: not part.is_running, seconds=30, what="the triggerer has ended")

    def _let_another_take_over(self) -> None:
        """Start another triggerer, and let the stopped one go on when the other one has recorded what it has started.

        The process that submits goes on before its supervisor, which would tell it that it is no longer in charge: nothing
        says that the supervisor is faster.
        """
        recorded = Breakpoint("s3", "PUT", r"/invocations\.jsonl$", When.AFTER, made_by=self._is("second-triggerer"))
        started = Breakpoint("bedrock", "POST", "^/async-invoke$", When.AFTER, made_by=self._is("triggerer"))
        _supervisor, *others = self._stopped
        try:
            taken_over = self.proxy.arm(recorded, lambda hit: Then.GO_ON)
            self.airflow.start_part("second-triggerer")
            taken_over.wait(_SECONDS_TO_BREAKPOINT)
            started_again = self.proxy.arm(started, lambda hit: Then.GO_ON)
            for process in others:
                process.resume()
            with suppress(TimeoutError):
                started_again.wait(_SECONDS_UNTOLD)
        finally:
            self.proxy.disarm()
            for process in self._stopped:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def _wait_for(self, armed: Armed, library: Library) -> None:
        try:
            armed.wait(_SECONDS_TO_BREAKPOINT)
        except TimeoutError:
            calls = "\n  ".join(self.proxy.last_calls[-40:])
            raise AssertionError(
                f"no call has matched {armed.wanted}:\n{self.airflow.api.describe(library.dag_id, RUN_ID)}\n  {calls}"
            ) from None
        finally:
            self.proxy.disarm()

    def _end_orphans(self, library: Library) -> None:
        """Wait until no orphaned task works on the library, and end the orphaned workers, which wait for nothing."""
        wait_until(
            lambda: not [one for one in self.airflow.processes() if one.role == "task"],
            seconds=30,
            what=f"no task of {library.dag_id} goes on after its run has ended",
        )
        self.airflow.kill_left_behind()
        self.airflow.stop_part("second-triggerer")

    def _check_books(self, library: Library) -> Counter[str]:
        """Check that every object was embedded and paid for once; return the charges by request id."""
        report = self._report(library)
        expected = len(media())
        ledger = self._table(f"{library.tables}/media").to_pylist()
        found = Counter((row["status"], row["attempts"]) for row in ledger)
        _expect(found, {("embedded", 1): expected}, "the ledger's rows by status and attempts")
        _expect(report["balanced"], True, "whether the books balance")
        _expect(report["totals"]["embedded"], expected, "the embedded objects of the report")
        requests = Counter(row["request_id"] for row in ledger)
        charged = self._charges() - self._charged
        sent_at_once = [row["request_id"] for row in ledger if _INVOKE_ARN in row["invocation_arn"]]
        _expect(
            charged - Counter({_INVOKED: charged[_INVOKED]}),
            requests - Counter(sent_at_once),
            "the charges of jobs by request id",
        )
        lost = report["lost_answers"]
        if not len(sent_at_once) <= charged[_INVOKED] <= len(sent_at_once) + lost:
            raise BrokenPromiseError(
                f"{charged[_INVOKED]} charges of InvokeModel for {len(sent_at_once)} objects, {lost} answers counted as lost"
            )
        attempts = self._table(f"{library.tables}/invocations").to_pylist()
        _expect(Counter(row["request_id"] for row in attempts), requests, "the rows of invocations by request id")
        return charged

    def check_charges(self) -> None:
        """Check that nothing was charged since the last run ended, by an orphan for example.

        :raises BrokenPromiseError: if something was.
        """
        late = self._charges() - self._charged
        _expect(late, Counter(), "charges by request id since the last run ended")

    def _charges(self) -> Counter[str]:
        """Return the charges so far by request id; those of InvokeModel, which has none, together."""
        return Counter(one["token"] or _INVOKED for one in self.simulator.charges())

    def _report(self, library: Library) -> dict[str, Any]:
        key = f"{library.name}/work/runs/{library.name}/{RUN_ID}/report.json"
        content = self._stack.seaweedfs.client().get_object(Bucket=_EMBEDDINGS, Key=key)["Body"].read()
        report: dict[str, Any] = json.loads(content)
        return report

    def _table(self, uri: str) -> pa.Table:
        environment = self._stack.seaweedfs.environment
        options = {
            "AWS_ENDPOINT_URL_S3": environment["AWS_ENDPOINT_URL_S3"],
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": environment["AWS_ACCESS_KEY_ID"],
            "AWS_SECRET_ACCESS_KEY": environment["AWS_SECRET_ACCESS_KEY"],
            "AWS_REGION": environment["AWS_DEFAULT_REGION"],
        }
        return DeltaTable(uri, storage_options=options).to_pyarrow_dataset().to_table()

    def _explain(self, library: Library, instances: Iterable[TaskInstance]) -> str:
        lines = [self.airflow.api.describe(library.dag_id, RUN_ID)]
        for one in instances:
            if one.state == "failed":
                log = self.airflow.api.log(
                    library.dag_id,
                    RUN_ID,
                    one.task_id,
                    map_index=one.map_index,
                    try_number=one.try_number,
                    errors=True,
                )
                lines += [f"{one.task_id}, try {one.try_number}:", *log.splitlines()[-20:]]
        return "\n".join(lines)


def _known(hit: Hit) -> int:
    assert hit.pid is not None, f"nobody holds the connection of {hit}"
    return hit.pid


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise BrokenPromiseError(f"{what}: {found} instead of {expected}")


@contextmanager
def world(directory: Path, libraries: Mapping[str, Mapping[str, object]]) -> Iterator[World]:
    """Start everything below a directory, with a DAG for each library; nothing is left running afterwards.

    :param libraries: the settings of each that differ from those of the others, by its name.
    """
    libraries = {REFERENCE: {}, **libraries}
    configuration = directory / "libraries.yaml"
    settings = {name: Library(name).settings(**more) for name, more in libraries.items()}
    configuration.write_text(yaml.safe_dump({"libraries": settings}, sort_keys=False))
    try:
        with LocalStack(directory / "stack").start(simulator_settings=_SETTINGS) as stack:
            _upload(stack, libraries)
            services = {"s3": stack.seaweedfs.endpoint_url, "bedrock": stack.simulator.endpoint_url}
            with BreakpointProxy(services) as proxy:
                environment = {
                    **stack.environment,
                    "AWS_ENDPOINT_URL_S3": proxy.url("s3"),
                    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": proxy.url("bedrock"),
                    "MEDIA_EMBEDDINGS_CONFIG": str(configuration),
                    **_AIRFLOW,
                }
                with LocalAirflow(directory / "airflow", environment=environment) as airflow:
                    for name in libraries:
                        airflow.api.wait_for_dag(Library(name).dag_id)
                    yield World(stack, airflow, proxy)
    finally:
        left = _processes_below(directory)
        assert left == [], f"these processes were left behind: {left}"


def _upload(stack: LocalStack, names: Iterable[str]) -> None:
    stack.seaweedfs.create_buckets(_SOURCES, _EMBEDDINGS)
    client = stack.seaweedfs.client()
    for name, (key, content) in itertools.product(names, media().items()):
        client.put_object(Bucket=_SOURCES, Key=f"{name}/{key}", Body=content)


def _processes_below(directory: Path) -> list[str]:
    """Return the running processes whose working directory lies below a directory: those that were started there."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, FileNotFoundError):
            if Path(process.cwd()).is_relative_to(directory.resolve()) and started_at(process.pid):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
    return found
