from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_async_invoke.bedrock_clock import CLOCK_MARGIN, RESOLUTION
from bedrock_async_invoke.manifest import Invocation, Outcome
from bedrock_async_invoke.polling import TERMINAL, Done, GetEach, GiveUp, ListSince, StatusPoller, Wait
from tests.unit.bedrock_async_invoke.fake_aws import ACCOUNT, THROTTLED, UNAVAILABLE, refusal

START = datetime(2026, 11, 23, 1, tzinfo=UTC)
NOW = START.timestamp()
HOUR = 3600.0


def arn(number: int) -> str:
    return f"{ACCOUNT}/{number:012d}"


def invocation(number: int, minutes: float = 0) -> Invocation:
    at = (START + timedelta(minutes=minutes)).isoformat()
    return Invocation(f"r{number}", arn(number), Outcome.STARTED, at)


def poller(count: int = 2, **changes) -> StatusPoller:
    values = {"poll_interval": 10.0, "timeout": HOUR, "waiting_since": NOW, **changes}
    return StatusPoller([invocation(number, minutes=number) for number in range(count)], **values)


def summary(number: int, status: str | None = "Completed", **members) -> dict:
    answer = {
        "invocationArn": arn(number),
        "submitTime": START,
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"s3://b/outputs/r{number}"}},
        **members,
    }
    return answer if status is None else {**answer, "status": status}


def test_nothing_to_follow_is_done():
    assert poller(0).decide(NOW) == Done(deadline_exceeded=False)


def test_a_refused_request_has_nothing_to_follow():
    refused = Invocation("r0", None, Outcome.REFUSED, None, "ValidationException", "no")
    assert StatusPoller([refused], 10.0, HOUR, NOW).decide(NOW) == Done(deadline_exceeded=False)


def test_the_list_is_looked_at_since_the_oldest_that_has_not_ended():
    subject = poller(2)
    assert subject.decide(NOW) == ListSince(START - CLOCK_MARGIN, frozenset({arn(0), arn(1)}))
    subject.listed([summary(0), summary(1, "InProgress", submitTime=START + timedelta(minutes=3))])
    assert subject.decide(NOW) == Wait(10.0)
    # From now on by Bedrock's own clock, however far it is from this machine's.
    since = START + timedelta(minutes=3) - RESOLUTION
    assert subject.decide(NOW + 10) == ListSince(since, frozenset({arn(1)}))
    subject.listed([summary(1, "Failed", failureMessage="broken")])
    assert subject.decide(NOW + 10) == Done(deadline_exceeded=False)
    assert [(one.status, one.failure_message) for one in subject.statuses] == [
        ("Completed", None),
        ("Failed", "broken"),
    ]


def test_the_older_a_look_was_the_sooner_the_next_is_due():
    subject = poller(1)
    subject.decide(NOW)
    subject.listed([summary(0, "InProgress")], age_seconds=4.0)
    assert subject.decide(NOW) == Wait(6.0)


def test_times_of_different_precision_and_zone_are_ordered_as_times():
    late = Invocation("r0", arn(0), Outcome.STARTED, "2026-11-23T02:00:00Z")
    early = Invocation("r1", arn(1), Outcome.ADOPTED, "2026-11-23T02:30:00.5+01:00")
    decision = StatusPoller([late, early], 10.0, HOUR, NOW).decide(NOW)
    assert decision.submitted_after == datetime(2026, 11, 23, 1, 30, 0, 500000, tzinfo=UTC) - CLOCK_MARGIN


def test_without_a_time_of_submission_the_whole_list_is_looked_at():
    subject = StatusPoller([Invocation("r0", arn(0), Outcome.ADOPTED), invocation(1)], 10.0, HOUR, NOW)
    assert subject.decide(NOW).submitted_after is None


def test_a_straggler_that_the_list_does_not_show_is_asked_for():
    subject = poller(2, patience=2)
    for now in (NOW, NOW + 10):
        subject.decide(now)
        subject.listed([summary(0)])
        missed = subject.decide(now)
        if now == NOW:
            assert missed == Wait(10.0)
    assert missed == GetEach((arn(1),))
    subject.got([summary(1)])
    assert subject.decide(NOW + 10) == Done(deadline_exceeded=False)


def test_one_that_the_list_shows_now_and_then_is_not_asked_for():
    subject = poller(1, patience=2)
    for shown in ([], [summary(0, "InProgress")], [], [summary(0, "InProgress")]):
        assert isinstance(subject.decide(NOW), ListSince)
        subject.listed(shown)
        assert isinstance(subject.decide(NOW), Wait)


