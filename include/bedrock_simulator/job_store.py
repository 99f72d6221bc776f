"""Keeps jobs, charges, calls and small documents in one SQLite file, so that a restart forgets nothing."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .documents import from_document, to_document
from .faults import Fault
from .jobs import IN_PROGRESS, Job, Outcome

FILE_NAME = "simulator.sqlite3"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    invocation_id TEXT NOT NULL UNIQUE,
    account_id TEXT NOT NULL,
    token TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    model_id TEXT NOT NULL,
    model_input TEXT NOT NULL,
    output_uri TEXT NOT NULL,
    kms_key_id TEXT,
    bucket_owner TEXT,
    status TEXT NOT NULL,
    submitted_ms INTEGER NOT NULL,
    modified_ms INTEGER NOT NULL,
    failure_message TEXT,
    ended_ms INTEGER,
    due_ms INTEGER,
    faults TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_token ON jobs (token, submitted_ms);
CREATE INDEX IF NOT EXISTS jobs_by_time ON jobs (submitted_ms, sequence);
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, submitted_ms, sequence);
CREATE INDEX IF NOT EXISTS jobs_in_progress ON jobs (model_id) WHERE status = 'InProgress';
CREATE TABLE IF NOT EXISTS charges (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    operation TEXT NOT NULL,
    token TEXT,
    invocation_id TEXT UNIQUE,
    model_id TEXT NOT NULL,
    input_type TEXT NOT NULL,
    source TEXT NOT NULL,
    media_seconds REAL,
    charged_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS calls (
    operation TEXT NOT NULL,
    error_code TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (operation, error_code)
);
CREATE TABLE IF NOT EXISTS documents (name TEXT PRIMARY KEY, document TEXT NOT NULL);
"""

_JOB_COLUMNS = (
    "invocation_id, account_id, token, fingerprint, model_id, model_input, output_uri, kms_key_id, bucket_owner, "
    "status, submitted_ms, modified_ms, failure_message, ended_ms, due_ms, faults"
)


class QuotaReachedError(Exception):
    """As many jobs are in progress as may be."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What one accepted job or InvokeModel costs; ``media_seconds`` is None until the media were probed."""

    operation: str
    token: str | None
    invocation_id: str | None
    model_id: str
    input_type: str
    source: str
    media_seconds: float | None
    charged_ms: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where a job stands in the order of submission."""

    submitted_ms: int
    sequence: int


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs to list. Bounds in milliseconds.

    ``submitted_after`` and ``submitted_before`` leave their own moment out; ``earliest`` and ``latest`` (retention and
    consistency delay) include it. The jobs come after ``position`` in the order asked for.
    """

    limit: int
    descending: bool = True
    status: str | None = None
    submitted_after: int | None = None
    submitted_before: int | None = None
    earliest: int | None = None
    latest: int | None = None
    position: Position | None = None


