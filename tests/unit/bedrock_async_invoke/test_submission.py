from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.manifest import Invocation, Outcome
from bedrock_async_invoke.submission import Candidate, Done, GiveUp, Look, Patience, Start, SubmissionWindow, Wait
from tests.unit.bedrock_async_invoke.fake_aws import THROTTLED, TIMED_OUT, UNAVAILABLE, refusal

EXPIRED = AsyncInvokeError(Meaning.UNAUTHENTICATED, "ExpiredTokenException", "expired")


def started(request_id: str) -> Invocation:
    return Invocation(request_id, f"arn:{request_id}", Outcome.STARTED)


def adopted(request_id: str) -> Invocation:
    return Invocation(request_id, f"arn:{request_id}", Outcome.ADOPTED)


def window(count: int = 3, max_in_flight: int | None = None, **settings) -> SubmissionWindow:
    subject = SubmissionWindow(**{"poll_interval": 10.0, **settings})
    subject.add(Candidate(f"r{number}", max_in_flight=max_in_flight) for number in range(count))
    return subject


def start_all(subject: SubmissionWindow, now: float) -> list[str]:
    """Start whatever the window lets start at this moment, and return it in order."""
    found = []
    while isinstance(decision := subject.decide(now), Start):
        subject.started(started(decision.request_id))
        found.append(decision.request_id)
    return found


def test_nothing_is_started_before_the_list_was_looked_at():
    assert window().decide(0) == Look()


def test_a_window_without_requests_is_done():
    assert window(0).decide(0) == Done()


def test_requests_of_the_same_priority_are_started_in_their_order():
    subject = window(3)
    subject.listed(0, [], 0)
    assert start_all(subject, 0) == ["r0", "r1", "r2"]
    assert subject.decide(0) == Done()


def test_the_highest_priority_is_started_first_whoever_has_added_it():
    subject = window(0)
    subject.add([Candidate("short", 1.0), Candidate("long", 9.0)])
    subject.add([Candidate("longest", 99.0)])
    subject.listed(0, [], 0)
    assert start_all(subject, 0) == ["longest", "long", "short"]


def test_a_request_whose_limit_is_reached_does_not_hold_up_one_with_a_higher_limit():
    subject = window(0)
    subject.add([Candidate("careful", 9.0, max_in_flight=2), Candidate("bold", 1.0, max_in_flight=5)])
    subject.listed(2, [], 0)
    assert start_all(subject, 0) == ["bold"]


def test_a_full_window_waits_and_looks_again():
    subject = window(max_in_flight=2)
    subject.listed(1, [], 0)
    assert start_all(subject, 0) == ["r0"]
    for now in (0, 30, 60):
        subject.listed(2, [], now)
    assert subject.decide(60) == Wait(10.0, "2 invocations of the model are in progress")
    assert subject.decide(64).seconds == 6.0
    assert subject.decide(70) == Look()
    subject.listed(1, [], 70)
    assert subject.decide(70) == Start("r1")


def test_what_is_being_started_takes_room_in_the_window():
    subject = window(5, max_in_flight=2)
    subject.listed(0, [], 0)
    for request_id in ("r0", "r1"):
        assert subject.decide(0) == Start(request_id)
        subject.starting(request_id)
    assert isinstance(subject.decide(0), Wait)
    subject.start_failed("r1", refusal("ValidationException"), 0)
    assert subject.decide(0) == Start("r2")


def test_an_invocation_that_the_list_showed_before_its_start_had_an_answer_is_counted_once():
    subject = window(5, max_in_flight=3)
    subject.listed(0, [], 0)
    subject.starting("r0")
    subject.listed(1, [], 1)
    subject.started(started("r0"), is_listed=True)
    assert start_all(subject, 1) == ["r1", "r2"]


def test_what_is_being_started_is_not_taken_for_somebody_elses():
    subject = window(1)
    subject.listed(0, [], 0)
    subject.starting("r0")
    subject.listed(1, [adopted("r0")], 1)
    subject.started(started("r0"), is_listed=True)
    assert subject.outcomes["r0"].outcome is Outcome.STARTED


def test_throttled_calls_that_were_under_way_together_shrink_the_window_once():
    subject = window(40, max_in_flight=30)
    subject.listed(20, [], 0)
    for number in range(8):
        subject.starting(f"r{number}")
    for number in range(8):
        subject.start_failed(f"r{number}", THROTTLED, 0)
    subject.listed(0, [], 100)
    # Nine tenths of 20, and one more for as many that are accepted.
    assert 18 <= len(start_all(subject, 100)) <= 20


