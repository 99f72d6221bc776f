"""Many jobs and many calls at once, and S3 gone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from local_stack.ports import free_port
from local_stack.processes import wait_until
from tests.integration.bedrock_simulator.requests import marengo_27, start_request
from tests.integration.bedrock_simulator.server import Server

JOBS = 200


def test_hundreds_of_jobs_from_many_threads_are_each_charged_and_finished_once(new_server, s3):
    server = new_server().start(seconds_per_job=0.2, max_in_flight=JOBS)
    client = server.client(max_pool_connections=16)

    def start(number: int) -> str:
        model_input = marengo_27("image", "red.png" if number % 2 else "blue.jpg")
        request = start_request(model_input, uri=f"s3://media/load/{number}", clientRequestToken=f"load-{number}")
        # Each request twice: the second must find the first's job.
        first, second = (client.start_async_invoke(**request)["invocationArn"] for _ in range(2))
        assert first == second
        return first

    with ThreadPoolExecutor(16) as pool:
        arns = list(pool.map(start, range(JOBS)))
        wait_until(
            lambda: not client.list_async_invokes(statusEquals="InProgress", maxResults=1)["asyncInvokeSummaries"],
            seconds=60,
            what="no job was in progress",
        )
        pages = list(pool.map(lambda _: client.list_async_invokes(maxResults=1000), range(10)))

    for page in pages:
        summaries = page["asyncInvokeSummaries"]
        assert {summary["invocationArn"] for summary in summaries} == set(arns)
        assert {summary["status"] for summary in summaries} == {"Completed"}
        assert "nextToken" not in page
    charged = [charge["token"] for charge in server.admin.charges()]
    assert sorted(charged) == sorted(f"load-{number}" for number in range(JOBS))
    keys = {
        entry["Key"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket="media", Prefix="load/")
        for entry in page["Contents"]
    }
    for number, arn in enumerate(arns):
        assert f"load/{number}/{arn.rpartition('/')[2]}/output.json" in keys


def test_without_s3_a_start_is_an_internal_error_and_charges_nothing(tmp_path):
    environment = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    server = Server(tmp_path, environment).start()
    try:
        with pytest.raises(ClientError) as raised:
            server.client().start_async_invoke(**start_request({"inputType": "text", "inputText": "a"}))
        assert raised.value.response["Error"]["Code"] == "InternalServerException"
        assert server.admin.charges() == []
    finally:
        server.stop()