def test_a_page_that_lags_behind_does_not_take_back_an_end():
    subject = poller(2)
    subject.decide(NOW)
    subject.listed([summary(0), summary(1, "InProgress")])
    subject.listed([summary(0, "InProgress"), summary(1, "InProgress")])
    assert subject.statuses[0].status == "Completed"


@pytest.mark.parametrize("status", ["Expired", "Submitted", "Stopped"])
def test_an_unknown_status_is_followed_until_the_deadline_and_kept(status):
    subject = poller(1)
    subject.decide(NOW)
    subject.listed([summary(0, status)])
    assert isinstance(subject.decide(NOW), Wait)
    subject.decide(NOW + HOUR)
    subject.listed([summary(0, status)])
    assert subject.decide(NOW + HOUR) == Done(deadline_exceeded=True)
    assert subject.statuses[0].status == status


def test_a_summary_without_a_status_is_in_progress():
    subject = poller(1)
    subject.decide(NOW)
    subject.listed([summary(0, None)])
    assert subject.statuses[0].status == "InProgress"


def test_the_deadline_counts_from_the_last_submission():
    assert poller(3).deadline == NOW + 2 * 60 + HOUR


def test_the_deadline_of_one_invocation_counts_from_the_submission_that_bedrock_states():
    subject = StatusPoller([Invocation("", arn(0), Outcome.STARTED)], 10.0, HOUR, NOW + 7 * HOUR, use_list=False)
    assert subject.deadline == NOW + 8 * HOUR
    subject.decide(NOW + 7 * HOUR)
    subject.got([summary(0, "InProgress")])
    assert subject.decide(NOW + 7 * HOUR) == Done(deadline_exceeded=True)


def test_a_wait_that_begins_after_the_deadline_looks_once():
    subject = poller(1)
    assert isinstance(subject.decide(NOW + 9 * HOUR), ListSince)
    subject.listed([summary(0)])
    assert subject.decide(NOW + 9 * HOUR) == Done(deadline_exceeded=False)


def test_the_deadline_does_not_end_the_wait_on_a_look_that_failed():
    subject = poller(1)
    subject.decide(NOW + 9 * HOUR)
    subject.failed(UNAVAILABLE)
    assert isinstance(subject.decide(NOW + 9 * HOUR), Wait)


def test_the_last_wait_ends_at_the_deadline():
    subject = poller(1)
    subject.decide(NOW)
    subject.listed([summary(0, "InProgress")])
    assert subject.decide(NOW + HOUR - 3) == Wait(3.0)


def test_looks_that_fail_in_a_row_give_up():
    subject = poller(1, max_failures=3)
    for number in range(3):
        assert isinstance(subject.decide(NOW + 100 * number), ListSince)
        subject.failed(UNAVAILABLE)
        decision = subject.decide(NOW)
    assert decision == GiveUp(str(UNAVAILABLE))


def test_a_look_that_succeeds_ends_the_row_of_failures():
    subject = poller(1, max_failures=2)
    for _ in range(5):
        subject.decide(NOW)
        subject.failed(UNAVAILABLE)
        assert isinstance(subject.decide(NOW), Wait)
        subject.decide(NOW)
        subject.listed([summary(0, "InProgress")])
        assert isinstance(subject.decide(NOW), Wait)


def test_being_throttled_slows_down_and_never_gives_up():
    subject = poller(1, timeout=100 * HOUR)
    waits = []
    for _ in range(50):
        subject.decide(NOW)
        subject.failed(THROTTLED)
        waits.append(subject.decide(NOW).seconds)
    assert waits[:4] == [20, 30, 40, 40]
    assert waits[-1] == 40


def test_a_refused_list_gives_up_at_once():
    subject = poller(1)
    subject.decide(NOW)
    subject.failed(refusal("AccessDeniedException"))
    assert subject.decide(NOW) == GiveUp("AccessDeniedException: no")


def test_one_invocation_that_bedrock_does_not_know_gives_up_at_once():
    subject = StatusPoller([Invocation("", arn(0), Outcome.STARTED)], 10.0, HOUR, NOW, use_list=False)
    assert subject.decide(NOW) == GetEach((arn(0),))
    subject.got([], {arn(0): refusal("ValidationException", "unknown")})
    assert subject.decide(NOW) == GiveUp("ValidationException: unknown")


def test_one_of_many_that_bedrock_does_not_know_is_kept_with_its_answer_and_holds_up_no_other():
    subject = poller(2, patience=1)
    subject.decide(NOW)
    subject.listed([summary(0)])
    assert subject.decide(NOW) == GetEach((arn(1),))
    subject.got([], {arn(1): refusal("ValidationException", "unknown")})
    assert isinstance(subject.decide(NOW), Wait)
    assert [one.status for one in subject.statuses] == ["Completed", "NotFound"]
    assert subject.statuses[1].failure_message == "GetAsyncInvoke answers ValidationException: unknown"


