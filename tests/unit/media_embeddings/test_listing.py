"""What a listing says of sources that can't be listed. Listing itself is tested against a real S3 server."""

import json
from datetime import UTC, datetime

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber

from media_embeddings.library import Library
from media_embeddings.listing import Listing, NothingListedError, SourceFailure, SourceUnreachableError, list_media
from media_embeddings.storage import Storage


def library(*sources: str) -> Library:
    return Library(
        name="films",
        sources=sources or ("s3://films/raw/",),
        region="us-east-1",
        model="marengo-2-7",
        tables="s3://vectors/tables",
        work="s3://vectors/work",
    )


@pytest.fixture
def client():
    return boto3.client("s3", region_name="us-east-1", aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("403", "allow s3:ListBucket"),
        ("404", "correct the library's sources"),
        ("InvalidAccessKeyId", "correct the Airflow connection"),
    ],
)
def test_a_forbidden_or_absent_bucket_is_named_with_what_to_do(client, code, remedy):
    with Stubber(client) as stubber:
        # The region of each bucket is asked for first.
        stubber.add_client_error("head_bucket", code)
        stubber.add_response("head_bucket", {}, {"Bucket": "vectors"})
        stubber.add_client_error("head_bucket", code)

        with pytest.raises(NothingListedError, match=f"s3://films/raw/: .*{remedy}"):
            list_media(Storage(client, {}), library(), "s3://vectors/work/l")


def test_an_unreachable_endpoint_may_be_tried_again(client, monkeypatch):
    def unreachable(**_):
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    monkeypatch.setattr(client, "head_bucket", unreachable)

    with pytest.raises(SourceUnreachableError, match="s3://films/raw/ could not be listed"):
        list_media(Storage(client, {}), library(), "s3://vectors/work/l")


def test_a_prefix_outside_the_sources_is_refused_before_anything_is_asked(client):
    with Stubber(client), pytest.raises(NothingListedError, match="the parameter prefix"):
        list_media(Storage(client, {}), library(), "s3://vectors/work/l", prefix="s3://films/other/")


def test_a_listing_is_plain_json_and_back_again():
    listing = Listing(
        uri="s3://vectors/work/l",
        objects=3,
        excluded=1,
        by_media_type={"video": 3},
        filtered=True,
        listed_at=datetime(2026, 11, 1, 2, 0, 0, 5, tzinfo=UTC),
        failures=(SourceFailure("s3://films/raw/", "access is denied"),),
    )
    assert Listing.from_dict(json.loads(json.dumps(listing.as_dict()))) == listing
