from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_async_invoke import attempts, batch, lease, tickets
from bedrock_async_invoke import submitter as submitter_module
from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.manifest import ManifestError
from bedrock_async_invoke.submitter import (
    ManifestSubmission,
    Submission,
    SubmissionFailedError,
    Submitter,
    submit_blocking,
)
from tests.unit.bedrock_async_invoke.fake_aws import (
    FOLDER,
    MANIFEST,
    MODEL,
    THROTTLED,
    TIMED_OUT,
    UNAVAILABLE,
    Clock,
    FakeBedrock,
    FakeClients,
    LostAnswer,
    refusal,
    request,
)


@pytest.fixture
def submit(clients, clock):
    def submit(**changes) -> ManifestSubmission:
        submission = Submission(
            **{"model_id": MODEL, "manifest_uri": MANIFEST, "adopt_since": clock.now - 86_400, **changes}
        )
        submitter = ManifestSubmission(clients, submission)
        submit_blocking(submitter)
        return submitter

    return submit


def outcomes(clients) -> dict[str, str]:
    return {name: line["outcome"] for name, line in clients.lines("invocations.jsonl").items()}


def test_every_request_is_started_under_its_own_token_with_the_operators_settings(clients, bedrock, submit):
    clients.put_requests(request(1), request(2))
    submitter = submit(kms_key_id="arn:aws:kms:k", bucket_owner="123456789012", tags={"team": "video"})
    started = [call for name, call in bedrock.calls if name == "start"]
    assert started[0] == {
        "model_id": MODEL,
        "model_input": {"inputType": "video"},
        "output_s3_uri": "s3://work/outputs/request-1",
        "client_request_token": "request-1",
        "kms_key_id": "arn:aws:kms:k",
        "bucket_owner": "123456789012",
        "tags": {"team": "video"},
    }
    assert submitter.summary() == {
        "invocations_uri": f"{FOLDER}/invocations.jsonl",
        "requests": 2,
        "started": 2,
        "adopted": 0,
        "reused": 0,
        "refused": 0,
        "unanswered": 0,
    }
    line = clients.lines("invocations.jsonl")["request-2"]
    assert line == {
        "request_id": "request-2",
        "invocation_arn": bedrock.jobs["request-2"].arn,
        "outcome": "started",
        "submitted_at": bedrock.clock.datetime.isoformat(),
        "error_code": None,
        "error_message": None,
        "output_uri": None,
        "lost_answers": 0,
    }


def test_an_empty_manifest_leaves_an_empty_record(clients, submit):
    clients.put_requests()
    assert submit().summary()["requests"] == 0
    assert clients.objects[f"{FOLDER}/invocations.jsonl"] == b""


def test_a_manifest_that_is_not_there_says_what_to_do(submit):
    with pytest.raises(
        SubmissionFailedError, match=r"There is no manifest s3://work.*run the task that writes it again"
    ):
        submit()


def test_a_line_that_is_no_request_is_named(clients, submit):
    clients.objects[MANIFEST] = json.dumps(request(1)).encode() + b'\n\n{"request_id": "x"}\n'
    with pytest.raises(
        ManifestError, match=r"line 3 of s3://work/.*requests.jsonl can't be read \(KeyError: 'model_input'"
    ):
        submit()


@pytest.mark.parametrize("list_delay", [0.0, 4.0])
def test_the_window_is_never_exceeded_whoever_fills_it_and_however_the_list_lags(clients, bedrock, submit, list_delay):
    bedrock.list_delay = list_delay
    bedrock.add("stranger", submitted=bedrock.clock.now - 60)
    bedrock.add("other-model", model="amazon.nova-2-multimodal-embeddings-v1:0")
    clients.put_requests(*[request(number) for number in range(12)])
    submit(max_in_flight=3, poll_interval=5)
    # The job of the other model is not in the window, but in the count of all.
    assert bedrock.most_in_progress <= 3 + 1
    assert set(outcomes(clients).values()) == {"started"}


