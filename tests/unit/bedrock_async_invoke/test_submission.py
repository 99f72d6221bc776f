from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_async_invoke.manifest import Invocation, Outcome
from bedrock_async_invoke.submission import Done, GiveUp, Look, Start, SubmissionWindow, Wait
from tests.unit.bedrock_async_invoke.fake_aws import THROTTLED, TIMED_OUT, UNAVAILABLE, refusal


def started(request_id: str) -> Invocation:
    return Invocation(request_id, f"arn:{request_id}", Outcome.STARTED)


def window(count: int = 3, **settings) -> SubmissionWindow:
    return SubmissionWindow(
        [f"r{number}" for number in range(count)], **{"max_in_flight": None, "poll_interval": 10.0, **settings}
    )


def test_nothing_is_started_before_the_list_was_looked_at():
    assert window().decide(0) == Look()


def test_a_window_without_requests_is_done():
    assert window(0).decide(0) == Done()


def test_requests_are_started_in_their_order():
    subject = window(2)
    subject.listed(0, [])
    assert subject.decide(0) == Start("r0")
    subject.started(started("r0"))
    assert subject.decide(0) == Start("r1")
    subject.started(started("r1"))
    assert subject.decide(0) == Done()


def test_a_full_window_waits_and_looks_again():
    subject = window(max_in_flight=2)
    subject.listed(1, [])
    subject.started(started("r0"))
    assert subject.decide(0) == Wait(10.0, "2 invocations of the model are in progress")
    assert subject.decide(4).seconds == 6.0
    assert subject.decide(10) == Look()
    subject.listed(1, [])
    assert subject.decide(10) == Start("r1")


def test_what_bedrock_lists_is_adopted_and_not_started():
    subject = window(2)
    subject.listed(1, [Invocation("r0", "arn", Outcome.ADOPTED)])
    assert subject.decide(0) == Start("r1")
    assert subject.outcomes["r0"].outcome is Outcome.ADOPTED


def test_throttling_waits_longer_each_time_until_a_start_succeeds():
    subject = window()
    waits, now = [], 0.0
    for _ in range(8):
        subject.listed(0, [])
        subject.start_failed("r0", THROTTLED, now)
        waits.append(subject.decide(now).seconds)
        now += waits[-1]
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    assert subject.pending == 3
    subject.listed(0, [])
    subject.started(started("r0"))
    subject.start_failed("r1", THROTTLED, now)
    assert subject.decide(now).seconds == 2


def test_throttling_never_gives_up():
    subject = window()
    now = 0.0
    for _ in range(100):
        subject.listed(0, [])
        subject.start_failed("r0", THROTTLED, now)
        subject.list_failed(THROTTLED, now)
        decision = subject.decide(now)
        assert isinstance(decision, Wait)
        now += decision.seconds


def test_after_an_answer_that_can_not_be_relied_on_the_list_is_looked_at_with_a_delay_before_the_next_start():
    subject = window(consistency_delay=5.0)
    subject.listed(0, [])
    subject.start_failed("r0", TIMED_OUT, 0)
    assert subject.decide(0) == Wait(5.0, str(TIMED_OUT))
    assert subject.decide(5) == Look()
    subject.listed(1, [Invocation("r0", "arn", Outcome.ADOPTED)])
    assert subject.decide(5) == Start("r1")


def test_a_request_that_bedrock_fails_over_lets_the_others_go_first():
    subject = window(3)
    subject.listed(0, [])
    subject.start_failed("r0", UNAVAILABLE, 0)
    subject.listed(0, [])
    assert [subject.decide(99), subject.pending] == [Start("r1"), 3]


def test_starts_that_fail_in_a_row_give_up_even_if_the_list_answers():
    subject = window(1, max_failures=3)
    now = 0.0
    for _ in range(3):
        subject.listed(0, [])
        subject.start_failed("r0", UNAVAILABLE, now)
        now += 100
    assert subject.decide(now) == GiveUp(str(UNAVAILABLE))


def test_lost_answers_to_calls_that_had_their_effect_do_not_give_up():
    subject = window(20, max_failures=3)
    for number in range(20):
        subject.listed(0, [])
        subject.start_failed(f"r{number}", TIMED_OUT, 0)
        assert not isinstance(subject.decide(0), GiveUp)
        subject.listed(0, [Invocation(f"r{number}", "arn", Outcome.ADOPTED)])
    assert subject.decide(0) == Done()


def test_a_list_that_fails_in_a_row_gives_up_before_anything_is_started():
    subject = window(max_failures=3)
    for now in (0, 100, 200):
        assert subject.decide(now) == Look()
        subject.list_failed(UNAVAILABLE, now)
    assert isinstance(subject.decide(300), GiveUp)


def test_a_look_that_succeeds_ends_the_row_of_looks_that_failed():
    subject = window(max_failures=2)
    for now in range(0, 1000, 100):
        subject.list_failed(UNAVAILABLE, now)
        assert isinstance(subject.decide(now), Wait)
        subject.listed(0, [])


def test_a_list_that_is_refused_gives_up_at_once():
    subject = window()
    subject.list_failed(refusal("AccessDeniedException"), 0)
    assert subject.decide(0) == GiveUp("AccessDeniedException: no")


