from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from local_stack.demo import upload_sample_library
from local_stack.sample_library import BUCKET, PREFIX, SAMPLE_OBJECTS, SampleLibrary, Upload
from local_stack.seaweedfs import SeaweedFS

KEY = 'library/ä+b/100% "quoted" 寺.txt'


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs"), "key", "secret") as seaweedfs:
        seaweedfs.create_buckets("media", "tables")
        yield seaweedfs


def read(seaweedfs: SeaweedFS, key: str) -> bytes:
    return seaweedfs.client().get_object(Bucket="media", Key=key)["Body"].read()


@pytest.mark.parametrize("ending", ["stopped", "killed"])
def test_data_and_address_outlive_the_server(seaweedfs: SeaweedFS, ending: str) -> None:
    # Longer than what is kept beside the name, so that it lies in a volume.
    content = ending.encode() * 50_000
    address = seaweedfs.endpoint_url
    seaweedfs.client().put_object(Bucket="media", Key=KEY, Body=content)

    if ending == "killed":
        seaweedfs.process.kill()
    else:
        seaweedfs.stop()
    assert not seaweedfs.is_running
    seaweedfs.start()

    assert read(seaweedfs, KEY) == content
    assert seaweedfs.endpoint_url == address


def test_a_second_start_takes_the_server_that_runs(seaweedfs: SeaweedFS) -> None:
    pid = seaweedfs.process.pid

    SeaweedFS(seaweedfs.directory, "key", "secret").start()

    assert seaweedfs.process.pid == pid


def test_an_object_that_exists_is_not_put_again_on_condition(seaweedfs: SeaweedFS) -> None:
    client = seaweedfs.client()
    client.put_object(Bucket="media", Key="once", Body=b"first", IfNoneMatch="*")

    with pytest.raises(ClientError) as error:
        client.put_object(Bucket="media", Key="once", Body=b"second", IfNoneMatch="*")

    assert error.value.response["Error"]["Code"] == "PreconditionFailed"
    assert read(seaweedfs, "once") == b"first"


def test_an_object_is_replaced_only_by_who_has_seen_it(seaweedfs: SeaweedFS) -> None:
    client = seaweedfs.client()
    seen = client.put_object(Bucket="media", Key="seen", Body=b"first")["ETag"]
    client.put_object(Bucket="media", Key="seen", Body=b"second", IfMatch=seen)

    with pytest.raises(ClientError) as error:
        client.put_object(Bucket="media", Key="seen", Body=b"third", IfMatch=seen)

    assert error.value.response["Error"]["Code"] == "PreconditionFailed"
    assert read(seaweedfs, "seen") == b"second"


def test_nobody_else_is_let_in(seaweedfs: SeaweedFS) -> None:
    stranger = SeaweedFS(seaweedfs.directory, "key", "guessed").client()

    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.list_buckets()


def test_a_bucket_that_does_not_exist_is_not_created_by_a_put(seaweedfs: SeaweedFS) -> None:
    with pytest.raises(ClientError, match="NoSuchBucket"):
        seaweedfs.client().put_object(Bucket="misspelt", Key="x", Body=b"")


def test_every_server_listens_on_this_machine_only(seaweedfs: SeaweedFS) -> None:
    listening = [
        connection.laddr
        for process in seaweedfs.process.processes()
        for connection in process.net_connections("inet")
        if connection.status == "LISTEN"
    ]

    assert listening
    assert {address.ip for address in listening} == {"127.0.0.1"}
    record = seaweedfs.process.record
    assert record is not None
    assert {address.port for address in listening} <= set(record.details["ports"].values())


def test_the_secret_key_stands_in_no_log(seaweedfs: SeaweedFS) -> None:
    secret = "a-secret-that-is-nowhere-else"
    client = SeaweedFS(seaweedfs.directory, "key", secret).client()
    with pytest.raises(ClientError):
        client.list_buckets()

    assert secret not in seaweedfs.process.log_path.read_text()
    assert secret not in seaweedfs.process.record_path.read_text()


def test_stopping_leaves_no_socket_behind(tmp_path: Path) -> None:
    seaweedfs = SeaweedFS(tmp_path, "key", "secret").start()
    record = seaweedfs.process.record
    assert record is not None

    seaweedfs.stop()

    ports = record.details["ports"].values()
    assert not [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]


def test_the_sample_library_is_uploaded_once_and_only_what_differs_again(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    client = seaweedfs.client()

    assert upload_sample_library(client, tmp_path) == Upload(len(SAMPLE_OBJECTS), 0)
    assert upload_sample_library(client, tmp_path) == Upload(0, len(SAMPLE_OBJECTS))

    client.put_object(Bucket=BUCKET, Key=PREFIX + SAMPLE_OBJECTS[0].key, Body=b"replaced by somebody")
    client.put_object(Bucket=BUCKET, Key=PREFIX + "somebody's own.txt", Body=b"stays")
    library = SampleLibrary(tmp_path / "sample-library")

    assert library.upload(client) == Upload(1, len(SAMPLE_OBJECTS) - 1)
    assert client.get_object(Bucket=BUCKET, Key=PREFIX + "somebody's own.txt")["Body"].read() == b"stays"
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=PREFIX)["Contents"]
    assert {found["Key"].removeprefix(PREFIX) for found in listed} >= {sample.key for sample in SAMPLE_OBJECTS}