def test_a_second_submitter_counts_what_the_first_has_started_and_the_list_does_not_show_yet(clients, bedrock, clock):
    bedrock.list_delay = 8.0
    clients.put_requests(*[request(number) for number in range(6)])
    submission = Submission(MODEL, MANIFEST, max_in_flight=2, poll_interval=3, adopt_since=clock.now - 60)
    assert ManifestSubmission(clients, submission).step() is not None
    clock.sleep(1)
    submit_blocking(ManifestSubmission(clients, submission))
    assert bedrock.most_in_progress == 2


def test_what_appears_in_the_list_between_its_two_looks_is_counted_all_the_same(clients, bedrock, clock):
    bedrock.list_delay = 8.0
    clients.put_requests(*[request(number) for number in range(6)])
    submission = Submission(MODEL, MANIFEST, max_in_flight=2, adopt_since=clock.now - 60)
    assert ManifestSubmission(clients, submission).step() is not None
    clock.sleep(7.5)
    look = bedrock.list_async_invokes

    def slowly(**condition):
        pages = list(look(**condition))
        clock.sleep(1)
        return pages

    bedrock.list_async_invokes = slowly
    submit_blocking(ManifestSubmission(clients, submission))
    assert bedrock.most_in_progress == 2


def test_one_that_the_list_never_shows_takes_no_room_for_ever(clients, bedrock, submit, clock):
    bedrock.list_delay = 1e6
    clients.put_requests(*[request(number) for number in range(3)])
    begin = clock.now
    assert submit(max_in_flight=1, poll_interval=5).summary()["started"] == 3
    assert clock.now - begin < 100


def test_jobs_that_end_between_two_looks_take_no_room(clients, bedrock, submit, clock):
    bedrock.job_seconds = 0.5
    clients.put_requests(*[request(number) for number in range(6)])
    begin = clock.now
    submit(max_in_flight=2, poll_interval=1)
    assert clock.now - begin < 4


def test_the_model_may_be_named_by_its_arn(clients, bedrock, submit):
    bedrock.add("stranger", job_seconds=0, ends=bedrock.clock.now + 100)
    clients.put_requests(request(1))
    submit(model_id=f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}", max_in_flight=1)
    assert bedrock.clock.now >= bedrock.jobs["stranger"].ends


def test_a_retry_starts_only_what_has_no_outcome(clients, bedrock, submit):
    clients.put_requests(request(1))
    submit()
    clients.put_requests(request(1), request(2))
    before = clients.lines("invocations.jsonl")["request-1"]
    assert submit().summary()["started"] == 2
    assert [call["client_request_token"] for name, call in bedrock.calls if name == "start"] == [
        "request-1",
        "request-2",
    ]
    assert clients.lines("invocations.jsonl")["request-1"] == before


def test_a_retry_without_the_record_adopts_what_bedrock_lists(clients, bedrock, submit):
    clients.put_requests(request(1), request(2))
    bedrock.add("request-1")
    bedrock.clock.sleep(3600)
    assert submit().summary() | {"invocations_uri": None} == {
        "invocations_uri": None,
        "requests": 2,
        "started": 1,
        "adopted": 1,
        "reused": 0,
        "refused": 0,
        "unanswered": 0,
    }
    adopted = clients.lines("invocations.jsonl")["request-1"]
    assert adopted["invocation_arn"] == bedrock.jobs["request-1"].arn
    assert adopted["submitted_at"] is not None


def test_what_was_submitted_before_the_lookback_is_not_looked_for(clients, bedrock, submit, clock):
    clients.put_requests(request(1))
    submit(adopt_since=clock.now - 60)
    [looked] = [call for name, call in bedrock.calls if name == "list"]
    assert looked["submitted_after"].timestamp() == clock.now - 60


def test_a_retry_asks_again_for_what_was_refused(clients, bedrock, submit):
    clients.put_requests(request(1))
    bedrock.start_errors["request-1"] = refusal("AccessDeniedException")
    assert submit().summary()["refused"] == 1
    bedrock.start_errors.clear()
    assert submit().summary()["started"] == 1


