from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.invoking import Call, Done, GiveUp, InvokePatience, InvokeSchedule, Wait
from tests.unit.bedrock_async_invoke.fake_aws import TIMED_OUT, UNAVAILABLE

EXPIRED = AsyncInvokeError(Meaning.UNAUTHENTICATED, "ExpiredTokenException", "expired")


def begin_all(schedule: InvokeSchedule, now: float = 0.0) -> list[str]:
    begun = []
    while isinstance(decision := schedule.decide(now), Call):
        schedule.begun(decision.request_id, now)
        begun.append(decision.request_id)
    return begun


def test_requests_are_sent_in_the_order_of_the_manifest_and_no_more_at_once_than_allowed():
    schedule = InvokeSchedule("abcd", at_once=3)
    assert begin_all(schedule) == ["a", "b", "c"]
    assert schedule.decide(0.0) == Wait(inf, "3 calls are under way")
    schedule.answered("b", 1.0)
    assert begin_all(schedule, 1.0) == ["d"]


def test_it_is_done_when_every_request_has_an_outcome():
    schedule = InvokeSchedule("ab", at_once=2)
    begin_all(schedule)
    schedule.answered("a", 1.0)
    schedule.settled("b", by_bedrock=True)
    assert schedule.decide(1.0) == Done()


def test_what_was_throttled_is_the_next_one_again_when_the_rate_lets_it():
    schedule = InvokeSchedule("abc", at_once=1)
    begin_all(schedule)
    schedule.throttled("a", 0.0, 1.0, retry_after=5.0)
    assert schedule.decide(1.0) == Wait(5.0, "4.5 calls a second are tried")
    assert schedule.decide(6.1) == Call("a")


def test_what_somebody_else_may_be_sending_is_looked_at_again_at_its_time():
    schedule = InvokeSchedule("a", at_once=1)
    begin_all(schedule)
    schedule.hold("a", 30.0)
    assert isinstance(schedule.decide(29.0), Wait)
    assert schedule.decide(30.0) == Call("a")


def test_a_request_that_never_has_an_answer_is_given_up_alone():
    schedule, now, given_up = InvokeSchedule("bad", at_once=1), 0.0, []
    while not isinstance(decision := schedule.decide(now), Done):
        assert not isinstance(decision, GiveUp)
        if isinstance(decision, Wait):
            now += decision.seconds
            continue
        schedule.begun(decision.request_id, now)
        if decision.request_id == "b":
            if schedule.failed("b", UNAVAILABLE, now):
                given_up.append("b")
        else:
            schedule.answered(decision.request_id, now)
    assert given_up == ["b"]


def test_when_every_call_fails_the_circuit_breaker_lets_single_calls_through_and_gives_up():
    names = [f"{number}" for number in range(100)]
    schedule, now, calls = InvokeSchedule(names, at_once=10), 0.0, 0
    while not isinstance(decision := schedule.decide(now), GiveUp):
        if isinstance(decision, Call):
            begun = begin_all(schedule, now)
            calls += len(begun)
            assert [schedule.failed(one, TIMED_OUT, now) for one in begun] == [False] * len(begun)
        else:
            now += decision.seconds
    assert "ReadTimeoutError" in decision.reason
    assert calls == 10 + InvokePatience().probes
    assert now >= 10 + 20 + 40 + 80 + 100


def test_an_outage_that_ends_costs_no_request_its_tries():
    schedule = InvokeSchedule([f"{number}" for number in range(30)], at_once=10)
    for one in begin_all(schedule):
        schedule.failed(one, UNAVAILABLE, 0.0)
    wait = schedule.decide(0.0)
    assert isinstance(wait, Wait)
    [probe] = begin_all(schedule, 10.0)
    schedule.answered(probe, 10.0)
    assert len(begin_all(schedule, 60.0)) == 10


def test_expired_credentials_are_no_fault_of_a_request():
    schedule = InvokeSchedule("a", at_once=1)
    for number in range(9):
        [one] = begin_all(schedule, number * 10.0)
        assert not schedule.failed(one, EXPIRED, number * 10.0)


EVENTS = st.sampled_from(["answered", "refused", "throttled", "failed", "held", "put back"])


@pytest.mark.parametrize("at_once", [1, 3])
@given(events=st.lists(EVENTS, max_size=60))
def test_whatever_happens_every_request_is_settled_once_and_never_too_many_are_under_way(at_once, events):
    names, settled, under_way, now = [f"{number}" for number in range(8)], [], [], 0.0
    schedule = InvokeSchedule(names, at_once=at_once)
    remaining = iter([*events, *["answered"] * 200])
    while not isinstance(decision := schedule.decide(now), Done):
        if isinstance(decision, Call):
            schedule.begun(decision.request_id, now)
            under_way.append(decision.request_id)
            assert len(under_way) <= at_once
            continue
        if isinstance(decision, GiveUp):
            return
        if not under_way:
            assert decision.seconds < inf
            now += decision.seconds
            continue
        now += min(decision.seconds, 0.1)
        one = under_way.pop(0)
        if ends(schedule, one, next(remaining), now):
            settled.append(one)
    assert sorted(settled) == names


def ends(schedule: InvokeSchedule, one: str, event: str, now: float) -> bool:
    """Let an attempt end, and return whether its request is settled."""
    events = {
        "answered": lambda: schedule.answered(one, now),
        "refused": lambda: schedule.settled(one, by_bedrock=True),
        "throttled": lambda: schedule.throttled(one, now, now, None),
        "failed": lambda: schedule.failed(one, UNAVAILABLE, now),
        "held": lambda: schedule.hold(one, now + 1.0),
        "put back": lambda: schedule.put_back(one),
    }
    return events[event]() is True or event in ("answered", "refused")
