from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from media_embeddings.texts.splitting import Fit, split
from media_embeddings.texts.tokens import MARKER_TOKENS, token_count

WORDS = st.sampled_from(
    [
        "a",
        "boat",
        "Wednesday",
        "co-op",
        "3.14",
        "e.g.",
        "End.",
        "Why?",
        "Zürich",
        "寺庙。",
        "古老",
        "🎬",
        "x" * 300,
        "1" * 90,
    ]
)
SPACES = st.sampled_from([" ", "\n", "\n\n", "\r\n", "\t", "\u3000", " " * 40, " " * 3000, ""])
PROSE = st.lists(st.tuples(WORDS, SPACES), max_size=60).map(
    lambda pairs: "".join(word + space for word, space in pairs)
)
TEXTS = st.one_of(PROSE, st.text(max_size=400))
FITS = st.builds(
    Fit,
    tokens=st.one_of(st.none(), st.integers(10, 60)),
    characters=st.integers(4, 300),
    characters_per_token=st.integers(2, 8),
)
OVERLAPS = st.sampled_from([0.0, 0.1, 0.25, 0.5])


def parts(text: str, fit: Fit, overlap: float = 0.0) -> list[str]:
    return [text[start:end] for start, end in split(text, 0, len(text), fit, overlap)]


@settings(deadline=None)
@given(TEXTS, FITS, OVERLAPS)
@example("a" + " " * 5000 + "b", Fit(tokens=10, characters=300), 0.5)
def test_nothing_is_dropped_every_part_fits_and_each_goes_beyond_the_one_before(text, fit, overlap):
    ranges = list(split(text, 0, len(text), fit, overlap))

    covered: set[int] = set()
    for start, end in ranges:
        covered.update(range(start, end))
        part = text[start:end]
        assert part == part.strip() != ""
        assert len(part) <= fit.most_characters
        assert fit.tokens is None or token_count(part, fit.characters_per_token) <= fit.tokens
    assert covered >= {place for place, character in enumerate(text) if not character.isspace()}
    assert all(one < other for one, other in pairwise(ranges))
    assert all(end < later for (_, end), (_, later) in pairwise(ranges))


@settings(deadline=None)
@given(TEXTS, FITS, OVERLAPS)
def test_the_overlap_is_bounded(text, fit, overlap):
    ranges = list(split(text, 0, len(text), fit, overlap))

    for (_, end), (start, _) in pairwise(ranges):
        again = text[start:end]
        assert len(again) <= fit.most_characters * overlap
        if fit.tokens is not None:
            tokens = token_count(again, fit.characters_per_token) - MARKER_TOKENS
            assert tokens <= (fit.tokens - MARKER_TOKENS) * overlap


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS, FITS)
def test_of_a_stretch_only_what_is_in_it_is_split_as_if_there_were_nothing_else(before, text, after, fit):
    start, end = len(before), len(before) + len(text)

    for at, to in split(f"{before}{text}{after}", start, end, fit):
        assert start <= at < to <= end


def test_parts_end_where_sentences_do():
    text = "The boat is red. The lake is green! Is the train slow? It is."

    assert parts(text, Fit(characters=40)) == ["The boat is red. The lake is green!", "Is the train slow? It is."]


@pytest.mark.parametrize(
    "text",
    [
        "He met e.g. the smith of the village there. Then he went on.",
        "It was J. Smith who had the 3.5 litre motor. Then he went on.",
        'He said "it is the motor of the village." Then he went on.',
        "He saw the motor of the whole village\n\nThen he went on",
        "He saw the motor of the whole village\n# Then he went on",
        "He saw the motor of the whole village\n- Then he went on",
    ],
)
def test_abbreviations_initials_and_numbers_end_no_sentence_but_blank_lines_and_headings_do(text):
    first, second = parts(text, Fit(characters=50))

    assert first + second == text.replace("\n", "").replace(". Then", ".Then").replace('" Then', '"Then')
    assert "Then he went on" in second


def test_chinese_sentences_end_without_a_space():
    text = "一座古老的寺庙。屋顶是红色的。湖是绿色的。"

    assert parts(text, Fit(characters=16)) == ["一座古老的寺庙。屋顶是红色的。", "湖是绿色的。"]


def test_a_sentence_that_is_too_long_is_cut_between_words():
    assert parts("one two three four five six", Fit(characters=10)) == ["one two", "three four", "five six"]


def test_a_word_that_is_too_long_is_cut_anywhere():
    assert parts("0123456789abcdef", Fit(characters=6)) == ["012345", "6789ab", "cdef"]


def test_no_letter_is_parted_from_its_marks_nor_an_emoji_from_what_it_is_joined_to():
    assert parts("กกกกก\u0e34กกก", Fit(characters=5)) == ["กกกก", "ก\u0e34กกก"]
    assert parts("👩👩👩👩\u200d🚀👩", Fit(characters=5)) == ["👩👩👩", "👩\u200d🚀👩"]


def test_a_part_begins_with_the_last_sentence_of_the_one_before_where_that_is_short_enough_else_with_its_last_words():
    text = "The boat is red and old. It sails. The lake is green and deep. It is cold."

    assert parts(text, Fit(characters=40), 0.3) == [
        "The boat is red and old. It sails.",
        "It sails. The lake is green and deep.",
        "and deep. It is cold.",
    ]


def test_what_fits_is_one_part_without_the_space_around_it():
    assert parts("  a boat \n", Fit(tokens=10)) == ["a boat"]
    assert parts(" \n ", Fit(tokens=10)) == []


@pytest.mark.parametrize("limits", [{}, {"tokens": 9}, {"characters": 3}])
def test_a_limit_that_a_single_character_may_not_go_into_is_refused(limits):
    with pytest.raises(ValueError, match="at least"):
        Fit(**limits)


def test_a_text_of_the_greatest_size_that_has_no_sentence_and_no_space_is_split_in_bearable_time():
    ranges = list(split("x" * 300_000, 0, 300_000, Fit(tokens=77), 0.1))

    assert len(ranges) == -(-300_000 // (75 * 3))