class JobStore:
    """The memory of the simulator, for one process at a time: a second one gets a ``sqlite3.OperationalError``.

    Thread-safe: one connection behind a lock. Writes survive the process; only a crash of the machine can lose the
    last.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            directory / FILE_NAME, check_same_thread=False, isolation_level=None, timeout=5
        )
        # Two simulators on one file would work every job twice.
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def accept(
        self,
        job: Job,
        charge: Charge,
        *,
        max_in_flight: int,
        token_since_ms: int,
        draw_faults: Callable[[], tuple[Fault, ...]],
    ) -> Job:
        """Add a job and its charge, unless its token is known since ``token_since_ms``: then return that token's job.

        ``draw_faults`` is called only for a job that is added, and gives it its faults.

        :raises QuotaReachedError: if ``max_in_flight`` jobs of the model are in progress.
        """
        with self._transaction() as connection:
            known = self.job_by_token(job.token, token_since_ms)
            if known is not None:
                return known
            if self.in_flight(job.model_id) >= max_in_flight:
                raise QuotaReachedError
            job = replace(job, faults=draw_faults())
            connection.execute(
                f"INSERT INTO jobs ({_JOB_COLUMNS}) VALUES ({', '.join('?' * 16)})",  # noqa: S608  (constants)
                (
                    job.invocation_id,
                    job.account_id,
                    job.token,
                    job.fingerprint,
                    job.model_id,
                    json.dumps(job.model_input),
                    job.output_uri,
                    job.kms_key_id,
                    job.bucket_owner,
                    job.status,
                    job.submitted_ms,
                    job.modified_ms,
                    job.failure_message,
                    job.ended_ms,
                    job.due_ms,
                    json.dumps([to_document(fault) for fault in job.faults]),
                ),
            )
            _insert_charge(connection, charge)
        return job

    def in_flight(self, model_id: str) -> int:
        """Return how many jobs of the model are in progress."""
        with self._lock:
            row = self._connection.execute(
                "SELECT count(*) FROM jobs WHERE status = 'InProgress' AND model_id = ?", (model_id,)
            ).fetchone()
        return int(row[0])

    def job(self, invocation_id: str) -> Job | None:
        """Return a job by its id."""
        return next(iter(self._jobs("WHERE invocation_id = ?", (invocation_id,))), None)

    def job_by_token(self, token: str, since_ms: int) -> Job | None:
        """Return the latest job of a token that was submitted at ``since_ms`` or later."""
        where = "WHERE token = ? AND submitted_ms >= ? ORDER BY sequence DESC LIMIT 1"
        return next(iter(self._jobs(where, (token, since_ms))), None)

    def jobs_in_progress(self) -> list[Job]:
        """Return the jobs in progress, in the order of their submission."""
        return self._jobs("WHERE status = ? ORDER BY sequence", (IN_PROGRESS,))

    def jobs(self, query: JobQuery) -> list[tuple[Position, Job]]:
        """Return jobs in the order of their submission."""
        conditions: list[str] = []
        values: list[int | str] = []
        for condition, value in (
            ("status = ?", query.status),
            ("submitted_ms > ?", query.submitted_after),
            ("submitted_ms < ?", query.submitted_before),
            ("submitted_ms >= ?", query.earliest),
            ("submitted_ms <= ?", query.latest),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        comparison, order = ("<", "DESC") if query.descending else (">", "ASC")
        if query.position is not None:
            conditions.append(f"(submitted_ms, sequence) {comparison} (?, ?)")
            values += [query.position.submitted_ms, query.position.sequence]
        where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        ending = f"{where}ORDER BY submitted_ms {order}, sequence {order} LIMIT ?"
        rows = self._rows(
            ending, (*values, query.limit), columns=_JOB_COLUMNS.replace("model_input", "'{}' AS model_input")
        )
        return [(Position(row["submitted_ms"], row["sequence"]), _job(row)) for row in rows]

    def _jobs(self, ending: str, values: tuple[int | str, ...]) -> list[Job]:
        return [_job(row) for row in self._rows(ending, values)]

    def _rows(self, ending: str, values: tuple[int | str, ...], columns: str = _JOB_COLUMNS) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(
                f"SELECT sequence, {columns} FROM jobs {ending}",  # noqa: S608  (constants)
                values,
            ).fetchall()

    def set_due(self, invocation_id: str, due_ms: int, media_seconds: float) -> None:
        """Record when a job ends, and how long its media are."""
        with self._transaction() as connection:
            connection.execute("UPDATE jobs SET due_ms = ? WHERE invocation_id = ?", (due_ms, invocation_id))
            connection.execute(
                "UPDATE charges SET media_seconds = ? WHERE invocation_id = ?", (media_seconds, invocation_id)
            )

    def finish(self, invocation_id: str, outcome: Outcome, ended_ms: int) -> None:
        """Record how and when a job ended."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE jobs SET status = ?, failure_message = ?, modified_ms = ?, ended_ms = ? "
                "WHERE invocation_id = ?",
                (outcome.status, outcome.failure_message, ended_ms, ended_ms, invocation_id),
            )

    def charge(self, charge: Charge) -> None:
        """Record a charge that goes with no job."""
        with self._transaction() as connection:
            _insert_charge(connection, charge)

    def charges(self) -> list[Charge]:
        """Return all charges, oldest first."""
        with self._lock:
            rows = self._connection.execute("SELECT * FROM charges ORDER BY sequence").fetchall()
        return [
            Charge(**{name: row[name] for name in Charge.__dataclass_fields__})  # one column for each member
            for row in rows
        ]

    def count_call(self, operation: str, error_code: str) -> None:
        """Count a call; ``error_code`` is empty for a success."""
        with self._lock:
            self._connection.execute(
                "INSERT INTO calls VALUES (?, ?, 1) "
                "ON CONFLICT (operation, error_code) DO UPDATE SET count = count + 1",
                (operation, error_code),
            )

    def calls(self) -> dict[str, dict[str, int]]:
        """Return the number of calls by operation and error code (``""`` for a success)."""
        result: dict[str, dict[str, int]] = {}
        with self._lock:
            rows = self._connection.execute("SELECT * FROM calls ORDER BY operation, error_code").fetchall()
        for row in rows:
            result.setdefault(row["operation"], {})[row["error_code"]] = row["count"]
        return result

    def save_document(self, name: str, document: object) -> None:
        """Keep a small JSON document under a name."""
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (name, json.dumps(document)))

    def saved_document(self, name: str) -> Any:
        """Return the document of a name, or None."""
        with self._lock:
            row = self._connection.execute("SELECT document FROM documents WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row["document"])

    def counts(self) -> dict[str, int]:
        """Return the number of jobs by status."""
        with self._lock:
            rows = self._connection.execute("SELECT status, count(*) FROM jobs GROUP BY status").fetchall()
        return {row[0]: row[1] for row in rows}


def _insert_charge(connection: sqlite3.Connection, charge: Charge) -> None:
    document = to_document(charge)
    connection.execute(
        f"INSERT INTO charges ({', '.join(document)}) VALUES ({', '.join('?' * len(document))})",  # noqa: S608  (constants)
        tuple(document.values()),
    )


def _job(row: sqlite3.Row) -> Job:
    members = {name: row[name] for name in Job.__dataclass_fields__ if name not in ("model_input", "faults")}
    faults = () if row["faults"] == "[]" else json.loads(row["faults"])
    return Job(
        **members,
        model_input=json.loads(row["model_input"]),
        faults=tuple(from_document(Fault, fault) for fault in faults),
    )
