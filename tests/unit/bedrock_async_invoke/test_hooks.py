from __future__ import annotations

from datetime import UTC, datetime

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
    ReadTimeoutError,
)
from botocore.stub import ANY, Stubber

from bedrock_async_invoke.errors import AsyncInvokeError, Meaning, explain
from bedrock_async_invoke.hooks import BedrockAsyncInvokeHook
from tests.unit.bedrock_async_invoke.fake_aws import ACCOUNT, MODEL

ARN = f"{ACCOUNT}/abcdefghijkl"
URL = "https://bedrock-runtime.us-east-1.amazonaws.com"


@pytest.fixture(scope="module")
def hook():
    return BedrockAsyncInvokeHook(aws_conn_id=None, region_name="us-east-1")


def start(hook, **changes) -> str:
    return hook.start_async_invoke(
        **{
            "model_id": MODEL,
            "model_input": {"inputType": "video"},
            "output_s3_uri": "s3://work/outputs/token",
            "client_request_token": "token",
            **changes,
        }
    )


def test_it_is_a_hook_of_bedrock_runtime(hook):
    assert hook.conn.meta.service_model.service_name == "bedrock-runtime"
    assert hook.conn_region_name == "us-east-1"


def test_start_sends_all_it_is_given_and_returns_the_arn(hook):
    with Stubber(hook._single_attempt_client) as stub:
        stub.add_response(
            "start_async_invoke",
            {"invocationArn": ARN},
            {
                "modelId": MODEL,
                "modelInput": {"inputType": "video"},
                "clientRequestToken": "token",
                "outputDataConfig": {
                    "s3OutputDataConfig": {
                        "s3Uri": "s3://work/outputs/token",
                        "kmsKeyId": "arn:aws:kms:k",
                        "bucketOwner": "123456789012",
                    }
                },
                "tags": [{"key": "team", "value": "video"}],
            },
        )
        tags = {"team": "video"}
        assert start(hook, kms_key_id="arn:aws:kms:k", bucket_owner="123456789012", tags=tags) == ARN


def test_start_leaves_out_what_it_is_not_given(hook):
    with Stubber(hook._single_attempt_client) as stub:
        stub.add_response(
            "start_async_invoke",
            {"invocationArn": ARN},
            {
                "modelId": MODEL,
                "modelInput": ANY,
                "clientRequestToken": "token",
                "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://work/outputs/token"}},
            },
        )
        assert start(hook) == ARN


def test_only_start_is_attempted_once_and_the_user_s_configuration_holds_otherwise():
    hook = BedrockAsyncInvokeHook(
        aws_conn_id=None, region_name="us-east-1", config={"read_timeout": 7, "retries": {"max_attempts": 9}}
    )
    assert hook._single_attempt_client.meta.config.retries["total_max_attempts"] == 1
    assert hook._single_attempt_client.meta.config.read_timeout == 7
    assert hook._single_attempt_client.meta.region_name == "us-east-1"
    assert hook.conn.meta.config.retries["total_max_attempts"] == 10


@pytest.mark.parametrize("status", [500, 503])
def test_an_answer_of_the_server_that_it_failed_ends_start_after_one_request_over_the_wire(status):
    hook = BedrockAsyncInvokeHook(aws_conn_id=None, region_name="us-east-1", config={"retries": {"max_attempts": 9}})
    sent = []

    def answer(request, **event):
        sent.append(request.url)
        response = AWSResponse(request.url, status, {"x-amzn-ErrorType": "InternalServerException"}, None)
        response._content = b"{}"
        return response

    hook._single_attempt_client.meta.events.register("before-send.bedrock-runtime.StartAsyncInvoke", answer)
    with pytest.raises(AsyncInvokeError) as failure:
        start(hook)
    assert failure.value.meaning is Meaning.UNAVAILABLE
    assert sent == [f"{URL}/async-invoke"]


def test_the_list_is_read_page_by_page_a_thousand_at_a_time_oldest_first(hook):
    since = datetime(2026, 11, 23, tzinfo=UTC)
    expected = {
        "submitTimeAfter": since,
        "statusEquals": "InProgress",
        "sortBy": "SubmissionTime",
        "sortOrder": "Ascending",
        "maxResults": 1000,
    }
    summary = {
        "invocationArn": ARN,
        "modelArn": "arn:aws:bedrock:us-east-1::foundation-model/m",
        "submitTime": since,
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://work/x"}},
    }
    with Stubber(hook.conn) as stub:
        stub.add_response("list_async_invokes", {"nextToken": "next", "asyncInvokeSummaries": [summary]}, expected)
        stub.add_response(
            "list_async_invokes", {"asyncInvokeSummaries": [summary, summary]}, {**expected, "nextToken": "next"}
        )
        pages = list(hook.list_async_invokes(submitted_after=since, status="InProgress"))
    assert [len(page) for page in pages] == [1, 2]


def test_get_returns_what_bedrock_says(hook):
    with Stubber(hook.conn) as stub:
        stub.add_client_error("get_async_invoke", "ValidationException", "unknown", http_status_code=400)
        with pytest.raises(AsyncInvokeError) as failure:
            hook.get_async_invoke(ARN)
    assert (failure.value.meaning, failure.value.code) == (Meaning.REFUSED, "ValidationException")


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("ThrottlingException", Meaning.THROTTLED),
        ("ServiceQuotaExceededException", Meaning.THROTTLED),
        ("ValidationException", Meaning.REFUSED),
        ("AccessDeniedException", Meaning.REFUSED),
        ("ConflictException", Meaning.REFUSED),
        ("ResourceNotFoundException", Meaning.REFUSED),
        ("InternalServerException", Meaning.UNAVAILABLE),
        ("ServiceUnavailableException", Meaning.UNAVAILABLE),
        ("SomethingNewException", Meaning.UNAVAILABLE),
    ],
)
def test_what_an_answer_means_follows_from_its_code(hook, code, meaning):
    with Stubber(hook._single_attempt_client) as stub:
        stub.add_client_error("start_async_invoke", code, "in Bedrock's words")
        with pytest.raises(AsyncInvokeError) as failure:
            start(hook)
    error = failure.value
    assert (error.meaning, error.code, error.message) == (meaning, code, "in Bedrock's words")
    assert isinstance(error.__cause__, ClientError)


@pytest.mark.parametrize(
    "error",
    [
        ReadTimeoutError(endpoint_url=URL),
        ConnectTimeoutError(endpoint_url=URL),
        EndpointConnectionError(endpoint_url=URL),
        ConnectionResetError("reset by peer"),
    ],
)
def test_an_answer_that_did_not_come_means_that_nothing_is_known(error):
    explained = explain(error)
    assert (explained.meaning, explained.code) == (Meaning.UNAVAILABLE, type(error).__name__)


def test_what_botocore_itself_refuses_never_reached_bedrock():
    assert explain(ParamValidationError(report="too short")).meaning is Meaning.REFUSED
