"""Processes that outlive the command that started them, and are stopped by exactly what was started.

Each runs in a session of its own with a log file and a record of its pid. The record names the process's start as
well, so that a pid that the system has given to somebody else in the meantime is never signalled.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

_POLL_SECONDS = 0.05
_LOG_LINES_SHOWN = 25
_INSISTENCE_SECONDS = 1.0


class LocalStackError(Exception):
    """Something of the local stack did not work; the message says what, where the log lies, and what to do."""


class DeadlineError(LocalStackError):
    """A condition did not come true in time."""


class ProcessEndedError(LocalStackError):
    """A process ended although it was to go on running."""


def wait_until(condition: Callable[[], object], *, seconds: float, what: str, interval: float = _POLL_SECONDS) -> None:
    """Return as soon as the condition is true.

    :param seconds: how long to wait at most.
    :param what: the condition in words, for the error.
    :param interval: seconds between two looks.
    :raises DeadlineError: if it isn't true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise DeadlineError(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(interval)


def started_at(pid: int) -> str | None:
    """Return what tells a running process from any other that had or will have its pid, or None if there is none.

    On Linux that is the boot and the tick at which it started: unlike a time of day, it never shifts with the clock.
    A process that has ended and was not yet collected by its parent counts as ended.
    """
    try:
        process = psutil.Process(pid)
        # While threads of a killed process are still ending it holds its ports, but shows as ended already.
        if process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1:
            return None
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return f"{boot}/{stat.read_text().rpartition(')')[2].split()[19]}"
        return f"{process.create_time():.2f}"
    except (psutil.NoSuchProcess, OSError):
        return None


@dataclass(frozen=True)
class ProcessRecord:
    """What is written down about a process: enough to find it again, and nothing else."""

    name: str
    pid: int
    started_at: str
    command: list[str]
    details: dict[str, Any] = field(default_factory=dict)
    """What a later command needs to know of it, such as its ports. No credentials."""

    def write(self, path: Path) -> None:
        """Write the record so that a reader sees all of it or nothing."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=2) + "\n")
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> ProcessRecord | None:
        """Read a record; None if there is none or it can't be understood."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None

    @property
    def is_running(self) -> bool:
        """Whether this very process is still running."""
        return started_at(self.pid) == self.started_at


