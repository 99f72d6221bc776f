"""Airflow seen through its public REST API: https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import httpx

from local_stack.processes import DeadlineError, LocalStackError

FINISHED_RUN_STATES = frozenset({"success", "failed"})
FINISHED_TASK_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_PAGE_SIZE = 100
_PATIENCE_WITH_IMPORT_ERRORS = 15.0


@dataclass(frozen=True)
class DagRun:
    """One run of a DAG."""

    dag_id: str
    run_id: str
    state: str
    start_date: datetime | None
    end_date: datetime | None

    @property
    def is_finished(self) -> bool:
        """Whether it has succeeded or failed."""
        return self.state in FINISHED_RUN_STATES


@dataclass(frozen=True)
class TaskInstance:
    """One task instance of a run; ``map_index`` is -1 for one that isn't mapped, ``label`` its rendered map index."""

    task_id: str
    map_index: int
    state: str | None
    label: str | None
    try_number: int
    max_tries: int
    start_date: datetime | None
    end_date: datetime | None
    hostname: str | None
    pid: int | None

    @property
    def is_finished(self) -> bool:
        """Whether nothing more happens to it unless it is cleared."""
        return self.state in FINISHED_TASK_STATES


@dataclass(frozen=True)
class BrokenDagFile:
    """A DAG file that could not be imported."""

    filename: str
    stack_trace: str