def test_a_trigger_does_not_ask_again_for_what_its_task_was_refused(clients, bedrock, submit, clock):
    clients.put_requests(request(1))
    bedrock.start_errors["request-1"] = refusal("AccessDeniedException")
    submit()
    submission = Submission(MODEL, MANIFEST, adopt_since=clock.now, keep_refusals_since=clock.now - 1)
    submit_blocking(ManifestSubmission(clients, submission))
    assert bedrock.count("start") == 1


def test_a_refused_request_is_recorded_with_bedrocks_answer_and_the_others_go_on(clients, bedrock, submit):
    clients.put_requests(request(1), request(2), request(3))
    bedrock.start_errors["request-2"] = refusal("ValidationException", "The video is too long")
    submit()
    line = clients.lines("invocations.jsonl")["request-2"]
    assert (line["outcome"], line["invocation_arn"]) == ("refused", None)
    assert (line["error_code"], line["error_message"]) == ("ValidationException", "The video is too long")
    assert outcomes(clients) == {"request-1": "started", "request-2": "refused", "request-3": "started"}


def test_a_quota_slows_down_and_refuses_nothing(clients, bedrock, submit):
    bedrock.quota = 2
    clients.put_requests(*[request(number) for number in range(7)])
    assert submit().summary()["started"] == 7
    assert bedrock.most_in_progress == 2


def test_an_answer_that_was_lost_starts_nothing_twice(clients, bedrock, submit):
    bedrock.start_faults.append(LostAnswer(TIMED_OUT))
    bedrock.list_delay = 4.0
    clients.put_requests(request(1), request(2))
    assert submit().summary() | {"invocations_uri": None} == {
        "invocations_uri": None,
        "requests": 2,
        "started": 1,
        "adopted": 1,
        "reused": 0,
        "refused": 0,
        "unanswered": 0,
    }
    assert [call["client_request_token"] for name, call in bedrock.calls if name == "start"] == [
        "request-1",
        "request-2",
    ]


def test_a_call_that_never_arrived_is_made_again_after_a_look_at_the_list(clients, bedrock, submit):
    bedrock.start_faults.append(UNAVAILABLE)
    clients.put_requests(request(1))
    submit()
    assert [name for name, _ in bedrock.calls] == ["list", "start", "list", "start"]
    assert outcomes(clients) == {"request-1": "started"}


def test_a_token_in_conflict_is_adopted_when_the_list_has_it(clients, bedrock, submit):
    clients.put_requests(request(1))
    job = bedrock.add("request-1", submitted=bedrock.clock.now - 60)
    bedrock.list_faults.extend([])
    bedrock.start_errors["request-1"] = refusal("ConflictException")
    job.submitted = bedrock.clock.now + 1  # the list shows it only after the first look
    submit()
    assert outcomes(clients) == {"request-1": "adopted"}


def test_a_token_in_conflict_that_the_list_does_not_have_is_refused(clients, bedrock, submit):
    clients.put_requests(request(1))
    bedrock.start_errors["request-1"] = refusal("ConflictException")
    submit()
    assert clients.lines("invocations.jsonl")["request-1"]["error_code"] == "ConflictException"


def test_when_bedrock_is_down_the_task_fails_saying_what_is_kept_and_what_a_retry_does(clients, bedrock, submit):
    clients.put_requests(*[request(number) for number in range(1, 41)])
    bedrock.start_faults.extend([None, *[UNAVAILABLE] * 200])
    with pytest.raises(SubmissionFailedError) as failure:
        submit()
    assert "InternalServerException: try again" in str(failure.value)
    assert f"1 of 40 requests have an outcome, kept in {FOLDER}/invocations.jsonl" in str(failure.value)
    assert "a retry goes on with the others and submits none of them twice" in str(failure.value)
    assert outcomes(clients) == {"request-1": "started"}


