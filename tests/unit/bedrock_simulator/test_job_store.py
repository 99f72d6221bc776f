"""Lists hold every job once, whatever the page size, and tokens and quotas hold under concurrency."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_simulator.errors import BedrockError
from bedrock_simulator.faults import Fault
from bedrock_simulator.job_store import Charge, JobQuery, JobStore, Position, QuotaReachedError
from bedrock_simulator.jobs import Job, Outcome, iso_time, new_invocation_id, stuck_seconds
from bedrock_simulator.operations import decoded_position, encoded_position


def new_job(token: str, submitted_ms: int) -> Job:
    return Job(
        invocation_id=new_invocation_id(),
        account_id="123456789012",
        token=token,
        fingerprint="the same",
        model_id="a model",
        model_input={"inputType": "text"},
        output_uri="s3://bucket/outputs/id",
        kms_key_id=None,
        bucket_owner=None,
        status="InProgress",
        submitted_ms=submitted_ms,
        modified_ms=submitted_ms,
    )


def accept(store: JobStore, job: Job, max_in_flight: int = 1000, faults: tuple[Fault, ...] = ()) -> Job:
    charge = Charge("StartAsyncInvoke", job.token, job.invocation_id, job.model_id, "text", "", None, job.submitted_ms)
    return store.accept(job, charge, max_in_flight=max_in_flight, token_since_ms=0, draw_faults=lambda: faults)


@pytest.fixture
def store(tmp_path):
    store = JobStore(tmp_path)
    yield store
    store.close()


@settings(max_examples=40, deadline=None)
@given(
    moments=st.lists(st.integers(0, 12), max_size=25),
    page_size=st.integers(1, 9),
    descending=st.booleans(),
    after=st.none() | st.integers(0, 12),
    before=st.none() | st.integers(0, 12),
)
def test_pages_hold_every_matching_job_once_and_in_order(
    tmp_path_factory, moments, page_size, descending, after, before
):
    store = JobStore(tmp_path_factory.mktemp("jobs"))
    accepted = [accept(store, new_job(f"token {number}", moment)) for number, moment in enumerate(moments)]
    matching = [
        job
        for job in accepted
        if (after is None or job.submitted_ms > after) and (before is None or job.submitted_ms < before)
    ]
    # Jobs of the same moment come in the order of their submission.
    expected = sorted(matching, key=lambda job: job.submitted_ms)
    if descending:
        expected.reverse()

    listed: list[str] = []
    position: Position | None = None
    while True:
        page = store.jobs(
            JobQuery(page_size, descending, submitted_after=after, submitted_before=before, position=position)
        )
        listed += [job.invocation_id for _, job in page]
        if len(page) < page_size:
            break
        position = page[-1][0]
    assert [job.submitted_ms for job in expected] == [store.job(invocation_id).submitted_ms for invocation_id in listed]
    assert sorted(listed) == sorted(job.invocation_id for job in expected)
    store.close()


def test_jobs_that_come_while_a_list_is_read_are_never_doubled(store):
    for number in range(6):
        accept(store, new_job(f"{number}", number))
    first = store.jobs(JobQuery(3))
    accept(store, new_job("late", 100))
    second = store.jobs(JobQuery(10, position=first[-1][0]))
    assert [job.token for _, job in first + second] == ["5", "4", "3", "2", "1", "0"]


@settings(deadline=None)
@given(st.integers(0, 1 << 50), st.integers(1, 1 << 40), st.lists(st.text(max_size=20), max_size=4))
def test_a_next_token_gives_its_position_back(submitted_ms, sequence, filters):
    token = encoded_position(Position(submitted_ms, sequence), filters)
    assert len(token) <= 2048
    assert decoded_position(token, filters) == Position(submitted_ms, sequence)
    with pytest.raises(BedrockError, match="other filters"):
        decoded_position(token, [*filters, "more"])


@settings(deadline=None)
@given(st.text(max_size=60))
def test_a_made_up_next_token_is_refused(token):
    with pytest.raises(BedrockError, match="nextToken"):
        decoded_position(token, [])


def test_many_threads_with_one_token_get_one_job(store):
    with ThreadPoolExecutor(16) as pool:
        jobs = list(pool.map(lambda number: accept(store, new_job("one token", number)), range(64)))
    assert len({job.invocation_id for job in jobs}) == 1
    assert len(store.charges()) == 1


def test_many_threads_never_exceed_the_quota(store):
    def attempt(number: int) -> bool:
        try:
            accept(store, new_job(f"token {number}", number), max_in_flight=5)
        except QuotaReachedError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(attempt, range(64))) == 5
    ended = store.jobs_in_progress()[0]
    store.finish(ended.invocation_id, Outcome("Completed"), 99)
    assert attempt(100)
    assert not attempt(101)


def test_a_job_is_read_as_it_was_written(store):
    faults = (Fault("stuck", seconds=3.0), Fault("failed", message="m"))
    job = accept(store, new_job("token", 5), faults=faults)
    assert store.job(job.invocation_id) == job
    assert job.faults == faults
    assert store.job("unknown") is None
    assert stuck_seconds(job.faults) == 3.0
    assert stuck_seconds((*job.faults, Fault("stuck"))) is None


def test_times_are_iso_8601_in_utc():
    assert iso_time(1_795_440_207_263) == "2026-11-23T13:23:27.263Z"
    assert iso_time(0) == "1970-01-01T00:00:00.000Z"
