from __future__ import annotations

import json

import pytest

from bedrock_async_invoke.submitter import ManifestSubmission, Submission, submit_blocking
from bedrock_async_invoke.watcher import Watch, Watcher, WatchingFailedError, watch_blocking
from tests.unit.bedrock_async_invoke.fake_aws import FOLDER, MANIFEST, MODEL, UNAVAILABLE, refusal, request

HOUR = 3600.0


@pytest.fixture
def started(clients, clock):
    """Start the requests of a manifest."""

    def started(*numbers: int) -> None:
        clients.put_requests(*[request(number) for number in numbers])
        submit_blocking(ManifestSubmission(clients, Submission(MODEL, MANIFEST, adopt_since=clock.now)))

    return started


def watched(clients, **changes) -> Watcher:
    watcher = Watcher(clients, Watch(**{"manifest_uri": MANIFEST, "timeout_seconds": HOUR, **changes}))
    watch_blocking(watcher)
    return watcher


def test_how_each_invocation_ended_is_written_beside_the_manifest(clients, bedrock, started):
    started(1, 2)
    bedrock.jobs["request-2"].status = "Failed"
    bedrock.jobs["request-2"].failure_message = "The file is broken"
    assert watched(clients).summary() == {
        "statuses_uri": f"{FOLDER}/statuses.jsonl",
        "completed": 1,
        "failed": 1,
        "in_progress": 0,
        "other": 0,
    }
    job = bedrock.jobs["request-2"]
    line = clients.lines("statuses.jsonl")["request-2"]
    assert line.pop("submitted_at") < line.pop("ended_at")
    assert line == {
        "request_id": "request-2",
        "invocation_arn": job.arn,
        "status": "Failed",
        "failure_message": "The file is broken",
        "output_uri": job.s3_uri,
    }


def test_one_call_looks_at_all_of_them(clients, bedrock, started):
    started(*range(20))
    bedrock.clock.sleep(60)
    bedrock.calls.clear()
    watched(clients)
    assert [name for name, _ in bedrock.calls] == ["list"]


def test_without_a_record_there_is_nothing_to_wait_for_and_the_log_says_so(clients, caplog):
    assert watched(clients).summary() | {"statuses_uri": None} == {
        "statuses_uri": None,
        "completed": 0,
        "failed": 0,
        "in_progress": 0,
        "other": 0,
    }
    assert f"There is no {FOLDER}/invocations.jsonl: nothing was started" in caplog.text
    assert clients.objects[f"{FOLDER}/statuses.jsonl"] == b""


def test_what_has_not_ended_at_the_deadline_is_recorded_as_it_stands(clients, bedrock, started, clock):
    started(1, 2)
    bedrock.jobs["request-2"].ends += 100 * HOUR
    begin = clock.now
    summary = watched(clients).summary()
    assert (summary["completed"], summary["in_progress"]) == (1, 1)
    assert clients.lines("statuses.jsonl")["request-2"]["status"] == "InProgress"
    assert HOUR <= clock.now - begin < HOUR + 60


def test_the_deadline_survives_a_restart(clients, bedrock, started, clock):
    started(1)
    bedrock.jobs["request-1"].ends += 100 * HOUR
    watch, begin = Watch(manifest_uri=MANIFEST, timeout_seconds=HOUR, waiting_since=clock.now), clock.now
    first = Watcher(clients, watch)
    while clock.now < begin + HOUR / 2:
        clock.sleep(first.step() or 0)
    clock.sleep(HOUR / 4)
    watch_blocking(Watcher(clients, Watch(**json.loads(json.dumps(watch.as_dict())))))
    assert HOUR <= clock.now - begin < HOUR + 60


def test_an_unknown_status_counts_as_other(clients, bedrock, started):
    started(1)
    bedrock.jobs["request-1"].status = "Expired"
    assert watched(clients).summary()["other"] == 1
    assert clients.lines("statuses.jsonl")["request-1"]["status"] == "Expired"


