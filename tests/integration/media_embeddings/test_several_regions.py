"""Two libraries in two regions: each has an S3 server and a Bedrock of its own, and an Airflow connection that names them."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from bedrock_simulator.admin import SimulatorAdmin
from local_stack.processes import wait_until
from local_stack.stack import LocalStack
from media_embeddings.__main__ import main
from media_embeddings.configuration import load_configuration
from media_embeddings.library import Library
from media_embeddings.planning import Status
from media_embeddings.search.access import Access
from media_embeddings.search.queries import LikeQuery, TextQuery
from media_embeddings.search.scanning import TableUnreachableError
from media_embeddings.search.searching import search
from media_embeddings.storage import Storage
from tests.integration.conftest import let_jobs_end
from tests.integration.media_embeddings.conftest import Pipeline, end_all_jobs, film, picture

WINDOWS = {"films_us": 2, "films_eu": 3}
JOB_SECONDS = 2.0


@dataclass
class Region:
    """A library with the stack of its region."""

    stack: LocalStack
    pipeline: Pipeline
    simulator: SimulatorAdmin
    since: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(seconds=1))

    @property
    def library(self) -> Library:
        return self.pipeline.library

    def in_progress(self) -> int:
        return sum(job["status"] == "InProgress" for job in self._jobs())

    def _jobs(self) -> list[dict[str, Any]]:
        """Return this test's invocations, as Bedrock's own list has them; others share the region's simulator."""
        client = bedrock(self.library)
        return client.list_async_invokes(submitTimeAfter=self.since, maxResults=1000)["asyncInvokeSummaries"]

    def most_at_once(self) -> int:
        """Return how many of this test's invocations were in progress at once."""
        jobs = self._jobs()
        # Of an end and a beginning in the same moment the end comes first.
        steps = sorted((job["submitTime"], 1) for job in jobs) + sorted((job["endTime"], -1) for job in jobs)
        most = current = 0
        for _, step in sorted(steps):
            current += step
            most = max(most, current)
        return most


def connection(stack: LocalStack, region: str) -> str:
    """Return an Airflow connection to a region, as docs/configuration.md shows it for local servers."""
    extra = {
        "region_name": region,
        "service_config": {
            "s3": {"endpoint_url": stack.seaweedfs.endpoint_url},
            "bedrock-runtime": {"endpoint_url": stack.simulator.endpoint_url},
        },
    }
    return json.dumps(
        {
            "conn_type": "aws",
            "login": stack.seaweedfs.access_key,
            "password": stack.seaweedfs.secret_key,
            "extra": extra,
        }
    )


def storage(library: Library) -> Storage:
    hook = S3Hook(aws_conn_id=library.aws_conn_id, region_name=library.region)
    return Storage.of_session(hook.get_session(), hook.get_conn())


def bedrock(library: Library):
    hook = AwsBaseHook(aws_conn_id=library.aws_conn_id, region_name=library.region, client_type="bedrock-runtime")
    return hook.get_conn()


def access(library: Library) -> Access:
    return Access(storage(library), lambda: bedrock(library))


@pytest.fixture(scope="module")
def stacks(stack, tmp_path_factory):
    """Return the stack of each region: that of all integration tests stands for us-east-1."""
    europe = LocalStack(tmp_path_factory.mktemp("europe"), region="eu-west-1")
    with europe.start(simulator_settings={"seconds_per_job": 0.0}):
        yield {"films_us": stack, "films_eu": europe}


