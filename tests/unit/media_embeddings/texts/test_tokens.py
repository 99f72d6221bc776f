from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_simulator import tokens as simulated
from media_embeddings.texts.tokens import MARKER_TOKENS, pieces, token_count


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("  \n\t ", 0),
        ("boat", 2),
        ("a red boat", 4),
        ("a boat.", 4),
        ("2026", 4),
        ("0123456789" * 3, 30),
        ("寺", 2),
        ("寺庙", 4),
        ("é", 2),
        ("🎬", 3),
        ("\u3000", 2),
    ],
)
def test_words_count_by_their_letters_digits_and_signs_by_one_and_other_scripts_by_their_bytes(text, tokens):
    assert token_count(text) == MARKER_TOKENS + tokens


@pytest.mark.parametrize(("ratio", "tokens"), [(2, 4), (3, 3), (4, 2), (8, 1)])
def test_the_ratio_says_how_many_letters_a_token_has(ratio, tokens):
    assert token_count("lorries", ratio) == MARKER_TOKENS + tokens


def test_a_higher_ratio_counts_other_scripts_lower_as_well():
    assert token_count("寺庙", 6) == MARKER_TOKENS + 2


@given(st.text())
def test_a_text_is_never_taken_for_shorter_than_the_simulator_takes_it_for(text):
    assert token_count(text) >= simulated.token_count(text)


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_there_are_never_more_tokens_than_a_tokenizer_of_bytes_can_make(text):
    assert token_count(text) <= MARKER_TOKENS + len(text.encode())


@given(st.text(), st.data())
def test_cut_between_two_pieces_a_text_has_the_tokens_of_its_halves(text, data):
    found = list(pieces(text, 0, len(text), 3))
    cut = data.draw(st.integers(0, len(found)))
    place = found[cut][0] if cut < len(found) else len(text)

    whole = token_count(text) - MARKER_TOKENS
    assert token_count(text[:place]) + token_count(text[place:]) - 2 * MARKER_TOKENS == whole
