from datetime import date
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.library import DEFAULT_SUFFIXES, Library, Selection, WrongSettingError, suffix_of
from media_embeddings.media import MediaType
from media_embeddings.models.prices import Price, PriceList

SELECTION = Selection(DEFAULT_SUFFIXES)


@pytest.mark.parametrize(
    ("key", "suffix"),
    [
        ("films/a.mp4", ".mp4"),
        ("films/A.MP4", ".mp4"),
        ("films/archive.tar.gz", ".gz"),
        ("films/no suffix", ""),
        ("films.d/no-suffix", ""),
        ("films/.hidden", ""),
        ("films/ends with dot.", ""),
    ],
)
def test_the_suffix_is_the_last_one_of_the_name_in_lower_case(key, suffix):
    assert suffix_of(key) == suffix


def test_a_suffix_tells_the_media_type():
    assert SELECTION.media_type("a/b.JPG") is MediaType.IMAGE
    assert SELECTION.media_type("a/b.docx") is None


def test_a_key_whose_suffix_tells_nothing_is_taken_so_that_it_stands_in_the_books():
    assert SELECTION.takes("minutes.docx")


def test_folder_markers_are_not_media():
    assert not SELECTION.takes("videos/")
    assert not SELECTION.takes("")


def test_media_of_a_type_that_the_library_does_not_embed_are_left_out():
    only_video = Selection({MediaType.VIDEO: (".mp4",)})

    assert only_video.takes("a.mp4")
    assert not only_video.takes("a.jpg")
    assert only_video.takes("a.docx")


@pytest.mark.parametrize(
    ("key", "taken"),
    [
        ("a.mp4", True),
        ("deep/er/a.mp4", True),
        ("a.jpg", False),
        ("drafts/a.mp4", False),
        ("deep/drafts/a.mp4", False),
        ("a (1)+%20é.mp4", True),
    ],
)
def test_globs_are_read_as_in_gitignore(key, taken):
    selection = Selection(DEFAULT_SUFFIXES, include=["*.mp4"], exclude=["drafts/"])

    assert selection.takes(key) is taken


@given(st.text(min_size=1).filter(lambda key: not key.endswith("/")))
def test_without_globs_every_key_that_is_no_folder_marker_is_taken(key):
    assert SELECTION.takes(key)


def library(**settings):
    required = {
        "name": "films",
        "sources": ["s3://films/raw/"],
        "region": "us-east-1",
        "model": "marengo-2-7",
        "tables": "s3://vectors/tables",
        "work": "s3://vectors/work",
    }
    return Library(**required | settings)


def test_tables_are_among_the_texts_of_a_library_that_names_a_column_and_of_no_other():
    assert library().media_types[MediaType.TEXT] == (".txt", ".md", ".srt", ".vtt")
    with_column = library(text_column="body")
    assert with_column.media_types[MediaType.TEXT] == (".txt", ".md", ".srt", ".vtt", ".jsonl", ".csv")
    assert with_column.media_types[MediaType.VIDEO] == library().media_types[MediaType.VIDEO]


def test_the_prices_of_a_model_are_those_of_its_file_unless_the_library_sets_others():
    own = library(prices={"marengo-2-7": {"video_second": 0.0006}})

    assert own.price_list(own.embedding_model).price("us-east-1").video_second == 0.0006
    assert own.price_list(own.embedding_model).price("us-east-1").image > 0
    usual = library()
    assert usual.price_list(usual.embedding_model).price("us-east-1").video_second != 0.0006


@pytest.mark.parametrize("limit", ["max_cost_usd_per_run", "max_cost_usd_per_month", "approve_above_usd"])
def test_a_limit_of_costs_asks_for_a_price_of_every_media_type_and_names_the_one_that_is_missing(limit):
    films = library(**{limit: 10.0})
    prices = PriceList(date(2026, 11, 1), "a list", {"*": Price(video_second=0.1, audio_second=0.1, image=0.1)})
    model = SimpleNamespace(name="new-model", media_types=frozenset(MediaType), prices=prices)

    assert films.limits_costs
    with pytest.raises(WrongSettingError, match="without a price for text") as caught:
        films.require_prices(model)
    assert caught.value.setting == "prices.new-model.text_request"
    library(prices={"marengo-2-7": {"text_request": 0.1}}, **{limit: 10.0})
    # What the model does not embed needs no price.
    model.media_types = frozenset({MediaType.VIDEO})
    films.require_prices(model)