def test_one_request_that_bedrock_always_fails_over_does_not_keep_the_others_from_being_started(
    clients, bedrock, submit
):
    clients.put_requests(request(1), request(2), request(3))
    bedrock.start_errors["request-1"] = UNAVAILABLE
    submit()
    assert outcomes(clients) == {"request-1": "unanswered", "request-2": "started", "request-3": "started"}
    assert "the list shows no invocation" in clients.lines("invocations.jsonl")["request-1"]["error_message"]


def test_what_was_unanswered_is_asked_again_under_the_same_token(clients, bedrock, submit):
    clients.put_requests(request(1))
    bedrock.start_errors["request-1"] = UNAVAILABLE
    submit()
    bedrock.start_errors.clear()
    submit()
    assert outcomes(clients) == {"request-1": "started"}
    assert bedrock.accepted == ["request-1"]


def test_credentials_that_have_run_out_are_read_anew_and_no_request_is_blamed(clients, bedrock, submit):
    clients.put_requests(request(1), request(2))
    expired = AsyncInvokeError(Meaning.UNAUTHENTICATED, "ExpiredTokenException", "The security token is expired")
    bedrock.start_faults.extend([expired, expired])
    bedrock.list_faults.extend([expired])
    submit()
    assert clients.renewed == 3
    assert set(outcomes(clients).values()) == {"started"}


def test_a_request_whose_output_is_there_already_is_reused_and_nothing_is_asked(clients, bedrock, submit):
    clients.put_requests(request(1, finished_output_uri="s3://work/outputs/request-1/abc123/"))
    assert submit().summary()["reused"] == 1
    assert bedrock.calls == []
    line = clients.lines("invocations.jsonl")["request-1"]
    assert line["output_uri"] == "s3://work/outputs/request-1/abc123"
    assert line["invocation_arn"] == "arn:aws:bedrock:us-east-1::async-invoke/abc123"


def test_what_has_the_highest_priority_is_started_first(clients, bedrock, submit):
    clients.put_requests(request(1, priority=1), request(2, priority=300), request(3, priority=20))
    submit()
    assert bedrock.accepted == ["request-2", "request-3", "request-1"]


def test_without_the_list_nothing_is_started(clients, bedrock, submit):
    clients.put_requests(request(1))
    bedrock.list_faults.extend([refusal("AccessDeniedException", "not allowed: bedrock:ListAsyncInvokes")])
    with pytest.raises(SubmissionFailedError, match="bedrock:ListAsyncInvokes"):
        submit()
    assert bedrock.count("start") == 0
    assert outcomes(clients) == {}


def test_a_list_that_is_throttled_is_waited_for(clients, bedrock, submit):
    clients.put_requests(request(1))
    bedrock.list_faults.extend([THROTTLED] * 30)
    assert submit().summary()["started"] == 1


@pytest.mark.parametrize(
    ("etag", "code"), [(None, "SourceNotFound"), ("new", "SourceChanged")], ids=["deleted", "replaced"]
)
def test_a_source_that_is_gone_or_changed_is_refused_before_it_is_paid_for(clients, bedrock, submit, etag, code):
    uri = "s3://media/library/a film?.mp4"
    clients.put_requests(request(1, source_uri=uri, source_etag="old"), request(2))
    if etag:
        clients.etags[uri] = etag
    submit()
    line = clients.lines("invocations.jsonl")["request-1"]
    assert (line["outcome"], line["error_code"]) == ("refused", code)
    assert uri in line["error_message"]
    assert bedrock.count("start") == 1


def test_a_source_that_is_the_same_is_started(clients, submit):
    clients.put_requests(request(1, source_uri="s3://media/a", source_etag="e"), request(2, source_uri="s3://media/a"))
    clients.etags["s3://media/a"] = "e"
    assert submit().summary()["started"] == 2


def test_a_source_named_without_an_etag_must_only_be_there(clients, submit):
    clients.put_requests(request(1, source_uri="s3://media/gone"))
    assert submit().summary()["refused"] == 1


