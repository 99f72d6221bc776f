"""The operator that starts Bedrock's asynchronous invocations."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils import validate_execute_complete_event
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.common.compat.sdk import AirflowException, conf

from bedrock_async_invoke.clients import AwsParameters, shared_clients
from bedrock_async_invoke.hooks import BedrockAsyncInvokeHook
from bedrock_async_invoke.links import AsyncInvokeOutputLink
from bedrock_async_invoke.manifest import batch_name
from bedrock_async_invoke.submitter import Submission, SubmissionFailedError, Submitter, submit_blocking
from bedrock_async_invoke.triggers import BedrockAsyncInvokeTrigger, BedrockStartAsyncInvokeTrigger
from bedrock_async_invoke.watcher import Watch, Watcher, watch_blocking

if TYPE_CHECKING:
    from airflow.sdk import Context


class BedrockStartAsyncInvokeOperator(AwsBaseOperator[BedrockAsyncInvokeHook]):
    """Start asynchronous invocations of an Amazon Bedrock model: one, or those of a manifest.

    With ``manifest_uri`` the requests of a JSON-lines file on S3 are started under their own tokens, as long as fewer than
    ``max_in_flight`` invocations of the model are in progress. What an earlier try has started, and what Bedrock lists under
    one of the tokens, is not started again. A request that Bedrock refuses is recorded as refused and the others go on;
    throttling makes the operator slow down and refuses nothing. While the window is full and ``deferrable`` is set, no
    worker slot is held. What became of every request is written to ``invocations.jsonl`` beside the manifest.

    .. seealso::
        For the call, take a look at
        https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_StartAsyncInvoke.html

    :param model_id: The bare id of the model; inference profiles are not taken. (templated)
    :param manifest_uri: The S3 URI of ``requests.jsonl``. (templated)
    :param model_input: The request body of a single invocation. (templated)
    :param output_s3_uri: The prefix below which the output of a single invocation is written. (templated)
    :param client_request_token: The token of a single invocation; made of the task instance's identity if not given, so that
        a retry does not start another. (templated)
    :param max_in_flight: The most invocations of the model in progress at once, whoever started them. (default: no limit
        but Bedrock's own)
    :param check_source: Whether to look before Start if the object of a request is still the one that it was made from.
        (default: True)
    :param adopt_lookback: How far back Bedrock's list is searched for invocations under the manifest's tokens.
        (default: 24 hours)
    :param kms_key_id: The full ARN of the key that encrypts the outputs. (templated)
    :param bucket_owner: The account that owns the outputs' bucket. (templated)
    :param tags: Tags of the invocations.
    :param wait_for_completion: Whether to wait until a single invocation has ended. (default: True)
    :param poll_interval: Seconds between two looks at Bedrock. (default: 15)
    :param timeout: How long a single invocation may take. (default: 12 hours)
    :param deferrable: If True, the operator will wait asynchronously. This implies waiting for completion. This mode
        requires the aiobotocore module to be installed.
        (default: False, but can be overridden in config file by setting default_deferrable to True)
    :param aws_conn_id: The Airflow connection used for AWS credentials.
        If this is ``None`` or empty then the default boto3 behaviour is used.
    :param region_name: AWS region_name. If not specified then the default boto3 behaviour is used.
    :param verify: Whether or not to verify SSL certificates.
    :param botocore_config: Configuration dictionary (key-values) for botocore client.
    """

    aws_hook_class = BedrockAsyncInvokeHook
    template_fields: Sequence[str] = aws_template_fields(
        "model_id",
        "manifest_uri",
        "model_input",
        "output_s3_uri",
        "client_request_token",
        "kms_key_id",
        "bucket_owner",
    )
    template_fields_renderers = {"model_input": "json"}  # noqa: RUF012 - as the base class declares it
    operator_extra_links = (AsyncInvokeOutputLink(),)

    def __init__(
        self,
        *,
        model_id: str,
        manifest_uri: str | None = None,
        model_input: dict[str, Any] | None = None,
        output_s3_uri: str | None = None,
        client_request_token: str | None = None,
        max_in_flight: int | None = None,
        check_source: bool = True,
        adopt_lookback: timedelta = timedelta(hours=24),
        kms_key_id: str | None = None,
        bucket_owner: str | None = None,
        tags: dict[str, str] | None = None,
        wait_for_completion: bool = True,
        poll_interval: float = 15,
        timeout: timedelta = timedelta(hours=12),
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id
        self.manifest_uri = manifest_uri
        self.model_input = model_input
        self.output_s3_uri = output_s3_uri
        self.client_request_token = client_request_token
        self.max_in_flight = max_in_flight
        self.check_source = check_source
        self.adopt_lookback = adopt_lookback
        self.kms_key_id = kms_key_id
        self.bucket_owner = bucket_owner
        self.tags = tags
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.deferrable = deferrable
        if (manifest_uri is None) != (model_input is not None and output_s3_uri is not None):
            raise ValueError("give either manifest_uri, or model_input and output_s3_uri")

    @property
    def batch_name(self) -> str:
        """Return the name of the manifest's folder, for ``map_index_template``."""
        return batch_name(self.manifest_uri or "")

    def execute(self, context: Context) -> dict[str, Any] | str:
        """Start what there is to start; return counts for a manifest, the ARN for a single invocation."""
        if self.manifest_uri is None:
            return self._start_one(context)
        submitter = Submitter(shared_clients(self._aws), self._submission)
        self._link(context, submitter.output_prefix)
        try:
            if not self.deferrable:
                submit_blocking(submitter)
                return submitter.summary()
            seconds = submitter.step()
        except SubmissionFailedError as error:
            raise AirflowException(str(error)) from error
        if seconds is None:
            return submitter.summary()
        self.defer(
            trigger=BedrockStartAsyncInvokeTrigger(
                submission=self._submission.as_dict(), initial_delay=seconds, **self._aws.as_dict()
            ),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any] | str:
        """Return what the trigger counted."""
        validated = validate_execute_complete_event(event)
        if validated["status"] != "success":
            raise AirflowException(f"Submitting {self.manifest_uri or self.model_id} failed: {validated['message']}")
        if self.manifest_uri is None:
            return self._finished(validated["invocation_arn"])
        return {name: value for name, value in validated.items() if name != "status"}

    def on_kill(self) -> None:
        """Say that what was started goes on: Bedrock has no call that stops an invocation."""
        self.log.warning(
            "Bedrock can't stop an invocation: what was started goes on and is billed. A retry of the task finds it again."
        )

    @property
    def _aws(self) -> AwsParameters:
        return AwsParameters(self.aws_conn_id, self.region_name, self.verify, self.botocore_config)

    @property
    def _submission(self) -> Submission:
        return Submission(
            model_id=self.model_id,
            manifest_uri=self.manifest_uri or "",
            max_in_flight=self.max_in_flight,
            kms_key_id=self.kms_key_id,
            bucket_owner=self.bucket_owner,
            tags=self.tags,
            check_source=self.check_source,
            adopt_lookback_seconds=self.adopt_lookback.total_seconds(),
            poll_interval=self.poll_interval,
        )

    def _start_one(self, context: Context) -> str:
        arn = self.hook.start_async_invoke(
            model_id=self.model_id,
            model_input=self.model_input or {},
            output_s3_uri=self.output_s3_uri or "",
            client_request_token=self.client_request_token or _token(context),
            kms_key_id=self.kms_key_id,
            bucket_owner=self.bucket_owner,
            tags=self.tags,
        )
        self.log.info("Started %s", arn)
        self._link(context, f"{(self.output_s3_uri or '').rstrip('/')}/{arn.rsplit('/', 1)[1]}")
        watch = Watch(
            invocation_arn=arn,
            poll_interval=self.poll_interval,
            timeout_seconds=self.timeout.total_seconds(),
            started_waiting=time.time(),
        )
        if self.deferrable:
            self.defer(
                trigger=BedrockAsyncInvokeTrigger(
                    watch=watch.as_dict(), initial_delay=self.poll_interval, **self._aws.as_dict()
                ),
                method_name="execute_complete",
            )
        if not self.wait_for_completion:
            return arn
        watch_blocking(Watcher(shared_clients(self._aws), watch))
        return self._finished(arn)

    def _finished(self, arn: str) -> str:
        found = self.hook.get_async_invoke(arn)
        if found["status"] != "Completed":
            raise AirflowException(f"{arn} is {found['status']}: {found.get('failureMessage', 'no message')}")
        return arn

    def _link(self, context: Context, output_s3_uri: str) -> None:
        AsyncInvokeOutputLink.persist(
            context=context,
            operator=self,
            region_name=self.hook.conn_region_name,
            aws_partition=self.hook.conn_partition,
            output_s3_uri=output_s3_uri,
        )


def _token(context: Context) -> str:
    """Return a token that every try of the same task instance has in common."""
    instance = context["ti"]
    identity = (instance.dag_id, instance.run_id, instance.task_id, str(instance.map_index))
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "\0".join(identity)))
