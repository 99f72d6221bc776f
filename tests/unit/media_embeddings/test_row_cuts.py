import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_embeddings import row_cuts
from media_embeddings.row_cuts import Wrapper, last_cut, pieces

OPENINGS = [b"[", b'{"data":[', b'{ "embeddings" : [ ', b'{"data": {"embeddings": [']


def document(opening: bytes, rows: list[object], separators: tuple[str, str]) -> bytes:
    text = separators[0].join(json.dumps(row, separators=separators) for row in rows)
    return opening + text.encode() + Wrapper(opening).closing


def rows_of(value):
    while isinstance(value, dict):
        [value] = value.values()
    return value


ROWS = st.lists(st.fixed_dictionaries({"embedding": st.lists(st.integers(), max_size=9)}), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(OPENINGS), ROWS, st.sampled_from([(",", ":"), (", ", ": "), (" ,\n ", ":")]), st.integers(1, 200)
)
def test_the_pieces_of_a_part_are_documents_whose_rows_are_those_of_the_part(opening, rows, separators, size):
    text = bytearray(document(opening, rows, separators))
    found, lasts = [], []
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(row_cuts, "_PIECE_BYTES", size)
        for piece, is_last in pieces(memoryview(text), Wrapper(opening)):
            found += rows_of(json.loads(bytes(piece)))
            lasts.append(is_last)
    assert found == rows
    assert lasts == [False] * (len(lasts) - 1) + [True]
    # Every cut is taken where pieces may be that small.
    assert size > 1 or len(lasts) == len(rows)


def test_what_comes_after_the_last_row_stays_with_it():
    text = bytearray(b'{"data":[{"a":1},{"b":2}],"usage":{"seconds":[{"c":3},{"d":4}]}}')
    whole = bytes(text)
    [(piece, is_last)] = pieces(memoryview(text), Wrapper(b'{"data":['))
    assert (bytes(piece), is_last) == (whole, True)


@pytest.mark.parametrize(
    ("beginning", "opening"),
    [
        (b'{"data":[{"embedding"', b'{"data":['),
        (b' {"data" : { "embeddings":\n[ {"x', b' {"data" : { "embeddings":\n[ '),
        (b"[{", b"["),
        (b'{"data":[', None),
        (b'{"usage":1,"data":[{', None),
        (b'{"data":{"data":{"data":[{', None),
        (b"", None),
        (b" " * 2000 + b"[{", None),
    ],
)
def test_the_wrapper_is_what_stands_before_the_first_row(beginning, opening):
    found = Wrapper.of(beginning)
    assert (found and found.opening) == opening


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (b'{"a":1},{"b":2}', (7, 8)),
        (b'{"a":1} ,\n {"b":2},{"c', (18, 19)),
        (b'1.5]},{"embedding":[1', (5, 6)),
        (b'{"a":1}', None),
        (b"", None),
        (b"}" * 100, None),
    ],
)
def test_a_chunk_is_cut_before_the_last_row_that_begins_in_it(text, cut):
    assert last_cut(text) == cut


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_text_that_is_cut_off_behind_a_cut_is_one_piece(opening, monkeypatch):
    monkeypatch.setattr(row_cuts, "_PIECE_BYTES", 1)
    whole = opening + b'{"a":1},{'
    assert [bytes(piece) for piece, _ in pieces(memoryview(bytearray(whole)), Wrapper(opening))][-1] in (
        whole,
        opening + b"{",
    )


@pytest.mark.parametrize("between", [b"},\x0c{", b"}\x0b,{", b"}\xa0,{"])
def test_nothing_is_cut_out_that_is_no_white_space_of_json(between):
    assert last_cut(b'{"a":1' + between + b'"b":2}') is None
