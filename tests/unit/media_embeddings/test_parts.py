from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.identity import part_request_id, request_id
from media_embeddings.media import TextSegment
from media_embeddings.parts import CutText, Part

ATTEMPT = request_id("k", 1)


def cut(*places: tuple[int, int], **times: float) -> CutText:
    return CutText.of(ATTEMPT, (TextSegment("", start, end, **times) for start, end in places))


def test_every_part_is_a_request_of_its_own_named_by_attempt_and_place():
    first, second = cut((0, 10), (8, 20))

    assert (first.start_char, first.end_char, first.start_sec) == (0, 10, None)
    assert first.request_id == part_request_id(ATTEMPT, 0, 10)
    names = {
        ATTEMPT,
        first.request_id,
        second.request_id,
        part_request_id(request_id("k", 2), 0, 10),
        part_request_id(request_id("k", 1, forced_by="part"), 0, 10),
        request_id("k", 1, forced_by="0-10"),
    }
    assert len(names) == 6


def test_parts_of_subtitles_have_their_times():
    (one,) = cut((0, 10), start_sec=1.5, end_sec=2.0)

    assert (one.start_sec, one.end_sec) == (1.5, 2.0)


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)), min_size=1))
def test_parts_are_a_sequence_that_keeps_their_places(places):
    parts = cut(*places)

    assert len(parts) == len(places)
    assert [(one.start_char, one.end_char) for one in parts] == places
    assert list(parts.named(ATTEMPT)) == [one.request_id for one in parts]
    assert parts[-1] == parts[len(parts) - 1]
    assert parts[:1] == [parts[0]]
    assert parts.characters == sum(end - start for start, end in places)


def test_there_is_no_part_behind_the_last():
    parts = cut((0, 1))
    for place in (1, -2):
        with pytest.raises(IndexError):
            parts[place]


def test_what_is_there_of_an_earlier_attempt_stands_for_its_part_alone():
    parts = cut((0, 10), (10, 20)).with_finished({1: ("earlier", "s3://vectors/outputs/earlier/x")})

    assert parts[0].finished_output_uri is None
    assert parts[1] == Part("earlier", 10, 20, finished_output_uri="s3://vectors/outputs/earlier/x")
