"""Every fault, as a client sees it; and what a restart forgets: nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError

from tests.integration.bedrock_simulator.requests import marengo_27, start_request
from tests.integration.bedrock_simulator.server import INCLUDE

IMAGE = marengo_27("image", "red.png")
VIDEO = marengo_27("video", "shots.mp4")


@pytest.fixture
def ended_with(server):
    """Run a job under a fault to its end."""

    def run(model_input: dict = VIDEO, **fault) -> dict:
        server.admin.faults(fault)
        return server.ended(server.client().start_async_invoke(**start_request(model_input))["invocationArn"])

    return run


@pytest.fixture
def raw_output(s3):
    """Read output.json of a finished job as it is."""

    def read(answer: dict) -> bytes:
        uri = answer["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]
        return s3.get_object(Bucket="media", Key=f"{uri.removeprefix('s3://media/')}/output.json")["Body"].read()

    return read


def test_an_output_may_be_missing(ended_with, raw_output):
    answer = ended_with(kind="output_missing")
    assert answer["status"] == "Completed"
    with pytest.raises(ClientError, match="NoSuchKey"):
        raw_output(answer)


@pytest.mark.parametrize("kind", ["output_truncated", "output_malformed"])
def test_an_output_may_be_no_json(ended_with, raw_output, kind):
    with pytest.raises(json.JSONDecodeError):
        json.loads(raw_output(ended_with(kind=kind)))


def test_an_output_may_have_another_shape(ended_with, raw_output):
    assert "data" not in json.loads(raw_output(ended_with(kind="output_without_data")))


def test_vectors_may_have_a_wrong_dimension(ended_with, read_output):
    assert {len(row["embedding"]) for row in read_output(ended_with(kind="wrong_dimension", dimension=512))} == {512}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_row_may_hold_what_is_no_number(ended_with, raw_output, value):
    content = raw_output(ended_with(kind="non_finite", value=value)).decode()
    assert content.count(value) == 1


def test_a_status_may_be_unknown(ended_with, server):
    assert ended_with(kind="unknown_status", status="Expired")["status"] == "Expired"
    assert server.client().list_async_invokes(maxResults=1)["asyncInvokeSummaries"][0]["status"] == "Expired"


def test_a_job_may_fail_with_a_message(ended_with):
    answer = ended_with(kind="failed", message="The content was blocked.")
    assert (answer["status"], answer["failureMessage"]) == ("Failed", "The content was blocked.")


def test_a_job_may_be_stuck(new_server):
    server = new_server().start(seconds_per_job=0)
    server.admin.faults({"kind": "stuck", "count": 1}, {"kind": "stuck", "seconds": 100, "after": 1, "count": 1})
    client = server.client()
    for_ever, longer = (client.start_async_invoke(**start_request(IMAGE))["invocationArn"] for _ in range(2))
    free = client.start_async_invoke(**start_request(IMAGE))["invocationArn"]
    assert server.ended(free)["status"] == "Completed"
    assert client.get_async_invoke(invocationArn=longer)["status"] == "InProgress"
    server.admin.advance_clock(101)
    assert server.ended(longer)["status"] == "Completed"
    assert client.get_async_invoke(invocationArn=for_ever)["status"] == "InProgress"
    assert server.admin.end_jobs() == 1
    assert server.ended(for_ever)["status"] == "Completed"


def test_a_fault_strikes_only_its_source(server):
    server.admin.faults({"kind": "failed", "source": "*.png"})
    client = server.client()
    image = client.start_async_invoke(**start_request(IMAGE))["invocationArn"]
    video = client.start_async_invoke(**start_request(VIDEO))["invocationArn"]
    assert server.ended(image)["status"] == "Failed"
    assert server.ended(video)["status"] == "Completed"


@pytest.mark.parametrize(
    ("code", "status"),
    [("ThrottlingException", 429), ("InternalServerException", 500), ("ServiceUnavailableException", 503)],
)
def test_an_operation_may_answer_with_an_error_so_many_times(server, code, status):
    server.admin.faults({"kind": "error", "operation": "ListAsyncInvokes", "code": code, "count": 2})
    client = server.client()
    for _ in range(2):
        with pytest.raises(ClientError) as raised:
            client.list_async_invokes()
        assert raised.value.response["Error"]["Code"] == code
        assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert client.list_async_invokes(maxResults=1)
    (standing,) = server.admin.faults()
    assert standing["struck"] == 2


def test_the_sdks_own_retries_see_the_faults(server):
    server.admin.faults({"kind": "error", "operation": "ListAsyncInvokes", "count": 2})
    before = server.admin.calls()["ListAsyncInvokes"].get("ThrottlingException", 0)
    client = server.client(retries={"mode": "standard", "total_max_attempts": 3})
    assert client.list_async_invokes(maxResults=1)["ResponseMetadata"]["RetryAttempts"] == 2
    assert server.admin.calls()["ListAsyncInvokes"]["ThrottlingException"] == before + 2


def test_a_response_may_be_lost_after_the_job_was_accepted(server):
    server.admin.faults({"kind": "lost_response", "operation": "StartAsyncInvoke", "count": 1})
    client = server.client()
    request = start_request(IMAGE, clientRequestToken="lost-response")
    with pytest.raises(ConnectionClosedError):
        client.start_async_invoke(**request)
    summaries = client.list_async_invokes()["asyncInvokeSummaries"]
    (arn,) = (each["invocationArn"] for each in summaries if each["clientRequestToken"] == "lost-response")
    assert client.start_async_invoke(**request)["invocationArn"] == arn
    assert [charge["token"] for charge in server.admin.charges()].count("lost-response") == 1


def test_a_connection_may_be_reset_before_anything_happens(server):
    server.admin.faults({"kind": "connection_reset", "operation": "StartAsyncInvoke", "count": 1})
    client = server.client()
    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        client.start_async_invoke(**start_request(IMAGE, clientRequestToken="reset"))
    assert "reset" not in [charge["token"] for charge in server.admin.charges()]


def test_an_answer_may_be_slow(server):
    server.admin.faults({"kind": "slow_response", "operation": "ListAsyncInvokes", "seconds": 5})
    client = server.client(read_timeout=1)
    with pytest.raises(HTTPClientError, match="Read timeout"):
        client.list_async_invokes()


def test_a_fault_that_does_not_exist_is_refused(server):
    with pytest.raises(ValueError, match="no fault 'surprise'"):
        server.admin.faults({"kind": "surprise"})
    with pytest.raises(ValueError, match="has no 'sources'"):
        server.admin.faults({"kind": "failed", "sources": "*"})
    with pytest.raises(ValueError, match="max_in_flights"):
        server.admin.settings(max_in_flights=3)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_forgets_nothing(new_server, how):
    server = new_server().start(seconds_per_job=3600)
    server.admin.faults({"kind": "failed", "source": "*blue*", "message": "As told before the restart."})
    client = server.client()
    request = start_request(VIDEO, clientRequestToken="before-the-restart")
    arn = client.start_async_invoke(**request)["invocationArn"]
    blue = client.start_async_invoke(**start_request(marengo_27("image", "blue.jpg")))["invocationArn"]
    getattr(server, how)()

    server.start()
    assert server.admin.settings()["seconds_per_job"] == 3600
    assert server.client().start_async_invoke(**request)["invocationArn"] == arn
    server.admin.advance_clock(3601)
    assert server.ended(arn)["status"] == "Completed"
    assert server.ended(blue)["failureMessage"] == "As told before the restart."
    assert len(server.admin.charges()) == 2
    assert server.admin.calls()["StartAsyncInvoke"][""] == 3
    assert server.admin.faults()[0]["struck"] == 1


def test_two_simulators_never_share_a_state_directory(server):
    state = server.directory / "state"
    second = subprocess.run(
        [sys.executable, "-m", "bedrock_simulator", "--state-directory", str(state)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(INCLUDE), "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"},
        check=False,
    )
    assert second.returncode == 2
    assert "another simulator uses it" in second.stderr


def test_a_simulator_without_an_s3_server_of_its_own_does_not_start(tmp_path):
    alone = subprocess.run(
        [sys.executable, "-m", "bedrock_simulator", "--state-directory", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(INCLUDE)},
        check=False,
    )
    assert alone.returncode == 2
    assert "AWS_ENDPOINT_URL_S3" in alone.stderr


def test_sigterm_ends_the_process_cleanly(new_server):
    import os
    import signal

    server = new_server().start()
    child = server.process._child
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(timeout=20) == 0
    assert not (server.directory / "state" / "address").exists()


@pytest.fixture
def fresh(new_server):
    """Give a simulator that has done nothing yet."""
    return new_server().start(seconds_per_job=0)


def test_rows_may_be_missing_overlap_or_say_nothing(ended_with, read_output):
    assert "audio" not in {
        row["embeddingOption"] for row in read_output(ended_with(kind="missing_option", option="audio"))
    }
    assert any(not any(row["embedding"]) for row in read_output(ended_with(kind="zero_vector")))

    def stretches(answer: dict) -> list[tuple[float, float]]:
        return sorted({(row["startSec"], row["endSec"]) for row in read_output(answer)})

    whole = stretches(ended_with(kind="slow_response", seconds=0))
    assert len(stretches(ended_with(kind="missing_segment"))) == len(whole) - 1
    overlapping = stretches(ended_with(kind="overlapping_segment"))
    assert any(start < end for (_, end), (start, _) in pairwise(overlapping))


def test_an_output_may_come_late_also_after_a_restart(new_server, s3):
    server = new_server().start(seconds_per_job=0)
    server.admin.faults({"kind": "output_late", "seconds": 3600})
    answer = server.ended(server.client().start_async_invoke(**start_request(IMAGE))["invocationArn"])
    key = answer["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"].removeprefix("s3://media/") + "/output.json"
    assert answer["status"] == "Completed"
    server.stop()
    server.start()
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket="media", Key=key)
    server.admin.advance_clock(3601)
    s3.get_waiter("object_exists").wait(Bucket="media", Key=key, WaiterConfig={"Delay": 1, "MaxAttempts": 30})


def test_a_call_may_get_no_answer_and_have_no_effect(fresh):
    fresh.admin.faults({"kind": "no_response", "seconds": 0.1, "operation": "StartAsyncInvoke"})
    with pytest.raises((HTTPClientError, ConnectionClosedError)):
        fresh.client().start_async_invoke(**start_request(IMAGE))
    assert fresh.admin.charges() == []


def test_a_token_may_be_forgotten_and_the_bill_shows_it(fresh):
    client, request = fresh.client(), start_request(IMAGE) | {"clientRequestToken": "token-1"}
    first = client.start_async_invoke(**request)["invocationArn"]
    assert client.start_async_invoke(**request)["invocationArn"] == first
    fresh.admin.faults({"kind": "token_forgotten"})
    assert client.start_async_invoke(**request)["invocationArn"] != first
    assert [charge["token"] for charge in fresh.admin.charges()] == ["token-1", "token-1"]


def test_one_job_may_show_late_in_lists_and_at_once_by_its_arn(fresh):
    client = fresh.client()
    fresh.admin.faults({"kind": "late_listing", "seconds": 60, "count": 1})
    late, other = (client.start_async_invoke(**start_request(IMAGE))["invocationArn"] for _ in range(2))

    def listed() -> set[str]:
        return {one["invocationArn"] for one in client.list_async_invokes()["asyncInvokeSummaries"]}

    assert listed() == {other}
    assert client.get_async_invoke(invocationArn=late)["invocationArn"] == late
    fresh.admin.advance_clock(61)
    assert listed() == {late, other}


def test_lists_may_show_a_status_of_before(fresh):
    client = fresh.client()
    fresh.admin.faults({"kind": "stale_status", "seconds": 60})
    arn = client.start_async_invoke(**start_request(IMAGE))["invocationArn"]
    assert fresh.ended(arn)["status"] == "Completed"
    [shown] = client.list_async_invokes()["asyncInvokeSummaries"]
    assert (shown["status"], "endTime" in shown) == ("InProgress", False)
    fresh.admin.advance_clock(61)
    assert client.list_async_invokes()["asyncInvokeSummaries"][0]["status"] == "Completed"


@pytest.mark.parametrize("order", ["Ascending", "Descending"])
def test_a_page_may_come_twice_and_the_list_ends_all_the_same(fresh, order):
    client = fresh.client()
    arns = {client.start_async_invoke(**start_request(IMAGE))["invocationArn"] for _ in range(5)}
    fresh.admin.faults({"kind": "duplicate_page", "count": 2})
    pages = client.get_paginator("list_async_invokes").paginate(sortOrder=order, PaginationConfig={"PageSize": 2})
    found = [one["invocationArn"] for page in pages for one in page["asyncInvokeSummaries"]]
    assert (len(found), set(found)) == (5 + 2 * 2, arns)


@pytest.mark.parametrize("code", ["ExpiredTokenException", "UnrecognizedClientException"])
def test_credentials_may_be_refused(fresh, code):
    fresh.admin.faults({"kind": "error", "code": code})
    with pytest.raises(ClientError) as refused:
        fresh.client().start_async_invoke(**start_request(IMAGE))
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_an_error_may_say_how_long_to_wait(fresh):
    fresh.admin.faults({"kind": "error", "code": "ThrottlingException", "retry_after": 7, "count": 1})
    with pytest.raises(ClientError) as refused:
        fresh.client().start_async_invoke(**start_request(IMAGE))
    assert refused.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"
