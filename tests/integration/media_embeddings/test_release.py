"""The command line, as people call it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from media_embeddings.planning import Status
from tests.integration.media_embeddings.conftest import picture, starts


@pytest.fixture
def command(pipeline, tmp_path):
    """Run ``python -m media_embeddings`` over the library, and return its output."""

    def command(*arguments: str, exit_code: int = 0) -> str:
        settings = pipeline.library.model_dump(mode="json", exclude={"name"}, exclude_none=True)
        path = tmp_path / "libraries.yaml"
        path.write_text(yaml.safe_dump({"libraries": {"films": settings}}))
        answer = subprocess.run(
            [sys.executable, "-m", "media_embeddings", *arguments],
            env={**os.environ, "MEDIA_EMBEDDINGS_CONFIG": str(path), "PYTHONPATH": "include"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert answer.returncode == exit_code, answer.stderr
        return answer.stdout + answer.stderr

    return command


@pytest.fixture
def with_failures(pipeline, simulator):
    pipeline.configure(max_attempts=1)
    pipeline.put("good.png", picture("green"))
    pipeline.put("bad.png", picture("blue"))
    pipeline.put("empty.png", b"")
    simulator.faults({"kind": "output_truncated", "source": "*bad.png"})
    pipeline.run()
    pipeline.run()
    simulator.clear_faults()
    return pipeline


def test_what_was_not_embedded_is_listed_with_status_reason_and_attempts(with_failures, command):
    lines = command("failed", "--library", "films").splitlines()
    assert lines[-1] == "2 objects"
    assert lines[0].startswith(f"{with_failures.uri('bad.png')}\tquarantined\toutput_invalid\tattempts 1\t")
    assert lines[1].startswith(f"{with_failures.uri('empty.png')}\trejected\tempty_object\t")
    only = command("failed", "--library", "films", "--status", "rejected")
    assert "bad.png" not in only


def test_a_released_object_is_embedded_by_the_next_run_under_a_new_attempt(with_failures, command, simulator):
    count = starts(simulator)
    assert "1 objects released" in command("release", "--library", "films", f"{with_failures.uri('')}*")
    assert with_failures.ledger()["bad.png"]["reason_code"] == "released"

    report = with_failures.run()

    assert (report.balanced, report.totals[Status.EMBEDDED], report.totals[Status.REJECTED]) == (True, 1, 1)
    assert with_failures.ledger()["bad.png"]["attempts"] == 2
    assert starts(simulator) == count + 1
    assert "0 objects released" in command("release", "--library", "films", "s3://*")


def test_a_library_that_there_is_not_is_named(command):
    assert "there is no library 'other'" in command("failed", "--library", "other", exit_code=2)
