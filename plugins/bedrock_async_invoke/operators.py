"""The operator that starts Bedrock's asynchronous invocations."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils import validate_execute_complete_event
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields
from airflow.providers.common.compat.sdk import AirflowException, conf

from bedrock_async_invoke.batch import LEASE_SECONDS, Batch, Submission, SubmissionFailedError
from bedrock_async_invoke.clients import AwsParameters, shared_clients
from bedrock_async_invoke.hooks import BedrockAsyncInvokeHook
from bedrock_async_invoke.links import AsyncInvokeOutputLink
from bedrock_async_invoke.manifest import batch_name
from bedrock_async_invoke.polling import COMPLETED
from bedrock_async_invoke.submission import LIST_LAG_SECONDS
from bedrock_async_invoke.submitter import ManifestSubmission, submit_blocking
from bedrock_async_invoke.triggers import (
    LEAST_INITIAL_DELAY,
    BedrockAsyncInvokeTrigger,
    BedrockStartAsyncInvokeTrigger,
)
from bedrock_async_invoke.watcher import Watch, Watcher, WatchingFailedError, describe_failure, watch_blocking

if TYPE_CHECKING:
    from airflow.sdk import Context


class BedrockStartAsyncInvokeOperator(AwsBaseOperator[BedrockAsyncInvokeHook]):
    """Start asynchronous invocations of an Amazon Bedrock model: one, or those of a manifest.

    With ``manifest_uri`` the requests of a JSON-lines file on S3 are started under their own tokens, as long as fewer than
    ``max_in_flight`` invocations of the model are in progress. What an earlier try has started, and what Bedrock lists under
    one of the tokens, is not started again. A request that Bedrock refuses is recorded as refused and the others go on;
    throttling makes the operator slow down and refuses nothing. While the window is full and ``deferrable`` is set, no
    worker slot is held. What became of every request is written to ``invocations.jsonl`` beside the manifest, and counts are
    returned; waiting is for :class:`~bedrock_async_invoke.sensors.BedrockAsyncInvokeSensor`.

    With ``model_input`` and ``output_s3_uri`` one invocation is started in the same way, waited for if that is asked for, and
    its ARN is returned. It fails with Bedrock's own message.

    .. seealso::
        For the call, take a look at
        https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_StartAsyncInvoke.html

    :param model_id: The bare id of the model; inference profiles are not taken. (templated)
    :param manifest_uri: The S3 URI of ``requests.jsonl``. (templated)
    :param model_input: The request body of a single invocation. (templated)
    :param output_s3_uri: The prefix below which the output of a single invocation is written. (templated)
    :param client_request_token: The token of a single invocation. If not given, it is made of the task instance's identity,
        its model, its input and its output, so that a retry starts no other invocation, and another input does. (templated)
    :param max_in_flight: The most invocations of the model in progress at once, whoever started them. (default: no limit
        but Bedrock's own)
    :param check_source: Whether to look before Start if the object that a request of the manifest names is still there, and
        the same. (default: True)
    :param adopt_lookback: How far back Bedrock's list is searched for invocations under the same tokens; where an intent
        says that there may be an older one, from there on. (default: 24 hours)
    :param intents_uri: The prefix below which an intent is created, under the condition that there is none, before a
        request is started, so that of two submitters one alone starts it. (templated)
    :param submitter_uri: The folder of a lease. Of all processes that are given the same folder one alone starts
        requests, for all of them: those with the highest priority first, and no more than the window takes. Give the same
        folder to all that use one model in one region and account, and leave it out for a single invocation. (templated)
    :param lease_seconds: How long the lease holds without being renewed: a process that is gone is succeeded after that.
        (default: 60)
    :param list_lag_seconds: How long Bedrock's list may take to show an invocation that was accepted. A Start without an
        answer to rely on is repeated only after that. (default: 30)
    :param kms_key_id: The full ARN of the key that encrypts the outputs. (templated)
    :param bucket_owner: The account that owns the outputs' bucket. (templated)
    :param tags: Tags of the invocations. (templated)
    :param wait_for_completion: Whether to wait until a single invocation has ended. (default: True)
    :param poll_interval: Seconds between two looks at Bedrock. (default: 15)
    :param deadline: How long after its submission a single invocation may take. (default: 12 hours)
    :param deferrable: If True, the operator will wait in the triggerer while the window is full, and for the completion of a
        single invocation. This implies waiting for completion.
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
    template_fields: Sequence[str] = aws_template_fields(
        "model_id",
        "manifest_uri",
        "model_input",
        "output_s3_uri",
        "client_request_token",
        "kms_key_id",
        "bucket_owner",
        "tags",
        "intents_uri",
        "submitter_uri",
    )
    template_fields_renderers = {"model_input": "json", "tags": "json"}  # noqa: RUF012 - as the base class declares it
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
        intents_uri: str | None = None,
        submitter_uri: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        list_lag_seconds: float = LIST_LAG_SECONDS,
        kms_key_id: str | None = None,
        bucket_owner: str | None = None,
        tags: dict[str, str] | None = None,
        wait_for_completion: bool = True,
        poll_interval: float = 15,
        deadline: timedelta = timedelta(hours=12),
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
        self.intents_uri = intents_uri
        self.submitter_uri = submitter_uri
        self.lease_seconds = lease_seconds
        self.list_lag_seconds = list_lag_seconds
        self.kms_key_id = kms_key_id
        self.bucket_owner = bucket_owner
        self.tags = tags
        self.wait_for_completion = wait_for_completion
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.deferrable = deferrable
        self._manifest_submission: ManifestSubmission | None = None
        if any((value is None) == (manifest_uri is None) for value in (model_input, output_s3_uri)):
            raise ValueError("give either manifest_uri, or model_input and output_s3_uri")
        if manifest_uri is not None and client_request_token is not None:
            raise ValueError("the requests of a manifest have tokens of their own; leave client_request_token out")
        if manifest_uri is None and submitter_uri is not None:
            raise ValueError("a single invocation is submitted by its own task; leave submitter_uri out")
        if max_in_flight is not None and max_in_flight < 1:
            raise ValueError(f"max_in_flight is at least 1, not {max_in_flight}")

    @property
    def batch_name(self) -> str:
        """Return the name of the manifest's folder, for ``map_index_template="{{ task.batch_name }}"``."""
        return batch_name(self.manifest_uri or "")

    def execute(self, context: Context) -> dict[str, Any] | str:
        """Start what there is to start; return counts for a manifest, the ARN for a single invocation."""
        submission, began = self._submission(context), time.time()
        try:
            if self.deferrable and self.submitter_uri is not None:
                return self._submit_in_the_triggerer(context, submission)
            submitting = self._manifest_submission = ManifestSubmission(shared_clients(self._aws), submission)
            self._link(context, self.output_s3_uri or submitting.output_prefix)
            if not self.deferrable:
                submit_blocking(submitting)
            seconds = submitting.step()
        except SubmissionFailedError as error:
            raise AirflowException(str(error)) from error
        if seconds is not None:
            seconds = max(seconds, submitting.hand_over_seconds)
            submitting.close()
            self._defer_submission(submission, began, seconds)
        summary = submitting.summary()
        return summary if self.manifest_uri is not None else self._go_on(context, summary)

    def _submit_in_the_triggerer(self, context: Context, submission: Submission) -> dict[str, Any]:
        """Leave all starting to the triggerer, where the submitter of all batches is; return counts if there is none."""
        batch = Batch(shared_clients(self._aws), submission)
        self._link(context, batch.output_prefix)
        if not batch.is_done:
            self._defer_submission(submission, time.time(), LEAST_INITIAL_DELAY)
        batch.record()
        return batch.summary()

    def _defer_submission(self, submission: Submission, began: float, seconds: float) -> None:
        # What is refused in this try of the task is not asked for again, however often the trigger is made anew.
        trying = replace(submission, keep_refusals_since=began)
        self.defer(
            trigger=BedrockStartAsyncInvokeTrigger(
                **trying.as_dict(), initial_delay=max(seconds, LEAST_INITIAL_DELAY), **self._aws.as_dict()
            ),
            method_name="execute_complete" if self.manifest_uri is not None else "submission_complete",
        )

    def submission_complete(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Go on with the single invocation that the triggerer has started."""
        return self._go_on(context, self._succeeded(event))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any] | str:
        """Return what the trigger counted; for a single invocation, its ARN."""
        result = self._succeeded(event)
        return result if self.manifest_uri is not None else _ended(result)

    def on_kill(self) -> None:
        """Start nothing more; what was started goes on, since Bedrock has no call that stops an invocation."""
        if self._manifest_submission is not None:
            self._manifest_submission.stop()
        self.log.warning(
            "Bedrock can't stop an invocation: what was started goes on and is billed. A retry of the task finds it again."
        )

    @property
    def _aws(self) -> AwsParameters:
        return AwsParameters(self.aws_conn_id, self.region_name, self.verify, self.botocore_config)

    def _submission(self, context: Context) -> Submission:
        request = None
        if self.manifest_uri is None:
            request = {
                "request_id": self.client_request_token or self._token(context),
                "model_input": self.model_input,
                "output_uri": self.output_s3_uri,
            }
        return Submission(
            model_id=self.model_id,
            manifest_uri=self.manifest_uri,
            request=request,
            max_in_flight=self.max_in_flight,
            kms_key_id=self.kms_key_id,
            bucket_owner=self.bucket_owner,
            tags=self.tags,
            check_source=self.check_source,
            adopt_since=time.time() - self.adopt_lookback.total_seconds(),
            poll_interval=self.poll_interval,
            intents_uri=self.intents_uri,
            submitter_uri=self.submitter_uri,
            lease_seconds=self.lease_seconds,
            list_lag_seconds=self.list_lag_seconds,
        )

    def _token(self, context: Context) -> str:
        """Return a token that every try of the same task instance has in common, as long as it asks for the same."""
        instance = context["ti"]
        identity = [
            *(instance.dag_id, instance.run_id, instance.task_id, instance.map_index),
            *(self.model_id, self.model_input, self.output_s3_uri),
        ]
        return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(identity, sort_keys=True)))

    def _go_on(self, context: Context, submitted: dict[str, Any]) -> str:
        """Wait for the single invocation, if that is asked for."""
        arn = submitted["invocation_arn"]
        if arn is None:
            raise AirflowException(
                f"Bedrock refuses to start the invocation, {submitted['error_code']}: {submitted['error_message']}. "
                "Nothing was started; mend the request, or what it is not allowed to do, and clear the task"
            )
        self.log.info("The invocation is %s", arn)
        self._link(context, f"{(self.output_s3_uri or '').rstrip('/')}/{arn.rpartition('/')[2]}")
        watch = Watch(
            invocation_arn=arn,
            poll_interval=self.poll_interval,
            timeout_seconds=self.deadline.total_seconds(),
            waiting_since=time.time(),
        )
        if self.deferrable:
            self.defer(
                trigger=BedrockAsyncInvokeTrigger(
                    **watch.as_dict(),
                    initial_delay=max(self.poll_interval, LEAST_INITIAL_DELAY),
                    **self._aws.as_dict(),
                ),
                method_name="execute_complete",
            )
        if not self.wait_for_completion:
            return str(arn)
        watcher = Watcher(shared_clients(self._aws), watch)
        try:
            watch_blocking(watcher)
        except WatchingFailedError as error:
            raise AirflowException(str(error)) from error
        return _ended(watcher.summary())

    def _succeeded(self, event: dict[str, Any] | None) -> dict[str, Any]:
        validated = validate_execute_complete_event(event)
        if validated["status"] != "success":
            raise AirflowException(f"Invoking {self.model_id} failed: {validated['message']}")
        return {name: value for name, value in validated.items() if name != "status"}

    def _link(self, context: Context, output_s3_uri: str) -> None:
        AsyncInvokeOutputLink.persist(
            context=context,
            operator=self,
            region_name=self.hook.conn_region_name,
            aws_partition=self.hook.conn_partition,
            output_s3_uri=output_s3_uri,
        )


def _ended(invocation: dict[str, Any]) -> str:
    """Return the ARN of an invocation that is completed.

    :raises AirflowException: with Bedrock's own message for any other.
    """
    if invocation["invocation_status"] != COMPLETED:
        raise AirflowException(describe_failure(invocation))
    return str(invocation["invocation_arn"])
