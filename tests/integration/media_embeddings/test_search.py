"""Search as people call it: ``python -m media_embeddings search`` over tables that runs have written."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import boto3
import numpy as np
import pytest
import yaml

from media_embeddings.library import Library
from media_embeddings.search.comparable import CrossModelError
from media_embeddings.search.cosine import exact_cosines, unit
from media_embeddings.search.queries import (
    ImageQuery,
    LikeQuery,
    SearchRefusedError,
    StoredImageQuery,
    TextQuery,
    VectorQuery,
)
from media_embeddings.search.query_vectors import QueryVectorError
from media_embeddings.search.searching import search
from media_embeddings.storage import Storage
from tests.integration.media_embeddings.conftest import Pipeline, film, picture, vectors


@pytest.fixture(scope="module")
def films(stack):
    """Return a library that is embedded with Marengo 3.0; searches change nothing, so all tests share it."""
    stack.seaweedfs.create_buckets("search-media", "search-vectors")
    library = Library(
        name="films",
        sources=["s3://search-media/library/"],
        region="us-east-1",
        model="marengo-3-0",
        tables="s3://search-vectors/tables",
        work="s3://search-vectors/work",
        list_lag_seconds=1.0,
        output_grace_seconds=0.5,
        retries_in_run=0,
    )
    films = Pipeline(library, Storage.of_session(boto3.Session()))
    films.put("a film (1)+50%20é'ß.mp4", film())
    for colour in ("red", "green", "blue"):
        films.put(f"{colour}.png", picture(colour))
    films.put("red.txt", b"a red boat")
    assert films.run().succeeded
    # A second run, so that the table has several files.
    films.put("pictures/another red.png", picture("red", (200, 120)))
    assert films.run().succeeded
    return films


FILM = "a film (1)+50%20é'ß.mp4"


@pytest.fixture
def command(films, tmp_path):
    """Run ``python -m media_embeddings search`` and return its output."""

    def command(*arguments: str, exit_code: int = 0, environment: dict[str, str] | None = None) -> str:
        settings = films.library.model_dump(mode="json", exclude={"name"}, exclude_none=True)
        other = settings | {"tables": "s3://search-vectors/empty/tables"}
        path = tmp_path / "libraries.yaml"
        path.write_text(yaml.safe_dump({"libraries": {"films": settings, "empty": other}}))
        answer = subprocess.run(
            [sys.executable, "-m", "media_embeddings", "search", *arguments],
            env={**(environment or os.environ), "MEDIA_EMBEDDINGS_CONFIG": str(path), "PYTHONPATH": "include"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert answer.returncode == exit_code, answer.stderr
        assert "Traceback" not in answer.stderr
        return answer.stdout + answer.stderr

    return command


def test_a_text_finds_the_pictures_it_names(films, command):
    output = command("--library", "films", "--text", "red", "--media-type", "image", "--top", "3").splitlines()

    assert len(output) == 4
    assert {line.split("\t")[3] for line in output[:2]} == {
        films.uri("red.png"),
        films.uri("pictures/another red.png"),
    }
    score, library, region, _, stretch, kind = output[0].split("\t")
    assert float(score) > float(output[2].split("\t")[0])
    assert (library, region, stretch, kind) == ("films", "us-east-1", "whole", "asset")
    assert output[3] == "3 hits by marengo-3-0; compared with the segments: 4 of films"


def test_segments_of_a_film_come_with_their_times_and_option(films, command):
    arguments = ("--library", "films", "--text", "red", "--option", "visual", "--scope", "clip", "--json")
    found = json.loads(command(*arguments))

    assert found["model"] == "marengo-3-0"
    best = found["hits"][0]
    assert (best["media_uri"], best["embedding_option"], best["embedding_scope"]) == (films.uri(FILM), "visual", "clip")
    # The film is red for its first five seconds, blue then.
    assert (best["start_sec"], best["end_sec"]) == (0.0, pytest.approx(5.0, abs=0.5))
    assert {hit["embedding_option"] for hit in found["hits"]} == {"visual"}


def test_an_image_is_searched_by_as_a_file_or_in_s3(films, command, tmp_path):
    path = tmp_path / "query.png"
    path.write_bytes(picture("blue"))
    films.storage.client.put_object(Bucket="search-vectors", Key="queries/blue.png", Body=picture("blue"))
    for image in (str(path), "s3://search-vectors/queries/blue.png"):
        first, *_ = command("--library", "films", "--image", image, "--media-type", "image").splitlines()
        assert first.startswith(f"1.0000\tfilms\tus-east-1\t{films.uri('blue.png')}\t")


def test_what_is_like_an_object_is_found_without_asking_bedrock(films, command, simulator):
    before = simulator.calls().get("InvokeModel", {}).get("", 0)
    arguments = ("--library", "films", "--like", films.uri("red.png"), "--media-type", "image", "--top", "1")
    [hit, _] = command(*arguments).splitlines()

    assert hit.split("\t")[3] == films.uri("pictures/another red.png")
    assert simulator.calls().get("InvokeModel", {}).get("", 0) == before


def test_a_library_without_a_table_yet_is_said_to_have_nothing(command):
    output = command("--library", "films", "--library", "empty", "--text", "red", "--media-type", "image")

    assert output.endswith("4 of films, 0 of empty\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--text", "word " * 501), "has at least 501 tokens and marengo-3-0 takes 500"),
        (
            ("--text", "red", "--model", "marengo-2-7"),
            "no table of marengo-2-7 to search: films has a table of marengo-3-0",
        ),
        (("--text", "red", "--model", "clip"), "there is no model 'clip'"),
        (("--text", "red", "--option", "visual-text"), "marengo-3-0 has no embedding option visual-text"),
        (("--text", "red", "--top", "0"), "top must be from 1"),
        (("--text", "red", "--segment", "1"), "--segment goes with --like"),
        (("--image", "/no/such/file.png"), "the image /no/such/file.png can't be read"),
        (("--image", "s3://search-vectors/none.png"), "there is no image s3://search-vectors/none.png"),
        (("--image", "s3://no-such-bucket-anywhere/none.png"), "s3://no-such-bucket-anywhere/none.png"),
        (("--image", "s3://"), "the image s3:// to search by can't be read"),
        (("--like", "s3://search-media/library/none.png"), "has no vector in the table of films"),
        (("--text", "red", "--profile", "films"), "must be LIBRARY=PROFILE"),
    ],
)
def test_what_can_not_be_answered_is_refused_with_what_to_do(command, arguments, message):
    assert message in command("--library", "films", *arguments, exit_code=1)


def test_an_unknown_library_is_named_with_those_that_there_are(command):
    assert "there is no library 'clips'" in command("--library", "clips", "--text", "red", exit_code=2)


def test_a_library_can_be_reached_by_a_profile_of_its_own(films, command, stack, tmp_path):
    """As where libraries lie in several accounts; here the profile has the addresses as well."""
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    config.write_text(
        "[profile films]\nservices = local\n[services local]\n"
        f"s3 =\n  endpoint_url = {stack.seaweedfs.endpoint_url}\n"
        f"bedrock_runtime =\n  endpoint_url = {stack.simulator.endpoint_url}\n"
    )
    credentials.write_text(
        f"[films]\naws_access_key_id = {stack.seaweedfs.access_key}\n"
        f"aws_secret_access_key = {stack.seaweedfs.secret_key}\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
    arguments = ("--library", "films", "--text", "green", "--media-type", "image", "--top", "1")
    output = command(*arguments, "--profile", "films=films", environment=environment)

    assert films.uri("green.png") in output
    refused = command(*arguments, "--profile", "films=nobody", environment=environment, exit_code=1)
    assert "The config profile (nobody) could not be found" in refused


def test_the_hits_are_those_of_brute_force_over_the_whole_table(films):
    rows = [row for rows in films.rows().values() for row in rows]
    query = rows[0]["embedding"]
    found = search([films.library], VectorQuery(query), top=len(rows) + 5)

    scores = exact_cosines(vectors(rows), unit(np.array([query])))
    oracle = sorted(
        (-score, row["media_uri"], row["segment_index"]) for score, row in zip(scores.tolist(), rows, strict=True)
    )
    assert [(-hit.score, hit.media_uri, hit.segment_index) for hit in found.hits] == oracle
    assert found.compared == {"films": len(rows)}
    segment = {(row["media_uri"], row["segment_index"]): row for row in rows}
    for hit in found.hits:
        row = segment[hit.media_uri, hit.segment_index]
        for name in ("media_type", "start_sec", "end_sec", "embedding_option", "embedding_scope"):
            assert getattr(hit, name) == row[name], name


def test_a_segment_of_a_film_is_searched_by_its_own_vector(films):
    clip = next(
        row
        for row in films.rows()[FILM]
        if (row["embedding_option"], row["embedding_scope"], row["start_sec"]) == ("visual", "clip", 0.0)
    )
    found = search([films.library], LikeQuery(films.uri(FILM), clip["segment_index"]), media_types=["image"], top=2)

    assert {hit.media_uri for hit in found.hits} == {films.uri("red.png"), films.uri("pictures/another red.png")}


def test_a_text_that_only_bedrock_finds_too_long_is_refused_in_its_words(films):
    with pytest.raises(QueryVectorError, match=r"us-east-1's Bedrock gives no vector of marengo-3-0.*token"):
        search([films.library], TextQuery("!?" * 1000))


def test_an_image_that_bedrock_can_not_read_is_refused_in_its_words(films):
    with pytest.raises(QueryVectorError, match="for the image"):
        search([films.library], ImageQuery(b"no image at all"))
    films.storage.client.put_object(Bucket="search-vectors", Key="queries/large.png", Body=b"0" * (5 * 1024**2 + 1))
    with pytest.raises(SearchRefusedError, match="scale it down"):
        search([films.library], StoredImageQuery("s3://search-vectors/queries/large.png"))


@pytest.fixture(scope="module")
def crossed(stack):
    """Return a library that has crossed from Marengo 2.7 to 3.0, with an object that only the first of them has embedded."""
    stack.seaweedfs.create_buckets("crossed-media", "crossed-vectors")
    library = Library(
        name="crossed",
        sources=["s3://crossed-media/library/"],
        region="us-east-1",
        model="marengo-2-7",
        model_lifecycle="warn",
        tables="s3://crossed-vectors/tables",
        work="s3://crossed-vectors/work",
        list_lag_seconds=1.0,
        output_grace_seconds=0.5,
        retries_in_run=0,
    )
    crossed = Pipeline(library, Storage.of_session(boto3.Session()))
    crossed.put("red.png", picture("red"))
    crossed.put("old.png", picture("green"))
    assert crossed.run().succeeded
    crossed.delete("old.png")
    assert crossed.run(model="marengo-3-0").succeeded
    return crossed


@pytest.mark.parametrize("model", ["marengo-2-7", "marengo-3-0"])
def test_each_table_is_searched_with_vectors_of_its_own_model(crossed, model):
    found = search([crossed.library], TextQuery("red"), model=model, top=1)

    assert (found.model, found.hits[0].media_uri) == (model, crossed.uri("red.png"))
    assert found.compared == {"crossed": 2 if model == "marengo-2-7" else 1}


def test_libraries_that_are_searched_with_different_models_are_refused(crossed, films):
    with pytest.raises(CrossModelError, match=r"crossed with marengo-2-7 and films with marengo-3-0"):
        search([crossed.library, films.library], TextQuery("red"))

    found = search([crossed.library, films.library], TextQuery("red"), model="marengo-3-0", media_types=["image"])
    assert {hit.library for hit in found.hits[:3]} == {"crossed", "films"}


def test_an_object_that_only_the_other_model_has_embedded_is_refused(crossed):
    with pytest.raises(CrossModelError, match=r"old.png has vectors of marengo-2-7 only, and marengo-3-0 is searched"):
        search([crossed.library], LikeQuery(crossed.uri("old.png")), model="marengo-3-0")


def test_a_vector_of_the_other_model_is_refused(crossed):
    vector = crossed.rows("marengo-3-0")["red.png"][0]["embedding"]
    with pytest.raises(CrossModelError, match=r"512 numbers, as those of .*marengo-3-0.* and marengo-2-7 is searched"):
        search([crossed.library], VectorQuery(vector))
