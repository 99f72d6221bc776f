from __future__ import annotations

import asyncio
import io
import itertools
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import boto3
import numpy as np
import pytest
from deltalake import DeltaTable
from PIL import Image

from bedrock_async_invoke.clients import AwsParameters, shared_clients
from bedrock_async_invoke.invoker import Invoker, Invoking
from bedrock_async_invoke.runtime import BedrockRuntime
from bedrock_async_invoke.submitter import ManifestSubmission, Submission, submit_blocking
from bedrock_async_invoke.watcher import Watch, Watcher, watch_blocking
from media_embeddings.library import Library
from media_embeddings.listing import list_media
from media_embeddings.merging import merge_batch
from media_embeddings.models import model_named
from media_embeddings.planner import Plan, PlanOptions, make_plan
from media_embeddings.reporting import PlannedModel, Report, report_run
from media_embeddings.retrying import RetryRound, plan_retries
from media_embeddings.run_folder import BatchFolder, RunFolder
from media_embeddings.storage import Storage
from media_embeddings.table_options import current
from media_embeddings.tables import Tables
from tests.integration.bedrock_simulator import media_files
from tests.integration.conftest import let_jobs_end

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


def picture(colour: str, size: tuple[int, int] = (160, 160)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(content, "PNG")
    return content.getvalue()


def film() -> bytes:
    return media_files.video([(media_files.RED, 5), (media_files.BLUE, 5)])


@dataclass
class Pipeline:
    """A library with buckets of its own, and its runs without Airflow: the same calls as the DAG's tasks make."""

    library: Library
    storage: Storage
    between: dict[str, Any] = field(default_factory=dict)
    """What to do in the middle of a run, by the task after which it is done."""
    connection: str | None = None
    """The Airflow connection that Bedrock is reached by; None for the environment."""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def bucket(self) -> str:
        return self.library.sources[0].removeprefix("s3://").partition("/")[0]

    def put(self, key: str, content: bytes) -> None:
        self.storage.client.put_object(Bucket=self.bucket, Key=f"library/{key}", Body=content)

    def delete(self, key: str) -> None:
        self.storage.client.delete_object(Bucket=self.bucket, Key=f"library/{key}")

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/library/{key}"

    def configure(self, **settings: Any) -> None:
        self.library = Library(**self.library.model_dump() | settings)

    def run(
        self,
        *,
        prefix: str | None = None,
        media_types: list[Any] | None = None,
        run_id: str | None = None,
        **options: Any,
    ) -> Report:
        run_id = run_id or f"run-{next(self._numbers)}"
        folder = RunFolder(self.library.work, self.library.name, run_id)
        listing = list_media(self.storage, self.library, folder.listing_uri, prefix=prefix, media_types=media_types)
        self._interrupt("list_media")
        given = PlanOptions(**options)
        plan, plan_uri = make_plan(self.storage, self.library, run_id, listing, given)
        self._interrupt("plan")
        plans = [(plan, plan_uri)]
        for name in self.library.models_of_run(given.model)[1:]:
            of_next = replace(given, model=name)
            plans.append(make_plan(self.storage, self.library, run_id, listing, of_next, before=plan))
            self._interrupt("plan_next_model")
        planned, *others = [PlannedModel(uri, self._embed(made, uri)) for made, uri in plans]
        return report_run(
            *(self.storage, self.library, folder, listing.as_dict(), planned.plan_uri, planned.round_uris),
            next_model=others[0] if others else None,
        )

    def _embed(self, plan: Plan, plan_uri: str) -> tuple[str, ...]:
        """Embed what was planned, and again what failed; return the rounds of retries."""
        self._process(plan, plan)
        rounds: list[str] = []
        for number in range(1, self.library.retries_in_run + 1):
            made, uri = plan_retries(self.storage, self.library, plan_uri, number, rounds[-1] if rounds else None)
            rounds.append(uri)
            self._process(plan, made)
        return tuple(rounds)

    def _process(self, plan: Plan, made: Plan | RetryRound) -> None:
        for manifest_uri in made.manifests:
            self.embed(plan, manifest_uri)
        for manifest_uri in made.invoke_manifests:
            self.invoke(plan, manifest_uri)

    def invoke(self, plan: Plan, manifest_uri: str) -> None:
        asyncio.run(self._invoke(plan, manifest_uri))
        self._interrupt("invoke_model")
        merge_batch(self.storage, self.library, plan.model, plan.run_id, BatchFolder.of_manifest(manifest_uri))

    async def _invoke(self, plan: Plan, manifest_uri: str) -> None:
        clients = shared_clients(AwsParameters(aws_conn_id=self.connection, region_name=self.library.region))
        invoking = Invoking(
            model_id=self.library.invoke_model_id(model_named(plan.model)) or "",
            manifest_uri=manifest_uri,
            max_concurrent=self.library.max_concurrent_invokes,
            intents_uri=self.library.intents_uri,
            bucket_owner=self.library.bucket_owner,
            call_seconds=20.0,
        )
        async with BedrockRuntime(clients.bedrock, at_once=invoking.max_concurrent, call_seconds=20.0) as runtime:
            await Invoker(clients, runtime, invoking).run()

    def embed(self, plan: Plan, manifest_uri: str) -> None:
        clients = shared_clients(AwsParameters(aws_conn_id=self.connection, region_name=self.library.region))
        submission = Submission(
            model_id=model_named(plan.model).model_id,
            manifest_uri=manifest_uri,
            max_in_flight=self.library.max_in_flight,
            bucket_owner=self.library.bucket_owner,
            poll_interval=0.05,
            intents_uri=self.library.intents_uri,
            submitter_uri=self.library.submitter_uri(plan.model),
            lease_seconds=self.library.lease_seconds,
            list_lag_seconds=self.library.list_lag_seconds,
        )
        submit_blocking(ManifestSubmission(clients, submission))
        self._interrupt("start_async_invoke")
        watch = Watch(manifest_uri=manifest_uri, poll_interval=0.05, timeout_seconds=self.library.deadline_hours * 3600)
        watch_blocking(Watcher(clients, watch))
        self._interrupt("wait_for_async_invoke")
        merge_batch(self.storage, self.library, plan.model, plan.run_id, BatchFolder.of_manifest(manifest_uri))

    def _interrupt(self, task: str) -> None:
        if task in self.between:
            self.between.pop(task)()

    def table(self, model: str | None = None) -> DeltaTable:
        uri = Tables(self.library.tables, {}).embeddings_uri(model or self.library.model)
        return DeltaTable(uri, storage_options=current(self.storage.table_options))

    def rows(self, model: str | None = None) -> dict[str, list[dict[str, Any]]]:
        """Return the table's rows by key, in the order of their segments."""
        found: dict[str, list[dict[str, Any]]] = {}
        rows = self.table(model).to_pyarrow_dataset().to_table().to_pylist()
        for row in sorted(rows, key=lambda row: (row["media_uri"], row["segment_index"])):
            found.setdefault(row["media_uri"].removeprefix(self.uri("")), []).append(row)
        return found

    def ledger(self, model: str | None = None) -> dict[str, dict[str, Any]]:
        """Return the ledger's rows by key."""
        tables = Tables(self.library.tables, self.storage.table_options)
        rows = tables.read_ledger(model or self.library.model, None).to_pylist()
        return {row["media_uri"].removeprefix(self.uri("")): row for row in rows}


@pytest.fixture(scope="session")
def session(stack) -> boto3.Session:
    """Give one session for all tests: a first client takes a tenth of a second to make."""
    return boto3.Session()


@pytest.fixture
def pipeline(stack, simulator, session) -> Pipeline:
    name = uuid.uuid4().hex[:12]
    stack.seaweedfs.create_buckets(f"media-{name}", f"vectors-{name}")
    library = Library(
        name="films",
        sources=[f"s3://media-{name}/library/"],
        region="us-east-1",
        model="marengo-2-7",
        # AWS ends it on 2026-11-30; the simulator does not.
        model_lifecycle="warn",
        tables=f"s3://vectors-{name}/tables",
        work=f"s3://vectors-{name}/work",
        list_lag_seconds=1.0,
        output_grace_seconds=0.5,
        # Most tests are of jobs; those of InvokeModel ask for it.
        processing="async",
        # What fails is looked at as it stands; the tests of retries ask for them.
        retries_in_run=0,
    )
    return Pipeline(library, Storage.of_session(session))


def starts(simulator) -> int:
    """Return how many Start calls were accepted."""
    return simulator.calls().get("StartAsyncInvoke", {}).get("", 0)


def invokes(simulator) -> int:
    """Return how many InvokeModel calls were answered."""
    return simulator.calls().get("InvokeModel", {}).get("", 0)


def end_all_jobs(simulator) -> None:
    """Let the jobs end that are stuck, of which there is one at least, and wait until they have."""
    assert let_jobs_end(simulator) > 0


def vectors(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.array([row["embedding"] for row in rows], dtype=np.float32)