def test_while_starts_fail_one_is_tried_at_a_time():
    subject = window(5)
    subject.listed(0, [], 0)
    for name in ("r0", "r1"):
        subject.starting(name)
        subject.start_failed(name, UNAVAILABLE, 0)
    subject.listed(0, [], 60)
    probe = subject.decide(60)
    assert isinstance(probe, Start)
    subject.starting(probe.request_id)
    assert isinstance(subject.decide(60), Wait)


def test_what_bedrock_lists_is_adopted_and_not_started():
    subject = window(2)
    subject.listed(1, [adopted("r0")], 0)
    assert start_all(subject, 0) == ["r1"]
    assert subject.outcomes["r0"].outcome is Outcome.ADOPTED


def test_what_is_settled_is_told_once():
    subject = window(2)
    subject.listed(1, [adopted("r0")], 0)
    assert subject.take_settled() == [adopted("r0")]
    assert subject.take_settled() == []


def test_a_request_that_is_forgotten_is_not_started():
    subject = window(2)
    subject.listed(0, [], 0)
    subject.forget(["r0"])
    assert start_all(subject, 0) == ["r1"]


def test_throttling_waits_longer_each_time_until_a_start_succeeds():
    subject = window()
    waits, now = [], 0.0
    for _ in range(8):
        subject.listed(0, [], now)
        subject.start_failed("r0", THROTTLED, now)
        waits.append(subject.decide(now).seconds)
        now += waits[-1]
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    assert subject.pending == 3
    subject.listed(0, [], now)
    subject.started(started("r0"))
    subject.start_failed("r1", THROTTLED, now)
    assert subject.decide(now).seconds == 2


def test_throttling_waits_as_long_as_the_service_asks():
    subject = window()
    subject.listed(0, [], 0)
    subject.start_failed("r0", AsyncInvokeError(Meaning.THROTTLED, "ThrottlingException", "slow down", 7.5), 0)
    assert subject.decide(0) == Wait(7.5, "ThrottlingException: slow down")


def test_throttling_never_gives_up():
    subject = window()
    now = 0.0
    for _ in range(100):
        subject.listed(0, [], now)
        subject.start_failed("r0", THROTTLED, now)
        subject.list_failed(THROTTLED, now)
        decision = subject.decide(now)
        assert isinstance(decision, Wait)
        now += decision.seconds


def test_throttling_shrinks_the_window_by_a_tenth_and_successes_let_it_grow_again():
    subject = window(1000, max_in_flight=50)
    subject.listed(20, [], 0)
    subject.start_failed("r0", THROTTLED, 0)
    now, taken = 100.0, []
    for _ in range(6):
        subject.listed(10, [], now)
        taken.append(10 + len(start_all(subject, now)))
        now += 100
    assert taken[0] == 19
    assert taken == sorted(taken)
    assert taken[-1] > 20


def test_throughput_under_a_quota_below_the_window_stays_near_the_quota():
    subject, quota, now = window(4000, max_in_flight=50), 20, 0.0
    ends, busy = [], 0.0
    while now < 600:
        ends = [end for end in ends if end > now]
        decision = subject.decide(now)
        if isinstance(decision, Look):
            subject.listed(len(ends), [], now)
        elif isinstance(decision, Start) and len(ends) >= quota:
            subject.start_failed(decision.request_id, THROTTLED, now)
        elif isinstance(decision, Start):
            subject.started(started(decision.request_id))
            ends.append(now + 30)
        else:
            step = min(decision.seconds, 0.5)
            busy += step * len([end for end in ends if end > now])
            now += step
    assert busy / (600 * quota) > 0.85


def test_after_an_answer_that_can_not_be_relied_on_the_list_is_looked_at_before_that_request_is_started_again():
    subject = window(1, list_lag=5.0)
    subject.listed(0, [], 0)
    subject.start_failed("r0", TIMED_OUT, 0)
    assert subject.decide(0) == Wait(5.0, "it is not known yet what became of earlier Start calls")
    assert subject.decide(5) == Look()
    subject.listed(1, [adopted("r0")], 5)
    assert subject.decide(5) == Done()


def test_a_look_that_began_too_early_does_not_count():
    subject = window(1, list_lag=5.0)
    subject.listed(0, [], 0)
    subject.start_failed("r0", TIMED_OUT, 0)
    subject.listed(0, [], 4.9)
    assert subject.decide(5) == Look()
    subject.listed(0, [], 5)
    assert subject.decide(5) == Start("r0")


def test_one_of_which_it_is_not_known_takes_room_until_it_is_and_the_others_go_on():
    subject = window(3, max_in_flight=2, list_lag=5.0)
    subject.listed(0, [], 0)
    subject.start_failed("r0", UNAVAILABLE, 0)
    assert start_all(subject, 0) == ["r1"]
    assert isinstance(subject.decide(0), Wait)
    assert subject.decide(5) == Look()
    subject.listed(0, [], 5)
    assert start_all(subject, 5) == ["r0", "r2"]


