"""The hook for Bedrock's asynchronous invocations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import cached_property
from typing import Any

from airflow.providers.amazon.aws.hooks.bedrock import BedrockRuntimeHook
from botocore.config import Config

from bedrock_async_invoke.errors import explain

PAGE_SIZE = 1000
"""The most invocations that a page of ListAsyncInvokes holds."""
START_CONNECT_SECONDS, START_READ_SECONDS = 5, 20
"""How long a Start call waits to be connected, and for its answer."""


class BedrockAsyncInvokeHook(BedrockRuntimeHook):
    """Interact with the asynchronous invocations of Amazon Bedrock.

    Provide thin wrappers around :external+boto3:py:class:`boto3.client("bedrock-runtime") <BedrockRuntime.Client>`
    whose errors are :class:`~bedrock_async_invoke.errors.AsyncInvokeError`.

    Additional arguments (such as ``aws_conn_id``) may be specified and are passed down to the underlying AwsBaseHook.

    .. seealso::
        - :class:`airflow.providers.amazon.aws.hooks.base_aws.AwsBaseHook`
    """

    @property
    def _bedrock(self) -> Any:
        return self.conn  # botocore makes a client's methods as it goes, so no type has them

    @cached_property
    def _single_attempt_client(self) -> Any:
        # botocore would repeat a Start whose answer was lost on its own; whether it may be repeated is for the caller
        # to decide, after a look at the list.
        # It ends within the lease under which it was made, so that nobody else may start anything meanwhile.
        quick = Config(connect_timeout=START_CONNECT_SECONDS, read_timeout=START_READ_SECONDS)
        single = Config(retries={"total_max_attempts": 1, "mode": "standard"})
        config = quick.merge(self.config or Config()).merge(single)
        return self.get_client_type(region_name=self.region_name, config=config)

    def invoke_model_client(self, *, at_once: int, read_seconds: float) -> AbstractAsyncContextManager[Any]:
        """Return an asynchronous client for InvokeModel that makes every call once.

        How often a call that is paid for is repeated is for the caller to decide, as is how fast.

        :param at_once: how many calls it has to be able to make side by side.
        :param read_seconds: how long a call waits for a next part of its answer.
        """
        quick = Config(connect_timeout=START_CONNECT_SECONDS)
        single = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=at_once,
            read_timeout=read_seconds,
        )
        config = quick.merge(self.config or Config()).merge(single)
        client: AbstractAsyncContextManager[Any] = self.get_client_type(
            region_name=self.region_name, config=config, deferrable=True
        )
        return client

    def start_async_invoke(
        self,
        *,
        model_id: str,
        model_input: dict[str, Any],
        output_s3_uri: str,
        client_request_token: str,
        kms_key_id: str | None = None,
        bucket_owner: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> str:
        """Start an invocation, in a single attempt, and return its ARN.

        .. seealso::
            - https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_StartAsyncInvoke.html

        :param model_id: the bare id of a model; inference profiles are not taken.
        :param model_input: the request body, as a mapping.
        :param output_s3_uri: the prefix that the output is written below, in a folder named by the invocation.
        :param client_request_token: names the request, so that it is not accepted twice.
        :param kms_key_id: the full ARN of the key that encrypts the output.
        :param bucket_owner: the account that owns the output's bucket.
        :param tags: tags of the invocation.
        """
        output = {"s3Uri": output_s3_uri, "kmsKeyId": kms_key_id, "bucketOwner": bucket_owner}
        request: dict[str, Any] = {
            "modelId": model_id,
            "modelInput": model_input,
            "clientRequestToken": client_request_token,
            "outputDataConfig": {"s3OutputDataConfig": {name: value for name, value in output.items() if value}},
        }
        if tags:
            request["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
        try:
            return str(self._single_attempt_client.start_async_invoke(**request)["invocationArn"])
        except Exception as error:
            raise explain(error) from error

    def get_async_invoke(self, invocation_arn: str) -> dict[str, Any]:
        """Return what Bedrock says of an invocation.

        .. seealso::
            - https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_GetAsyncInvoke.html
        """
        try:
            return dict(self._bedrock.get_async_invoke(invocationArn=invocation_arn))
        except Exception as error:
            raise explain(error) from error

    def list_async_invokes(
        self, *, submitted_after: datetime | None = None, status: str | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the pages of the list, oldest first, each with up to 1,000 summaries.

        .. seealso::
            - https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ListAsyncInvokes.html

        :param submitted_after: only those that were submitted later.
        :param status: only those with this status.
        """
        request: dict[str, Any] = {"sortBy": "SubmissionTime", "sortOrder": "Ascending"}
        if submitted_after is not None:
            request["submitTimeAfter"] = submitted_after
        if status is not None:
            request["statusEquals"] = status
        paginator = self._bedrock.get_paginator("list_async_invokes")
        try:
            for page in paginator.paginate(**request, PaginationConfig={"PageSize": PAGE_SIZE}):
                yield page["asyncInvokeSummaries"]
        except Exception as error:
            raise explain(error) from error
