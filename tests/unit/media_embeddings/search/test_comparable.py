import pytest

from media_embeddings.library import Library
from media_embeddings.search.comparable import (
    CrossModelError,
    common_model,
    refuse_other_rows,
    refuse_other_tables,
    refuse_other_vector,
)
from media_embeddings.search.queries import VectorQuery


def library(name, model):
    return Library(
        name=name,
        sources=["s3://media-bucket/"],
        region="us-east-1",
        model=model,
        tables="s3://vectors-bucket/tables",
        work="s3://vectors-bucket/work",
    )


FILMS, CLIPS, OLD = library("films", "marengo-3-0"), library("clips", "marengo-3-0"), library("old", "marengo-2-7")


def test_libraries_of_one_model_are_searched_with_it():
    assert common_model([FILMS, CLIPS]) == "marengo-3-0"


def test_libraries_of_two_models_are_refused_by_name_with_what_to_do():
    with pytest.raises(CrossModelError) as refusal:
        common_model([FILMS, OLD, CLIPS])

    message = str(refusal.value)
    assert "old with marengo-2-7" in message
    assert "films, clips with marengo-3-0" in message
    assert "--model marengo-2-7 or --model marengo-3-0" in message
    assert "search_model" in message


def test_a_named_model_holds_for_all():
    assert common_model([FILMS, OLD], "marengo-2-7") == "marengo-2-7"
    with pytest.raises(ValueError, match="there is no model 'clip'"):
        common_model([FILMS], "clip")


def test_a_library_with_a_table_of_another_model_only_is_refused():
    refuse_other_tables({"new": []}, "marengo-3-0")
    with pytest.raises(CrossModelError) as refusal:
        refuse_other_tables({"new": [], "old": ["marengo-2-7"]}, "marengo-3-0")

    message = str(refusal.value)
    assert "no table of marengo-3-0" in message
    assert "old has a table of marengo-2-7" in message
    assert "--model marengo-2-7" in message
    assert "search_model" in message
    assert "new" not in message


def test_an_object_with_vectors_of_another_model_only_is_refused():
    refuse_other_rows("s3://media-bucket/a.mp4", [], "marengo-3-0")
    with pytest.raises(CrossModelError) as refusal:
        refuse_other_rows("s3://media-bucket/a.mp4", ["marengo-2-7"], "marengo-3-0")

    message = str(refusal.value)
    assert "s3://media-bucket/a.mp4 has vectors of marengo-2-7 only, and marengo-3-0 is searched" in message
    assert "--model marengo-2-7" in message


def test_a_vector_of_another_model_is_refused_even_if_it_is_as_long():
    refuse_other_vector(VectorQuery([1.0] * 512, "marengo-3-0"), "marengo-3-0")
    with pytest.raises(CrossModelError, match=r"one of marengo-2-7, and marengo-3-0 is searched.*--model marengo-2-7"):
        refuse_other_vector(VectorQuery([1.0] * 512, "marengo-2-7"), "marengo-3-0")


def test_a_vector_of_another_length_is_refused_naming_the_models_it_may_be_of():
    with pytest.raises(CrossModelError) as refusal:
        refuse_other_vector(VectorQuery([1.0] * 1024), "marengo-3-0")

    message = str(refusal.value)
    assert "1024 numbers, as those of" in message
    assert "marengo-2-7" in message
    assert "marengo-3-0 is searched, whose vectors have 512" in message
    assert "--model marengo-2-7" in message
    with pytest.raises(CrossModelError, match="as those of no model here"):
        refuse_other_vector(VectorQuery([1.0] * 7), "marengo-3-0")
