from __future__ import annotations

import os
import tempfile

# Airflow reads its home when it is imported, so this comes before anything that imports it.
_HOME = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = _HOME.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

import pytest  # noqa: E402

from bedrock_async_invoke import (  # noqa: E402
    attempts,
    batch,
    invoke_operators,
    lease,
    operators,
    sensors,
    shared_list,
    submitter,
    tickets,
    triggers,
    watcher,
)
from tests.unit.bedrock_async_invoke.fake_aws import Clock, FakeBedrock, FakeClients  # noqa: E402


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Give a clock that goes on only when somebody sleeps."""
    clock = Clock()
    # Calls one after the other, so that their order can be told.
    monkeypatch.setattr(submitter, "CALLS_AT_ONCE", 1)
    for module in (attempts, batch, lease, shared_list, submitter, tickets, watcher, operators, sensors):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def bedrock(clock) -> FakeBedrock:
    return FakeBedrock(clock)


@pytest.fixture
def clients(bedrock, monkeypatch) -> FakeClients:
    clients = FakeClients(bedrock)
    for module in (invoke_operators, operators, sensors, triggers):
        monkeypatch.setattr(module, "shared_clients", lambda parameters: clients.reached_with(parameters))
    return clients
