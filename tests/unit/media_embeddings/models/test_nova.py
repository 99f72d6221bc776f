"""Nova Multimodal Embeddings, checked against https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html ."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.completeness import judge
from media_embeddings.media import MediaFacts, MediaObject, MediaType
from media_embeddings.models import model_named
from media_embeddings.models.protocol import ParameterError
from media_embeddings.output_rows import OutputInvalidError
from media_embeddings.reasons import ReasonCode
from media_embeddings.storage import ObjectNotFoundError
from tests.unit.media_embeddings.models.output_folders import FolderInMemory

NOVA = model_named("nova-2-multimodal-256")
VIDEO, AUDIO, IMAGE, TEXT = MediaType.VIDEO, MediaType.AUDIO, MediaType.IMAGE, MediaType.TEXT
MIB = 1024**2


def media(media_type: MediaType, key: str, size_bytes: int = 1000) -> MediaObject:
    return MediaObject("media", key, "e1", size_bytes, datetime(2026, 11, 1, tzinfo=UTC), media_type)


def test_each_dimension_is_a_model_with_vectors_of_its_own():
    for dimension in (256, 384, 1024, 3072):
        model = model_named(f"nova-2-multimodal-{dimension}")
        sent = model.parameters(IMAGE, {})

        assert (model.dimension, sent["embeddingDimension"]) == (dimension, dimension)
        assert model.model_id == "amazon.nova-2-multimodal-embeddings-v1:0"


IN_RANGE = [
    *[(VIDEO, {"segmentationConfig": {"durationSeconds": seconds}}) for seconds in (1, 30)],
    *[(AUDIO, {"segmentationConfig": {"durationSeconds": seconds}}) for seconds in (1, 30)],
    *[(TEXT, {"segmentationConfig": {"maxLengthChars": characters}}) for characters in (800, 50_000)],
    *[(TEXT, {"truncationMode": mode}) for mode in ("START", "END", "NONE")],
    *[(VIDEO, {"embeddingMode": mode}) for mode in ("AUDIO_VIDEO_COMBINED", "AUDIO_VIDEO_SEPARATE")],
    *[(IMAGE, {"detailLevel": level}) for level in ("STANDARD_IMAGE", "DOCUMENT_IMAGE")],
    *[(AUDIO, {"embeddingPurpose": purpose}) for purpose in ("GENERIC_INDEX", "CLASSIFICATION", "CLUSTERING")],
    (TEXT, {"embeddingDimension": 256}),
]
OUT_OF_RANGE = [
    *[(VIDEO, {"segmentationConfig": {"durationSeconds": n}}, "durationSeconds", "1 to 30") for n in (0, 31, 2.5)],
    *[(TEXT, {"segmentationConfig": {"maxLengthChars": n}}, "maxLengthChars", "800 to 50000") for n in (799, 50_001)],
    (AUDIO, {"segmentationConfig": {"maxLengthChars": 800}}, "maxLengthChars", "durationSeconds"),
    (AUDIO, {"segmentationConfig": [5]}, "segmentationConfig", "mapping"),
    (TEXT, {"truncationMode": "MIDDLE"}, "truncationMode", "START, END, NONE"),
    (VIDEO, {"embeddingMode": "AUDIO"}, "embeddingMode", "AUDIO_VIDEO_COMBINED"),
    (IMAGE, {"detailLevel": "HIGH"}, "detailLevel", "STANDARD_IMAGE, DOCUMENT_IMAGE"),
    (IMAGE, {"embeddingPurpose": "SEARCH"}, "embeddingPurpose", "GENERIC_INDEX"),
    (IMAGE, {"embeddingDimension": 1024}, "embeddingDimension", "nova-2-multimodal-1024"),
    (IMAGE, {"segmentationConfig": {}}, "segmentationConfig", "is not a parameter"),
    (VIDEO, {"startSec": 1}, "startSec", "is not a parameter"),
]


@pytest.mark.parametrize(("media_type", "given_values"), IN_RANGE)
def test_a_value_within_its_documented_range_is_sent(media_type, given_values):
    sent = NOVA.parameters(media_type, given_values)

    assert all(sent[name] == value for name, value in given_values.items())
    assert NOVA.parameters(media_type, sent) == sent


@pytest.mark.parametrize(("media_type", "given_values", "parameter", "allowed"), OUT_OF_RANGE)
def test_a_value_outside_is_refused_with_its_name_the_range_and_the_page(media_type, given_values, parameter, allowed):
    with pytest.raises(ParameterError) as raised:
        NOVA.parameters(media_type, given_values)

    assert raised.value.parameter == parameter
    for part in (parameter, allowed, "https://docs.aws.amazon.com/nova/"):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("media_type", "key", "format_name"),
    [
        *[(VIDEO, f"a.{name}", name) for name in ("mp4", "mov", "mkv", "webm", "flv", "mpeg", "mpg", "wmv", "3gp")],
        *[(AUDIO, f"a.{name}", name) for name in ("mp3", "wav", "ogg")],
        *[(IMAGE, f"a.{name}", name) for name in ("png", "jpeg", "gif", "webp")],
        (IMAGE, "holiday.final.JPG", "jpeg"),
    ],
)
def test_the_format_follows_from_the_suffix(media_type, key, format_name):
    one = media(media_type, key)
    assert NOVA.rejection(one) is None
    request = NOVA.model_input(one, NOVA.parameters(media_type, {}), bucket_owner=None, text=None)

    assert request["segmentedEmbeddingParams"][media_type.value]["format"] == format_name


@pytest.mark.parametrize(
    ("media_type", "key"),
    [(VIDEO, "a.avi"), (AUDIO, "a.flac"), (IMAGE, "a.tiff"), (IMAGE, "png"), (TEXT, "a.srt"), (TEXT, "b.jsonl")],
)
def test_a_format_that_it_does_not_read_is_rejected_before_it_is_paid_for(media_type, key):
    rejection = NOVA.rejection(media(media_type, key))

    assert rejection is not None
    assert rejection.code is ReasonCode.UNSUPPORTED_MEDIA


@pytest.mark.parametrize(
    ("media_type", "key", "most"),
    [
        (VIDEO, "a.mp4", 2048 * MIB),
        (AUDIO, "a.wav", 1024 * MIB),
        (IMAGE, "a.png", 50 * MIB),
        (TEXT, "a.txt", 634 * MIB),
    ],
)
def test_sizes_are_checked_on_either_side_of_the_limit(media_type, key, most):
    assert NOVA.rejection(media(media_type, key, most)) is None
    rejection = NOVA.rejection(media(media_type, key, most + 1))
    assert rejection is not None
    assert rejection.code is ReasonCode.TOO_LARGE


def test_what_would_be_too_many_segments_is_rejected_with_the_parameter_to_change():
    parameters = NOVA.parameters(AUDIO, {"segmentationConfig": {"durationSeconds": 5}})
    one = media(AUDIO, "a.wav")

    assert NOVA.rejection_by_facts(one, MediaFacts(duration_sec=1434 * 5), parameters) is None
    assert NOVA.rejection_by_facts(one, MediaFacts(duration_sec=None), parameters) is None
    rejection = NOVA.rejection_by_facts(one, MediaFacts(duration_sec=1434 * 5 + 1), parameters)
    assert rejection is not None
    assert rejection.code is ReasonCode.TOO_LONG
    assert "segmentationConfig.durationSeconds" in rejection.message


@pytest.mark.parametrize("media_type", [VIDEO, AUDIO])
def test_two_hours_are_taken_and_no_more(media_type):
    one = media(media_type, "a.mp4")

    assert NOVA.rejection_by_facts(one, MediaFacts(duration_sec=7200.0)) is None
    assert NOVA.rejection_by_facts(one, MediaFacts(duration_sec=7201.1)).code is ReasonCode.TOO_LONG


def test_content_is_never_sent_with_a_request():
    with pytest.raises(ValueError, match="from S3 only"):
        NOVA.model_input(media(IMAGE, "a.png"), {}, bucket_owner=None, text=None, content=b"a picture")


# What comes back.


def vector(seed: int, dimension: int = 256) -> list[float]:
    numbers = np.random.default_rng(seed).normal(size=dimension)
    return (numbers / np.linalg.norm(numbers)).tolist()


def line(index: int, status: str = "SUCCESS", **metadata) -> dict:
    return {"embedding": vector(index), "segmentMetadata": {"segmentIndex": index, **metadata}, "status": status}


def timed(index: int, start: float, end: float, **more) -> dict:
    return line(index, segmentStartSeconds=start, segmentEndSeconds=end) | more


def lines(*values: dict) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def result(**statuses: str | dict) -> bytes:
    files = {"AUDIO_VIDEO_COMBINED": "video.jsonl", "IMAGE": "image.json"}
    results = [
        {
            "embeddingType": name,
            "outputFileUri": f"s3://work/elsewhere/job/embedding-{files.get(name, f'{name.lower()}.jsonl')}",
            **(status if isinstance(status, dict) else {"status": status}),
        }
        for name, status in statuses.items()
    ]
    return json.dumps(
        {"sourceFileUri": "s3://media/a", "embeddingDimension": 256, "embeddingResults": results}
    ).encode()


RESULT = "segmented-embedding-result.json"


def read(media_type: MediaType, files: dict[str, bytes], **more):
    return NOVA.read_output(FolderInMemory(files, **more), media_type)


def test_pictures_and_sound_are_rows_of_their_own():
    rows = read(
        VIDEO,
        {
            RESULT: result(VIDEO="SUCCESS", AUDIO="SUCCESS"),
            "embedding-video.jsonl": lines(timed(1, 5, 8.5), timed(0, 0, 5)),
            "embedding-audio.jsonl": lines(timed(2, 0, 5), timed(3, 5, 8.5)),
        },
    )

    assert list(zip(rows.start_sec, rows.end_sec, rows.embedding_option, strict=True)) == [
        (0.0, 5.0, "AUDIO"),
        (0.0, 5.0, "VIDEO"),
        (5.0, 8.5, "AUDIO"),
        (5.0, 8.5, "VIDEO"),
    ]
    assert rows.embedding_scope == ["clip"] * 4
    np.testing.assert_array_equal(rows.embedding[1], np.array(vector(0), dtype=np.float32))
    parameters = NOVA.parameters(VIDEO, {"embeddingMode": "AUDIO_VIDEO_SEPARATE"})
    assert judge(rows, NOVA.segment_rules(VIDEO, parameters)).violation is None


def test_both_together_are_one_row_each():
    files = {
        RESULT: result(AUDIO_VIDEO_COMBINED="SUCCESS"),
        "embedding-video.jsonl": lines(timed(0, 0, 5), timed(1, 5, 8)),
    }
    rows = read(VIDEO, files)

    assert rows.embedding_option == ["AUDIO_VIDEO_COMBINED"] * 2
    assert rows.duration_sec == 8.0
    assert judge(rows, NOVA.segment_rules(VIDEO, NOVA.parameters(VIDEO, {}))).violation is None


def test_a_text_has_the_characters_of_each_segment():
    first = line(0, segmentStartCharPosition=0, segmentEndCharPosition=794, truncatedCharLength=0)
    second = line(1, segmentStartCharPosition=794, segmentEndCharPosition=1500)
    rows = read(TEXT, {RESULT: result(TEXT="SUCCESS"), "embedding-text.jsonl": lines(second, first)})

    assert (rows.start_char, rows.end_char) == ([0, 794], [794, 1500])
    assert (rows.start_sec, rows.embedding_option) == ([None, None], ["TEXT", "TEXT"])
    assert rows.embedding_scope == ["clip", "clip"]
    assert judge(rows, NOVA.segment_rules(TEXT, NOVA.parameters(TEXT, {}))).violation is None


def test_a_text_of_one_segment_is_a_whole():
    one = line(0, segmentStartCharPosition=0, segmentEndCharPosition=20)

    rows = read(TEXT, {RESULT: result(TEXT="SUCCESS"), "embedding-text.jsonl": lines(one)})

    assert (rows.embedding_scope, rows.start_char, rows.end_char) == (["asset"], [0], [20])


@pytest.mark.parametrize("metadata", [{}, {"segmentMetadata": {"segmentIndex": 0}}])
def test_an_image_is_one_row_without_times(metadata):
    one = {"embedding": vector(1), "status": "SUCCESS", **metadata}
    rows = read(IMAGE, {RESULT: result(IMAGE="SUCCESS"), "embedding-image.json": json.dumps(one).encode()})

    assert (rows.embedding_option, rows.embedding_scope, rows.start_sec) == (["IMAGE"], ["asset"], [None])
    assert rows.start_char is None
    assert judge(rows, NOVA.segment_rules(IMAGE, {})).violation is None


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ("RAI_VIOLATION_INPUT_TEXT_DEFLECTION", ReasonCode.CONTENT_REFUSED),
        ("RAI_VIOLATION_INPUT_IMAGE_DEFLECTION", ReasonCode.CONTENT_REFUSED),
        ("INVALID_CONTENT", ReasonCode.CORRUPT),
        ("RATE_LIMIT_EXCEEDED", ReasonCode.OUTPUT_INCOMPLETE),
        ("INTERNAL_SERVER_EXCEPTION", ReasonCode.OUTPUT_INCOMPLETE),
        ("SOMETHING_NEW", ReasonCode.OUTPUT_INCOMPLETE),
    ],
)
def test_a_failed_segment_refuses_the_object_with_the_models_reason(failure, code):
    failed = {
        "segmentMetadata": {"segmentIndex": 1},
        "status": "FAILURE",
        "failureReason": failure,
        "message": "It went wrong.",
    }
    files = {
        RESULT: result(VIDEO="PARTIAL_SUCCESS"),
        "embedding-video.jsonl": lines(timed(0, 0, 5), failed),
    }
    with pytest.raises(OutputInvalidError, match=f"segment 1 of VIDEO: {failure}, It went wrong") as raised:
        read(VIDEO, files)

    assert raised.value.reason.code is code


def test_a_type_that_failed_altogether_refuses_the_object_even_without_a_file():
    failed = {"status": "FAILURE", "failureReason": "INVALID_CONTENT", "message": "No sound."}
    files = {
        RESULT: result(VIDEO="SUCCESS", AUDIO=failed),
        "embedding-video.jsonl": lines(timed(0, 0, 5)),
    }

    with pytest.raises(OutputInvalidError, match="all of AUDIO: INVALID_CONTENT, No sound"):
        read(VIDEO, files)


def test_a_part_that_failed_is_missed_even_if_no_line_says_so():
    files = {RESULT: result(VIDEO="PARTIAL_SUCCESS"), "embedding-video.jsonl": lines(timed(0, 0, 5))}

    with pytest.raises(OutputInvalidError, match="some of VIDEO: PARTIAL_SUCCESS"):
        read(VIDEO, files)


GOOD = {RESULT: result(VIDEO="SUCCESS"), "embedding-video.jsonl": lines(timed(0, 0, 5))}
BROKEN = {
    "a result that is cut off": ({RESULT: GOOD[RESULT][:50]}, "no JSON, or cut off"),
    "a result of another form": ({RESULT: b'{"data": []}'}, "has no embeddingResults"),
    "a result without embeddings": ({RESULT: b'{"embeddingResults": []}'}, "has no embeddingResults"),
    "another dimension": ({RESULT: GOOD[RESULT].replace(b"256", b"1024")}, "have 1024 numbers, not 256"),
    "an unknown type": ({RESULT: result(SMELL="SUCCESS")}, "unknown embeddingType 'SMELL'"),
    "no status": ({RESULT: result(VIDEO={})}, "all of VIDEO: no status"),
    "a line that is cut off": ({"embedding-video.jsonl": GOOD["embedding-video.jsonl"][:100]}, "line 1 is no JSON"),
    "a line that is a list": ({"embedding-video.jsonl": b"[1]\n"}, "line 1 is no JSON object"),
    "no lines": ({"embedding-video.jsonl": b"\n"}, "there are no rows"),
    "a line without a vector": (
        {"embedding-video.jsonl": lines({"segmentMetadata": {"segmentStartSeconds": 0, "segmentEndSeconds": 5}})},
        "line 1: row 0 has no embedding",
    ),
    "a short vector": ({"embedding-video.jsonl": lines(timed(0, 0, 5, embedding=vector(0, 255)))}, "has 255 numbers"),
    "no times": ({"embedding-video.jsonl": lines(line(0))}, "line 1: segmentStartSeconds is no number"),
    "times that go back": ({"embedding-video.jsonl": lines(timed(0, 5, 5))}, "covers 5 to 5"),
    "a segment twice": ({"embedding-video.jsonl": lines(timed(0, 0, 5), timed(1, 0, 5))}, "two rows are for the same"),
    "a number too large": ({"embedding-video.jsonl": lines(timed(0, 0, 5, embedding=[1e300] * 256))}, "infinity"),
}


@pytest.mark.parametrize(("files", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_an_output_that_is_not_what_the_page_promises_is_refused(files, message):
    with pytest.raises(OutputInvalidError, match=message) as raised:
        read(VIDEO, GOOD | files)

    assert raised.value.reason.message


@pytest.mark.parametrize("missing", [RESULT, "embedding-video.jsonl"])
def test_a_file_that_is_not_there_is_waited_for(missing):
    with pytest.raises(ObjectNotFoundError, match=missing):
        read(VIDEO, {name: content for name, content in GOOD.items() if name != missing})


@given(st.integers(1, 5000))
def test_the_size_of_the_chunks_does_not_matter(chunk_bytes):
    files = GOOD | {"embedding-video.jsonl": lines(timed(0, 0, 5), timed(1, 5, 9)).rstrip()}

    rows = read(VIDEO, files, chunk_bytes=chunk_bytes)

    assert rows.end_sec == [5.0, 9.0]
    np.testing.assert_array_equal(rows.embedding[1], np.array(vector(1), dtype=np.float32))
