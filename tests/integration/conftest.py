"""A real S3 server and the Bedrock simulator, as processes of their own, for all integration tests."""

from __future__ import annotations

import os

import pytest

from bedrock_simulator.admin import SimulatorAdmin
from local_stack.processes import wait_until
from local_stack.stack import LocalStack


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    with LocalStack(tmp_path_factory.mktemp("stack")).start(simulator_settings={"seconds_per_job": 0.0}) as running:
        before = dict(os.environ)
        os.environ.update(running.environment)
        yield running
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def simulator(stack):
    """Give the simulator's administration; settings and faults are as at the start afterwards, and nothing is in progress."""
    admin = SimulatorAdmin(stack.simulator.endpoint_url)
    settings = admin.settings()
    yield admin
    admin.clear_faults()
    admin.settings(**settings)
    let_jobs_end(admin)


def let_jobs_end(simulator: SimulatorAdmin) -> int:
    """Let the jobs end that are stuck, and those that have yet to begin, wait until all have; return how many it told to."""
    told = 0

    def ended() -> bool:
        nonlocal told
        told += simulator.end_jobs()
        return not simulator.health()["jobs"].get("InProgress")

    wait_until(ended, seconds=60, what="every job had ended")
    return told