def test_one_that_is_listed_after_all_was_only_late():
    subject = poller(1, patience=1)
    subject.decide(NOW)
    subject.listed([])
    subject.got([], {arn(0): refusal("ValidationException", "unknown")})
    subject.listed([summary(0, status="InProgress")])
    assert [one.status for one in subject.statuses] == ["InProgress"]


def test_one_that_may_not_be_asked_for_is_not_taken_for_unknown():
    subject = poller(1, patience=1)
    subject.decide(NOW)
    subject.listed([])
    subject.got([], {arn(0): refusal("AccessDeniedException")})
    assert [one.status for one in subject.statuses] == ["InProgress"]


def test_the_output_folder_ends_in_the_invocation_id_whether_bedrock_names_it_or_not():
    subject = poller(2)
    subject.listed(
        [
            summary(0),
            summary(1, outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"s3://b/outputs/r1/{1:012d}/"}}),
        ]
    )
    assert [one.output_uri for one in subject.statuses] == [
        f"s3://b/outputs/r0/{0:012d}",
        f"s3://b/outputs/r1/{1:012d}",
    ]


LOOKS = st.sampled_from(["answered", "lagging", "throttled", "down"])


class Account:
    """Bedrock as the poller sees it: jobs that end at their times, and looks that go wrong as they are told."""

    def __init__(self, ends: list[tuple[float, str]], hidden: set[int], looks: list[str]) -> None:
        self.ends, self.hidden, self.looks = ends, hidden, iter(looks)
        self.asked: set[int] = set()

    def describe(self, numbers, at: float) -> list[dict]:
        return [summary(n, self.ends[n][1] if at >= NOW + self.ends[n][0] else "InProgress") for n in numbers]

    def get(self, subject: StatusPoller, arns: tuple[str, ...], now: float) -> None:
        numbers = [n for n in range(len(self.ends)) if arn(n) in arns]
        self.asked |= set(numbers)
        subject.got(self.describe(numbers, now))

    def look(self, subject: StatusPoller, now: float) -> None:
        answer = next(self.looks, "answered")
        if answer in ("throttled", "down"):
            subject.failed(THROTTLED if answer == "throttled" else UNAVAILABLE)
        else:
            shown = [n for n in range(len(self.ends)) if n not in self.hidden]
            subject.listed(self.describe(shown, now - 120 if answer == "lagging" else now))


def drive(subject: StatusPoller, account: Account) -> tuple[Done | GiveUp, float]:
    now, final = NOW, {}
    for _ in range(3000):
        decision = subject.decide(now)
        for one in subject.statuses:
            assert final.get(one.invocation_arn, one.status) == one.status, "an end was taken back"
            if one.status in TERMINAL:
                final[one.invocation_arn] = one.status
        if isinstance(decision, (Done, GiveUp)):
            return decision, now
        if isinstance(decision, Wait):
            now += decision.seconds
        elif isinstance(decision, GetEach):
            account.get(subject, decision.invocation_arns, now)
        else:
            account.look(subject, now)
    raise AssertionError("the wait never ends")


@settings(max_examples=60, deadline=None)
@given(
    ends=st.lists(st.tuples(st.floats(0, 3 * HOUR), st.sampled_from(["Completed", "Failed", "Expired"])), max_size=8),
    hidden=st.sets(st.integers(0, 7)),
    looks=st.lists(LOOKS, max_size=60),
)
def test_no_status_is_lost_and_the_wait_always_ends(ends, hidden, looks):
    subject, account = poller(len(ends), max_failures=100), Account(ends, hidden, looks)
    decision, now = drive(subject, account)
    assert isinstance(decision, Done)
    assert decision.deadline_exceeded == bool(subject.pending)
    if decision.deadline_exceeded:
        # Later by no more than the waits after looks that failed.
        assert subject.deadline <= now <= subject.deadline + 40.0 * len(looks)
    assert [one.request_id for one in subject.statuses] == [f"r{n}" for n in range(len(ends))]
    for one, (seconds, status) in zip(subject.statuses, ends, strict=True):
        # Without a deadline that is over, all have ended; with one, what the last looks may have missed is excused:
        # hidden ones are asked for at every second look only, and an answer may be two minutes old.
        if not decision.deadline_exceeded or seconds < now - NOW - 300:
            assert one.status == status
    assert account.asked <= hidden, "one that the list shows was asked for by itself"
