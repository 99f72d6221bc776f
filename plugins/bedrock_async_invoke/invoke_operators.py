"""The operator that sends the requests of a manifest through InvokeModel."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.common.compat.sdk import AirflowException

from bedrock_async_invoke.batch import SubmissionFailedError
from bedrock_async_invoke.clients import AwsParameters, Clients, shared_clients
from bedrock_async_invoke.hooks import BedrockAsyncInvokeHook
from bedrock_async_invoke.invoker import CALL_SECONDS, Invoker, Invoking
from bedrock_async_invoke.links import AsyncInvokeOutputLink
from bedrock_async_invoke.manifest import batch_name
from bedrock_async_invoke.runtime import BedrockRuntime
from bedrock_async_invoke.submission import LIST_LAG_SECONDS

if TYPE_CHECKING:
    from airflow.sdk import Context


class BedrockInvokeModelBatchOperator(AwsBaseOperator[BedrockAsyncInvokeHook]):
    """Invoke an Amazon Bedrock model once for each request of a manifest, several at once, and keep its answers on S3.

    The requests of a JSON-lines file on S3 are sent as fast as Bedrock lets them: the rate grows until it is throttled,
    shrinks then, and grows again. Each answer is written as ``output.json`` below the request's own prefix as soon as it has
    come, so that a retry sends only the requests without one. A request that Bedrock refuses is recorded as refused and the
    others go on; throttling refuses nothing. What became of every request is written to ``invocations.jsonl`` and
    ``statuses.jsonl`` beside the manifest, as for asynchronous invocations, and counts are returned.

    .. seealso::
        For the call, take a look at
        https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html

    :param model_id: The id of the model, or of an inference profile where the model asks for one. (templated)
    :param manifest_uri: The S3 URI of ``requests.jsonl``. (templated)
    :param max_concurrent_invokes: The most calls that are under way at once. (default: 20)
    :param check_source: Whether to look before the call if the object that a request names is still there, and the same.
        (default: True)
    :param intents_uri: The prefix below which an intent is created, under the condition that there is none, before a
        request is sent, so that of two tasks one alone sends it; the other waits for its answer. (templated)
    :param call_timeout: Seconds that a call may take, from its beginning to the last byte of its answer. An intent whose owner
        is gone is taken over after twice as long. (default: 90)
    :param deadline: How long the answer of another task's call is waited for. (default: 1 hour)
    :param list_lag_seconds: How long Bedrock's list may take to show an asynchronous invocation of the same request, which an
        earlier run may have started. (default: 30)
    :param kms_key_id: The full ARN of the key that encrypts the answers. (templated)
    :param bucket_owner: The account that owns the answers' bucket. (templated)
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
    template_fields: Sequence[str] = aws_template_fields(
        "model_id", "manifest_uri", "intents_uri", "kms_key_id", "bucket_owner"
    )
    operator_extra_links = (AsyncInvokeOutputLink(),)

    def __init__(
        self,
        *,
        model_id: str,
        manifest_uri: str,
        max_concurrent_invokes: int = 20,
        check_source: bool = True,
        intents_uri: str | None = None,
        call_timeout: float = CALL_SECONDS,
        deadline: timedelta = timedelta(hours=1),
        list_lag_seconds: float = LIST_LAG_SECONDS,
        kms_key_id: str | None = None,
        bucket_owner: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id
        self.manifest_uri = manifest_uri
        self.max_concurrent_invokes = max_concurrent_invokes
        self.check_source = check_source
        self.intents_uri = intents_uri
        self.call_timeout = call_timeout
        self.deadline = deadline
        self.list_lag_seconds = list_lag_seconds
        self.kms_key_id = kms_key_id
        self.bucket_owner = bucket_owner
        self._invoker: Invoker | None = None
        if max_concurrent_invokes < 1:
            raise ValueError(f"max_concurrent_invokes is at least 1, not {max_concurrent_invokes}")
        if call_timeout <= 0:
            raise ValueError(f"call_timeout is more than 0, not {call_timeout}")

    @property
    def batch_name(self) -> str:
        """Return the name of the manifest's folder, for ``map_index_template="{{ task.batch_name }}"``."""
        return batch_name(self.manifest_uri)

    def execute(self, context: Context) -> dict[str, Any]:
        """Send what there is to send; return counts."""
        clients = shared_clients(AwsParameters(self.aws_conn_id, self.region_name, self.verify, self.botocore_config))
        try:
            return asyncio.run(self._invoke(context, clients))
        except SubmissionFailedError as error:
            raise AirflowException(str(error)) from error

    async def _invoke(self, context: Context, clients: Clients) -> dict[str, Any]:
        invoking = Invoking(
            model_id=self.model_id,
            manifest_uri=self.manifest_uri,
            max_concurrent=self.max_concurrent_invokes,
            check_source=self.check_source,
            intents_uri=self.intents_uri,
            kms_key_id=self.kms_key_id,
            bucket_owner=self.bucket_owner,
            call_seconds=self.call_timeout,
            deadline_seconds=self.deadline.total_seconds(),
            list_lag_seconds=self.list_lag_seconds,
        )
        runtime = BedrockRuntime(clients.bedrock, at_once=self.max_concurrent_invokes, call_seconds=self.call_timeout)
        async with runtime:
            invoker = self._invoker = Invoker(clients, runtime, invoking)
            AsyncInvokeOutputLink.persist(
                context=context,
                operator=self,
                region_name=self.hook.conn_region_name,
                aws_partition=self.hook.conn_partition,
                output_s3_uri=invoker.batch.output_prefix,
            )
            await invoker.run()
        self.log.info("%s: %s", self.batch_name, invoker.summary())
        return invoker.summary()

    def on_kill(self) -> None:
        """Begin no further call; the answers of those under way are waited for and kept, since they are paid for."""
        if self._invoker is not None:
            self._invoker.stop()
