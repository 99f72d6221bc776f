"""Works the accepted jobs: a small pool of threads, and one thread that wakes each job when it is due."""

from __future__ import annotations

import heapq
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .clock import Clock
from .embedding import embed, media_seconds
from .embedding_task import EmbeddingTask
from .job_store import JobStore
from .jobs import COMPLETED, FAILED, IN_PROGRESS, Job, Outcome, fault_seconds, iso_time, stuck_seconds
from .media import UnusableMediaError
from .models import Model, models
from .output_faults import struck_document, struck_files
from .settings import Settings
from .storage import MissingError, Storage, StorageError

log = logging.getLogger(__name__)

Step = Callable[[Job, Model, EmbeddingTask], None]

FOREVER_MS = 1 << 52
_LATE_OUTPUTS = "late_outputs"
LONGEST_SLEEP_SECONDS = 60.0


class JobRunner:
    """Brings every job to its end in two steps.

    ``begin`` writes ``manifest.json`` and probes the media, which tells when the job is due; ``finish`` decodes them,
    writes ``output.json`` and records the end. A job whose process dies in between goes on after a restart with the
    step it was in.
    """

    def __init__(
        self,
        store: JobStore,
        storage: Storage,
        clock: Clock,
        settings: Callable[[], Settings],
        region: str,
        workers: int,
    ) -> None:
        self._store = store
        self._storage = storage
        self._clock = clock
        self._settings = settings
        self._region = region
        # Beginning has threads of its own, so that a manifest never waits for somebody else's decoding.
        self._beginners = ThreadPoolExecutor(2, thread_name_prefix="begin")
        self._finishers = ThreadPoolExecutor(workers, thread_name_prefix="finish")
        self._waiting: list[tuple[int, str]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._alarm = threading.Thread(target=self._wake_due_jobs, name="due jobs", daemon=True)

    def start(self) -> None:
        """Start the threads, and go on with the jobs that are in progress, and the outputs that are late."""
        self._alarm.start()
        for invocation_id, due_ms in self._late_outputs().items():
            self._wait(invocation_id, due_ms)
        for job in self._store.jobs_in_progress():
            if job.due_ms is None:
                self.accept(job)
            else:
                self._wait(job.invocation_id, job.due_ms)

    def stop(self) -> None:
        """Finish the steps at work, leave the rest for the next start, and end the threads."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._alarm.join()
        for pool in (self._beginners, self._finishers):
            pool.shutdown(wait=True, cancel_futures=True)

    def accept(self, job: Job) -> None:
        """Begin a job."""
        self._submit(self._beginners, self._begin, job.invocation_id)

    def clock_changed(self) -> None:
        """Look again which jobs are due."""
        with self._changed:
            self._changed.notify()

    def end_waiting(self) -> int:
        """Let every job that has begun be due now, and return how many these are."""
        with self._changed:
            self._waiting = [(0, invocation_id) for _, invocation_id in self._waiting]
            self._changed.notify()
            return len(self._waiting)

    def _submit(self, pool: ThreadPoolExecutor, step: Step, invocation_id: str) -> None:
        with self._changed:
            if not self._stopping:
                pool.submit(self._take, step, invocation_id)

    def _wait(self, invocation_id: str, due_ms: int) -> None:
        with self._changed:
            heapq.heappush(self._waiting, (due_ms, invocation_id))
            self._changed.notify()

    def _wake_due_jobs(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                wait_ms = self._waiting[0][0] - self._clock.now_ms() if self._waiting else FOREVER_MS
                if wait_ms > 0:
                    self._changed.wait(min(wait_ms / 1000, LONGEST_SLEEP_SECONDS))
                    continue
                _, invocation_id = heapq.heappop(self._waiting)
            self._submit(self._finishers, self._finish, invocation_id)

    def _take(self, step: Step, invocation_id: str) -> None:
        job = self._store.job(invocation_id)
        if job is None:
            return
        model = models()[job.model_id]
        try:
            step(job, model, model.task(job.model_input, self._settings()))
        except StorageError as error:
            log.warning("Job %s ends Failed: %s", invocation_id, error)
            self._end(job, Outcome(FAILED, str(error)))
        except Exception:
            log.exception("Job %s ends Failed by a defect of the simulator", invocation_id)
            self._end(job, Outcome(FAILED, "An internal error occurred while the media were processed."))

    def _begin(self, job: Job, model: Model, task: EmbeddingTask) -> None:
        settings = self._settings()
        manifest = {
            "invocationArn": job.arn(self._region),
            "requestId": job.invocation_id,
            "modelId": job.model_id,
            "submitTime": iso_time(job.submitted_ms),
            "outputs": [model.main_output],
        }
        self._storage.write(f"{job.output_uri}/manifest.json", json.dumps(manifest).encode())
        try:
            seconds = media_seconds(task, model, settings, self._storage.opened)
        except UnusableMediaError:
            # The job fails when it is due: Bedrock too needs time to find out.
            seconds = 0.0
        stuck = stuck_seconds(job.faults)
        lasts = (stuck or 0.0) + max(
            settings.seconds_per_job,
            settings.seconds_per_media_second * seconds,
            settings.seconds_per_megabyte * self._megabytes(task) if settings.seconds_per_megabyte else 0.0,
        )
        due_ms = FOREVER_MS if stuck is None else job.submitted_ms + round(1000 * lasts)
        self._store.set_due(job.invocation_id, due_ms, seconds)
        self._wait(job.invocation_id, due_ms)

    def _megabytes(self, task: EmbeddingTask) -> float:
        sizes = (
            len(source.content) if source.content is not None else self._storage.object_size(*source.bucket_and_key)
            for source in task.sources
        )
        try:
            return sum(sizes) / 1e6
        except MissingError:
            return 0.0

    def _late_outputs(self) -> dict[str, int]:
        return dict(self._store.saved_document(_LATE_OUTPUTS) or {})

    def _finish(self, job: Job, model: Model, task: EmbeddingTask) -> None:
        if job.status != IN_PROGRESS:
            self._write_output(job, model, task)
            with self._changed:
                late = self._late_outputs()
                late.pop(job.invocation_id, None)
                self._store.save_document(_LATE_OUTPUTS, late)
            return
        outcome = Outcome.of(job.faults)
        if outcome is None and (seconds := fault_seconds(job.faults, "output_late")):
            due_ms = self._clock.now_ms() + round(1000 * seconds)
            with self._changed:
                self._store.save_document(_LATE_OUTPUTS, {**self._late_outputs(), job.invocation_id: due_ms})
            self._end(job, Outcome(COMPLETED))
            self._wait(job.invocation_id, due_ms)
            return
        if outcome is None:
            try:
                outcome = self._write_output(job, model, task)
            except UnusableMediaError as error:
                outcome = Outcome(FAILED, str(error)[:2048])
        self._end(job, outcome)

    def _write_output(self, job: Job, model: Model, task: EmbeddingTask) -> Outcome:
        settings = self._settings()
        embeddings = embed(task, model, settings, self._storage.opened)
        document = struck_document(model.document(embeddings, settings), job.faults)
        files = model.output_files(document, task, job.output_uri)
        for name, content in struck_files(files, model.main_output, job.faults).items():
            self._storage.write(f"{job.output_uri}/{name}", content)
        return Outcome(COMPLETED)

    def _end(self, job: Job, outcome: Outcome) -> None:
        if outcome.status == FAILED and self._settings().write_error_file:
            try:
                self._storage.write(f"{job.output_uri}/error.txt", (outcome.failure_message or "").encode())
            except StorageError as error:
                log.warning("Job %s leaves no error.txt: %s", job.invocation_id, error)
        self._store.finish(job.invocation_id, outcome, self._clock.now_ms())