class BackgroundProcess:
    """A process with its log and its record below a directory.

    :param name: names the files: ``<name>.log`` and ``<name>.process.json``.
    :param directory: where they lie; created when the process is started.
    :param stop_signal: what asks it to end.
    :param grace_seconds: how long it and its descendants have to end after that before they are killed.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace_seconds: float = 10.0,
    ) -> None:
        self.name = name
        self.log_path = directory / f"{name}.log"
        self.record_path = directory / f"{name}.process.json"
        self._stop_signal = stop_signal
        self._grace_seconds = grace_seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._left_behind: list[psutil.Process] = []

    @property
    def record(self) -> ProcessRecord | None:
        """The record of the running process; None if it isn't running."""
        self._collect()
        record = ProcessRecord.read(self.record_path)
        return record if record is not None and record.is_running else None

    @property
    def is_running(self) -> bool:
        """Whether the process is running, no matter who started it."""
        return self.record is not None

    @property
    def pid(self) -> int | None:
        """The pid of the running process."""
        record = self.record
        return record.pid if record else None

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        working_directory: Path | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Start the process with this whole environment; its output goes to the end of its log.

        :raises LocalStackError: if it runs already, or can't be started.
        """
        if self.is_running:
            raise LocalStackError(f"{self.name} is running already (pid {self.pid}, {self.record_path})")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            try:
                self._child = subprocess.Popen(  # noqa: S603 (commands of this package)
                    list(command),
                    env=dict(environment),
                    cwd=working_directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise LocalStackError(f"{self.name} could not be started: {error}") from error
        # A process that ended at once has no start any more; the record then says that it isn't running.
        start = started_at(self._child.pid) or "ended"
        ProcessRecord(self.name, self._child.pid, start, list(command), dict(details or {})).write(self.record_path)

    def wait_until_ready(self, condition: Callable[[], object], *, seconds: float, what: str) -> None:
        """Return as soon as the condition is true.

        :raises ProcessEndedError: if the process ended before that.
        :raises DeadlineError: if it isn't true in time.
        """

        def looked() -> object:
            if not self.is_running:
                raise ProcessEndedError(self.explain(f"{self.name} ended before {what}"))
            return condition()

        try:
            wait_until(looked, seconds=seconds, what=what)
        except DeadlineError as error:
            raise DeadlineError(self.explain(f"{self.name}: {error}")) from None

    def run(self, command: Sequence[str], *, environment: Mapping[str, str], seconds: float) -> int:
        """Run the command to its end and return its exit code.

        :raises DeadlineError: if it takes longer; it is killed then.
        """
        self.start(command, environment=environment)
        try:
            wait_until(lambda: not self.is_running, seconds=seconds, what=f"{self.name} has ended")
        except DeadlineError as error:
            raise DeadlineError(self.explain(f"{self.name}: {error}")) from None
        finally:
            self.stop()
        return self._child.returncode if self._child is not None else 0

    def explain(self, problem: str) -> str:
        """Return the problem with the log's path and its last lines."""
        return f"{problem}\n  log: {self.log_path}\n{self.last_lines()}"

    def last_lines(self, count: int = _LOG_LINES_SHOWN) -> str:
        """Return the last lines of the log, indented."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - 400 * count))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            lines = ["(there is no log)"]
        return "\n".join(f"  | {line[:400]}" for line in lines[-count:])

    def processes(self) -> list[psutil.Process]:
        """Return the process and everything it has started that still runs, also what outlived it."""
        record = ProcessRecord.read(self.record_path)
        found = [] if record is None or not self._session_is_ours(record) else _family(record.pid)
        return list({*found, *_with_descendants(self._left_behind)})

    def stop(self) -> None:
        """Ask the process to end, wait, kill what is left of it and its descendants, and forget it.

        Does nothing if it isn't running. Whatever the signal missed is found by the session it runs in.

        :raises DeadlineError: if something survives even being killed.
        """
        family = self.processes()
        if family:
            if (pid := self.pid) is not None:
                _signal_all([pid], self._stop_signal)
            # What has outlived the process that started it waits for nothing any more.
            self._wait_for_end(family, self._grace_seconds, until=lambda: not self.is_running)
            family = self._wait_for_end(family, _INSISTENCE_SECONDS)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
                _signal_all((member.pid for member in family), number)
                family = self._wait_for_end(family, 10.0 if number is signal.SIGKILL else _INSISTENCE_SECONDS)
            if family:
                raise DeadlineError(f"{self.name}: these processes could not be ended: {family}")
        self.record_path.unlink(missing_ok=True)

    def kill(self) -> None:
        """Kill the process and everything it has started at once, as a crash of the machine would."""
        family = self.processes()
        _signal_all((member.pid for member in family), signal.SIGKILL)
        family = self._wait_for_end(family, 10.0)
        if family:
            raise DeadlineError(f"{self.name}: these processes could not be killed: {family}")

    def kill_alone(self) -> None:
        """Kill the process and nothing that it has started, as the system does when memory runs out.

        What is left behind counts as its own, for :meth:`processes`, :meth:`stop` and :meth:`kill` of this object, also
        after the process was started again.
        """
        pid = self.pid
        self._left_behind = [member for member in self.processes() if member.pid != pid]
        if pid is not None:
            _signal_all([pid], signal.SIGKILL)
        wait_until(lambda: not self.is_running, seconds=10, what=f"{self.name} was killed")

    def kill_left_behind(self) -> None:
        """Kill what earlier starts have left behind; what this start has started goes on."""
        left = _with_descendants(self._left_behind)
        _signal_all((member.pid for member in left), signal.SIGKILL)
        wait_until(
            lambda: not any(started_at(one.pid) and one.is_running() for one in left), seconds=10, what="it ended"
        )
        self._left_behind = []

    def _wait_for_end(
        self, family: list[psutil.Process], seconds: float, until: Callable[[], bool] = lambda: False
    ) -> list[psutil.Process]:
        """Return what still runs of the family, and of what it started meanwhile, when all ended or time is up.

        :param until: what ends the waiting as well.
        """
        deadline = time.monotonic() + seconds
        while True:
            self._collect()
            family = [
                member for member in {*family, *self.processes()} if started_at(member.pid) and member.is_running()
            ]
            if not family or time.monotonic() > deadline or until():
                return family
            time.sleep(_POLL_SECONDS)

    def _collect(self) -> None:
        """Collect the ended child, if this object started it: else it would stay as a zombie."""
        if self._child is not None:
            self._child.poll()

    @staticmethod
    def _session_is_ours(record: ProcessRecord) -> bool:
        # The system gives no new process the number of a session that still has members. So when the leader is gone,
        # whatever is in its session was started by it; when it is another process, its session is not ours.
        start = started_at(record.pid)
        return start is None or start == record.started_at


def _family(leader: int) -> list[psutil.Process]:
    """Return the members of the leader's session, and their descendants that have left it."""
    members: dict[int, psutil.Process] = {}
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getsid(pid) == leader and started_at(pid):
                members[pid] = psutil.Process(pid)
    return _with_descendants(members.values())


def _with_descendants(members: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those of the members that still run, and everything that they have started."""
    found: dict[int, psutil.Process] = {}
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            # A member whose pid belongs to somebody else by now is no member any more.
            related = [member, *member.children(recursive=True)] if member.is_running() else []
            found |= {one.pid: one for one in related if started_at(one.pid)}
    return list(found.values())


def _signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
