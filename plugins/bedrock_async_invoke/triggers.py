"""Triggers that submit and wait in the triggerer, where no worker slot is held."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Protocol

from airflow.triggers.base import BaseTrigger, TriggerEvent

from bedrock_async_invoke.batch import LEASE_SECONDS
from bedrock_async_invoke.clients import AwsParameters, shared_clients
from bedrock_async_invoke.submission import LIST_LAG_SECONDS
from bedrock_async_invoke.submitter import ManifestSubmission, Submission
from bedrock_async_invoke.watcher import Watch, Watcher

logger = logging.getLogger(__name__)

LEAST_INITIAL_DELAY = 5.0
"""Seconds before a trigger that takes a task over does anything. A trigger that fires within a second or two can be taken
for a task that ended without being told to: https://github.com/apache/airflow/issues/71580"""


class _Stepper(Protocol):
    def step(self) -> float | None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...

    def summary(self) -> dict[str, Any]: ...


class _SteppingTrigger(BaseTrigger):
    """Takes steps, each in a thread, and sleeps between them; ends with one event of counts.

    Every call of AWS is made in a thread: making an asynchronous client alone would hold the event loop, which all
    triggers of a triggerer share, for tenths of a second.
    """

    def __init__(self, aws: AwsParameters, initial_delay: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._aws = aws
        self._initial_delay = initial_delay

    def _make(self) -> _Stepper:
        """Return what takes the steps; called in a thread."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Take steps until there is none left, then say how it went."""
        await asyncio.sleep(self._initial_delay)
        try:
            event = {"status": "success", **await self._step_through()}
        except Exception as error:
            logger.exception("%s failed", type(self).__name__)
            event = {"status": "error", "message": f"{type(error).__name__}: {error}"}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _step_through(self) -> dict[str, Any]:
        stepper = await self._made()
        try:
            while (seconds := await asyncio.to_thread(stepper.step)) is not None:  # noqa: ASYNC110 - steps are calls, no event tells when to take one
                await asyncio.sleep(seconds)
        finally:
            # A thread outlives the task that waits for it: when the trigger moves elsewhere, it must not go on here.
            stepper.stop()
            # Not waited for: a call that hangs must not hold up the triggerer.
            asyncio.get_running_loop().run_in_executor(None, stepper.close)
        return stepper.summary()

    async def _made(self) -> _Stepper:
        """Return what takes the steps. Who is cancelled meanwhile leaves nothing behind that was made for it."""
        making = asyncio.ensure_future(asyncio.to_thread(self._make))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            loop = asyncio.get_running_loop()
            making.add_done_callback(lambda made: loop.run_in_executor(None, _leave, made))
            raise

    def _serialize(self, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {**arguments, "initial_delay": self._initial_delay, **self._aws.as_dict()}


def _leave(made: asyncio.Future[_Stepper]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().stop()
        made.result().close()


class BedrockStartAsyncInvokeTrigger(_SteppingTrigger):
    """Submit what a task has not submitted yet, as slots become free.

    :param model_id: The bare id of the model.
    :param manifest_uri: The S3 URI of ``requests.jsonl``.
    :param request: Or one request: ``request_id``, ``model_input``, ``output_uri``.
    :param max_in_flight: The most invocations of the model in progress at once.
    :param kms_key_id: The full ARN of the key that encrypts the outputs.
    :param bucket_owner: The account that owns the outputs' bucket.
    :param tags: Tags of the invocations.
    :param check_source: Whether to look before Start if the object of a request is still there, and the same.
    :param adopt_since: Since when invocations are adopted, in seconds since the epoch.
    :param keep_refusals_since: Since when requests that were refused are not asked for again, in seconds since the epoch.
    :param poll_interval: Seconds between two looks while the window is full. (default: 15)
    :param intents_uri: The prefix that an intent is created below before a request is started.
    :param submitter_uri: The folder of the lease under which all processes submit.
    :param lease_seconds: How long the lease holds without being renewed. (default: 60)
    :param list_lag_seconds: How long Bedrock's list may take to show an invocation. (default: 30)
    :param initial_delay: Seconds before the first step. (default: 5)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary for the botocore client.
    """

    def __init__(
        self,
        *,
        model_id: str,
        adopt_since: float,
        manifest_uri: str | None = None,
        request: dict[str, Any] | None = None,
        max_in_flight: int | None = None,
        kms_key_id: str | None = None,
        bucket_owner: str | None = None,
        tags: dict[str, str] | None = None,
        check_source: bool = True,
        keep_refusals_since: float | None = None,
        poll_interval: float = 15.0,
        intents_uri: str | None = None,
        submitter_uri: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        list_lag_seconds: float = LIST_LAG_SECONDS,
        initial_delay: float = LEAST_INITIAL_DELAY,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(AwsParameters(aws_conn_id, region_name, verify, botocore_config), initial_delay)
        self._manifest_submission: ManifestSubmission | None = None
        self._is_killed = False
        self._submission = Submission(
            model_id=model_id,
            manifest_uri=manifest_uri,
            request=request,
            max_in_flight=max_in_flight,
            kms_key_id=kms_key_id,
            bucket_owner=bucket_owner,
            tags=tags,
            check_source=check_source,
            adopt_since=adopt_since,
            keep_refusals_since=keep_refusals_since,
            poll_interval=poll_interval,
            intents_uri=intents_uri,
            submitter_uri=submitter_uri,
            lease_seconds=lease_seconds,
            list_lag_seconds=list_lag_seconds,
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and what makes another of it."""
        return self._serialize(self._submission.as_dict())

    async def on_kill(self) -> None:
        """Start nothing more; what was started goes on: Bedrock has no call that stops an invocation."""
        self._is_killed = True
        if self._manifest_submission is not None:
            self._manifest_submission.stop()
            await asyncio.to_thread(self._manifest_submission.withdraw)
        logger.warning(
            "Bedrock can't stop an invocation: what was started goes on and is billed. A new try of the task finds it again."
        )

    def _make(self) -> ManifestSubmission:
        made = self._manifest_submission = ManifestSubmission(shared_clients(self._aws), self._submission, stays=True)
        if self._is_killed:
            # That was asked for before there was anything to withdraw.
            made.stop()
            made.withdraw()
        return made


class BedrockAsyncInvokeTrigger(_SteppingTrigger):
    """Wait until the invocations of a manifest, or one invocation, have ended.

    One trigger follows a whole manifest: a call of ListAsyncInvokes shows up to 1,000 invocations. How they ended is written
    beside the manifest before the event is sent.

    :param manifest_uri: The S3 URI of ``requests.jsonl``.
    :param invocation_arn: Or the ARN of one invocation.
    :param poll_interval: Seconds between two looks. (default: 15)
    :param timeout_seconds: Seconds from the last submission to the deadline. (default: 12 hours)
    :param waiting_since: Seconds since the epoch; the deadline counts from here where no submission is known.
    :param patience: How many looks at the list may miss an invocation before it is asked for by itself. (default: 2)
    :param initial_delay: Seconds before the first look. (default: 5)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary for the botocore client.
    """

    def __init__(
        self,
        *,
        waiting_since: float,
        manifest_uri: str | None = None,
        invocation_arn: str | None = None,
        poll_interval: float = 15.0,
        timeout_seconds: float = 43_200.0,
        patience: int = 2,
        initial_delay: float = LEAST_INITIAL_DELAY,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(AwsParameters(aws_conn_id, region_name, verify, botocore_config), initial_delay)
        self._watch = Watch(
            manifest_uri=manifest_uri,
            invocation_arn=invocation_arn,
            poll_interval=poll_interval,
            timeout_seconds=timeout_seconds,
            waiting_since=waiting_since,
            patience=patience,
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and what makes another of it."""
        return self._serialize(self._watch.as_dict())

    def _make(self) -> Watcher:
        return Watcher(shared_clients(self._aws), self._watch)
