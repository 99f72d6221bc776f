import json
import math
import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_embeddings.media import MediaType
from media_embeddings.models import model_named
from media_embeddings.output_rows import OutputInvalidError
from media_embeddings.reasons import ReasonCode
from media_embeddings.results import parse_output

OLD, NEW = model_named("marengo-2-7"), model_named("marengo-3-0")


def vector(seed: int, dimension: int = 1024) -> list[float]:
    values = np.random.default_rng(seed).normal(size=dimension)
    return (values / np.linalg.norm(values)).tolist()


def row(seed=0, start=0.0, end=5.0, option="visual-text", **other):
    return {"embedding": vector(seed), "embeddingOption": option, "startSec": start, "endSec": end} | other


VIDEO = [
    row(1, 0.0, 6.6, "visual-text"),
    row(2, 0.0, 6.6, "visual-image"),
    row(3, 0.0, 6.6, "audio"),
    row(4, 6.6, 9.0, "audio"),
]


def output(rows) -> bytes:
    return json.dumps({"data": rows}).encode()


def test_a_video_has_a_row_for_each_segment_and_option():
    rows = parse_output(output(VIDEO), OLD, MediaType.VIDEO)

    assert rows.embedding.shape == (4, 1024)
    assert rows.embedding.dtype == np.float32
    assert list(rows.segment_index) == [0, 1, 2, 3]
    assert rows.embedding_option == ["audio", "visual-image", "visual-text", "audio"]
    assert rows.start_sec == [0.0, 0.0, 0.0, 6.6]
    assert rows.embedding_scope == ["clip"] * 4
    assert rows.duration_sec == 9.0
    np.testing.assert_array_equal(rows.embedding[2], np.array(vector(1), dtype=np.float32))


@given(st.permutations(VIDEO))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_rows_in_the_document_does_not_matter(rows):
    sorted_rows = parse_output(output(VIDEO), OLD, MediaType.VIDEO)
    found = parse_output(output(rows), OLD, MediaType.VIDEO)

    np.testing.assert_array_equal(found.embedding, sorted_rows.embedding)
    assert found.embedding_option == sorted_rows.embedding_option


@pytest.mark.parametrize(
    "document",
    [
        {"data": [{"embedding": vector(1)}]},
        {"data": {"embedding": vector(1)}},
        {"embedding": vector(1)},
        {"embeddings": [{"embedding": vector(1)}]},
        [{"embedding": vector(1)}],
    ],
    ids=["data list", "data object", "bare", "embeddings", "list"],
)
@pytest.mark.parametrize("media_type", [MediaType.IMAGE, MediaType.TEXT])
def test_an_image_or_text_is_one_asset_without_times_in_every_wrapper(document, media_type):
    rows = parse_output(json.dumps(document).encode(), OLD, media_type)

    assert rows.embedding.shape == (1, 1024)
    assert (rows.start_sec, rows.end_sec, rows.duration_sec) == ([None], [None], None)
    assert (rows.embedding_scope, rows.embedding_option) == (["asset"], [None])


def test_clip_and_asset_rows_of_marengo_3_do_not_collide():
    clip = {
        "embedding": vector(1, 512),
        "embeddingOption": "visual",
        "embeddingScope": "clip",
        "startSec": 0,
        "endSec": 5,
    }
    asset = clip | {"embedding": vector(2, 512), "embeddingScope": "asset"}
    bare_asset = {"embedding": vector(3, 512), "embeddingOption": "audio", "embeddingScope": "asset"}
    rows = parse_output(output([clip, asset, bare_asset]), NEW, MediaType.VIDEO)

    assert sorted(zip(rows.embedding_scope, rows.embedding_option, rows.end_sec, strict=True), key=str) == [
        ("asset", "audio", None),
        ("asset", "visual", 5.0),
        ("clip", "visual", 5.0),
    ]


def test_times_may_be_written_as_the_guides_template_writes_them():
    one = row()
    one["endsec"] = one.pop("endSec")

    assert parse_output(output([one]), OLD, MediaType.AUDIO).end_sec == [5.0]


INVALID = {
    "wrong length": ([row(embedding=vector(1)[:1023])], "has 1023 numbers"),
    "no embedding": ([{"startSec": 0}], "row 0 has no embedding"),
    "null in the vector": ([row(embedding=[None, *vector(1)[1:]])], "something else than numbers"),
    "true in the vector": ([row(embedding=[True, *vector(1)[1:]])], "something else than numbers"),
    "a list in the vector": ([row(embedding=[[0.5], *vector(1)[1:]])], r"something else than numbers \(a list\)"),
    "lists that make up the length": ([row(embedding=[[], [0.5, 0.5], *vector(1)[2:]])], "a list"),
    "an object for a vector": ([row(embedding={"0": 0.5})], "its embedding is no list"),
    "the vector of the other generation": ([row(embedding=vector(1, 512))], "has 512 numbers"),
    "too many numbers": ([row(embedding=[*vector(1), 0.5])], "has 1025 numbers"),
    "an asset before its start": ([row(start=-5.0, embeddingScope="asset")], "no stretch of time"),
    "text in the vector": ([row(embedding=["1", *vector(1)[1:]])], "something else than numbers"),
    "too large for float32": ([row(embedding=[1e300, *vector(1)[1:]])], "infinity"),
    "unknown option": ([row(option="smell")], "unknown embeddingOption 'smell'"),
    "unknown scope": ([row(embeddingScope="scene")], "unknown embeddingScope 'scene'"),
    "no end": ([{"embedding": vector(1), "startSec": 0.0}], "no endSec"),
    "end before start": ([row(start=5.0, end=4.0)], "no stretch of time"),
    "negative start": ([row(start=-1.0)], "no stretch of time"),
    "time as text": ([row(start="0")], "no number"),
    "the same row twice": ([row(), row()], "two rows"),
    "no rows": ([], "no rows"),
    "a second row that is wrong": ([row(), row(start=5.0, end=9.0, embedding=[0.5])], "row 1 has 1 numbers"),
}


