"""Answers as the models' pages and published code show them, in each of the forms that were seen, read by their models."""

import json

import numpy as np
import pytest

from media_embeddings.media import MediaType
from media_embeddings.models import model_named
from media_embeddings.results import parse_output
from tests.unit.media_embeddings.models.output_folders import FolderInMemory

OLD, NEW, NOVA = model_named("marengo-2-7"), model_named("marengo-3-0"), model_named("nova-2-multimodal-256")


def vector(seed: int, dimension: int) -> list[float]:
    numbers = np.random.default_rng(seed).normal(size=dimension)
    return (numbers / np.linalg.norm(numbers)).tolist()


def row(seed: int, dimension: int, option: str, start=0.0, end=6.6, **more) -> dict:
    return {"embedding": vector(seed, dimension), "embeddingOption": option, "startSec": start, "endSec": end} | more


def without(one: dict, *names: str) -> dict:
    return {name: value for name, value in one.items() if name not in names}


def read(model, media_type, document):
    return model.read_output(FolderInMemory({"output.json": json.dumps(document).encode()}), media_type)


MARENGO = [(OLD, 1024), (NEW, 512)]
# Whatever is around one row.
WRAPPERS = {
    "a list under data": lambda row: {"data": [row]},
    "an object under data": lambda row: {"data": row},
    "the bare row": lambda row: row,
    "a list under embeddings": lambda row: {"embeddings": [row]},
    "a list": lambda row: [row],
    "nested": lambda row: {"data": {"embeddings": [row]}},
}


@pytest.mark.parametrize("wrapped", WRAPPERS.values(), ids=WRAPPERS.keys())
@pytest.mark.parametrize(("model", "dimension"), MARENGO, ids=["2.7", "3.0"])
@pytest.mark.parametrize("media_type", [MediaType.IMAGE, MediaType.TEXT])
def test_marengos_image_or_text_has_neither_option_nor_times_in_any_wrapper(model, dimension, media_type, wrapped):
    rows = read(model, media_type, wrapped({"embedding": vector(1, dimension)}))

    assert rows.embedding.shape == (1, dimension)
    assert (rows.embedding_option, rows.embedding_scope, rows.start_sec) == ([None], ["asset"], [None])
    assert (rows.start_char, rows.end_char) == (None, None)


@pytest.mark.parametrize("wrapped", WRAPPERS.values(), ids=WRAPPERS.keys())
@pytest.mark.parametrize(("model", "dimension", "option"), [(OLD, 1024, "visual-text"), (NEW, 512, "visual")])
def test_marengos_row_of_a_video_is_read_in_any_wrapper(model, dimension, option, wrapped):
    rows = read(model, MediaType.VIDEO, wrapped(row(1, dimension, option)))

    assert (rows.embedding_option, rows.embedding_scope) == ([option], ["clip"])
    assert (rows.start_sec, rows.end_sec) == ([0.0], [6.6])


def test_marengo_2_7s_published_video():
    document = {
        "data": [row(1, 1024, "visual-text"), row(2, 1024, "visual-image"), row(3, 1024, "audio")],
    }

    assert read(OLD, MediaType.VIDEO, document).embedding_option == ["audio", "visual-image", "visual-text"]


def test_an_end_may_be_spelled_as_in_marengo_2_7s_template():
    one = row(1, 1024, "audio")
    one["endsec"] = one.pop("endSec")

    assert read(OLD, MediaType.AUDIO, {"data": [one]}).end_sec == [6.6]


def test_an_option_may_be_written_as_a_list_of_one():
    document = {"data": [row(1, 1024, ["audio"])]}

    assert read(OLD, MediaType.AUDIO, document).embedding_option == ["audio"]


def test_a_row_may_name_no_option():
    document = {"data": [without(row(1, 512, "audio"), "embeddingOption")]}

    assert read(NEW, MediaType.AUDIO, document).embedding_option == [None]


def test_marengo_3_0s_published_video_whose_options_have_boundaries_of_their_own():
    clips = [
        row(1, 512, "visual", 0.0, 4.3, embeddingScope="clip"),
        row(2, 512, "transcription", 3.9, 6.5, embeddingScope="clip"),
        row(3, 512, "audio", 4.9, 7.5, embeddingScope="clip"),
    ]
    whole = row(4, 512, "visual", 0.0, 7.5, embeddingScope="asset")
    rows = read(NEW, MediaType.VIDEO, {"data": [*clips, whole]})

    assert list(zip(rows.start_sec, rows.embedding_scope, rows.embedding_option, strict=True)) == [
        (0.0, "asset", "visual"),
        (0.0, "clip", "visual"),
        (3.9, "clip", "transcription"),
        (4.9, "clip", "audio"),
    ]


def test_the_clip_and_the_whole_of_a_one_clip_video_are_two_rows():
    clip = row(1, 512, "visual", embeddingScope="clip")
    whole = row(2, 512, "visual", embeddingScope="asset")
    rows = read(NEW, MediaType.VIDEO, {"data": [clip, whole]})

    assert list(zip(rows.segment_index, rows.embedding_scope, strict=True)) == [(0, "asset"), (1, "clip")]
    np.testing.assert_array_equal(rows.embedding[0], np.array(vector(2, 512), dtype=np.float32))


def test_the_row_of_a_whole_asset_may_have_no_times():
    clip = row(1, 512, "audio", embeddingScope="clip")
    whole = without(row(2, 512, "audio", embeddingScope="asset"), "startSec", "endSec")
    rows = read(NEW, MediaType.AUDIO, {"data": [clip, whole]})

    assert rows.start_sec == [None, 0.0]
    assert rows.embedding_scope == ["asset", "clip"]


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (OLD, {"data": [{"embedding": vector(1, 1024)}]}),
        (NEW, {"data": [{"embedding": vector(1, 512)}]}),
        (NOVA, {"embeddings": [{"embeddingType": "TEXT", "embedding": vector(1, 256), "truncatedCharLength": 5}]}),
    ],
    ids=["2.7", "3.0", "nova"],
)
def test_the_answer_to_a_query_is_one_row(model, answer):
    rows = parse_output(json.dumps(answer).encode(), model, MediaType.TEXT)

    assert rows.embedding.shape == (1, model.dimension)
