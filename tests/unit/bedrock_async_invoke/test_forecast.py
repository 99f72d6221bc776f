from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_async_invoke.forecast import Forecast


def after(*observed: tuple[float, float]) -> Forecast:
    """Return a forecast that has seen invocations of these priorities take these seconds."""
    subject = Forecast()
    for number, (priority, seconds) in enumerate(observed):
        subject.started(f"earlier-{number}", priority, 0.0)
        subject.in_progress(())
        subject.ended(f"earlier-{number}", seconds)
    return subject


def test_nothing_is_expected_before_a_few_have_ended():
    subject = after((10, 20.0), (10, 20.0))
    subject.started("a", 10, 100.0)
    assert subject.ends() == []


def test_an_invocation_is_expected_to_take_as_long_for_its_priority_as_the_earlier_ones():
    subject = after((10, 20.0), (30, 60.0), (5, 10.0))
    subject.started("long", 50, 100.0)
    subject.started("short", 1, 110.0)
    assert subject.ends() == pytest.approx([112.0, 200.0])


def test_where_priorities_tell_nothing_all_are_expected_to_take_as_long_as_most_did():
    subject = after((1, 30.0), (1000, 31.0), (20, 29.0), (300, 30.0))
    subject.started("a", 5000, 100.0)
    assert subject.ends() == pytest.approx([130.0])


def test_requests_without_a_priority_are_expected_to_take_equally_long():
    subject = after((0, 30.0), (0, 30.0), (0, 33.0))
    subject.started("a", 0, 100.0)
    assert subject.ends() == pytest.approx([130.0])


def test_what_is_not_in_progress_any_more_is_not_expected_to_end():
    subject = after((1, 10.0), (1, 10.0), (1, 10.0))
    for name in ("a", "b"):
        subject.started(name, 1, 100.0)
    subject.in_progress({"b", "stranger"})
    assert subject.ends() == pytest.approx([110.0])


def test_of_others_invocations_nothing_is_learnt():
    subject = after((1, 10.0), (1, 10.0))
    subject.ended("stranger", 500.0)
    subject.started("a", 1, 0.0)
    assert subject.ends() == []


def test_an_end_that_is_told_twice_counts_once():
    subject = after((1, 10.0), (1, 10.0))
    for _ in range(5):
        subject.ended("earlier-1", 10.0)
    subject.started("a", 1, 0.0)
    assert subject.ends() == []


def test_it_goes_by_the_latest():
    subject = after(*[(1, 10.0)] * 50, *[(1, 40.0)] * 20)
    subject.started("a", 1, 0.0)
    assert subject.ends() == pytest.approx([40.0])


@given(st.lists(st.tuples(st.floats(0, 1e12), st.floats(1e-3, 1e6)), min_size=3, max_size=60), st.floats(0, 1e12))
def test_an_end_is_never_expected_before_the_start(observed, priority):
    subject = after(*observed)
    subject.started("a", priority, 5.0)
    assert all(end >= 5.0 for end in subject.ends())