def test_the_look_at_the_source_can_be_left_out(clients, submit):
    clients.put_requests(request(1, source_uri="s3://media/gone", source_etag="e"))
    assert submit(check_source=False).summary()["started"] == 1


def test_told_to_stop_it_starts_nothing_more_and_keeps_what_was_started(clients, bedrock, clock):
    clients.put_requests(*[request(number) for number in range(5)])
    submitter = ManifestSubmission(clients, Submission(MODEL, MANIFEST, adopt_since=clock.now))
    start = bedrock.start_async_invoke

    def stop_after_the_second(**arguments):
        if bedrock.count("start") == 1:
            submitter.stop()
        return start(**arguments)

    bedrock.start_async_invoke = stop_after_the_second
    with pytest.raises(SubmissionFailedError, match=r"Submitting was stopped\. 2 of 5 requests have an outcome"):
        submit_blocking(submitter)
    assert len(outcomes(clients)) == 2


def test_told_to_stop_it_does_not_wait_for_the_next_look(clients, bedrock, clock, monkeypatch):
    clients.put_requests(request(1), request(2))
    bedrock.job_seconds = 36_000.0
    submission = Submission(MODEL, MANIFEST, max_in_flight=1, poll_interval=600, adopt_since=clock.now)
    submitter = ManifestSubmission(clients, submission)
    sleep, begin = clock.sleep, clock.now

    def stop_in_the_first_minute(seconds):
        sleep(seconds)
        if clock.now > begin + 60:
            submitter.stop()

    monkeypatch.setattr(clock, "sleep", stop_in_the_first_minute)
    with pytest.raises(SubmissionFailedError, match="Submitting was stopped"):
        submit_blocking(submitter)
    assert clock.now - begin < 62


def test_a_long_step_is_recorded_while_it_goes_on(clients, bedrock, clock, monkeypatch):
    clients.put_requests(*[request(number) for number in range(30)])
    lines_seen = []
    start = bedrock.start_async_invoke

    def slowly(**arguments):
        clock.sleep(1)
        if f"{FOLDER}/invocations.jsonl" in clients.objects:
            lines_seen.append(len(clients.lines("invocations.jsonl")))
        return start(**arguments)

    monkeypatch.setattr(bedrock, "start_async_invoke", slowly)
    submit_blocking(ManifestSubmission(clients, Submission(MODEL, MANIFEST, adopt_since=clock.now)))
    assert sorted(set(lines_seen)) == [5, 10, 15, 20, 25]


class Killed(BaseException):
    """The process is gone: nothing that it would have done any more is done."""


class Process:
    """Bedrock and S3 as one process sees them that is killed at a Start, before or after the call has had its effect."""

    def __init__(self, clients: FakeClients, starts: int | None, *, after_the_call: bool) -> None:
        self._clients, self._starts, self._after_the_call = clients, starts, after_the_call
        self._killed = False
        self.bedrock = self
        self.read, self.etag, self.read_object = clients.read, clients.etag, clients.read_object
        self.ages = clients.ages
        self.region_name = clients.region_name
        self.list_async_invokes = clients.bedrock.list_async_invokes

    def write(self, uri: str, content: bytes) -> None:
        if not self._killed:
            self._clients.write(uri, content)

    def write_if(self, uri: str, content: bytes, *, etag: str | None) -> str | None:
        if self._killed:
            raise Killed
        return self._clients.write_if(uri, content, etag=etag)

    def delete(self, uri: str) -> None:
        if not self._killed:
            self._clients.delete(uri)

    def start_async_invoke(self, **arguments) -> str:
        if self._starts is not None:
            self._starts -= 1
        self._killed = self._starts == 0
        if not self._killed:
            return self._clients.bedrock.start_async_invoke(**arguments)
        if self._after_the_call:
            with suppress(AsyncInvokeError):
                self._clients.bedrock.start_async_invoke(**arguments)
        raise Killed


