from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.reasons import ReasonCode
from media_embeddings.texts import UnreadableTextError, text_of
from media_embeddings.texts.reading import read_text


def values(content: str, suffix: str, column: str | None = "body") -> list[str]:
    read = read_text(content.encode(), suffix, column)
    return [read.text[one.start_char : one.end_char] for one in read.stretches]


def refusal(content: str | bytes, suffix: str, column: str | None = "body") -> str:
    with pytest.raises(UnreadableTextError) as caught:
        text_of(content.encode() if isinstance(content, str) else content, suffix, column)
    assert caught.value.reason.code is ReasonCode.CORRUPT
    return caught.value.reason.message


@pytest.mark.parametrize("suffix", [".txt", ".md", ".MD", ".log"])
def test_a_text_is_read_as_it_is(suffix):
    assert text_of(b"# A *red* boat\r\n", suffix) == "# A *red* boat\r\n"


def test_a_byte_order_mark_is_no_part_of_the_text():
    assert text_of("\ufeffa boat".encode(), ".txt") == "a boat"


def test_what_is_not_utf_8_is_refused_with_the_place():
    assert "not UTF-8 (byte 1); save it as UTF-8" in refusal("Zürich".encode("latin-1"), ".txt")


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        ("", ".txt"),
        (" \n", ".md"),
        ('{"body": null}\n{"body": " "}', ".jsonl"),
        ("body\n", ".csv"),
        ("WEBVTT\n", ".vtt"),
    ],
)
def test_what_has_no_characters_is_told_apart_from_what_is_damaged(content, suffix):
    with pytest.raises(UnreadableTextError) as caught:
        text_of(content.encode(), suffix, "body")
    assert caught.value.reason.code is ReasonCode.EMPTY_OBJECT


class TestJsonLines:
    def test_one_member_of_each_line_is_read_and_the_values_are_joined_by_line_feeds(self):
        content = '{"id": 1, "body": "a red boat"}\n\n{"body": "two\\nlines"}\r\n{"body": null}\n{"body": "寺"}'

        assert text_of(content.encode(), ".jsonl", "body") == "a red boat\ntwo\nlines\n寺"
        assert values(content, ".jsonl") == ["a red boat", "two\nlines", "寺"]

    def test_a_line_separator_within_a_value_ends_no_line(self):
        assert values(json.dumps({"body": "a\u2028b"}, ensure_ascii=False), ".jsonl") == ["a\u2028b"]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "line 2 is no JSON"),
            ("[" * 100_000, "line 2 is no JSON"),
            ("[1]", "line 2 is no JSON object but a list"),
            ('{"title": "x", "id": 1}', "line 2 has no column 'body', which text_column names; it has title, id"),
            ("{}", "it has none"),
            ('{"body": 7}', "line 2: 'body' is no text but a number"),
            ('{"body": {"a": 1}}', "line 2: 'body' is no text but an object"),
            ('{"body": "a \\ud83d b"}', "line 2 has half of a character in it, \\ud83d"),
        ],
    )
    def test_a_line_that_has_no_text_is_refused_by_its_number(self, line, message):
        assert message in refusal('{"body": "good"}\n' + line, ".jsonl")


class TestCommaSeparated:
    def test_one_column_is_read_whatever_is_in_quotation_marks(self):
        content = 'id,body\r\n1,a red boat\r\n\r\n2,"two\nlines, and ""words"""\r\n3,\r\n4,寺\r\n'

        assert values(content, ".csv") == ["a red boat", 'two\nlines, and "words"', "寺"]

    def test_a_value_may_be_longer_than_the_modules_own_limit(self):
        assert values("body\n" + "x" * 200_000, ".csv") == ["x" * 200_000]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("title;body\nx;y\n", "line 1 has no column 'body', which text_column names; it has title;body"),
            ("id,body\n1,x\n2\n", "line 3 has 1 fields, and 'body' is the 2. one"),
            ('id,body\n1,"x\n', "line 2 can't be read as comma-separated values"),
            ('id,body\n1,"x"y\n', "line 2 can't be read as comma-separated values"),
        ],
    )
    def test_what_can_not_be_read_is_refused_by_its_line(self, content, message):
        assert message in refusal(content, ".csv")

    @given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), min_size=1), min_size=1))
    def test_whatever_was_written_is_read(self, texts):
        rows = "".join('{},"{}"\n'.format(number, text.replace('"', '""')) for number, text in enumerate(texts))
        wanted = [text for text in texts if text.strip()]
        if wanted:
            assert values(f"id,body\n{rows}", ".csv") == wanted


def test_without_a_column_a_table_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="text_column"):
        text_of(b"body\nx\n", ".csv")
