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
    assert after((10, 20.0)).look_interval(20, 60.0) == pytest.approx(1.8)


def test_a_large_window_is_looked_at_for_several_ends_at_once():
    # 300 in progress, 5 a second end: each takes 60 s, of which a slot is empty for half of this.
    assert after((50, 10.0)).look_interval(300, 60.0) == pytest.approx(2.408)


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
    assert quick.look_interval(20, 60.0) == pytest.approx(4.5, rel=0.05)


def test_it_looks_right_after_an_end_that_is_expected():
    assert after((10, 20.0)).look_interval(20, 60.0, [0.9, 5.0]) == pytest.approx(1.0)


def test_ends_that_are_expected_close_together_are_waited_for_together():
    assert after((10, 20.0)).look_interval(20, 60.0, [0.9, 1.1, 1.3, 5.0]) == pytest.approx(1.4)


def test_in_a_large_window_it_looks_after_as_many_expected_ends_as_it_waits_for():
    expected = [number / 2 for number in range(1, 100)]
    assert after((20, 10.0)).look_interval(300, 60.0, expected) == pytest.approx(6.1)


def test_where_invocations_end_very_fast_it_looks_as_often_as_it_may():
    expected = [number / 10 for number in range(1, 100)]
    assert after((100, 10.0)).look_interval(20, 60.0, expected) == LEAST_SECONDS


def test_for_an_expected_end_it_waits_only_a_little_longer_than_otherwise():
    assert after((10, 20.0)).look_interval(20, 60.0, [30.0]) == pytest.approx(2.7)


def test_nothing_is_expected_of_the_others_while_one_is_overdue():
    assert after((10, 20.0)).look_interval(20, 60.0, [-0.5, 0.1]) == pytest.approx(1.8)


@given(
    st.lists(st.tuples(st.integers(0, 500), st.floats(0.1, 600))),
    st.integers(0, 1000),
    st.floats(1, 600),
    st.lists(st.floats(-100, 1e6)).map(sorted),
)
def test_the_interval_is_never_beyond_its_bounds(observed, occupied, most, expected):
    assert LEAST_SECONDS <= after(*observed).look_interval(occupied, most, expected) <= most
