"""The proxy of the crash tests in front of the real S3 server and the simulator."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import boto3
import httpx
import numpy as np
import pyarrow as pa
import pytest
from botocore.config import Config
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.exceptions import HTTPClientError
from deltalake import DeltaTable, write_deltalake

from tests.crash.breakpoint_proxy import Breakpoint, BreakpointProxy, Hit, Then, When

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from local_stack.stack import LocalStack

ONCE = {"total_max_attempts": 1}
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def proxy(stack: LocalStack) -> Iterator[BreakpointProxy]:
    services = {"s3": stack.seaweedfs.endpoint_url, "bedrock": stack.simulator.endpoint_url}
    with BreakpointProxy(services) as running:
        yield running


@pytest.fixture(autouse=True)
def disarmed(proxy: BreakpointProxy) -> Iterator[None]:
    yield
    proxy.disarm()


@pytest.fixture
def client(proxy: BreakpointProxy) -> S3Client:
    config = Config(s3={"addressing_style": "path"}, retries=ONCE, proxies={})  # type: ignore[arg-type]
    return boto3.client("s3", endpoint_url=proxy.url("s3"), config=config)


@pytest.fixture
def bucket(stack: LocalStack) -> str:
    name = f"proxied-{uuid.uuid4().hex[:12]}"
    stack.seaweedfs.create_buckets(name)
    return name


def go_on(hit: Hit) -> Then:
    return Then.GO_ON


def drop(hit: Hit) -> Then:
    return Then.DROP


@pytest.mark.parametrize("key", ["plain.txt", "a b+c&d=é/~'.txt", "a%2Fb?c#d"])
def test_objects_go_through_unchanged_whatever_their_keys(client: S3Client, bucket: str, key: str) -> None:
    client.put_object(Bucket=bucket, Key=key, Body=b"content")

    assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"content"
    assert client.head_object(Bucket=bucket, Key=key)["ContentLength"] == 7
    assert [one["Key"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    client.delete_object(Bucket=bucket, Key=key)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_long_bodies_go_through_whole_and_in_parts(client: S3Client, bucket: str) -> None:
    content = np.random.default_rng(1).bytes(12 * MEBIBYTE)

    client.put_object(Bucket=bucket, Key="whole", Body=content)
    upload = client.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": client.upload_part(
                Bucket=bucket,
                Key="parts",
                UploadId=upload,
                PartNumber=number,
                Body=content[start : start + 6 * MEBIBYTE],
            )["ETag"],
        }
        for number, start in ((1, 0), (2, 6 * MEBIBYTE))
    ]
    client.complete_multipart_upload(
        Bucket=bucket,
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
    )

    for key in ("whole", "parts"):
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == content


def test_a_body_of_unknown_length_goes_through_in_chunks(client: S3Client, proxy: BreakpointProxy, bucket: str) -> None:
    url = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "chunks"})
    pieces = [bytes([number]) * 50_000 for number in range(20)]

    httpx.put(url, content=iter(pieces), trust_env=False).raise_for_status()

    assert client.get_object(Bucket=bucket, Key="chunks")["Body"].read() == b"".join(pieces)


def test_an_answer_that_refuses_reaches_its_caller(client: S3Client, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="once", Body=b"1", IfNoneMatch="*")

    with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="once", Body=b"2", IfNoneMatch="*")
    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket=bucket, Key="absent")


def test_a_table_is_written_and_read(proxy: BreakpointProxy, bucket: str) -> None:
    options = {"AWS_ENDPOINT_URL_S3": proxy.url("s3"), "AWS_ALLOW_HTTP": "true"}
    uri = f"s3://{bucket}/table"
    rows = pa.table({"n": pa.array(range(200_000), pa.int64()), "x": np.random.default_rng(2).random(200_000)})

    for mode in ("append", "append", "overwrite"):
        write_deltalake(uri, rows, mode=mode, storage_options=options)

    table = DeltaTable(uri, storage_options=options)
    assert table.version() == 2
    assert table.to_pyarrow_dataset().to_table().equals(rows)


def test_calls_of_bedrock_go_through(proxy: BreakpointProxy) -> None:
    client = boto3.client("bedrock-runtime", endpoint_url=proxy.url("bedrock"), config=Config(proxies={}))

    assert client.list_async_invokes(maxResults=1)["asyncInvokeSummaries"] is not None


def test_a_call_that_is_stopped_before_it_is_forwarded_never_happens(
    client: S3Client, proxy: BreakpointProxy, bucket: str
) -> None:
    armed = proxy.arm(Breakpoint("s3", "PUT", r"/stopped-\d$", When.BEFORE, nth=2), drop)

    client.put_object(Bucket=bucket, Key="stopped-1", Body=b"1")
    client.put_object(Bucket=bucket, Key="other", Body=b"1")
    with pytest.raises((BotoConnectionError, HTTPClientError)):
        client.put_object(Bucket=bucket, Key="stopped-2", Body=b"2")

    assert armed.wait(5) == Hit("s3", "PUT", f"/{bucket}/stopped-2", os.getpid())
    assert {one["Key"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]} == {"stopped-1", "other"}


def test_a_call_that_is_stopped_after_it_was_answered_has_happened_and_its_caller_does_not_know(
    client: S3Client, proxy: BreakpointProxy, bucket: str
) -> None:
    armed = proxy.arm(Breakpoint("s3", "PUT", "/lost$", When.AFTER), drop)

    with pytest.raises((BotoConnectionError, HTTPClientError)):
        client.put_object(Bucket=bucket, Key="lost", Body=b"1")

    assert armed.is_hit
    assert client.get_object(Bucket=bucket, Key="lost")["Body"].read() == b"1"


def test_what_was_refused_does_not_count_as_answered(client: S3Client, proxy: BreakpointProxy, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="there", Body=b"1")
    armed = proxy.arm(Breakpoint("s3", "PUT", "/(there|new)$", When.AFTER), go_on)

    with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="there", Body=b"2", IfNoneMatch="*")
    assert not armed.is_hit
    client.put_object(Bucket=bucket, Key="new", Body=b"2")

    assert armed.wait(5).path.endswith("/new")


@pytest.mark.parametrize("when", When)
def test_a_breakpoint_is_hit_once_however_many_calls_match(
    client: S3Client, proxy: BreakpointProxy, bucket: str, when: When
) -> None:
    hits: list[Hit] = []

    def note(hit: Hit) -> Then:
        hits.append(hit)
        return Then.GO_ON

    proxy.arm(Breakpoint("s3", "PUT", "/many-", when, nth=3), note)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.put_object(Bucket=bucket, Key=f"many-{n}", Body=b"1"), range(20)))

    assert len(hits) == 1
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 20


def test_other_calls_go_on_while_one_is_stopped(client: S3Client, proxy: BreakpointProxy, bucket: str) -> None:
    released = threading.Event()

    def hold(hit: Hit) -> Then:
        assert released.wait(30)
        return Then.GO_ON

    armed = proxy.arm(Breakpoint("s3", "PUT", "/held$", When.BEFORE), hold)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(client.put_object, Bucket=bucket, Key="held", Body=b"1")
        client.put_object(Bucket=bucket, Key="free", Body=b"1")
        assert not held.done()
        released.set()
        assert held.result(30)["ETag"]

    assert armed.wait(5).path.endswith("/held")


def test_an_action_that_fails_is_told_to_whoever_waits(client: S3Client, proxy: BreakpointProxy, bucket: str) -> None:
    def fail(hit: Hit) -> Then:
        raise ProcessLookupError("there is nobody to kill")

    armed = proxy.arm(Breakpoint("s3", "PUT", "/x$", When.BEFORE), fail)
    client.put_object(Bucket=bucket, Key="x", Body=b"1")

    with pytest.raises(ProcessLookupError, match="nobody to kill"):
        armed.wait(5)


CALLS = """
import sys, urllib.request
print("ready", flush=True)
for line in sys.stdin:
    try:
        urllib.request.urlopen(line.strip()).read()
        print("answered", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


def test_the_caller_is_known_and_only_the_calls_of_those_wanted_count(
    client: S3Client, proxy: BreakpointProxy, bucket: str
) -> None:
    client.put_object(Bucket=bucket, Key="read", Body=b"1")
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "read"})
    with subprocess.Popen(
        [sys.executable, "-c", CALLS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        is_other = process.pid.__eq__
        armed = proxy.arm(Breakpoint("s3", "GET", "/read", When.BEFORE, made_by=is_other), drop)

        assert client.get_object(Bucket=bucket, Key="read")["Body"].read() == b"1"
        assert not armed.is_hit
        print(url, file=process.stdin, flush=True)

        assert armed.wait(10).pid == process.pid
        assert process.stdout.readline() in {"RemoteDisconnected\n", "ConnectionResetError\n", "URLError\n"}
        process.stdin.close()


def test_a_caller_that_is_killed_in_the_middle_of_its_body_leaves_nothing(
    client: S3Client, proxy: BreakpointProxy, bucket: str
) -> None:
    url = httpx.URL(client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "half"}))
    path = url.raw_path.decode()
    code = f"""
import socket, time
connection = socket.create_connection(("127.0.0.1", {url.port}))
connection.sendall(b"PUT {path} HTTP/1.1\\r\\nHost: 127.0.0.1:{url.port}\\r\\nContent-Length: 1000\\r\\n\\r\\n" + b"x" * 500)
time.sleep(60)
"""
    reached = proxy.arm(Breakpoint("s3", "PUT", "/half", When.BEFORE), go_on)
    process = subprocess.Popen([sys.executable, "-c", code])
    reached.wait(10)
    process.kill()
    process.wait(10)

    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket=bucket, Key="half")
    client.put_object(Bucket=bucket, Key="half", Body=b"all")
    assert client.get_object(Bucket=bucket, Key="half")["Body"].read() == b"all"


def test_the_last_calls_can_be_shown(client: S3Client, proxy: BreakpointProxy, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="shown", Body=b"1")

    assert f"s3 PUT /{bucket}/shown 200" in proxy.last_calls
