from __future__ import annotations

import itertools
import json

import pytest

from local_stack.seaweedfs import SeaweedFS
from tests.integration.bedrock_simulator import media_files
from tests.integration.bedrock_simulator.server import Server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory):
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs"), "test", "test-secret") as server:
        server.create_buckets("media", "elsewhere")
        yield server


@pytest.fixture(scope="session")
def s3(seaweedfs):
    client = seaweedfs.client()
    shots = [(media_files.RED, 5), (media_files.GREEN, 5), (media_files.BLUE, 6)]
    for key, content in {
        "shots.mp4": media_files.video(shots),
        "silent.mp4": media_files.video(shots, with_sound=False),
        "50 seconds.wav": media_files.audio(50),
        "16-seconds.flac": media_files.audio(16, "flac"),
        "red.png": media_files.image(media_files.RED),
        "blue.jpg": media_files.image(media_files.BLUE, "JPEG"),
        "broken.mp4": media_files.video(shots)[:3000],
        "not-a-video.mp4": b"This is no video. " * 200,
        "empty.mp4": b"",
        "story.txt": media_files.STORY.encode(),
    }.items():
        client.put_object(Bucket="media", Key=key, Body=content)
    return client


@pytest.fixture(scope="session")
def shared_server(seaweedfs, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("simulator"), seaweedfs.environment)
    server.start(seconds_per_job=0)
    yield server
    server.stop()


@pytest.fixture
def server(shared_server, s3):
    """Give a simulator with the default settings, except that jobs take no time, and without faults."""
    defaults = shared_server.admin.settings()
    yield shared_server
    shared_server.admin.clear_faults()
    shared_server.admin.settings(**defaults)


@pytest.fixture
def new_server(seaweedfs, s3, tmp_path):
    """Make simulators of one's own."""
    numbers = itertools.count()
    servers: list[Server] = []

    def make(region: str = "us-east-1") -> Server:
        servers.append(Server(tmp_path / f"simulator-{next(numbers)}", seaweedfs.environment, region))
        return servers[-1]

    yield make
    for each in servers:
        each.stop()


@pytest.fixture
def read_output(s3):
    """Read output.json of a finished job."""

    def read(answer: dict) -> list[dict]:
        uri = answer["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        return json.loads(s3.get_object(Bucket=bucket, Key=f"{prefix}/output.json")["Body"].read())["data"]

    return read


@pytest.fixture(scope="module")
def regional_servers(seaweedfs, tmp_path_factory):
    """Return the simulator of a region."""
    servers: dict[str, Server] = {}

    def server_of(region: str) -> Server:
        if region not in servers:
            directory = tmp_path_factory.mktemp(region)
            servers[region] = Server(directory, seaweedfs.environment, region).start(seconds_per_job=0)
        return servers[region]

    yield server_of
    for each in servers.values():
        each.stop()
