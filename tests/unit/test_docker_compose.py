"""docker-compose.yaml is what runs without Compose: the same commands, names and settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from local_stack import compose, seaweedfs
from local_stack.airflow import ARGUMENTS, ROLES, LocalAirflow

REPOSITORY = Path(__file__).resolve().parents[2]
SERVICE_OF = {
    "api-server": "apiserver",
    "scheduler": "scheduler",
    "dag-processor": "dag-processor",
    "triggerer": "triggerer",
}
LOCAL_SERVICES = {"seaweedfs", "bedrock-simulator", "sample-library"}


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text())
    return content


@pytest.fixture(scope="module")
def services(file: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = file["services"]
    return found


@pytest.fixture(scope="module")
def environment_file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("compose") / "compose.env"
    compose.write_environment_file(path)
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def options(command: list[str]) -> dict[str, str]:
    """Return ``-name=value`` options by name; what isn't an option stands under its own text."""
    return dict((part.lstrip("-").partition("=")[::2]) for part in command)


def test_it_follows_the_compose_specification(file: dict[str, Any]) -> None:
    schema = json.loads((REPOSITORY / "tests" / "schemas" / "compose-spec.json").read_text())

    jsonschema.Draft7Validator(schema).validate(file)


def test_the_schema_refuses_what_is_wrong(file: dict[str, Any]) -> None:
    schema = json.loads((REPOSITORY / "tests" / "schemas" / "compose-spec.json").read_text())
    wrong = {**file, "services": {"apiserver": {"image": "x", "comand": ["api-server"]}}}

    with pytest.raises(jsonschema.ValidationError, match="comand"):
        jsonschema.Draft7Validator(schema).validate(wrong)


@pytest.mark.parametrize("role", ROLES)
def test_a_part_of_airflow_has_the_command_that_is_run_without_compose(services: dict[str, Any], role: str) -> None:
    assert tuple(services[SERVICE_OF[role]]["command"]) == ARGUMENTS[role]  # type: ignore[index]


def test_the_settings_of_airflow_are_those_that_are_run_without_compose(
    services: dict[str, Any], tmp_path: Path
) -> None:
    """Apart from those that say where it runs, and those that are tuned for two cores."""
    airflow = LocalAirflow(tmp_path)
    airflow.prepare()
    there = services["scheduler"]["environment"]

    elsewhere = {"AIRFLOW__API__PORT", "AIRFLOW__API__BASE_URL", "AIRFLOW__API__HOST"}
    elsewhere |= {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"}
    secret = {"AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY"}
    airflow_settings = {name for name in there if name.startswith("AIRFLOW_")}
    for name in airflow_settings - elsewhere - secret:
        assert there[name] == airflow.environment[name], name


def test_every_part_calls_the_api_server_by_its_service_name_and_port(services: dict[str, Any]) -> None:
    environment = services["scheduler"]["environment"]

    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == (
        f"http://apiserver:{environment['AIRFLOW__API__PORT']}/execution/"
    )
    assert services["apiserver"]["ports"] == [f"127.0.0.1:8080:{environment['AIRFLOW__API__PORT']}"]


def test_all_parts_of_airflow_share_image_environment_and_logs(services: dict[str, Any]) -> None:
    parts = [services[name] for name in (*SERVICE_OF.values(), "airflow-init")]

    for shared in ("image", "build", "environment", "volumes"):
        assert all(part[shared] == parts[0][shared] for part in parts)


def test_seaweedfs_has_the_command_that_is_run_without_compose(services: dict[str, Any]) -> None:
    command = services["seaweedfs"]["command"]
    there = options(command)
    ports = {
        name: int(there[f"{server}.port{'.grpc' if name.endswith('.grpc') else ''}"])
        for server in seaweedfs.SERVERS
        for name in (server, f"{server}.grpc")
    }

    expected = seaweedfs.command_line(
        Path("weed"), Path(there["dir"]), Path(there["s3.config"]), ports, name="seaweedfs", bind="0.0.0.0"
    )

    assert there == options(expected[1:])
    assert len(set(ports.values())) == len(ports)
    assert services["seaweedfs"]["environment"]["GOMEMLIMIT"] == seaweedfs.MEMORY_LIMIT


def test_the_simulator_takes_the_options_of_its_command(services: dict[str, Any]) -> None:
    from bedrock_simulator.__main__ import parsed_arguments

    service = services["bedrock-simulator"]

    assert service["entrypoint"] == ["python", "-m", "bedrock_simulator"]
    assert parsed_arguments(service["command"]).port == int(compose.BEDROCK_URL.rpartition(":")[2])


def test_the_sample_library_is_uploaded_by_a_command_that_exists(services: dict[str, Any]) -> None:
    from local_stack.__main__ import COMMANDS

    assert tuple(services["sample-library"]["command"]) in COMMANDS


@pytest.mark.parametrize(
    ("url", "service"), [(compose.S3_URL, "seaweedfs"), (compose.BEDROCK_URL, "bedrock-simulator")]
)
def test_the_local_addresses_are_those_of_the_services(services: dict[str, Any], url: str, service: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")

    assert host == service
    assert services[service]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_only_the_local_profile_holds_what_stands_in_for_aws(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if service.get("profiles") == ["local"]} == LOCAL_SERVICES
    for name in set(services) - LOCAL_SERVICES:
        assert not LOCAL_SERVICES & set(services[name].get("depends_on", {})), name


def test_the_environment_file_names_every_variable_that_is_asked_for(
    file: dict[str, Any], environment_file: dict[str, str]
) -> None:
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)", json.dumps(file)))
    passed_on = {name for name, value in file["x-aws-environment"].items() if value is None}

    assert asked | passed_on - {"AWS_SESSION_TOKEN"} == set(environment_file)


def test_every_server_says_whether_it_is_healthy(services: dict[str, Any]) -> None:
    ends_by_itself = {name for name, service in services.items() if service.get("restart") == "no"}

    assert ends_by_itself == {"airflow-init", "sample-library"}
    assert all("healthcheck" in services[name] for name in set(services) - ends_by_itself)


def test_nothing_is_published_beyond_this_machine(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", ())]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_identities_are_those_that_are_written_without_compose(file: dict[str, Any], tmp_path: Path) -> None:
    content = file["configs"]["seaweedfs-identities"]["content"]
    filled = content.replace("${AWS_ACCESS_KEY_ID:-}", "key").replace("${AWS_SECRET_ACCESS_KEY:-}", "secret")

    assert json.loads(filled) == seaweedfs.identities("key", "secret")


def test_the_image_is_that_of_the_airflow_version_that_is_installed() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    required = re.search(r"^apache-airflow==(\S+)", (REPOSITORY / "requirements.in").read_text(), re.MULTILINE)

    assert required is not None
    assert f"FROM apache/airflow:{required[1]}-python3.11" in dockerfile


def test_the_image_holds_all_that_dockerignore_lets_through() -> None:
    let_through = {
        line.removeprefix("!") for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    copied = set(re.findall(r"^COPY (?:--\S+ )?(\S+)", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE))

    assert copied == let_through
