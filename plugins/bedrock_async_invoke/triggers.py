"""Triggers that submit and wait in the triggerer, where no worker slot is held."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Protocol

from airflow.triggers.base import BaseTrigger, TriggerEvent

from bedrock_async_invoke.clients import AwsParameters, shared_clients
from bedrock_async_invoke.submitter import Submission, Submitter
from bedrock_async_invoke.watcher import Watch, Watcher

logger = logging.getLogger(__name__)


class _Stepper(Protocol):
    def step(self) -> float | None: ...

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
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Take steps until there is none left, then say how it went."""
        # Airflow may take a trigger that fires at once for a task that ended without being told to (issue 71580).
        await asyncio.sleep(self._initial_delay)
        try:
            stepper = await asyncio.to_thread(self._make)
            while (seconds := await asyncio.to_thread(stepper.step)) is not None:  # noqa: ASYNC110 - steps are calls, no event tells when to take one
                await asyncio.sleep(seconds)
        except Exception as error:
            logger.exception("the trigger failed")
            event = {"status": "error", "message": f"{type(error).__name__}: {error}"}
        else:
            event = {"status": "success", **stepper.summary()}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    def _serialize(self, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {**arguments, "initial_delay": self._initial_delay, **self._aws.as_dict()}


class BedrockStartAsyncInvokeTrigger(_SteppingTrigger):
    """Submit the rest of a manifest as slots become free.

    :param submission: what is to be submitted, as :meth:`Submission.as_dict` gives it.
    :param initial_delay: seconds before the first step.
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary for the botocore client.
    """

    def __init__(self, submission: dict[str, Any], initial_delay: float = 0.0, **aws: Any) -> None:
        super().__init__(AwsParameters(**aws), initial_delay)
        self._submission = Submission(**submission)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and what makes another of it."""
        return self._serialize({"submission": self._submission.as_dict()})

    def _make(self) -> Submitter:
        return Submitter(shared_clients(self._aws), self._submission)


class BedrockAsyncInvokeTrigger(_SteppingTrigger):
    """Wait until the invocations of a manifest, or one invocation, have ended.

    One trigger follows a whole manifest: a call of ListAsyncInvokes shows up to 1,000 invocations.

    :param watch: what is to be waited for, as :meth:`Watch.as_dict` gives it.
    :param initial_delay: seconds before the first look.
    :param aws_conn_id: The Airflow connection used for AWS credentials.
    :param region_name: AWS region_name.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary for the botocore client.
    """

    def __init__(self, watch: dict[str, Any], initial_delay: float = 0.0, **aws: Any) -> None:
        super().__init__(AwsParameters(**aws), initial_delay)
        self._watch = Watch(**watch)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and what makes another of it."""
        return self._serialize({"watch": self._watch.as_dict()})

    def _make(self) -> Watcher:
        return Watcher(shared_clients(self._aws), self._watch)
