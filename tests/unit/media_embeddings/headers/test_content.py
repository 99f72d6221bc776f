"""A file of which only ranges are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.headers.content import Blank, Content, ContentFile, MissingRangeError, Span

WHOLE = bytes(range(256)) * 4


def known(*spans, **options):
    return Content(len(WHOLE), [(start, WHOLE[start:end]) for start, end in spans], **options)


def test_what_is_known_is_read_and_what_is_not_is_asked_for():
    content = known((0, 100))
    file = ContentFile(content)

    assert file.read(100) == WHOLE[:100]
    with pytest.raises(MissingRangeError):
        file.read(1)
    assert content.missing.start == 100


def test_the_first_bytes_that_were_missing_are_those_to_fetch():
    content = known((0, 10), (500, 510))
    for position in (10, 700):
        with pytest.raises(MissingRangeError):
            content.chunk(position)

    assert content.missing == Span(10, 500)


def test_a_final_content_ends_where_nothing_is_known_and_says_so():
    content = known((0, 100), is_final=True)

    assert ContentFile(content).read() == WHOLE[:100]
    assert content.is_cut


def test_a_blank_reads_as_its_header_and_zeros_and_is_not_asked_for():
    content = known((0, 100), (200, 300))
    file = ContentFile(content, blanks=[Blank(Span(90, 210), b"HEADER")])

    assert file.read(300) == WHOLE[:90] + b"HEADER" + bytes(114) + WHOLE[210:300]
    assert content.missing is None


@given(st.lists(st.integers(0, len(WHOLE)), min_size=2, max_size=8), st.integers(0, 1100), st.integers(-1, 1100))
def test_to_fetch_what_is_missing_again_and_again_ends_with_the_bytes_of_the_file(edges, position, size):
    spans = [(start, end) for start, end in zip(sorted(edges)[::2], sorted(edges)[1::2], strict=False) if start < end]
    while True:
        content = known(*spans)
        file = ContentFile(content)
        file.seek(position)
        try:
            read = file.read(size)
        except MissingRangeError:
            spans.append((content.missing.start, content.missing.end))
            continue
        assert read == (WHOLE[position:] if size < 0 else WHOLE[position : position + size])
        return
