from __future__ import annotations

import pytest

from media_embeddings.texts import UnreadableTextError
from media_embeddings.texts.reading import read_text

SUBRIP = """1
00:00:01,000 --> 00:00:02,500
A <i>red</i> boat
on the lake.

2
00:00:03,000 --> 00:00:04,000 X1:100 X2:200
{\\an8}It is &lt;old&gt;.
"""
WEBVTT = """WEBVTT - a film

NOTE of the
translator

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 align:start
<v Anna>A <c.loud>red</c> boat</v>

01:00:03.000 --> 01:00:04.000
It is <00:00:03.500>old.
"""


def cues(content: str, suffix: str) -> list[tuple[str, float | None, float | None]]:
    read = read_text(content.encode(), suffix)
    return [(read.text[one.start_char : one.end_char], one.start_sec, one.end_sec) for one in read.stretches]


def refusal(content: str, suffix: str) -> str:
    with pytest.raises(UnreadableTextError) as caught:
        read_text(content.encode(), suffix)
    return caught.value.reason.message


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_subrip_shows_is_read_without_markup_and_with_its_times(end):
    assert cues(SUBRIP.replace("\n", end), ".srt") == [
        ("A red boat\non the lake.", 1.0, 2.5),
        ("It is <old>.", 3.0, 4.0),
    ]


def test_what_webvtt_shows_is_read_and_notes_and_styles_are_not():
    assert cues(WEBVTT, ".vtt") == [("A red boat", 1.0, 2.5), ("It is old.", 3603.0, 3604.0)]


def test_the_text_is_that_of_the_cues_with_line_feeds_between():
    assert read_text(SUBRIP.encode(), ".srt").text == "A red boat\non the lake.\nIt is <old>."


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("00:00:01,000 --> 00:00:02,000\none\n\n00:00:03,000 --> 00:00:04,000\ntwo", ["one", "two"]),
        ("1\n00:00:01.000 --> 00:00:02.000\none\n\nmore\n\n2\n0:00:03,0 --> 0:00:04,0\ntwo", ["one\nmore", "two"]),
        ("1\n00:00:01,000 --> 00:00:02,000\n\n2\n00:00:03,000 --> 00:00:04,000\ntwo", ["two"]),
        ("1\n00:00:01,000 --> 00:00:02,000\n42\n\n2\n00:00:03,000 --> 00:00:04,000\n42", ["42", "42"]),
        ("1\n00:00:01,000 --> 00:00:02,000\na < b > c, 2 <3\n", ["a < b > c, 2 <3"]),
    ],
    ids=["no numbers", "blank lines and full stops", "a cue without words", "words that are a number", "signs"],
)
def test_subrip_as_it_is_found_in_the_field_is_read(content, expected):
    assert [text for text, _, _ in cues(content, ".srt")] == expected


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        ("A title\n\n" + SUBRIP, ".srt", "line 1 of the subtitles belongs to no cue"),
        ("just a text\n", ".srt", "line 1 of the subtitles belongs to no cue"),
        ("1\n00:00:01 -> x --> soon\nwords", ".srt", "line 2 of the subtitles has no times of a cue"),
        (
            "1\n00:00:03,000 --> 00:00:02,000\nwords",
            ".srt",
            "line 2 of the subtitles has a cue that ends before it begins",
        ),
        (SUBRIP, ".vtt", "line 1 of a .vtt file begins with WEBVTT"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\none\n\nmore\n", ".vtt", "line 6 of the subtitles belongs to no cue"),
    ],
)
def test_a_line_that_belongs_to_no_cue_is_not_passed_over_in_silence(content, suffix, message):
    assert message in refusal(content, suffix)
