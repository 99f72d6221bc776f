import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from media_embeddings import row_cuts
from media_embeddings.media import MediaType
from media_embeddings.output_rows import NotAPartError, OutputInvalidError
from media_embeddings.part_parsers import PartParsers
from media_embeddings.results import parse_output
from media_embeddings.streamed_results import parse_chunks

DIMENSION = 3


@dataclass(frozen=True)
class SmallModel:
    """A model with vectors that are small enough to cut outputs of them everywhere."""

    dimension: int = DIMENSION
    embedding_options: frozenset[str] = frozenset({"visual", "audio"})


def row(number: int, **other) -> dict[str, object]:
    vector = [number + 0.125, -0.5, 1e-3]
    return {"embedding": vector, "embeddingOption": "visual", "startSec": number, "endSec": number + 1} | other


def streamed(chunks, model, media_type):
    """Read chunks in this process."""
    return parse_chunks(chunks, model, media_type, PartParsers(0))


def parsed(parse, content):
    """Return the rows, or the error that refuses them."""
    try:
        rows = parse(content, SmallModel(), MediaType.VIDEO)
    except OutputInvalidError:
        return "refused"
    return rows.embedding.tolist(), rows.start_sec, rows.end_sec, rows.embedding_option, rows.embedding_scope


def chunks(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def in_chunks(content: bytes, size: int, piece_bytes: int = 10**9):
    """Return what the rows are when they are read in chunks, or that they have to be read as a whole."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(row_cuts, "_PIECE_BYTES", piece_bytes)
        try:
            return parsed(streamed, chunks(content, size))
        except NotAPartError:
            return "as a whole"


WRAPPERS = {
    "data": lambda rows: {"data": rows},
    "embeddings": lambda rows: {"embeddings": rows},
    "both": lambda rows: {"data": {"embeddings": rows}},
    "list": lambda rows: rows,
    "something after the rows": lambda rows: {"data": rows, "usage": {"seconds": [1, 2]}},
}
FORMS = {"compact": {"separators": (",", ":")}, "default": {}, "indented": {"indent": 2}}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_rows_are_the_same_wherever_the_output_is_cut(wrapper, form):
    content = json.dumps(wrapper([row(number) for number in range(20)]), **form).encode()
    whole = parsed(parse_output, content)

    assert whole != "refused"
    for piece_bytes in (10**9, 1):
        assert {repr(in_chunks(content, size, piece_bytes)) for size in range(300, len(content) + 1, 7)} == {
            repr(whole)
        }


# What looks like the end of a row and is none, or like rows and is something else.
MISLEADING = {
    "in a text": {"data": [row(n, note='a},{"embedding') for n in range(9)]},
    "in a deeper list": {"data": [row(n, parts=[{"a": 1}, {"b": [{"c": 2}, {"d": 3}]}]) for n in range(9)]},
    "in another list after the rows": {"data": [row(n) for n in range(4)], "other": [row(n) for n in range(4, 9)]},
    "in another list before the rows": {"other": [row(n) for n in range(4)], "data": [row(n) for n in range(4, 9)]},
    "in a list beside the wrapper": {
        "data": {"embeddings": [row(n) for n in range(4)], "x": [row(n) for n in range(9)]}
    },
    "in a list with the second name": {"data": [row(n) for n in range(4)], "embeddings": [row(n) for n in range(9)]},
    "a bare embedding after the rows": {"data": [row(n) for n in range(4)], **row(9)},
    "lists as rows": [[row(n) for n in range(4)], [row(n) for n in range(4, 9)]],
    "braces alone": {"data": [row(n, note="}" * 200) for n in range(9)]},
    "times as objects": {"data": [row(n, startSec={"a": 1}, endSec={"b": 1}) for n in range(9)]},
}


@pytest.mark.parametrize("document", MISLEADING.values(), ids=MISLEADING)
def test_what_only_looks_like_the_end_of_a_row_misleads_nobody(document):
    content = json.dumps(document, separators=(",", ":")).encode()
    whole = parsed(parse_output, content)

    for size in range(20, len(content) + 1):
        assert in_chunks(content, size) in ("as a whole", whole), size
        assert in_chunks(content, size, 1) in ("as a whole", whole), size


TWICE = b'{"data":[%s],"data":[%s]}' % tuple(
    ",".join(json.dumps(row(n)) for n in numbers).encode() for numbers in (range(4), range(4, 9))
)
CONTENT = json.dumps({"data": [row(number) for number in range(6)]}, separators=(",", ":")).encode()


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(CONTENT)),
            st.integers(0, 40),
            st.sampled_from(
                [b"", b"}", b"{", b"]", b"[", b",", b'"', b"},{", b'],"x":[', b'],"data":[', b"1", b"\xff"]
            ),
        ),
        max_size=3,
    ),
    st.integers(10, 400),
    st.integers(1, 400),
)
@example([], 300, 100)
def test_what_is_accepted_in_parts_is_accepted_as_a_whole_with_the_same_rows(changes, size, piece_bytes):
    content = CONTENT
    for at, removed, inserted in changes:
        content = content[:at] + inserted + content[at + removed :]
    # A refusal of a part refuses the whole, whose fault may be another one.
    assert in_chunks(content, size, piece_bytes) in ("as a whole", parsed(parse_output, content))


@pytest.mark.parametrize("size", [100, 200, 400])
def test_rows_under_a_key_that_is_there_twice_are_not_mixed(size):
    assert in_chunks(TWICE, size) in ("as a whole", parsed(parse_output, TWICE))


def test_the_place_of_a_bad_row_is_its_place_in_the_whole_output():
    rows = [row(number) for number in range(30)]
    rows[21]["embedding"] = [1.0]
    with pytest.raises(OutputInvalidError, match="row 21 has 1 numbers"):
        streamed(chunks(json.dumps({"data": rows}).encode(), 500), SmallModel(), MediaType.VIDEO)


def test_a_segment_that_is_there_twice_is_refused_also_if_parts_lie_between():
    rows = [row(number) for number in [*range(20), 0]]
    with pytest.raises(OutputInvalidError, match="two rows"):
        streamed(chunks(json.dumps({"data": rows}).encode(), 500), SmallModel(), MediaType.VIDEO)


def test_rows_in_any_order_are_sorted_over_all_parts():
    rows = [row(number) for number in np.random.default_rng(1).permutation(50).tolist()]
    found = streamed(chunks(json.dumps({"data": rows}).encode(), 700), SmallModel(), MediaType.VIDEO)

    assert list(found.start_sec) == [float(number) for number in range(50)]
    assert found.embedding[:, 0].tolist() == [number + 0.125 for number in range(50)]


@pytest.mark.parametrize("content", [[], [b""], [b"", b""]])
def test_nothing_is_no_output(content):
    with pytest.raises((OutputInvalidError, NotAPartError)):
        streamed(content, SmallModel(), MediaType.VIDEO)


def test_an_output_that_is_cut_off_behind_the_beginning_of_a_row_is_no_output():
    content = b'{"data":{"embeddings":[' + json.dumps(row(0, note="x" * 500), separators=(",", ":")).encode() + b",{"
    for size in range(30, len(content)):
        assert in_chunks(content, size, 50) in ("as a whole", "refused")