class AirflowApi:
    """The calls of Airflow's REST API that the demo and the tests need.

    Gets a token by itself, and a new one when it has expired. Goes to the given address only, whatever proxy the
    environment names.

    :param url: where the API server listens, without a path.
    """

    def __init__(self, url: str, username: str, password: str) -> None:
        self.url = url
        self._credentials = {"username": username, "password": password}
        self._token: str | None = None
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=30)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the connections."""
        self.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call ``/api/v2<path>``.

        :raises LocalStackError: if the answer isn't a success; says what Airflow said.
        :raises httpx.TransportError: if there is no answer.
        """
        response = self._http.request(method, f"/api/v2{path}", headers=self._authorization(), **options)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._token = None
            response = self._http.request(method, f"/api/v2{path}", headers=self._authorization(), **options)
        if not response.is_success:
            raise LocalStackError(f"Airflow answered {response.status_code} to {method} {path}: {response.text[:1000]}")
        return response

    def live_jobs(self, job_type: str) -> list[datetime]:
        """Return when each part of this type has begun to work that still sends heartbeats.

        :param job_type: ``SchedulerJob``, ``TriggererJob`` or ``DagProcessorJob``.
        """
        answer = self.request("GET", "/jobs", params={"job_type": job_type, "is_alive": True, "limit": _PAGE_SIZE})
        return [datetime.fromisoformat(job["start_date"]) for job in answer.json()["jobs"]]

    def serves_tasks(self) -> bool:
        """Say whether tasks can start: whether the API that they call answers.

        It is built at its first call, which takes five seconds on two cores: as long as a task waits for an answer.
        """
        return self._http.get("/execution/health").is_success

    def dag_ids(self) -> list[str]:
        """Return the DAGs that were parsed."""
        return [dag["dag_id"] for dag in self._pages("/dags", "dags")]

    def import_errors(self) -> list[BrokenDagFile]:
        """Return the DAG files that could not be imported."""
        return [
            BrokenDagFile(error["filename"], error["stack_trace"])
            for error in self._pages("/importErrors", "import_errors")
        ]

    def wait_for_dag(self, dag_id: str, *, seconds: float = 60) -> None:
        """Return as soon as the DAG was parsed.

        :raises DeadlineError: if it isn't in time; names the import errors.
        """
        begun = time.monotonic()
        while dag_id not in self.dag_ids():
            waited = time.monotonic() - begun
            errors = "\n".join(f"{error.filename}:\n{error.stack_trace}" for error in self.import_errors())
            # A file that could not be imported is parsed again, but seldom mends itself.
            if waited > seconds or (errors and waited > _PATIENCE_WITH_IMPORT_ERRORS):
                raise DeadlineError(
                    f"waited {waited:.0f} s in vain for DAG {dag_id}; " + (errors or "no file has an import error")
                )
            time.sleep(0.2)

    def unpause(self, dag_id: str) -> None:
        """Let the DAG's runs be scheduled."""
        self.request("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Hold the DAG's runs."""
        self.request("PATCH", f"/dags/{dag_id}", json={"is_paused": True})

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        logical_date: datetime | None = None,
    ) -> str:
        """Start a run with these params and return its run id. The DAG must not be paused for it to go on."""
        body: dict[str, Any] = {
            "conf": dict(conf or {}),
            "logical_date": logical_date.isoformat() if logical_date else None,
        }
        if run_id is not None:
            body["dag_run_id"] = run_id
        return str(self.request("POST", f"/dags/{dag_id}/dagRuns", json=body).json()["dag_run_id"])

    def fail_run(self, dag_id: str, run_id: str) -> None:
        """Mark the run as failed, which ends its task instances."""
        self.request("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", json={"state": "failed"})

    def run(self, dag_id: str, run_id: str) -> DagRun:
        """Return the run as it is now."""
        return _dag_run(self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}").json())

    def runs(self, dag_id: str) -> list[DagRun]:
        """Return all runs of the DAG."""
        return [_dag_run(run) for run in self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs")]

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Return all task instances of the run as they are now."""
        return [
            TaskInstance(
                task_id=instance["task_id"],
                map_index=instance["map_index"],
                state=instance["state"],
                label=instance["rendered_map_index"],
                try_number=instance["try_number"],
                max_tries=instance["max_tries"],
                start_date=_moment(instance["start_date"]),
                end_date=_moment(instance["end_date"]),
                hostname=instance["hostname"],
                pid=instance["pid"],
            )
            for instance in self._pages(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances")
        ]

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        seconds: float = 300,
        interval: float = 0.5,
        watch: Callable[[DagRun], object] | None = None,
    ) -> DagRun:
        """Return the run as soon as it is finished, whether it succeeded or failed.

        :param watch: called with the run at every look.
        :raises DeadlineError: if it isn't finished in time; says what its task instances are doing.
        """
        deadline = time.monotonic() + seconds
        while True:
            run = self.run(dag_id, run_id)
            if watch is not None:
                watch(run)
            if run.is_finished:
                return run
            if time.monotonic() > deadline:
                raise DeadlineError(
                    f"run {run_id} of {dag_id} is still {run.state} after {seconds:.0f} s:\n"
                    + self.describe(dag_id, run_id)
                )
            time.sleep(interval)

    def describe(self, dag_id: str, run_id: str) -> str:
        """Return one line for every task instance of the run."""
        return "\n".join(
            f"  {instance.task_id}"
            + (f"[{instance.label or instance.map_index}]" if instance.map_index >= 0 else "")
            + f": {instance.state or 'not scheduled'} (try {instance.try_number})"
            for instance in self.task_instances(dag_id, run_id)
        )

    def log(
        self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, try_number: int = 1, errors: bool = False
    ) -> str:
        """Return the log of one try of a task instance, one line an event.

        :param errors: append an event's error with its stack frames.
        """
        answer = self.request(
            "GET",
            f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}",
            params={"map_index": map_index, "full_content": True},
        )
        return "\n".join(_log_line(event, errors=errors) for event in answer.json()["content"])

    def xcom(self, dag_id: str, run_id: str, task_id: str, *, key: str = "return_value", map_index: int = -1) -> Any:
        """Return what the task instance has pushed under the key."""
        return self.request(
            "GET",
            f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}",
            params={"map_index": map_index, "deserialize": False, "stringify": False},
        ).json()["value"]

    def clear(
        self,
        dag_id: str,
        run_id: str,
        task_ids: Sequence[str | tuple[str, int]] | None = None,
        *,
        only_failed: bool = False,
        downstream: bool = True,
    ) -> int:
        """Clear task instances so that they run again, and return how many.

        :param task_ids: tasks, or (task, map index); None for all.
        """
        body: dict[str, Any] = {
            "dry_run": False,
            "dag_run_id": run_id,
            "only_failed": only_failed,
            "include_downstream": downstream,
            "reset_dag_runs": True,
        }
        if task_ids is not None:
            body["task_ids"] = list(task_ids)
        answer = self.request("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)
        return int(answer.json()["total_entries"])

    def _authorization(self) -> dict[str, str]:
        if self._token is None:
            answer = self._http.post("/auth/token", json=self._credentials)
            if not answer.is_success:
                raise LocalStackError(f"Airflow gave no token ({answer.status_code}): {answer.text[:300]}")
            self._token = answer.json()["access_token"]
        return {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}

    def _pages(self, path: str, member: str) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            answer = self.request("GET", path, params={"limit": _PAGE_SIZE, "offset": offset}).json()
            yield from answer[member]
            offset += _PAGE_SIZE
            if offset >= answer["total_entries"]:
                return


def _dag_run(document: Mapping[str, Any]) -> DagRun:
    return DagRun(
        dag_id=document["dag_id"],
        run_id=document["dag_run_id"],
        state=document["state"],
        start_date=_moment(document["start_date"]),
        end_date=_moment(document["end_date"]),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _log_line(event: str | Mapping[str, Any], *, errors: bool) -> str:
    if isinstance(event, str):
        return event
    line = " ".join(str(event[name]) for name in ("timestamp", "level", "event") if event.get(name))
    for error in event.get("error_detail") or () if errors else ():
        line += f"\n  {error.get('exc_type')}: {error.get('exc_value')}"
        for frame in error.get("frames") or ():
            line += f"\n    {frame.get('filename')}:{frame.get('lineno')} {frame.get('name')}"
    return line
