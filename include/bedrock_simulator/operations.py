"""The four operations, in plain Python: parameters by their names in the service model in, response members out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from . import service_model
from .clock import Clock
from .embedding import embed
from .embedding_task import EmbeddingTask
from .errors import BedrockError, validation_error
from .faults import FaultBook, Stage
from .job_runner import FOREVER_MS, JobRunner
from .job_store import Charge, JobQuery, JobStore, Position, QuotaReachedError
from .jobs import IN_PROGRESS, Job, arn_parts, fault_seconds, invocation_arn, model_arn, new_invocation_id
from .media import UnusableMediaError
from .models import Model, models
from .rates import CallRate
from .settings import Settings
from .storage import MissingError, Storage, StorageError

Parameters = dict[str, Any]

START, GET, LIST, INVOKE = "StartAsyncInvoke", "GetAsyncInvoke", "ListAsyncInvokes", "InvokeModel"

BUCKET_SEEN_SECONDS = 10.0


class Operations:
    """Answers calls. Thread-safe.

    Every method takes the operation's parameters as the service model names them, and raises :class:`BedrockError`.
    """

    def __init__(
        self,
        region: str,
        settings: Callable[[], Settings],
        store: JobStore,
        storage: Storage,
        clock: Clock,
        faults: FaultBook,
        runner: JobRunner,
    ) -> None:
        self._region = region
        self._settings = settings
        self._store = store
        self._storage = storage
        self._clock = clock
        self._faults = faults
        self._runner = runner
        self._buckets_seen: dict[str, float] = {}
        self._buckets_lock = threading.Lock()
        self._invokes = CallRate(clock.now_ms)

    def start_async_invoke(self, parameters: Parameters) -> Parameters:
        """Accept a job: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_StartAsyncInvoke.html ."""
        service_model.validate(START, parameters)
        settings = self._settings()
        model = self._async_model(parameters["modelId"])
        task = model.task(parameters["modelInput"], settings)
        token = parameters.get("clientRequestToken") or f"simulator-{new_invocation_id()}"
        fingerprint = _fingerprint(parameters)
        now = self._clock.now_ms()
        lifetime = settings.token_lifetime_seconds
        token_since = 0 if lifetime is None else now - round(1000 * lifetime)

        if self._faults.take((Stage.TOKEN,), START, model.model_id, task.source_name):
            token_since = now + 1
        known = self._store.job_by_token(token, token_since)
        if known is not None:
            return self._known(known, fingerprint, settings)
        self._check_output(parameters["outputDataConfig"]["s3OutputDataConfig"], settings)
        self._check_sources(task, model, settings)
        job = self._new_job(parameters, token, fingerprint, model)
        charge = _charge(START, model, task, now, token=token, invocation_id=job.invocation_id)
        try:
            accepted = self._store.accept(
                job,
                charge,
                max_in_flight=settings.max_in_flight,
                token_since_ms=token_since,
                draw_faults=lambda: tuple(
                    self._faults.take((Stage.JOB, Stage.OUTPUT), START, model.model_id, task.source_name)
                ),
            )
        except QuotaReachedError as error:
            raise BedrockError(
                settings.quota_error,
                f"Too many asynchronous invocations of {model.model_id} are in progress: "
                f"{settings.max_in_flight} are allowed.",
            ) from error
        if accepted.invocation_id != job.invocation_id:
            return self._known(accepted, fingerprint, settings)
        self._runner.accept(job)
        return {"invocationArn": job.arn(self._region)}

    def _known(self, job: Job, fingerprint: str, settings: Settings) -> Parameters:
        if job.fingerprint != fingerprint:
            raise BedrockError(
                settings.token_reuse, "The clientRequestToken was already used with other request parameters."
            )
        return {"invocationArn": job.arn(self._region)}

    def _new_job(self, parameters: Parameters, token: str, fingerprint: str, model: Model) -> Job:
        invocation_id = new_invocation_id()
        output = parameters["outputDataConfig"]["s3OutputDataConfig"]
        now = self._clock.now_ms()
        return Job(
            invocation_id=invocation_id,
            account_id=self._settings().account_id,
            token=token,
            fingerprint=fingerprint,
            model_id=model.model_id,
            model_input=parameters["modelInput"],
            output_uri=f"{output['s3Uri'].rstrip('/')}/{invocation_id}",
            kms_key_id=output.get("kmsKeyId"),
            bucket_owner=output.get("bucketOwner"),
            status=IN_PROGRESS,
            submitted_ms=now,
            modified_ms=now,
        )

    def get_async_invoke(self, parameters: Parameters) -> Parameters:
        """Show a job: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_GetAsyncInvoke.html ."""
        service_model.validate(GET, parameters)
        arn = parameters["invocationArn"]
        settings = self._settings()
        parts = arn_parts(arn)
        job = self._store.job(parts[2]) if parts and parts[0] == self._region else None
        if job is None or job.arn(self._region) != arn or job.submitted_ms < self._earliest(settings):
            raise BedrockError(settings.unknown_invocation, f"No asynchronous invocation has the ARN {arn}.")
        return job.summary(self._region)

    def list_async_invokes(self, parameters: Parameters) -> Parameters:
        """List jobs: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ListAsyncInvokes.html ."""
        service_model.validate(LIST, parameters)
        settings = self._settings()
        limit = parameters.get("maxResults", settings.default_page_size)
        descending = parameters.get("sortOrder", "Descending") == "Descending"
        filters = [
            str(parameters.get(name, ""))
            for name in ("statusEquals", "submitTimeAfter", "submitTimeBefore", "sortOrder")
        ]
        token = parameters.get("nextToken")
        query = JobQuery(
            # One more than asked for tells whether there is a next page.
            limit=limit + 1,
            descending=descending,
            status=parameters.get("statusEquals"),
            submitted_after=_milliseconds(parameters.get("submitTimeAfter"), math.floor),
            submitted_before=_milliseconds(parameters.get("submitTimeBefore"), math.ceil),
            earliest=self._earliest(settings),
            latest=self._clock.now_ms() - round(1000 * settings.list_delay_seconds),
            position=decoded_position(token, filters) if token else None,
        )
        found = self._store.jobs(query)
        jobs = [shown for _, job in found[:limit] if (shown := self._as_listed(job, query.status)) is not None]
        result: Parameters = {"asyncInvokeSummaries": [job.summary(self._region) for job in jobs]}
        if len(found) > limit:
            result["nextToken"] = encoded_position(found[limit - 1][0], filters)
        if found and self._faults.take((Stage.LIST,), LIST, "", ""):
            first = query.position or Position(FOREVER_MS if descending else -1, 0)
            # Another token than the one that led here: a client may refuse to be sent round in circles.
            result["nextToken"] = encoded_position(first, [*filters, new_invocation_id()])
        return result

    def _as_listed(self, job: Job, status: str | None) -> Job | None:
        """Return a job as a list shows it, which lags behind; None where it does not show it yet."""
        now = self._clock.now_ms()
        if now < job.submitted_ms + round(1000 * fault_seconds(job.faults, "late_listing")):
            return None
        if job.ended_ms is not None and now < job.ended_ms + round(1000 * fault_seconds(job.faults, "stale_status")):
            job = replace(job, status=IN_PROGRESS, failure_message=None, ended_ms=None)
            return job if status in (None, IN_PROGRESS) else None
        return job

    def invoke_model(self, parameters: Parameters) -> Parameters:
        """Embed at once: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html .

        :return: the model's answer, ``{"data": [row]}``.
        """
        service_model.validate(INVOKE, parameters)
        settings = self._settings()
        model = self._invoke_model_id(parameters["modelId"])
        rate = settings.invokes_per_second
        if rate is not None and not self._invokes.take(model.model_id, rate):
            raise BedrockError("ThrottlingException", "Too many requests, please wait before trying again.")
        for name in ("contentType", "accept"):
            if parameters.get(name) not in (None, "application/json", "*/*"):
                raise validation_error(f"The {name} {parameters[name]} is not supported; it must be application/json.")
        try:
            model_input = json.loads(parameters.get("body", b""))
        except ValueError as error:
            raise validation_error("The request body is not valid JSON.") from error
        task = model.invoke_task(model_input, settings)
        self._check_sources(task, model, settings)
        try:
            embeddings = embed(task, model, settings, self._storage.opened)
        except UnusableMediaError as error:
            raise validation_error(str(error)) from error
        except StorageError as error:
            raise BedrockError("InternalServerException", str(error)) from error
        if failures := [embedding.failure for embedding in embeddings if embedding.failure]:
            raise validation_error(f"The input can't be embedded: {failures[0]}.")
        self._store.charge(_charge(INVOKE, model, task, self._clock.now_ms(), media_seconds=0.0))
        return model.answer(model.document(embeddings, settings))

    def _earliest(self, settings: Settings) -> int:
        retention = settings.job_retention_seconds
        return 0 if retention is None else self._clock.now_ms() - round(1000 * retention)

    def _async_model(self, model_id: str) -> Model:
        bare = model_id.removeprefix(model_arn(self._region, ""))
        model = models().get(bare)
        if model is None:
            if any(known in model_id for known in models()):
                raise validation_error("The provided model doesn't support async inference.")
            raise validation_error("The provided model identifier is invalid.")
        return self._in_service(model)

    def _invoke_model_id(self, model_id: str) -> Model:
        bare = model_id.removeprefix(model_arn(self._region, ""))
        profile_arn = f"arn:aws:bedrock:{self._region}:{self._settings().account_id}:inference-profile/"
        profile = model_id.removeprefix(profile_arn)
        for model in models().values():
            prefix = model.profile_regions.get(self._region)
            if prefix is not None and profile == f"{prefix}.{model.model_id}":
                return self._in_service(model)
            if bare == model.model_id:
                self._in_service(model)
                if self._region not in model.direct_invoke_regions:
                    raise validation_error(
                        f"Invocation of model ID {bare} with on-demand throughput isn\u2019t supported. "
                        "Retry your request with the ID or ARN of an inference profile that contains this model."
                    )
                return model
        raise validation_error("The provided model identifier is invalid.")

    def _in_service(self, model: Model) -> Model:
        if self._region not in {*model.regions, *self._settings().extra_regions.get(model.model_id, ())}:
            raise validation_error("The provided model identifier is invalid.")
        last = model.end_of_life.get(self._region)
        today = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).date()
        if self._settings().enforce_end_of_life and last is not None and today >= last:
            raise BedrockError(
                "ResourceNotFoundException",
                "This model version has reached the end of its life. "
                "Please refer to the AWS documentation for more details.",
            )
        return model

    def _check_output(self, output: Parameters, settings: Settings) -> None:
        bucket = output["s3Uri"].removeprefix("s3://").partition("/")[0]
        self._check_place(bucket, output.get("bucketOwner"), settings)
        with self._buckets_lock:
            seen = self._buckets_seen.get(bucket, -BUCKET_SEEN_SECONDS)
        if time.monotonic() - seen < BUCKET_SEEN_SECONDS:
            return
        try:
            self._storage.check_bucket(bucket)
        except MissingError as error:
            raise validation_error(f"The output bucket {bucket} does not exist or can't be accessed.") from error
        except StorageError as error:
            raise BedrockError("InternalServerException", str(error)) from error
        with self._buckets_lock:
            self._buckets_seen[bucket] = time.monotonic()

    def _check_sources(self, task: EmbeddingTask, model: Model, settings: Settings) -> None:
        for source in task.sources:
            if source.uri is None or task.kind is None:
                continue
            bucket, key = source.bucket_and_key
            self._check_place(bucket, source.bucket_owner, settings)
            try:
                size = self._storage.object_size(bucket, key)
            except MissingError as error:
                raise validation_error(f"The input {source.uri} does not exist or can't be accessed.") from error
            except StorageError as error:
                raise BedrockError("InternalServerException", str(error)) from error
            model.check_size(size, task.kind, source.uri, is_single=task.is_single)

    def _check_place(self, bucket: str, owner: str | None, settings: Settings) -> None:
        region = settings.bucket_regions.get(bucket, self._region)
        if region != self._region:
            raise validation_error(
                f"The bucket {bucket} is in {region}; it must be in the region of the model, {self._region}."
            )
        if owner is not None and owner != settings.owner_of(bucket):
            raise validation_error(f"The bucket {bucket} does not belong to the account {owner}.")

    def charges(self) -> list[dict[str, Any]]:
        """Return every charge as a JSON object, oldest first."""
        account = self._settings().account_id
        return [
            {
                "operation": charge.operation,
                "token": charge.token,
                "invocation_arn": charge.invocation_id and invocation_arn(self._region, account, charge.invocation_id),
                "model_id": charge.model_id,
                "input_type": charge.input_type,
                "source": charge.source,
                "media_seconds": charge.media_seconds,
                "charged_ms": charge.charged_ms,
            }
            for charge in self._store.charges()
        ]


def _charge(
    operation: str,
    model: Model,
    task: EmbeddingTask,
    now_ms: int,
    *,
    token: str | None = None,
    invocation_id: str | None = None,
    media_seconds: float | None = None,
) -> Charge:
    return Charge(
        operation=operation,
        token=token,
        invocation_id=invocation_id,
        model_id=model.model_id,
        input_type=task.input_type,
        source=task.source_name,
        media_seconds=media_seconds,
        charged_ms=now_ms,
    )


def _fingerprint(parameters: Parameters) -> str:
    """Return what two requests with the same body have in common."""
    body = {name: value for name, value in parameters.items() if name != "clientRequestToken"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _milliseconds(moment: datetime | None, rounded: Callable[[float], int]) -> int | None:
    if moment is None:
        return None
    # A float of so many seconds is exact to the microsecond only; what is left of a millisecond's rounding is cut off.
    return rounded(round(moment.timestamp() * 1000, 3))


def encoded_position(position: Position, filters: list[str]) -> str:
    """Return the nextToken for the jobs after a position, bound to the filters of its list."""
    content = json.dumps([position.submitted_ms, position.sequence, filters])
    return base64.urlsafe_b64encode(content.encode()).decode()


def decoded_position(token: str, filters: list[str]) -> Position:
    """Return the position of a nextToken.

    :raises BedrockError: a ``ValidationException`` if it is none of ours, or of a list with other filters.
    """
    try:
        submitted_ms, sequence, token_filters = json.loads(base64.urlsafe_b64decode(token.encode()))
        position = Position(int(submitted_ms), int(sequence))
    except (ValueError, TypeError, binascii.Error) as error:
        raise validation_error("The nextToken is not valid.") from error
    if token_filters[: len(filters)] != filters:
        raise validation_error("The nextToken belongs to a list with other filters.")
    return position
