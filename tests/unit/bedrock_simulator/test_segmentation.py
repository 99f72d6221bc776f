"""Time is cut without gaps, and every segment has a length that was asked for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_simulator.segmentation import by_shots, even, fixed, shot_boundaries

seconds = st.floats(0.05, 20_000, allow_nan=False)
starts = st.floats(0, 5_000, allow_nan=False)


def assert_covers(spans, start, end):
    assert spans[0][0] == start
    assert spans[-1][1] == end
    for (_, first_end), (second_start, _) in pairwise(spans):
        assert first_end == second_start
    assert all(span_start < span_end for span_start, span_end in spans)


@settings(deadline=None)
@given(
    starts,
    st.floats(0.05, 2_000),
    st.lists(st.floats(0, 7_000), max_size=60),
    st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0]),
)
def test_shots_become_segments_of_the_minimum_to_ten_seconds(start, length, boundaries, minimum):
    spans = by_shots(start, start + length, boundaries, minimum, 10.0)
    assert_covers(spans, start, start + length)
    if length >= minimum:
        for span_start, span_end in spans:
            assert minimum - 1e-6 <= span_end - span_start <= 10.0 + 1e-6
    else:
        assert len(spans) == 1


@settings(deadline=None)
@given(starts, seconds)
def test_an_even_split_is_as_close_to_ten_seconds_as_can_be(start, length):
    spans = even(start, start + length, 10.0)
    assert_covers(spans, start, start + length)
    count = len(spans)
    for span_start, span_end in spans:
        assert span_end - span_start == pytest.approx(length / count, rel=1e-6, abs=1e-6)
    for other in (count - 1, count + 1):
        if other:
            assert abs(length / count - 10) <= abs(length / other - 10) + 1e-9


@settings(deadline=None)
@given(starts, seconds, st.sampled_from([1.0, 2.0, 2.5, 6.0, 10.0]))
def test_fixed_segments_have_their_length_but_the_last(start, total, length):
    spans = fixed(start, start + total, length)
    assert_covers(spans, start, start + total)
    for span_start, span_end in spans[:-1]:
        assert span_end - span_start == pytest.approx(length, abs=1e-6)
    assert spans[-1][1] - spans[-1][0] <= length + 0.0011


@pytest.mark.parametrize(("length", "count"), [(50, 5), (16, 2), (10, 1), (14, 2), (13, 1), (4, 1), (3600, 360)])
def test_the_guides_examples_of_an_even_split(length, count):
    assert even(0, length, 10.0) == [(length * i / count, length * (i + 1) / count) for i in range(count)]


def test_shots_shorter_than_the_minimum_join_their_neighbour():
    assert by_shots(0, 12, [1, 2, 5, 11], 4, 10) == [(0, 5), (5, 12)]


def test_a_cut_is_found_where_the_picture_changes():
    pixels = np.zeros((20, 4, 4, 3), dtype=np.uint8)
    pixels[8:] = 200
    assert shot_boundaries(np.arange(20) / 4, pixels) == [2.0]


def test_steady_motion_is_no_cut():
    pixels = np.stack([np.full((4, 4, 3), (index % 8) * 30, dtype=np.uint8) for index in range(8)])
    assert shot_boundaries(np.arange(8) / 4, pixels) == []
    assert shot_boundaries(np.zeros(1), pixels[:1]) == []
