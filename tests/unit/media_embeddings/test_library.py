import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.library import DEFAULT_SUFFIXES, Library, Selection, suffix_of
from media_embeddings.media import MediaType

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


def test_tables_are_among_the_texts_of_a_library_that_names_a_column_and_of_no_other():
    settings = {
        "name": "films",
        "sources": ["s3://films/raw/"],
        "region": "us-east-1",
        "model": "marengo-2-7",
        "tables": "s3://vectors/tables",
        "work": "s3://vectors/work",
    }

    assert Library(**settings).media_types[MediaType.TEXT] == (".txt", ".md", ".srt", ".vtt")
    with_column = Library(**settings, text_column="body")
    assert with_column.media_types[MediaType.TEXT] == (".txt", ".md", ".srt", ".vtt", ".jsonl", ".csv")
    assert with_column.media_types[MediaType.VIDEO] == Library(**settings).media_types[MediaType.VIDEO]
