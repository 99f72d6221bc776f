from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_async_invoke.rate import DECREASE, LEAST_RATE, InvokeRate


class Quota:
    """A token bucket as a service may have it: a second's calls may come at once."""

    def __init__(self, per_second: float) -> None:
        self.per_second, self.left, self.at = per_second, max(per_second, 1.0), 0.0

    def takes(self, now: float) -> bool:
        self.left = min(max(self.per_second, 1.0), self.left + (now - self.at) * self.per_second)
        self.at = now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


def drive(
    rate: InvokeRate, quota: Quota, seconds: float, *, began: float = 0.0, latency: float = 0.05, at_once: int = 20
):
    """Call as fast as the rate lets it, and return the times of what was answered and of what was throttled."""
    now, under_way, answered, throttled = began, [], [], []
    while now < began + seconds:
        for at, is_answered in [one for one in under_way if one[0] + latency <= now]:
            under_way.remove((at, is_answered))
            if is_answered:
                rate.answered(now)
                answered.append(now)
            else:
                rate.throttled(at, now)
                throttled.append(now)
        if len(under_way) < at_once and rate.next_at() <= now:
            rate.begun(now)
            under_way.append((now, quota.takes(now)))
        else:
            ends = [at + latency for at, _ in under_way]
            now = max(now + 1e-4, min([*ends, *([rate.next_at()] if len(under_way) < at_once else [])]))
    return answered, throttled


def test_until_something_is_throttled_there_is_no_rate():
    rate = InvokeRate()
    for number in range(100):
        rate.begun(float(number))
        rate.answered(float(number))
    assert rate.calls_a_second(100.0) == inf
    assert rate.next_at() <= 100.0


def test_the_first_throttling_sets_the_rate_to_a_little_less_than_what_was_answered():
    rate = InvokeRate()
    for number in range(40):
        rate.answered(number / 40)
    rate.throttled(0.9, 1.0)
    assert rate.calls_a_second(1.0) == pytest.approx(DECREASE * 39, abs=1)


def test_calls_that_were_under_way_when_it_was_slowed_down_slow_it_down_once():
    rate = InvokeRate()
    rate.answered(0.9)
    rate.throttled(0.8, 1.0)
    before = rate.calls_a_second(1.0)
    rate.throttled(0.95, 1.0)
    assert rate.calls_a_second(1.0) == before


def test_a_rate_grows_by_as_much_each_second_at_first_and_faster_after_long_peace():
    rate = InvokeRate()
    for number in range(100):
        rate.answered(number / 100)
    rate.throttled(0.99, 1.0)
    first, later = (rate.calls_a_second(1.0 + seconds) for seconds in (1, 2))
    assert (first - rate.calls_a_second(1.0)) == pytest.approx(later - first, rel=0.5)
    assert rate.calls_a_second(31.0) > 4 * rate.calls_a_second(1.0)


def test_what_the_service_asks_to_wait_is_waited():
    rate = InvokeRate()
    rate.answered(0.5)
    rate.throttled(0.5, 1.0, retry_after=7.0)
    assert rate.next_at() == 8.0


def test_a_service_that_only_throttles_is_asked_more_and_more_rarely():
    rate, now, waits = InvokeRate(longest_pause=60.0), 0.0, []
    for _ in range(15):
        rate.begun(now)
        rate.throttled(now, now)
        waits.append(rate.next_at() - now)
        now = rate.next_at()
    assert waits[-1] >= 60.0
    assert rate.calls_a_second(now) >= LEAST_RATE


# A bucket for a single call is never used in full: a call that comes a little too early is made up for a call later.
@pytest.mark.parametrize(("per_second", "share"), [(1.0, 0.85), (5.0, 0.9), (50.0, 0.9), (400.0, 0.9)])
def test_nine_tenths_of_a_quota_are_used_and_little_is_throttled(per_second, share):
    answered, throttled = drive(InvokeRate(), Quota(per_second), 120.0, at_once=40)
    late = [at for at in answered if at > 20.0]
    assert len(late) / 100.0 >= share * per_second
    assert len([at for at in throttled if at > 20.0]) <= 0.1 * len(late) + 2


def test_a_quota_that_others_have_left_is_found_again():
    rate = InvokeRate()
    drive(rate, Quota(2.0), 30.0)
    answered, _ = drive(rate, Quota(100.0), 150.0, began=30.0)
    assert len([at for at in answered if at > 170.0]) >= 0.8 * 10 * 100


@settings(max_examples=30, deadline=None)
@given(per_second=st.floats(2.0, 200.0), latency=st.floats(0.01, 1.0), at_once=st.integers(5, 60))
def test_whatever_quota_and_latency_the_rate_settles_close_to_what_both_allow(per_second, latency, at_once):
    answered, _ = drive(InvokeRate(), Quota(per_second), 60.0, latency=latency, at_once=at_once)
    late = [at for at in answered if at > 20.0]
    assert len(late) / 40.0 >= 0.75 * min(per_second, 0.9 * at_once / latency)
