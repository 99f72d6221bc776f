import base64
import io
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from media_embeddings.library import Library
from media_embeddings.models import model_named
from media_embeddings.search.queries import LikeQuery, SearchRefusedError
from media_embeddings.search.query_vectors import (
    QueryVectorError,
    serving,
    vector_of_image,
    vector_of_text,
    vectors_like,
)

MARENGO_27, MARENGO_30 = model_named("marengo-2-7"), model_named("marengo-3-0")
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 100


class Bedrock:
    """Answers each call with the same, and keeps what it was asked."""

    def __init__(self, answer=None):
        self.meta = SimpleNamespace(region_name="us-east-1")
        self.answer = answer if answer is not None else {"data": [{"embedding": [3.0, 4.0] + [0.0] * 510}]}
        self.asked = []

    def invoke_model(self, **request):
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"body": io.BytesIO(json.dumps(self.answer).encode())}


def library(region, model="marengo-3-0"):
    return Library(
        name=f"films_{region[:2]}",
        sources=["s3://media-bucket/"],
        region=region,
        model=model,
        tables="s3://vectors-bucket/tables",
        work="s3://vectors-bucket/work",
    )


def test_a_text_is_sent_as_the_model_takes_it_and_its_vector_has_length_one():
    bedrock = Bedrock()
    vector = vector_of_text(bedrock, MARENGO_30, "the-id", "a red car")

    assert vector.shape == (1, 512)
    assert vector[0, :2] == pytest.approx([0.6, 0.8])
    [request] = bedrock.asked
    assert request["modelId"] == "the-id"
    assert json.loads(request["body"]) == {"inputType": "text", "text": {"inputText": "a red car"}}


def test_an_image_is_sent_with_the_request_so_that_it_may_lie_in_any_region_or_none():
    bedrock = Bedrock()
    vector_of_image(bedrock, MARENGO_30, "the-id", PNG)

    body = json.loads(bedrock.asked[0]["body"])
    assert base64.b64decode(body["image"]["mediaSource"]["base64String"]) == PNG


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (MARENGO_30, "word " * 501),
        (MARENGO_30, "w" * (500 * 64 + 1)),
        (MARENGO_27, "word " * 78),
        (MARENGO_27, "語" * 1700),
    ],
)
def test_a_text_that_is_certainly_too_long_is_refused_before_bedrock_is_asked(model, text):
    bedrock = Bedrock()
    with pytest.raises(SearchRefusedError, match=rf"{model.name} takes .*shorten it; a query is never cut"):
        vector_of_text(bedrock, model, "the-id", text)
    assert bedrock.asked == []


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_is_refused(text):
    with pytest.raises(SearchRefusedError, match="empty"):
        vector_of_text(Bedrock(), MARENGO_30, "the-id", text)


def test_a_text_at_the_limit_is_for_bedrock_to_judge_and_never_cut():
    bedrock = Bedrock({"data": [{"embedding": [1.0] * 1024}]})
    vector_of_text(bedrock, MARENGO_27, "the-id", "word " * 77)

    body = json.loads(bedrock.asked[0]["body"])
    assert (body["inputText"], body["textTruncate"]) == ("word " * 77, "none")


@pytest.mark.parametrize("content", [b"", b"\x89PNG" + b"0" * 5 * 1024**2])
def test_an_image_that_is_empty_or_too_large_is_refused_before_bedrock_is_asked(content):
    bedrock = Bedrock()
    with pytest.raises(SearchRefusedError, match="the image can't be searched by"):
        vector_of_image(bedrock, MARENGO_30, "the-id", content)
    assert bedrock.asked == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ClientError({"Error": {"Code": "ValidationException", "Message": "Too long."}}, "InvokeModel"), "Too long."),
        (EndpointConnectionError(endpoint_url="https://bedrock"), "Could not connect"),
    ],
)
def test_that_bedrock_gives_no_vector_is_said_in_its_words_with_region_and_what_to_do(error, words):
    with pytest.raises(QueryVectorError, match=rf"us-east-1's Bedrock .*marengo-3-0.*{words}.*--like"):
        vector_of_text(Bedrock(error), MARENGO_30, "the-id", "a red car")


@pytest.mark.parametrize("answer", [{"data": []}, {"data": [{"embedding": [1.0] * 7}]}, {}])
def test_an_answer_without_a_vector_of_the_model_is_named(answer):
    with pytest.raises(QueryVectorError, match="is no vector"):
        vector_of_text(Bedrock(answer), MARENGO_30, "the-id", "a red car")


def test_the_first_region_that_serves_the_model_is_asked_with_the_id_that_it_wants():
    us, eu = library("us-east-1"), library("eu-west-1")

    assert serving([eu, us], MARENGO_30) == (eu, "eu.twelvelabs.marengo-embed-3-0-v1:0")
    assert serving([us, eu], MARENGO_30)[0] is us
    # The older model has no profile in Seoul.
    seoul = library("ap-northeast-2")
    assert serving([seoul, us], MARENGO_27) == (us, "us.twelvelabs.marengo-embed-2-7-v1:0")
    with pytest.raises(SearchRefusedError, match=r"does not serve marengo-2-7 in ap-northeast-2.*--like"):
        serving([seoul], MARENGO_27)


def rows(*segments):
    return pa.table(
        {
            "segment_index": pa.array([number for number, _, _ in segments], pa.int32()),
            "embedding_scope": [scope for _, scope, _ in segments],
            "embedding": pa.array([vector for _, _, vector in segments], pa.list_(pa.float32())),
        }
    )


FILM = rows((0, "asset", [2.0, 0.0]), (1, "asset", [0.0, 2.0]), (2, "clip", [3.0, 4.0]))
URI = "s3://media-bucket/a.mp4"


def test_a_segment_is_searched_by_its_own_vector():
    assert np.allclose(vectors_like(LikeQuery(URI, 2), FILM), [[0.6, 0.8]])


def test_an_object_is_searched_by_the_vectors_of_the_whole():
    assert np.array_equal(vectors_like(LikeQuery(URI), FILM), [[1.0, 0.0], [0.0, 1.0]])
    assert np.array_equal(vectors_like(LikeQuery(URI), rows((0, "clip", [0.0, 5.0]))), [[0.0, 1.0]])


def test_where_no_segment_stands_for_the_whole_one_has_to_be_named():
    clips = rows((0, "clip", [1.0, 0.0]), (1, "clip", [0.0, 1.0]))
    with pytest.raises(SearchRefusedError, match=r"2 segments, numbered 0 to 1, and none for the whole.*--segment"):
        vectors_like(LikeQuery(URI), clips)
    with pytest.raises(SearchRefusedError, match=r"numbered 0 to 1, and none numbered 7"):
        vectors_like(LikeQuery(URI, 7), clips)
