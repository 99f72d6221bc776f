from __future__ import annotations

import pytest
from aiohttp import ClientConnectorError
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from bedrock_async_invoke.errors import Meaning, explain


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("ThrottlingException", Meaning.THROTTLED),
        ("ServiceQuotaExceededException", Meaning.THROTTLED),
        ("TooManyRequestsException", Meaning.THROTTLED),
        ("ValidationException", Meaning.REFUSED),
        ("AccessDeniedException", Meaning.REFUSED),
        ("ConflictException", Meaning.REFUSED),
        ("ResourceNotFoundException", Meaning.REFUSED),
        ("InternalServerException", Meaning.UNAVAILABLE),
        ("ServiceUnavailableException", Meaning.UNAVAILABLE),
        ("ExpiredTokenException", Meaning.UNAUTHENTICATED),
        ("AnErrorOfTomorrow", Meaning.UNAVAILABLE),
    ],
)
def test_an_error_of_aws_means_what_its_code_says(code, meaning):
    found = explain(ClientError({"Error": {"Code": code, "Message": "why"}}, "StartAsyncInvoke"))

    assert (found.meaning, found.code, found.message) == (meaning, code, "why")


@pytest.mark.parametrize(
    "error",
    [
        ReadTimeoutError(endpoint_url="https://bedrock"),
        ConnectTimeoutError(endpoint_url="https://bedrock"),
        EndpointConnectionError(endpoint_url="https://bedrock"),
        OSError("connection reset"),
    ],
)
def test_without_an_answer_nothing_is_known_of_the_request(error):
    assert explain(error).meaning is Meaning.UNAVAILABLE


def test_a_request_that_botocore_itself_does_not_send_is_refused():
    assert explain(ParamValidationError(report="modelInput is missing")).meaning is Meaning.REFUSED


def test_an_error_without_a_body_is_explained_all_the_same():
    assert explain(ClientError({}, "StartAsyncInvoke")).meaning is Meaning.UNAVAILABLE


def test_missing_credentials_are_no_requests_fault_and_nothing_has_happened():
    assert explain(NoCredentialsError()).meaning is Meaning.UNAUTHENTICATED


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("Fri, 31 Dec 2027", None)])
def test_the_time_that_the_service_asks_to_wait_is_kept(header, seconds):
    answer = {
        "Error": {"Code": "ThrottlingException", "Message": "slow down"},
        "ResponseMetadata": {"HTTPHeaders": {"retry-after": header}},
    }
    assert explain(ClientError(answer, "StartAsyncInvoke")).retry_after == seconds


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (EndpointConnectionError(endpoint_url="https://bedrock", error=ConnectionResetError("reset")), True),
        (
            EndpointConnectionError(
                endpoint_url="https://bedrock", error=ClientConnectorError(None, OSError("refused"))
            ),
            False,
        ),
        (ConnectTimeoutError(endpoint_url="https://bedrock"), False),
        (ReadTimeoutError(endpoint_url="https://bedrock"), True),
        (TimeoutError(), True),
    ],
)
def test_a_call_that_cannot_have_been_sent_is_told_from_one_whose_answer_was_lost(error, is_lost):
    explained = explain(error)
    assert (explained.meaning, explained.is_lost) == (Meaning.UNAVAILABLE, is_lost)
