import io

import boto3
import pytest
from botocore.exceptions import IncompleteReadError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from media_embeddings.storage import (
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectUnreadableError,
    Storage,
    is_below,
    join_uri,
    split_uri,
)
from media_embeddings.table_options import current


def session(**keys):
    return boto3.Session(
        aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret", region_name="eu-west-1", **keys
    )


@pytest.fixture
def stubbed():
    client = session().client("s3")
    with Stubber(client) as stubber:
        yield Storage(client, {}), stubber


def test_a_uri_is_split_without_unescaping():
    assert split_uri("s3://films/a b/c%20d+é?.mp4") == ("films", "a b/c%20d+é?.mp4")
    assert split_uri("s3://films") == ("films", "")


@pytest.mark.parametrize("uri", ["films/a", "https://films/a", "s3:///a"])
def test_what_is_no_s3_uri_is_named(uri):
    with pytest.raises(ValueError, match="is not an S3 URI"):
        split_uri(uri)


def test_parts_are_joined_with_one_slash():
    assert join_uri("s3://b/work/", "/runs/", "r1") == "s3://b/work/runs/r1"


@pytest.mark.parametrize(
    ("uri", "base", "below"),
    [
        ("s3://b/a/x", "s3://b/a", True),
        ("s3://b/a", "s3://b/a/", True),
        ("s3://b/ab", "s3://b/a", False),
        ("s3://b", "s3://b/a", False),
    ],
)
def test_below_means_the_folder_itself_or_within_it(uri, base, below):
    assert is_below(uri, base) is below


def test_only_an_answer_that_says_so_means_that_an_object_is_not_there(stubbed):
    storage, stubber = stubbed
    stubber.add_client_error("get_object", "NoSuchKey", http_status_code=404)
    with pytest.raises(ObjectNotFoundError, match="s3://b/k"):
        storage.read("s3://b/k")

    stubber.add_client_error("get_object", "InternalError", http_status_code=500)
    with pytest.raises(Exception, match="InternalError") as raised:
        storage.read("s3://b/k")
    assert not isinstance(raised.value, ObjectNotFoundError)


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidObjectState", "KMS.DisabledException"])
def test_an_object_that_s3_refuses_to_give_is_told_apart_from_one_that_is_not_there(stubbed, code):
    storage, stubber = stubbed
    stubber.add_client_error("get_object", code)

    with pytest.raises(ObjectUnreadableError, match=code):
        storage.read("s3://b/k")


def test_a_read_can_insist_on_the_content_that_was_listed(stubbed):
    storage, stubber = stubbed
    stubber.add_client_error(
        "get_object",
        "PreconditionFailed",
        http_status_code=412,
        expected_params={"Bucket": "b", "Key": "k", "IfMatch": '"e1"'},
    )

    with pytest.raises(ObjectChangedError):
        storage.read("s3://b/k", etag="e1")


def test_an_object_is_read_in_chunks_as_it_arrives(stubbed):
    storage, stubber = stubbed
    body = StreamingBody(io.BytesIO(b"0123456789"), 10)
    stubber.add_response("get_object", {"Body": body, "ContentLength": 10}, {"Bucket": "b", "Key": "k"})

    content = storage.open("s3://b/k")
    assert content.size_bytes == 10
    assert list(content.chunks(4)) == [b"0123", b"4567", b"89"]


def test_an_object_that_breaks_off_is_no_shorter_object(stubbed):
    storage, stubber = stubbed
    body = StreamingBody(io.BytesIO(b"0123456"), 10)
    stubber.add_response("get_object", {"Body": body, "ContentLength": 10})
    content = storage.open("s3://b/k")
    with pytest.raises(IncompleteReadError):
        list(content.chunks(4))


def test_to_open_an_object_that_is_not_there_says_so(stubbed):
    storage, stubber = stubbed
    stubber.add_client_error("get_object", "NoSuchKey", http_status_code=404)
    with pytest.raises(ObjectNotFoundError, match="s3://b/k"):
        storage.open("s3://b/k")


def test_the_table_writer_gets_the_same_credentials_and_endpoint():
    one = session(aws_session_token="token")
    storage = Storage.of_session(one, one.client("s3", endpoint_url="http://127.0.0.1:9"))

    assert current(storage.table_options) == {
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
    }


def test_on_aws_no_endpoint_is_named(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)

    assert "AWS_ENDPOINT_URL_S3" not in current(Storage.of_session(session()).table_options)


def test_tables_are_opened_with_the_credentials_that_a_role_has_by_then():
    one = session()
    storage = Storage.of_session(one, one.client("s3"))
    assert current(storage.table_options)["AWS_SECRET_ACCESS_KEY"] == "secret"
    credentials = one.get_credentials()
    assert credentials is not None
    credentials.access_key, credentials.secret_key, credentials.token = "AKIDNEXT", "next secret", "next token"

    options = current(storage.table_options)

    assert (options["AWS_ACCESS_KEY_ID"], options["AWS_SECRET_ACCESS_KEY"]) == ("AKIDNEXT", "next secret")
    assert options["AWS_SESSION_TOKEN"] == "next token"


def test_credentials_stay_out_of_the_representation():
    assert "secret" not in repr(Storage.of_session(session()))
