from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from local_stack.processes import LocalStackError
from local_stack.stack import LocalStack

NAMES = {
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
}
INCLUDE = Path(__file__).resolve().parents[3] / "include"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    LocalStack(tmp_path).stop()


def command(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(INCLUDE), "LOCAL_STACK_DIRECTORY": str(directory)}
    return subprocess.run(
        [sys.executable, "-m", "local_stack", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def test_up_writes_what_an_aws_sdk_needs_and_down_stops_its_own_only(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with LocalStack(tmp_path_factory.mktemp("another")) as another:
        said = command(directory, "stack", "up").stdout
        stack = LocalStack(directory)
        sourced = subprocess.run(
            ["sh", "-c", f". {shlex.quote(str(stack.environment_path))} && env -0"],
            env={"AWS_PROFILE": "the person's own", "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        variables = dict(line.split("=", 1) for line in sourced.split("\0") if line)

        assert str(stack.environment_path) in said
        assert stat.S_IMODE(stack.environment_path.stat().st_mode) == 0o600
        assert {name: variables[name] for name in NAMES} == stack.environment
        assert "AWS_PROFILE" not in variables
        assert stack.environment["AWS_SECRET_ACCESS_KEY"] not in said

        command(directory, "stack", "down")

        assert not stack.seaweedfs.is_running
        assert not stack.environment_path.exists()
        assert another.is_running


def test_an_unmodified_sdk_reaches_both_through_the_environment(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = LocalStack(directory).start(simulator_settings={"seconds_per_job": 0.5})
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    session = boto3.session.Session()

    session.client("s3").create_bucket(Bucket="through-the-environment")

    assert session.client("bedrock-runtime").list_async_invokes()["asyncInvokeSummaries"] == []


def test_a_second_start_takes_what_runs_and_starts_what_does_not(directory: Path) -> None:
    stack = LocalStack(directory).start()
    s3, before = stack.seaweedfs.process.pid, stack.environment
    stack.simulator.process.kill()
    assert not stack.is_running

    again = LocalStack(directory).start()

    assert again.seaweedfs.process.pid == s3
    assert again.is_running
    assert again.environment == before


def test_the_simulator_refuses_a_setting_that_does_not_exist(directory: Path) -> None:
    with pytest.raises(LocalStackError, match="refused the settings"):
        LocalStack(directory).start(simulator_settings={"seconds_per_jub": 1})


def test_what_does_not_run_has_no_environment(directory: Path) -> None:
    with pytest.raises(LocalStackError, match="isn't running"):
        _ = LocalStack(directory).environment
