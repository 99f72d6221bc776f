"""Tokens are estimated the same way for counting and for cutting."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_simulator.tokens import MARKER_TOKENS, token_count, truncated


@settings(deadline=None)
@given(st.text(), st.integers(MARKER_TOKENS, 100))
def test_a_cut_text_has_no_more_tokens_than_allowed_and_is_the_longest_beginning(text, limit):
    cut = truncated(text, limit)
    assert text.startswith(cut)
    assert token_count(cut) <= limit
    if cut != text:
        assert token_count(text) > limit
        assert token_count(cut) == limit


@settings(deadline=None)
@given(st.text(), st.text())
def test_more_text_never_has_fewer_tokens(first, second):
    assert token_count(first) <= token_count(first + second)


@pytest.mark.parametrize(
    ("text", "count"), [("", 2), ("red sunset", 4), ("photosynthesis", 5), ("日本語", 5), ("12345", 4), ("a-b", 5)]
)
def test_words_numbers_and_signs(text, count):
    assert token_count(text) == count
