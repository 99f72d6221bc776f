from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_async_invoke.pace import LEAST_SECONDS, Pace


def after(*observed: tuple[int, float]) -> Pace:
    subject = Pace()
    for ended, seconds in observed:
        subject.observe(ended, seconds)
    return subject


def test_it_looks_about_as_often_as_invocations_end():
    assert after((10, 20.0)).look_interval(20, 60.0) == pytest.approx(2.0)


def test_a_large_window_is_looked_at_for_several_ends_at_once():
    # 300 in progress, 5 a second end: each takes 60 s, of which a slot may be empty for one.
    assert after((50, 10.0)).look_interval(300, 60.0) == pytest.approx(2.16)


def test_before_any_has_ended_it_looks_at_first_often_and_then_ever_more_seldom():
    subject, intervals = Pace(), []
    for _ in range(30):
        intervals.append(subject.look_interval(30, 15.0))
        subject.observe(0, intervals[-1])
    assert intervals == sorted(intervals)
    assert (intervals[0], intervals[-1]) == (LEAST_SECONDS, 15.0)


def test_it_forgets_how_fast_invocations_once_ended():
    quick = after((1000, 10.0))
    for _ in range(100):
        quick.observe(1, 5.0)
    assert quick.look_interval(20, 60.0) == pytest.approx(5.0, rel=0.05)


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0.1, 600))), st.integers(0, 1000), st.floats(1, 600))
def test_the_interval_is_never_beyond_its_bounds(observed, occupied, most):
    assert LEAST_SECONDS <= after(*observed).look_interval(occupied, most) <= most