FAULTS = {"none": None, "throttled": THROTTLED, "down": UNAVAILABLE, "lost": LostAnswer(TIMED_OUT)}
RETRY_DELAY_SECONDS = 10.0  # the least, and much less than Airflow takes to notice that a process is gone
GUARDS = {"intents_uri": "s3://tables/intents", "submitter_uri": "s3://tables/submitter", "lease_seconds": 30.0}


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(0, 8),
    max_in_flight=st.none() | st.integers(1, 3),
    job_seconds=st.sampled_from([0.5, 20.0, 200.0]),
    # Without an intent, what a killed process has started is known by the list alone.
    guarded_and_list_delay=st.sampled_from([(False, 0.0), (False, 9.9), (True, 0.0), (True, 9.9), (True, 29.0)]),
    start_faults=st.lists(st.sampled_from(list(FAULTS)), max_size=25),
    list_faults=st.lists(st.sampled_from(["none", "throttled", "down"]), max_size=15),
    kills=st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=5),
    hand_over=st.booleans(),
)
def test_whatever_goes_wrong_nothing_is_started_twice_nor_beyond_the_window_and_all_is_on_record(
    count, max_in_flight, job_seconds, guarded_and_list_delay, start_faults, list_faults, kills, hand_over
):
    """Bedrock forgets its tokens at once, so that only what is recorded and listed keeps from paying twice."""
    clock = Clock()
    bedrock = FakeBedrock(clock)
    guarded, list_delay = guarded_and_list_delay
    bedrock.job_seconds, bedrock.list_delay, bedrock.forgets_tokens = job_seconds, list_delay, True
    bedrock.start_faults.extend(FAULTS[name] for name in start_faults)
    bedrock.list_faults.extend(FAULTS[name] for name in list_faults)
    clients = FakeClients(bedrock)
    clients.put_requests(*[request(number) for number in range(count)])
    submission = Submission(
        MODEL,
        MANIFEST,
        max_in_flight=max_in_flight,
        poll_interval=5,
        adopt_since=clock.now - 86_400,
        **(GUARDS if guarded else {}),
    )

    def submit_in_one_process(starts: int | None, after_the_call: bool) -> None:
        process = Process(clients, starts, after_the_call=after_the_call)
        # Of an intent that its owner left without an invocation the next one has to wait for the list.
        handed_over_at, handing_over_seconds = clock.now, 65.0 if guarded else 0.0
        submitting = ManifestSubmission(process, submission, Submitter(process, submission))
        while (seconds := submitting.step()) is not None:
            clock.sleep(seconds)
            if hand_over and clock.now >= handed_over_at + handing_over_seconds:
                clock.sleep(submitting.hand_over_seconds)
                handed_over_at = clock.now
                submitting.close()
                submitting = ManifestSubmission(process, submission, Submitter(process, submission))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submitter_module, "CALLS_AT_ONCE", 1)
        for module in (attempts, batch, lease, submitter_module, tickets):
            patch.setattr(module, "time", clock)
        for starts, after_the_call in [*kills, *[(None, False)] * 30]:
            try:
                submit_in_one_process(starts, after_the_call)
            except (Killed, SubmissionFailedError):
                # With intents nothing depends on how late the next one comes.
                clock.sleep(0.1 if guarded else RETRY_DELAY_SECONDS)
            else:
                if "unanswered" not in outcomes(clients).values():
                    break
        else:
            raise AssertionError("it is never done")

    assert sorted(bedrock.accepted) == sorted(f"request-{number}" for number in range(count))
    if guarded or list_delay < RETRY_DELAY_SECONDS:
        assert max_in_flight is None or bedrock.most_in_progress <= max_in_flight
    lines = clients.lines("invocations.jsonl")
    assert {name: line["invocation_arn"] for name, line in lines.items()} == {
        job.token: job.arn for job in bedrock.jobs.values()
    }
    assert {line["outcome"] for line in lines.values()} <= {"started", "adopted"}