@pytest.fixture
def regions(stacks, monkeypatch, tmp_path):
    """Return the two libraries of one configuration, with buckets of their own."""
    name = uuid.uuid4().hex[:12]
    settings = {}
    for library, stack in stacks.items():
        place = f"{library[-2:]}-{name}"
        stack.seaweedfs.create_buckets(f"media-{place}", f"vectors-{place}")
        monkeypatch.setenv(f"AIRFLOW_CONN_AWS_{library[-2:].upper()}", connection(stack, stack.region))
        settings[library] = {
            "sources": [f"s3://media-{place}/library/"],
            "region": stack.region,
            "aws_conn_id": f"aws_{library[-2:]}",
            "model": "marengo-3-0",
            "tables": f"s3://vectors-{place}/tables",
            "work": f"s3://vectors-{place}/work",
            "max_in_flight": WINDOWS[library],
            "list_lag_seconds": 1.0,
            "output_grace_seconds": 0.5,
            "retries_in_run": 0,
            # Of windows and submitters, so of jobs.
            "processing": "async",
        }
    # What the environment says of addresses must not help.
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(variable, raising=False)
    path = tmp_path / "libraries.yaml"
    path.write_text(json.dumps({"libraries": settings}))
    configuration = load_configuration(path)
    assert configuration.errors == ()
    found = {}
    for library in configuration.libraries:
        admin = SimulatorAdmin(stacks[library.name].simulator.endpoint_url)
        pipeline = Pipeline(library, storage(library), connection=library.aws_conn_id)
        found[library.name] = Region(stacks[library.name], pipeline, admin)
    before = {name: one.simulator.settings() for name, one in found.items()}
    yield found
    for name, one in found.items():
        one.simulator.clear_faults()
        one.simulator.settings(**before[name])
        let_jobs_end(one.simulator)