def test_an_invocation_that_the_list_never_shows_is_asked_for(clients, bedrock, started):
    started(1, 2)
    bedrock.jobs["request-1"].hidden = True
    assert watched(clients).summary()["completed"] == 2
    assert bedrock.count("get") >= 1


def test_one_of_which_bedrock_says_nothing_keeps_the_output_folder_that_the_manifest_names(clients, bedrock, started):
    started(1)
    bedrock.jobs["request-1"].hidden = True
    bedrock.get_error = refusal("ValidationException", "unknown")
    watched(clients)
    line = clients.lines("statuses.jsonl")["request-1"]
    assert (line["status"], line["output_uri"]) == ("NotFound", f"s3://work/outputs/request-1/{0:012d}")
    assert line["failure_message"] == "GetAsyncInvoke answers ValidationException: unknown"


def test_when_bedrock_can_not_be_asked_it_fails_and_keeps_what_has_ended(clients, bedrock, started):
    started(1, 2)
    bedrock.jobs["request-2"].ends += 1000
    bedrock.list_faults.extend([*[None] * 5, *[UNAVAILABLE] * 20])
    with pytest.raises(WatchingFailedError, match=r"try again\. The invocations go on; a retry looks at them again"):
        watched(clients)
    assert set(clients.lines("statuses.jsonl")) == {"request-1"}


def test_a_wait_outlives_a_short_outage(clients, bedrock, started):
    started(1)
    bedrock.list_faults.extend([UNAVAILABLE] * 5)
    assert watched(clients).summary()["completed"] == 1


def test_looks_are_spread_in_time(clients, bedrock, started):
    started(1)
    bedrock.jobs["request-1"].ends += HOUR
    watcher = Watcher(clients, Watch(manifest_uri=MANIFEST, poll_interval=10))
    waits = {watcher.step() for _ in range(10)}
    assert len(waits) == 10
    # Never shorter: the last one ends at the deadline.
    assert all(10 <= wait <= 11 for wait in waits)


def test_told_to_stop_it_asks_for_no_further_invocation(clients, bedrock, started, clock):
    started(1, 2, 3)
    for job in bedrock.jobs.values():
        job.hidden = True
    watcher = Watcher(clients, Watch(manifest_uri=MANIFEST, patience=1))
    answer = bedrock.get_async_invoke

    def stop_while_it_answers(arn):
        watcher.stop()
        return answer(arn)

    bedrock.get_async_invoke = stop_while_it_answers
    with pytest.raises(WatchingFailedError, match=r"Looking was stopped\. The invocations go on"):
        watcher.step()
    assert bedrock.count("get") == 1
    assert f"{FOLDER}/statuses.jsonl" not in clients.objects


def test_one_of_which_neither_bedrock_nor_the_manifest_says_anything_has_no_output_folder(clients, bedrock, started):
    started(1)
    bedrock.jobs["request-1"].hidden = True
    bedrock.get_error = refusal("ValidationException", "unknown")
    del clients.objects[MANIFEST]
    watched(clients)
    assert clients.lines("statuses.jsonl")["request-1"]["output_uri"] == ""


def test_one_invocation_is_followed_by_its_arn(clients, bedrock):
    job = bedrock.add("token", status="Failed", failure_message="broken")
    assert watched(clients, manifest_uri=None, invocation_arn=job.arn).summary() == {
        "invocation_arn": job.arn,
        "invocation_status": "Failed",
        "failure_message": "broken",
        "output_uri": job.s3_uri,
        "completed": 0,
        "failed": 1,
        "in_progress": 0,
        "other": 0,
    }
    assert clients.objects == {}


def test_an_outage_ends_the_wait_for_one_invocation_as_well(clients, bedrock):
    job = bedrock.add("token")
    bedrock.get_error = UNAVAILABLE
    with pytest.raises(WatchingFailedError):
        watched(clients, manifest_uri=None, invocation_arn=job.arn)
    assert bedrock.count("get") == 10
