"""The sensor that waits for Bedrock's asynchronous invocations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.utils import validate_execute_complete_event
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.common.compat.sdk import AirflowException, PokeReturnValue, conf

from bedrock_async_invoke.clients import AwsParameters, shared_clients
from bedrock_async_invoke.hooks import BedrockAsyncInvokeHook
from bedrock_async_invoke.manifest import batch_name
from bedrock_async_invoke.triggers import LEAST_INITIAL_DELAY, BedrockAsyncInvokeTrigger
from bedrock_async_invoke.watcher import Watch, Watcher, WatchingFailedError, describe_failure

if TYPE_CHECKING:
    from airflow.sdk import Context


class BedrockAsyncInvokeSensor(AwsBaseSensor[BedrockAsyncInvokeHook]):
    """Wait until asynchronous invocations of Amazon Bedrock have ended: one, or those of a manifest.

    With ``manifest_uri`` it follows what
    :class:`~bedrock_async_invoke.operators.BedrockStartAsyncInvokeOperator` has recorded beside the manifest, writes how each
    invocation ended to ``statuses.jsonl`` there, and returns counts. A failed invocation does not fail the sensor then, and
    one that has not ended at the deadline is recorded as it stands. Where nothing was started there is nothing to wait for.

    With ``invocation_arn`` it fails when the invocation does, with Bedrock's own message.

    :param manifest_uri: The S3 URI of ``requests.jsonl``. (templated)
    :param invocation_arn: The ARN of one invocation. (templated)
    :param poll_interval: Seconds between two looks at Bedrock; another name for ``poke_interval``. (default: 60)
    :param deadline: How long after the last submission the invocations may take. (default: 12 hours)
    :param initial_delay: Seconds before the trigger's first look. (default: 5)
    :param deferrable: If True, the sensor will operate in deferrable mode.
        (default: False, but can be overridden in config file by setting default_deferrable to True)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
        If this is ``None`` or empty then the default boto3 behaviour is used. If
        running Airflow in a distributed manner and aws_conn_id is None or
        empty, then default boto3 configuration would be used (and must be
        maintained on each worker node).
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    aws_hook_class = BedrockAsyncInvokeHook
    template_fields: Sequence[str] = aws_template_fields("manifest_uri", "invocation_arn")

    def __init__(
        self,
        *,
        manifest_uri: str | None = None,
        invocation_arn: str | None = None,
        poll_interval: float | None = None,
        deadline: timedelta = timedelta(hours=12),
        initial_delay: float = LEAST_INITIAL_DELAY,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        if poll_interval is not None:
            kwargs["poke_interval"] = poll_interval
        super().__init__(**kwargs)
        self.manifest_uri = manifest_uri
        self.invocation_arn = invocation_arn
        self.deadline = deadline
        self.initial_delay = initial_delay
        self.deferrable = deferrable
        self._watcher: Watcher | None = None
        if (manifest_uri is None) == (invocation_arn is None):
            raise ValueError("give either manifest_uri or invocation_arn")

    @property
    def batch_name(self) -> str:
        """Return the name of the manifest's folder, for ``map_index_template="{{ task.batch_name }}"``."""
        return batch_name(self.manifest_uri or "")

    def execute(self, context: Context) -> Any:
        """Wait; return counts."""
        if not self.deferrable:
            return super().execute(context)
        # What has ended already needs no triggerer.
        looked = self.poke(context)
        if looked.is_done:
            return looked.xcom_value
        self.defer(
            trigger=BedrockAsyncInvokeTrigger(
                **self._watch.as_dict(), initial_delay=self.initial_delay, **self._aws.as_dict()
            ),
            method_name="execute_complete",
        )

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        try:
            # A watcher remembers what the list has missed; in the mode "reschedule" every look is the first one.
            if self._watcher is None:
                self._watcher = Watcher(shared_clients(self._aws), self._watch)
            if self._watcher.step() is not None:
                return PokeReturnValue(is_done=False)
        except WatchingFailedError as error:
            raise AirflowException(str(error)) from error
        return PokeReturnValue(is_done=True, xcom_value=self._checked(self._watcher.summary()))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the trigger counted."""
        validated = validate_execute_complete_event(event)
        if validated["status"] != "success":
            raise AirflowException(
                f"Waiting for {self.manifest_uri or self.invocation_arn} failed: {validated['message']}"
            )
        return self._checked({name: value for name, value in validated.items() if name != "status"})

    def _checked(self, summary: dict[str, Any]) -> dict[str, Any]:
        if self.invocation_arn is not None and summary["completed"] != 1:
            raise AirflowException(describe_failure(summary))
        self.log.info(
            "%(completed)d invocations completed, %(failed)d failed, %(in_progress)d in progress, %(other)d other",
            summary,
        )
        return summary

    @property
    def _aws(self) -> AwsParameters:
        return AwsParameters(self.aws_conn_id, self.region_name, self.verify, self.botocore_config)

    @property
    def _watch(self) -> Watch:
        interval = self.poke_interval
        return Watch(
            manifest_uri=self.manifest_uri,
            invocation_arn=self.invocation_arn,
            poll_interval=float(interval.total_seconds() if isinstance(interval, timedelta) else interval),
            timeout_seconds=self.deadline.total_seconds(),
            waiting_since=time.time(),
            patience=1 if self.mode == "reschedule" else 2,
        )