def side_by_side(*work: Callable[[], object]) -> list[object]:
    """Do things at the same time, and return what each returned."""
    results: dict[int, object] = {}
    threads = [
        threading.Thread(target=lambda number=number, each=each: results.update({number: each()}), daemon=True)
        for number, each in enumerate(work)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return [results.get(number) for number in range(len(work))]


def test_the_window_of_each_region_holds_on_its_own_and_both_are_filled(regions):
    for region in regions.values():
        region.simulator.settings(seconds_per_job=JOB_SECONDS)
        for number in range(6):
            region.pipeline.put(f"{number}.png", picture("red", (160 + number, 160)))
    reports = side_by_side(*(region.pipeline.run for region in regions.values()))

    assert [report.totals[Status.EMBEDDED] for report in reports] == [6, 6]
    # Full windows of both: five at once in all, and in no region more than its own.
    assert {name: region.most_at_once() for name, region in regions.items()} == WINDOWS


def test_a_region_whose_invocations_are_stuck_does_not_hold_up_the_other(regions):
    us, eu = regions["films_us"], regions["films_eu"]
    us.simulator.faults({"kind": "stuck"})
    for region in (us, eu):
        for number in range(5):
            region.pipeline.put(f"{number}.png", picture("blue", (160 + number, 160)))
    reports = []
    waiting = threading.Thread(target=lambda: reports.append(us.pipeline.run()), daemon=True)
    waiting.start()
    wait_until(lambda: us.in_progress() == WINDOWS["films_us"], seconds=60, what="the window of us-east-1 was full")

    assert eu.pipeline.run().totals[Status.EMBEDDED] == 5
    assert waiting.is_alive()
    assert us.in_progress() == WINDOWS["films_us"]

    us.simulator.clear_faults()
    end_all_jobs(us.simulator)
    waiting.join(timeout=120)
    assert reports[0].totals[Status.EMBEDDED] == 5


def test_libraries_of_two_regions_have_submitters_of_their_own_in_their_own_buckets(regions):
    places = {name: region.library.submitter_uri("marengo-3-0") for name, region in regions.items()}

    assert places["films_us"].endswith("/submitters/us-east-1/marengo-3-0")
    assert places["films_eu"].endswith("/submitters/eu-west-1/marengo-3-0")
    assert all(place.startswith(regions[name].library.tables) for name, place in places.items())


@pytest.fixture
def embedded(regions):
    us, eu = regions["films_us"], regions["films_eu"]
    us.pipeline.put("red.png", picture("red"))
    us.pipeline.put("green.png", picture("green"))
    eu.pipeline.put("red.png", picture("red"))
    eu.pipeline.put("film.mp4", film())
    reports = side_by_side(us.pipeline.run, eu.pipeline.run)
    assert all(report.succeeded for report in reports)
    return regions


def test_one_query_finds_the_hits_of_both_regions_and_says_where_each_lies(embedded):
    libraries = [region.library for region in embedded.values()]
    found = search(libraries, TextQuery("a red thing"), top=3, media_types=["image"], access_of=access)

    first, second, third = found.hits
    assert {(hit.library, hit.region, hit.media_uri) for hit in (first, second)} == {
        (region.library.name, region.library.region, region.pipeline.uri("red.png")) for region in embedded.values()
    }
    assert first.score == second.score > third.score
    assert third.media_uri == embedded["films_us"].pipeline.uri("green.png")
    assert {name for name, count in found.compared.items() if count} == {"films_us", "films_eu"}


def test_the_command_reaches_each_region_by_a_profile(embedded, tmp_path, monkeypatch, capsys):
    """As docs/search.md shows it; on AWS it needs no profiles, which here have the addresses."""
    config, credentials, services = "", "", ""
    for name, region in embedded.items():
        s3, bedrock = region.stack.seaweedfs, region.stack.simulator
        config += f"[profile {name}]\nservices = {name}\n"
        services += f"[services {name}]\ns3 =\n  endpoint_url = {s3.endpoint_url}\n"
        services += f"bedrock_runtime =\n  endpoint_url = {bedrock.endpoint_url}\n"
        credentials += f"[{name}]\naws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\n"
    for variable, content in (("AWS_CONFIG_FILE", config + services), ("AWS_SHARED_CREDENTIALS_FILE", credentials)):
        path = tmp_path / variable
        path.write_text(content)
        monkeypatch.setenv(variable, str(path))
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("MEDIA_EMBEDDINGS_CONFIG", str(tmp_path / "libraries.yaml"))
    asked = ["search", "--library", "films_us", "--library", "films_eu", "--text", "red", "--top", "10"]
    assert main([*asked, "--profile", "films_us=films_us", "--profile", "films_eu=films_eu"]) == 0

    *hits, footer = capsys.readouterr().out.splitlines()
    assert len(hits) == 10
    assert {tuple(hit.split("\t")[1:3]) for hit in hits} == {("films_us", "us-east-1"), ("films_eu", "eu-west-1")}
    assert footer.startswith("10 hits by marengo-3-0; compared with the segments: 2 of films_us, ")


def test_what_lies_in_one_region_is_searched_for_in_the_other(embedded):
    us, eu = embedded["films_us"], embedded["films_eu"]
    here = us.pipeline.uri("red.png")
    found = search([us.library, eu.library], LikeQuery(here), top=1, access_of=access)

    [hit] = found.hits
    assert (hit.library, hit.media_uri) == ("films_eu", eu.pipeline.uri("red.png"))
    assert hit.score == pytest.approx(1.0, abs=1e-6)


def test_the_vector_is_asked_of_the_first_library_s_region_by_the_id_that_it_takes_there(embedded):
    us, eu = embedded["films_us"], embedded["films_eu"]
    for first, second in ((us, eu), (eu, us)):
        before = {id(one): one.simulator.calls().get("InvokeModel", {}).get("", 0) for one in (first, second)}
        search([first.library, second.library], TextQuery("blue"), access_of=access)

        assert first.simulator.calls()["InvokeModel"][""] == before[id(first)] + 1
        assert second.simulator.calls().get("InvokeModel", {}).get("", 0) == before[id(second)]


def test_a_region_that_cannot_be_reached_is_named_and_no_half_answer_is_given(embedded):
    us, eu = embedded["films_us"], embedded["films_eu"]
    gone = eu.library.model_copy(update={"tables": "s3://no-such-bucket-anywhere/tables"})

    with pytest.raises(TableUnreachableError, match=r"films_eu in eu-west-1 can't be read"):
        search([us.library, gone], TextQuery("red"), access_of=access)