def test_a_request_that_is_held_is_started_after_a_look_that_begins_late_enough():
    subject = window(1)
    subject.listed(0, [], 0)
    subject.hold("r0", until=40)
    assert subject.decide(0).seconds == 40
    assert subject.decide(40) == Look()
    subject.listed(0, [], 40)
    assert subject.decide(40) == Start("r0")


def test_a_request_that_bedrock_never_answers_ends_unanswered_and_the_others_are_started():
    subject = window(3, list_lag=5.0, patience=Patience(tries=2))
    now = 0.0
    while not isinstance(decision := subject.decide(now), Done):
        if isinstance(decision, Look):
            subject.listed(0, [], now)
        elif isinstance(decision, Wait):
            now += decision.seconds
        elif decision.request_id == "r0":
            subject.start_failed("r0", UNAVAILABLE, now)
        else:
            subject.started(started(decision.request_id))
    assert {name: one.outcome for name, one in subject.outcomes.items()} == {
        "r0": Outcome.UNANSWERED,
        "r1": Outcome.STARTED,
        "r2": Outcome.STARTED,
    }
    assert "2 Start calls had no answer to rely on" in subject.outcomes["r0"].error_message
    assert subject.outcomes["r0"].error_code == "InternalServerException"


@pytest.mark.parametrize("error", [UNAVAILABLE, EXPIRED], ids=["unavailable", "expired credentials"])
def test_when_every_start_fails_the_circuit_breaker_opens_probes_and_gives_up(error):
    patience = Patience(failed_starts=3, probes=2, breaker_seconds=30)
    subject = window(100, patience=patience)
    subject.listed(0, [], 0)
    now, calls, pauses = 0.0, 0, []
    while not isinstance(decision := subject.decide(now), GiveUp):
        if isinstance(decision, Look):
            subject.listed(0, [], now)
        elif isinstance(decision, Start):
            calls += 1
            subject.start_failed(decision.request_id, error, now)
        else:
            if "circuit breaker" in decision.reason:
                pauses.append(decision.seconds)
            now += decision.seconds
    assert calls == 3 + 2
    assert pauses == [30, 60]
    assert "the circuit breaker stays open: 5 Start calls failed in a row" in decision.reason
    assert error.code in decision.reason


def test_one_success_closes_the_circuit_breaker():
    subject = window(100, patience=Patience(failed_starts=2))
    subject.listed(0, [], 0)
    for name in ("r0", "r1"):
        subject.start_failed(name, UNAVAILABLE, 0)
    assert "circuit breaker is open" in subject.decide(0).reason
    subject.listed(0, [], 50)
    assert subject.decide(50) == Start("r99")
    subject.started(started("r99"))
    subject.start_failed("r2", UNAVAILABLE, 50)
    assert isinstance(subject.decide(50), Start)


def test_requests_that_bedrock_always_fails_over_standing_first_do_not_keep_the_others_from_being_started():
    subject = window(60)
    now, bad = 0.0, {f"r{number}" for number in range(12)}
    while not isinstance(decision := subject.decide(now), Done):
        assert not isinstance(decision, GiveUp)
        if isinstance(decision, Look):
            subject.listed(0, [], now)
        elif isinstance(decision, Wait):
            now += decision.seconds
        elif decision.request_id in bad:
            subject.start_failed(decision.request_id, UNAVAILABLE, now)
        else:
            subject.started(started(decision.request_id))
    assert {name for name, one in subject.outcomes.items() if one.outcome is Outcome.UNANSWERED} == bad


def test_lost_answers_to_calls_that_had_their_effect_do_not_give_up():
    subject = window(20, list_lag=1.0, patience=Patience(failed_starts=3, probes=1))
    for number in range(20):
        now = 10.0 * number
        subject.listed(0, [], now)
        subject.start_failed(f"r{number}", TIMED_OUT, now)
        assert not isinstance(subject.decide(now), GiveUp)
        subject.listed(0, [adopted(f"r{number}")], now + 5)
    assert subject.decide(300) == Done()


def test_a_list_that_fails_in_a_row_gives_up_before_anything_is_started():
    subject = window(patience=Patience(failed_looks=3))
    for now in (0, 100, 200):
        assert subject.decide(now) == Look()
        subject.list_failed(UNAVAILABLE, now)
    assert isinstance(subject.decide(300), GiveUp)


def test_a_look_that_succeeds_ends_the_row_of_looks_that_failed():
    subject = window(patience=Patience(failed_looks=2))
    for now in range(0, 1000, 100):
        subject.list_failed(UNAVAILABLE, now)
        assert isinstance(subject.decide(now), Wait)
        subject.listed(0, [], now)