def test_a_refused_request_fails_alone():
    subject = window(2)
    subject.listed(0, [])
    subject.start_failed("r0", refusal("ValidationException", "too long"), 0)
    assert subject.decide(0) == Start("r1")
    assert subject.outcomes["r0"] == Invocation("r0", None, Outcome.REFUSED, None, "ValidationException", "too long")


def test_a_token_in_conflict_is_looked_up_before_its_request_counts_as_refused():
    subject = window(1)
    for now in (0, 100):
        subject.listed(0, [])
        assert subject.decide(now) == Start("r0")
        subject.start_failed("r0", refusal("ConflictException"), now)
    assert subject.outcomes["r0"].error_code == "ConflictException"


ANSWERS = ["accepted", "throttled", "lost", "down", "invalid", "conflict"]


@st.composite
def scenarios(draw):
    return {
        "count": draw(st.integers(0, 12)),
        "max_in_flight": draw(st.none() | st.integers(1, 4)),
        "answers": draw(st.lists(st.sampled_from(ANSWERS), max_size=40)),
        "looks": draw(st.lists(st.sampled_from(["answered", "throttled", "down"]), max_size=20)),
        "job_seconds": draw(st.sampled_from([0.0, 5.0, 25.0, 300.0])),
        "strangers": draw(st.integers(0, 2)),
    }


class Account:
    """Bedrock as the window sees it: it remembers what it accepted, and misbehaves as it is told."""

    def __init__(self, scenario: dict) -> None:
        self.scenario = scenario
        self.answers, self.looks = iter(scenario["answers"]), iter(scenario["looks"])
        self.accepted: list[str] = []
        self.ends: dict[str, float] = {f"stranger-{n}": 40.0 for n in range(scenario["strangers"])}
        self.invalid: set[str] = set()

    def in_progress(self, now: float) -> int:
        return sum(now < end for end in self.ends.values())

    def accept(self, token: str, now: float) -> None:
        self.accepted.append(token)
        self.ends[token] = now + self.scenario["job_seconds"]
        limit = self.scenario["max_in_flight"]
        assert limit is None or self.in_progress(now) <= max(limit, self.scenario["strangers"])

    def start(self, subject: SubmissionWindow, token: str, now: float) -> None:
        assert token not in subject.outcomes
        answer = next(self.answers, "accepted")
        if answer == "throttled":
            subject.start_failed(token, THROTTLED, now)
        elif answer == "down":
            subject.start_failed(token, UNAVAILABLE, now)
        elif answer == "invalid" or token in self.invalid:
            self.invalid.add(token)
            subject.start_failed(token, refusal("ValidationException"), now)
        elif answer == "conflict":
            subject.start_failed(token, refusal("ConflictException"), now)
        else:
            self.accept(token, now)
            if answer == "lost":
                subject.start_failed(token, TIMED_OUT, now)
            else:
                subject.started(started(token))

    def look(self, subject: SubmissionWindow, now: float) -> None:
        answer = next(self.looks, "answered")
        if answer == "answered":
            known = [Invocation(token, f"arn:{token}", Outcome.ADOPTED) for token in self.accepted]
            subject.listed(self.in_progress(now), known)
        else:
            subject.list_failed(THROTTLED if answer == "throttled" else UNAVAILABLE, now)


def drive(subject: SubmissionWindow, account: Account, now: float) -> tuple[Done | GiveUp, float]:
    for _ in range(5000):
        decision = subject.decide(now)
        if isinstance(decision, (Done, GiveUp)):
            return decision, now
        if isinstance(decision, Wait):
            assert decision.seconds > 0
            now += decision.seconds
        elif isinstance(decision, Look):
            account.look(subject, now)
        else:
            account.start(subject, decision.request_id, now)
    raise AssertionError("the window never ends")


@settings(max_examples=300, deadline=None)
@given(scenarios())
def test_whatever_bedrock_answers_nothing_is_started_twice_and_each_request_ends_in_one_outcome(scenario):
    account = Account(scenario)
    request_ids = [f"r{number}" for number in range(scenario["count"])]
    kept: dict[str, Invocation] = {}
    now = 0.0
    for _ in range(60):  # tries of the task
        subject = SubmissionWindow(
            request_ids, max_in_flight=scenario["max_in_flight"], poll_interval=10.0, max_failures=3
        )
        subject.remember(kept.values())
        ended, now = drive(subject, account, now)
        kept = dict(subject.outcomes)
        if isinstance(ended, Done):
            break
    assert set(kept) == set(request_ids)
    assert len(account.accepted) == len(set(account.accepted))
    for request_id, invocation in kept.items():
        assert (invocation.outcome is Outcome.REFUSED) == (request_id not in account.accepted)
        assert (invocation.invocation_arn is None) == (invocation.outcome is Outcome.REFUSED)


@settings(max_examples=100, deadline=None)
@given(count=st.integers(1, 8), throttled=st.lists(st.booleans(), max_size=40))
def test_throttling_refuses_no_request(count, throttled):
    account = Account(
        {
            "count": count,
            "max_in_flight": 2,
            "answers": ["throttled" if one else "accepted" for one in throttled],
            "looks": [],
            "job_seconds": 25.0,
            "strangers": 0,
        }
    )
    subject = window(count, max_in_flight=2)
    ended, _ = drive(subject, account, 0.0)
    assert ended == Done()
    assert {one.outcome for one in subject.outcomes.values()} == {Outcome.STARTED}
