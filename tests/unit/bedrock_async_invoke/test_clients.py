from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from bedrock_async_invoke import clients as clients_module
from bedrock_async_invoke.clients import AwsParameters, Clients, shared_clients
from bedrock_async_invoke.errors import AsyncInvokeError, Meaning

AWS = AwsParameters(None, "us-east-1", False, {"read_timeout": 9})


@pytest.fixture(scope="module")
def subject():
    return Clients(AWS)


@pytest.fixture
def s3(subject):
    with Stubber(subject._s3) as stub:
        yield stub


def test_both_services_are_reached_as_the_parameters_say(subject):
    for client in (subject.bedrock.conn, subject._s3):
        assert client.meta.region_name == "us-east-1"
        assert client.meta.config.read_timeout == 9
    assert subject.bedrock.verify is False


def test_an_object_is_read_whole(subject, s3):
    body = StreamingBody(io.BytesIO(b"lines"), 5)
    s3.add_response("get_object", {"Body": body}, {"Bucket": "work", "Key": "a b?#c.jsonl"})
    assert subject.read("s3://work/a b?#c.jsonl") == b"lines"


def test_an_object_that_is_not_there_is_none(subject, s3):
    s3.add_client_error("get_object", "NoSuchKey", http_status_code=404)
    assert subject.read("s3://work/k") is None


@pytest.mark.parametrize("code", ["AccessDenied", "NoSuchBucket", "InternalError", "SlowDown"])
def test_that_s3_can_not_say_is_not_taken_for_there_is_none(subject, s3, code):
    s3.add_client_error("get_object", code)
    with pytest.raises(ClientError, match=code):
        subject.read("s3://work/k")


@pytest.mark.parametrize("uri", ["", "work/k", "s3://", "s3://work", "s3://work/", "https://work/k"])
def test_what_is_no_uri_of_an_object_is_refused(subject, uri):
    with pytest.raises(ValueError, match="is no URI of an S3 object"):
        subject.read(uri)


@pytest.mark.parametrize("key", ["film.mp4", "ä/film.mp4", "a film?.mp4", "what?is=this#1.mp4", "a/../b//c.mp4", "%20"])
def test_an_etag_comes_without_its_quotes_whatever_the_key(subject, s3, key):
    s3.add_response("head_object", {"ETag": '"abc-2"'}, {"Bucket": "media", "Key": key})
    assert subject.etag(f"s3://media/{key}") == "abc-2"


def test_the_etag_of_nothing_is_none(subject, s3):
    s3.add_client_error("head_object", "404", http_status_code=404)
    assert subject.etag("s3://media/k") is None


@pytest.mark.parametrize(
    ("code", "meaning"),
    [("403", Meaning.REFUSED), ("503", Meaning.UNAVAILABLE), ("SlowDown", Meaning.UNAVAILABLE)],
)
def test_that_s3_does_not_show_an_object_is_explained(subject, s3, code, meaning):
    s3.add_client_error("head_object", code)
    with pytest.raises(AsyncInvokeError) as failure:
        subject.etag("s3://media/film.mp4")
    assert failure.value.meaning is meaning
    if meaning is Meaning.REFUSED:
        assert failure.value.code == "AccessDeniedException"
        assert "s3://media/film.mp4" in failure.value.message


def test_clients_are_made_once_for_all_that_have_the_same_connection(monkeypatch):
    monkeypatch.setattr(clients_module, "_shared", {})
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: shared_clients(AWS), range(50)))
    assert len({id(one) for one in made}) == 1
    other = AwsParameters(None, "eu-west-1", False, {"read_timeout": 9})
    assert shared_clients(other) is not made[0]


def test_clients_are_made_anew_after_a_while_so_that_new_credentials_are_taken_up(monkeypatch):
    monkeypatch.setattr(clients_module, "_shared", {})
    first = shared_clients(AWS)
    made_at, _ = next(iter(clients_module._shared.values()))
    monkeypatch.setattr(clients_module.time, "monotonic", lambda: made_at + 899)
    assert shared_clients(AWS) is first
    monkeypatch.setattr(clients_module.time, "monotonic", lambda: made_at + 901)
    assert shared_clients(AWS) is not first
