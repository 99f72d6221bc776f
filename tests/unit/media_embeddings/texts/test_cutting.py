from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_embeddings.texts.cutting import cut, whole
from media_embeddings.texts.reading import read_text
from media_embeddings.texts.splitting import Fit


def segments(content: str, suffix: str, fit: Fit, overlap: float = 0.0):
    return list(cut(read_text(content.encode(), suffix, "body"), fit, overlap))


def subtitles(*words: str, seconds: float = 2.0) -> str:
    def time(second: float) -> str:
        return f"00:{int(second) // 60:02}:{int(second) % 60:02},{round(second % 1 * 1000):03}"

    cues = (
        f"{number}\n{time(number * seconds)} --> {time((number + 1) * seconds)}\n{text}\n"
        for number, text in enumerate(words)
    )
    return "\n".join(cues)


def test_what_one_request_takes_is_sent_as_it_is_with_the_space_around_it():
    (only,) = segments("  a boat \n", ".txt", Fit(tokens=10))

    assert (only.text, only.start_char, only.end_char, only.start_sec) == ("  a boat \n", 0, 10, None)


def test_a_long_text_is_split():
    found = segments("The boat is red. The lake is green. It is.", ".md", Fit(characters=20))

    assert [one.text for one in found] == ["The boat is red.", "The lake is green.", "It is."]


def test_a_record_is_a_part_of_its_own_however_short_and_a_long_one_is_several():
    content = "\n".join(
        json.dumps({"body": text}) for text in ("a boat", "a lake", "The boat is red. The lake is green.")
    )

    found = segments(content, ".jsonl", Fit(characters=20))

    assert [one.text for one in found] == ["a boat", "a lake", "The boat is red.", "The lake is green."]


def test_short_neighbouring_cues_are_one_part_from_the_first_ones_start_to_the_last_ones_end():
    found = segments(subtitles("one", "two", "three", "four"), ".srt", Fit(characters=10))

    assert [(one.text, one.start_sec, one.end_sec) for one in found] == [
        ("one\ntwo", 0.0, 4.0),
        ("three\nfour", 4.0, 8.0),
    ]


def test_a_cue_that_is_too_long_shares_its_time_in_proportion_and_is_not_joined_with_others():
    found = segments(subtitles("one", "aaaa bbbb", "two"), ".srt", Fit(characters=4))

    assert [(one.text, one.start_sec, one.end_sec) for one in found] == [
        ("one", 0.0, 2.0),
        ("aaaa", 2.0, pytest.approx(2 + 2 * 4 / 9)),
        ("bbbb", pytest.approx(2 + 2 * 5 / 9), 4.0),
        ("two", 4.0, 6.0),
    ]


def test_a_text_that_bedrock_cuts_is_one_part_with_all_its_time():
    only = whole(read_text(subtitles("one", "two").encode(), ".srt"))

    assert (only.text, only.start_char, only.end_char, only.start_sec, only.end_sec) == ("one\ntwo", 0, 7, 0.0, 4.0)


@settings(deadline=None)
@given(
    st.lists(st.text(st.sampled_from("ab .,寺\n"), max_size=60), max_size=12),
    st.sampled_from([".txt", ".jsonl", ".srt"]),
)
def test_places_index_the_objects_text_and_nothing_is_dropped(texts, suffix):
    content = {
        ".txt": "\n".join(texts),
        ".jsonl": "\n".join(json.dumps({"body": text}) for text in texts),
        ".srt": subtitles(*(text.replace("\n", " ") for text in texts)),
    }[suffix]
    if not "".join(texts).strip():
        return
    read = read_text(content.encode(), suffix, "body")
    found = list(cut(read, Fit(tokens=12), 0.25))

    covered: set[int] = set()
    for one in found:
        assert read.text[one.start_char : one.end_char] == one.text
        covered.update(range(one.start_char, one.end_char))
    assert covered >= {place for place, character in enumerate(read.text) if not character.isspace()}
    assert sorted(found, key=lambda one: one.start_char) == found
    if suffix == ".srt":
        assert all(one.start_sec <= one.end_sec for one in found)
        assert sorted(found, key=lambda one: one.start_sec) == found
