from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from local_stack.airflow import ARGUMENTS, ROLES, LocalAirflow
from local_stack.ports import is_free


@pytest.fixture
def airflow(tmp_path: Path) -> LocalAirflow:
    airflow = LocalAirflow(tmp_path / "airflow", environment={"AIRFLOW__CORE__PARALLELISM": "2"})
    airflow.prepare()
    return airflow


def test_everything_that_calls_the_api_server_is_told_the_same_free_port(airflow: LocalAirflow) -> None:
    environment = airflow.environment
    port = int(environment["AIRFLOW__API__PORT"])

    assert is_free(port)
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert environment["AIRFLOW__API__BASE_URL"] == airflow.url == f"http://127.0.0.1:{port}"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"{airflow.url}/execution/"


def test_include_is_importable_in_every_process(airflow: LocalAirflow) -> None:
    assert (Path(airflow.environment["PYTHONPATH"]) / "media_embeddings").is_dir()


def test_what_is_asked_for_comes_before_the_settings_made_here(airflow: LocalAirflow) -> None:
    assert airflow.environment["AIRFLOW__CORE__PARALLELISM"] == "2"


@pytest.mark.parametrize("name", ["AIRFLOW__CORE__EXECUTOR", "AWS_PROFILE", "AWS_SESSION_TOKEN", "PYTHONPATH"])
def test_settings_of_the_person_who_starts_it_do_not_leak_in(
    airflow: LocalAirflow, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "the person's own")

    assert airflow.environment.get(name) != "the person's own"


def test_port_password_and_secrets_outlive_a_command(airflow: LocalAirflow) -> None:
    again = LocalAirflow(airflow.home, environment={"AIRFLOW__CORE__PARALLELISM": "2"})
    again.prepare()

    assert again.environment == airflow.environment
    assert again.password == airflow.password


@pytest.mark.parametrize("name", ["passwords.json", "secrets.json"])
def test_secrets_are_readable_by_their_owner_only(airflow: LocalAirflow, name: str) -> None:
    assert stat.S_IMODE((airflow.home / name).stat().st_mode) == 0o600


def test_secrets_are_long_enough_for_the_signatures_made_with_them(airflow: LocalAirflow) -> None:
    """RFC 7518, section 3.2: HS512 wants 64 bytes."""
    secrets = json.loads((airflow.home / "secrets.json").read_text())

    assert all(len(secret) >= 64 for secret in secrets.values())
    assert len(set(secrets.values())) == len(secrets)


def test_no_part_serves_its_logs_to_the_network() -> None:
    assert set(ARGUMENTS) == {*ROLES, "second-triggerer"}
    assert {role for role in ARGUMENTS if "--skip-serve-logs" in ARGUMENTS[role]} == {
        *("scheduler", "triggerer", "second-triggerer"),
    }