@pytest.mark.parametrize(("rows", "message"), INVALID.values(), ids=INVALID)
def test_what_the_model_does_not_promise_is_refused_with_its_place(rows, message):
    with pytest.raises(OutputInvalidError, match=message) as raised:
        parse_output(output(rows), OLD, MediaType.VIDEO)

    assert raised.value.reason.code is ReasonCode.OUTPUT_INVALID


# What the parser reports as another kind of error than the rest.
BEYOND_THE_PARSER = {
    "an integer of more than 64 bits": output([row(embedding=[10**30, *vector(1)[1:]])]),
    "nested too deep": b'{"data":' * 2000 + b"1" + b"}" * 2000,
    "wrapped again and again": b'{"data":' * 900 + output(VIDEO) + b"}" * 900,
    "two documents": output(VIDEO) * 2,
    "something after the end": output(VIDEO) + b"x",
    "no UTF-8": output(VIDEO).replace(b"visual-text", b"visual\xff"),
}


@pytest.mark.parametrize("document", BEYOND_THE_PARSER.values(), ids=BEYOND_THE_PARSER)
def test_what_the_parser_cannot_take_is_refused_and_does_not_break_the_batch(document):
    with pytest.raises(OutputInvalidError):
        parse_output(document, OLD, MediaType.VIDEO)


def segments(number: int) -> list[dict[str, object]]:
    return [
        {
            "embedding": vector(index, 512),
            "embeddingOption": option,
            "embeddingScope": scope,
            "startSec": float(index // 2),
            "endSec": index // 2 + 1.0,
        }
        for index, (option, scope) in enumerate(
            [(option, scope) for option in ("visual", "transcription") for scope in ("clip", "asset")] * number
        )
    ]


SEGMENTS = segments(3)


@given(st.permutations(SEGMENTS))
@settings(max_examples=20, deadline=None)
def test_rows_are_numbered_by_start_scope_and_option_whatever_their_order(rows):
    found = parse_output(output(rows), NEW, MediaType.VIDEO)

    order = list(zip(found.start_sec, found.embedding_scope, found.embedding_option, strict=True))
    assert order == sorted((one["startSec"], one["embeddingScope"], one["embeddingOption"]) for one in SEGMENTS)
    by_place = {(one["startSec"], one["embeddingScope"], one["embeddingOption"]): one["embedding"] for one in SEGMENTS}
    expected = np.array([by_place[place] for place in order], dtype=np.float32)
    np.testing.assert_array_equal(found.embedding, expected)


@given(st.integers(0, len(SEGMENTS) - 1), st.integers(0, 511), st.sampled_from([1e39, -1e39, 3.5e38, 1.7e308]))
@settings(max_examples=20, deadline=None)
def test_a_number_that_float32_cannot_hold_is_refused_with_its_row_in_the_document(number, position, value):
    rows = [dict(one) for one in reversed(SEGMENTS)]
    rows[number]["embedding"] = [
        *rows[number]["embedding"][:position],
        value,
        *rows[number]["embedding"][position + 1 :],
    ]

    with pytest.raises(OutputInvalidError, match=rf"^row {number}: .*too large for float32"):
        parse_output(output(rows), NEW, MediaType.VIDEO)


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b"null", b"7", b'{"error": "x"}', b"\xff\xfe", b'{"data": 1}'])
def test_a_document_of_another_form_is_refused(document):
    with pytest.raises(OutputInvalidError):
        parse_output(document, OLD, MediaType.VIDEO)


@given(st.integers(0, 1023), st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "-1e999"]))
@settings(max_examples=20, deadline=None)
def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(position, literal):
    values = [0.5] * 1024
    values[position] = math.pi
    document = output([row(embedding=values)]).replace(str(math.pi).encode(), literal.encode())

    with pytest.raises(OutputInvalidError):
        parse_output(document, OLD, MediaType.VIDEO)


WHOLE = output([row(embedding=[0.5] * 1024)])


def test_the_document_of_the_truncation_test_is_a_valid_one():
    assert parse_output(WHOLE, OLD, MediaType.VIDEO).embedding.shape == (1, 1024)


@given(st.integers(0, len(WHOLE) - 1))
@settings(max_examples=200, deadline=None)
def test_a_document_that_was_cut_off_anywhere_is_refused(length):
    with pytest.raises(OutputInvalidError):
        parse_output(WHOLE[:length], OLD, MediaType.VIDEO)


@pytest.mark.parametrize("wrapper", ["%s", '{"data":%s}', "[%s]", '{"data":[%s]}'])
@pytest.mark.parametrize("nested", ["[[%s]]", "[%s,[]]", "[0.5,[%s]]"])
def test_a_list_within_a_vector_is_refused_also_where_it_is_the_only_row(wrapper, nested):
    numbers = ",".join(["0.25"] * (1023 if nested.startswith("[0.5") else 1024))
    document = wrapper % ('{"embedding":' + nested % numbers + "}")
    with pytest.raises(OutputInvalidError, match="something else than numbers"):
        parse_output(document.encode(), OLD, MediaType.IMAGE)


def test_what_is_no_row_takes_no_room_of_one():
    """A few bytes each, where a vector takes thousands."""
    rows = b"[{}" + b",0" * 5_000_000 + b"]"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(OutputInvalidError, match="row 0 has no embedding"):
        parse_output(rows, OLD, MediaType.VIDEO)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 1024**2