def test_a_list_that_is_refused_gives_up_at_once():
    subject = window()
    subject.list_failed(refusal("AccessDeniedException"), 0)
    assert subject.decide(0) == GiveUp("its list can't be looked at: AccessDeniedException: no")


def test_a_refused_request_fails_alone():
    subject = window(2)
    subject.listed(0, [], 0)
    subject.start_failed("r0", refusal("ValidationException", "too long"), 0, "then")
    assert subject.decide(0) == Start("r1")
    assert subject.outcomes["r0"] == Invocation("r0", None, Outcome.REFUSED, "then", "ValidationException", "too long")


def test_a_token_in_conflict_is_looked_up_before_its_request_counts_as_refused():
    subject = window(1, list_lag=5.0)
    for now in (0, 100):
        subject.listed(0, [], now)
        assert subject.decide(now) == Start("r0")
        subject.start_failed("r0", refusal("ConflictException"), now)
    assert subject.outcomes["r0"].error_code == "ConflictException"


ANSWERS = ["accepted", "throttled", "lost", "down", "expired", "invalid", "conflict"]


@st.composite
def scenarios(draw):
    return {
        "count": draw(st.integers(0, 12)),
        "max_in_flight": draw(st.none() | st.integers(1, 4)),
        "answers": draw(st.lists(st.sampled_from(ANSWERS), max_size=40)),
        "looks": draw(st.lists(st.sampled_from(["answered", "throttled", "down"]), max_size=20)),
        "job_seconds": draw(st.sampled_from([0.0, 5.0, 25.0, 300.0])),
        "strangers": draw(st.integers(0, 2)),
        "list_lag": draw(st.sampled_from([0.0, 3.0, 29.9])),
    }


class Account:
    """Bedrock as the window sees it: it remembers what it accepted, and misbehaves as it is told."""

    def __init__(self, scenario: dict) -> None:
        self.scenario = scenario
        self.answers, self.looks = iter(scenario["answers"]), iter(scenario["looks"])
        self.accepted: list[str] = []
        self.accepted_at: dict[str, float] = {}
        self.ends: dict[str, float] = {f"stranger-{n}": 40.0 for n in range(scenario["strangers"])}
        self.invalid: set[str] = set()

    def in_progress(self, now: float) -> int:
        return sum(now < end for end in self.ends.values())

    def accept(self, token: str, now: float) -> None:
        self.accepted.append(token)
        self.accepted_at[token] = now
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
        elif answer == "expired":
            subject.start_failed(token, EXPIRED, now)
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
            listed = [token for token in self.accepted if self.accepted_at[token] + self.scenario["list_lag"] <= now]
            unlisted = sum(
                now < self.ends[token] for token in subject.outcomes if token in self.accepted and token not in listed
            )
            in_progress = sum(
                now < end for token, end in self.ends.items() if token in listed or token not in self.accepted
            )
            # Whoever looks counts beside the list what it has started itself and is not listed yet.
            subject.listed(in_progress + unlisted, [adopted(token) for token in listed], now)
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
    for _ in range(60):  # tries of the task, each as late as a list needs to show what the last one did
        subject = SubmissionWindow(poll_interval=10.0, patience=Patience(tries=50, failed_starts=3, probes=2))
        subject.add(Candidate(one, 0.0, scenario["max_in_flight"]) for one in request_ids if one not in kept)
        ended, now = drive(subject, account, now)
        kept |= subject.outcomes
        now += 30
        if isinstance(ended, Done):
            break
    assert set(kept) == set(request_ids)
    assert len(account.accepted) == len(set(account.accepted))
    for request_id, invocation in kept.items():
        without = invocation.outcome in (Outcome.REFUSED, Outcome.UNANSWERED)
        assert without == (request_id not in account.accepted)
        assert without == (invocation.invocation_arn is None)


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
            "list_lag": 0.0,
        }
    )
    subject = window(count, max_in_flight=2)
    ended, _ = drive(subject, account, 0.0)
    assert ended == Done()
    assert {one.outcome for one in subject.outcomes.values()} == {Outcome.STARTED}


def test_what_is_started_next_can_be_told_beforehand_and_stays_in_its_order():
    window = SubmissionWindow(poll_interval=5.0)
    window.add([Candidate(f"r{number}", priority, 1) for number, priority in enumerate((1.0, 3.0, 2.0, 3.0))])
    window.listed(0, [], 0.0)
    assert window.upcoming(3) == ["r1", "r3", "r2"]
    window.starting("r1")
    assert window.upcoming(3) == ["r3", "r2", "r0"]
    window.started(Invocation("r1", "arn", Outcome.STARTED))
    window.listed(0, [], 1.0)
    assert window.decide(1.0) == Start("r3")
