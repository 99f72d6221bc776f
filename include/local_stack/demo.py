"""The demo: the whole project on this machine, from an empty directory to tables that can be queried."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from deltalake import DeltaTable

from local_stack.airflow import REPOSITORY, USERNAME, LocalAirflow
from local_stack.airflow_api import DagRun, TaskInstance
from local_stack.processes import LocalStackError
from local_stack.progress import Progress
from local_stack.sample_library import SampleLibrary, Upload
from local_stack.seaweedfs import create_buckets
from local_stack.stack import LocalStack
from media_embeddings.configuration import DEFAULT_PATH, load_configuration
from media_embeddings.library import Library
from media_embeddings.run_folder import RunFolder
from media_embeddings.storage import ObjectNotFoundError, Storage, split_uri
from media_embeddings.table_options import current

if TYPE_CHECKING:
    import pandas
    from mypy_boto3_s3 import S3Client

LOCAL = Path(os.environ.get("LOCAL_STACK_DIRECTORY") or REPOSITORY / ".local")
"""Where everything is kept that runs on this machine; ``LOCAL_STACK_DIRECTORY`` names another place."""

DAG_ID = "embed_media"
# Long enough that the jobs can be watched, short enough that nobody waits for them.
SIMULATOR_SETTINGS = {"seconds_per_job": 4.0}
_RUN_DEADLINE_SECONDS = 900
_ROWS_SHOWN = 8
_NUMBERS_SHOWN = 4


class Demo:
    """S3, the Bedrock simulator, Airflow and the sample library below one directory.

    :param directory: created when the demo is started.
    :param progress: where it says what it is doing.
    """

    def __init__(self, directory: Path = LOCAL, progress: Progress | None = None) -> None:
        self.directory = directory
        self._progress = progress or Progress()
        self._started_path = directory / "started.json"
        self.library = _demo_library()
        self.stack = LocalStack(directory)

    def run(self) -> bool:
        """Start what isn't running, embed the sample library, show what came of it, and leave Airflow running.

        Return whether the run has succeeded and its books balance.

        :raises LocalStackError: if something could not be started, or the run is not finished in time.
        """
        with _only_one(self.directory):
            with self._progress.phase("S3 server and Bedrock simulator"):
                self._start_stack()
            airflow = self._airflow()
            with ThreadPoolExecutor(1) as pool:
                upload = pool.submit(self._upload)
                with self._progress.phase("Airflow (scheduler, triggerer, DAG processor, API server)"):
                    self._start_airflow(airflow)
                with self._progress.phase("sample library"):
                    uploaded = upload.result()
            self._progress.line(
                f"          {uploaded.uploaded} objects uploaded to {self.library.sources[0]}, {uploaded.unchanged} "
                "were there already"
            )
            self._say_where(airflow)
            with self._progress.phase(f"DAG {DAG_ID} is parsed"):
                airflow.api.wait_for_dag(DAG_ID)
            airflow.api.unpause(DAG_ID)
            run_id = airflow.api.trigger(DAG_ID, run_id=f"demo__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}")
            with self._progress.phase(f"run {run_id}"):
                run = self._watch(airflow, run_id)
            return self._show_outcome(airflow, run)

    def stop(self) -> list[str]:
        """Stop what ``run`` has started, and return the names of what was stopped. Data, tables and runs stay."""
        with _only_one(self.directory):
            started = self._started()
            # It calls the simulator and S3 until it has ended.
            if "airflow" in started:
                LocalAirflow(self.directory / "airflow").stop()
            if "stack" in started:
                self.stack.stop()
            self._started_path.unlink(missing_ok=True)
            return sorted(started)

    def _start_stack(self) -> None:
        if not (self.stack.seaweedfs.is_running and self.stack.is_running):
            self._remember("stack")
        self.stack.start(simulator_settings=SIMULATOR_SETTINGS)

    def _airflow(self) -> LocalAirflow:
        return LocalAirflow(self.directory / "airflow", environment=self.stack.environment)

    def _start_airflow(self, airflow: LocalAirflow) -> None:
        if not airflow.is_running:
            self._remember("airflow")
        airflow.start()

    def _upload(self) -> Upload:
        return upload_sample_library(self.stack.seaweedfs.client(), self.directory)

    def _watch(self, airflow: LocalAirflow, run_id: str) -> DagRun:
        def watch(run: DagRun) -> None:
            instances = airflow.api.task_instances(DAG_ID, run.run_id)
            done = sum(instance.is_finished for instance in instances)
            self._progress.show(_describe(instances) + self._jobs(), done, len(instances))

        return airflow.api.wait_for_run(DAG_ID, run_id, seconds=_RUN_DEADLINE_SECONDS, watch=watch)

    def _jobs(self) -> str:
        """Say how many invocations the simulator has by status; nothing where it can't be asked."""
        try:
            with httpx.Client(trust_env=False, timeout=5) as http:
                jobs: dict[str, int] = http.get(f"{self.stack.simulator.endpoint_url}/simulator/health").json()["jobs"]
        except (httpx.HTTPError, LocalStackError):
            return ""
        shown = ", ".join(f"{number} {status}" for status, number in sorted(jobs.items()) if number)
        return f" | Bedrock: {shown}" if shown else ""

    def _storage(self) -> Storage:
        return Storage.of_session(self.stack.seaweedfs.session, self.stack.seaweedfs.client())

    def _show_outcome(self, airflow: LocalAirflow, run: DagRun) -> bool:
        folder = RunFolder(self.library.work, self.library.name, run.run_id)
        storage = self._storage()
        try:
            report: dict[str, Any] = json.loads(storage.read(folder.report_uri))
            markdown = storage.read(folder.report_markdown_uri).decode()
        except ObjectNotFoundError:
            self._explain_failure(airflow, run)
            return False
        self._progress.line()
        self._progress.line(markdown)
        # Without it the reader of a table asks for one where only a machine of AWS has an answer, and warns of that.
        os.environ.setdefault("AWS_REGION", self.library.region)
        for name in self.library.models:
            self._show_table(storage, self.library.embeddings_uri_of(name))
        self._say_where(airflow)
        self._progress.line(f"          All of this took {self._progress.seconds:.0f} s; `make demo-down` stops it.")
        if run.state != "success":
            self._explain_failure(airflow, run)
        return run.state == "success" and report["balanced"] is True

    def _show_table(self, storage: Storage, uri: str) -> None:
        if not DeltaTable.is_deltatable(uri, current(storage.table_options)):
            self._progress.line(f"There is no table {uri} yet: nothing was embedded.")
            return
        columns = ["media_uri", "start_sec", "end_sec", "embedding_option", "embedding"]
        rows: pandas.DataFrame = DeltaTable(uri, storage_options=current(storage.table_options)).to_pandas(
            columns=columns
        )
        self._progress.line(
            f"The table {uri} has {len(rows)} rows of {rows['media_uri'].nunique()} objects. Some of them:"
        )
        self._progress.line()
        self._progress.line(_excerpt(rows, self.library.sources[0]))
        self._progress.line()

    def _explain_failure(self, airflow: LocalAirflow, run: DagRun) -> None:
        self._progress.line()
        self._progress.line(f"The run {run.run_id} ended in state {run.state}. Its task instances:")
        self._progress.line(airflow.api.describe(DAG_ID, run.run_id))
        for instance in airflow.api.task_instances(DAG_ID, run.run_id):
            if instance.state == "failed":
                self._progress.line(f"\nThe last lines of {instance.task_id}, try {instance.try_number}:")
                log = airflow.api.log(
                    DAG_ID,
                    run.run_id,
                    instance.task_id,
                    map_index=instance.map_index,
                    try_number=instance.try_number,
                    errors=True,
                )
                self._progress.line("\n".join(f"  | {line}" for line in log.splitlines()[-25:]))
        self._progress.line(f"\nAll logs: {airflow.home / 'logs'}, and in the UI: {airflow.url}")
        self._progress.line("What succeeded is kept. `make demo` runs it again and submits nothing twice.")

    def _say_where(self, airflow: LocalAirflow) -> None:
        self._progress.line(f"          Airflow UI: {airflow.url}  (user {USERNAME}, password {airflow.password})")

    def _remember(self, part: str) -> None:
        """Remember what was started here, before it is: a start that is interrupted must be stopped as well."""
        self._started_path.write_text(json.dumps(sorted({*self._started(), part})) + "\n")

    def _started(self) -> set[str]:
        try:
            return set(json.loads(self._started_path.read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return set()


def upload_sample_library(client: S3Client, directory: Path) -> Upload:
    """Create the buckets that the demo's library names, and upload the sample library to its source."""
    library = _demo_library()
    places = (*library.sources, library.tables, library.work)
    create_buckets(client, *{split_uri(place)[0] for place in places})
    bucket, prefix = split_uri(library.sources[0])
    return SampleLibrary(directory / "sample-library").upload(client, bucket, prefix)


def _demo_library() -> Library:
    """Return the library that the demo embeds: the first one of the repository's own configuration."""
    configuration = load_configuration(DEFAULT_PATH)
    if configuration.errors:
        raise LocalStackError("\n".join(str(error) for error in configuration.errors))
    return configuration.libraries[0]


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Let only one command at a time start or stop things below the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalStackError(
                f"another command is starting or stopping things below {directory}; wait for it, or interrupt it"
            ) from None
        yield


def _describe(instances: Sequence[TaskInstance]) -> str:
    """Say in one line how far the task instances are."""
    done = sum(instance.is_finished for instance in instances)
    active = Counter(
        (instance.task_id, instance.state) for instance in instances if instance.state and not instance.is_finished
    )
    doing = ", ".join(
        f"{task_id} {state}{f' x{count}' if count > 1 else ''}" for (task_id, state), count in active.items()
    )
    return f"{done}/{len(instances)} tasks{': ' if doing else ''}{doing}"


def _excerpt(rows: pandas.DataFrame, source: str) -> str:
    """Return the first row of each object, as many as are shown, with the first numbers of its vector."""
    first = rows.sort_values(["media_uri", "start_sec"]).groupby("media_uri", as_index=False).first()
    shown = first.iloc[:: max(1, len(first) // _ROWS_SHOWN)].head(_ROWS_SHOWN).copy()
    shown["media_uri"] = shown["media_uri"].str.removeprefix(source)
    shown["embedding"] = [
        "[" + ", ".join(f"{number:+.3f}" for number in vector[:_NUMBERS_SHOWN]) + f", ... {len(vector)}]"
        for vector in shown["embedding"]
    ]
    return shown.to_string(index=False, na_rep="-")
