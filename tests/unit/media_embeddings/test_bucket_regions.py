"""Where a library's buckets have to be, and what is said of one that is elsewhere."""

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber

from media_embeddings.bucket_regions import WrongRegionError, check_bucket_regions
from media_embeddings.library import Library


def library(**settings) -> Library:
    return Library(
        **{
            "name": "films",
            "sources": ["s3://films/raw/", "s3://films/cut/"],
            "region": "us-east-1",
            "model": "marengo-3-0",
            "tables": "s3://vectors/tables",
            "work": "s3://scratch/work",
        }
        | settings
    )


@pytest.fixture
def client():
    return boto3.client("s3", region_name="us-east-1", aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret")


def with_regions(client, **regions):
    stubber = Stubber(client)
    for bucket, region in regions.items():
        stubber.add_response("head_bucket", {"BucketRegion": region} if region else {}, {"Bucket": bucket})
    return stubber


def test_buckets_in_the_librarys_region_are_asked_once_each_and_nothing_is_said(client):
    with with_regions(client, films="us-east-1", vectors="us-east-1", scratch="us-east-1") as stubber:
        assert check_bucket_regions(client, library()) == ()
        stubber.assert_no_pending_responses()


def test_a_server_that_tells_no_region_is_believed(client):
    with with_regions(client, films=None, vectors=None, scratch=None):
        assert check_bucket_regions(client, library()) == ()


@pytest.mark.parametrize(
    ("regions", "setting"),
    [
        ({"films": "eu-west-1"}, "sources: s3://films/raw/"),
        ({"films": "us-east-1", "vectors": "eu-west-1"}, "tables: s3://vectors/tables"),
        ({"films": "us-east-1", "vectors": "us-east-1", "scratch": "eu-west-1"}, "work: s3://scratch/work"),
    ],
)
def test_a_bucket_in_another_region_is_named_with_its_setting_both_regions_and_what_to_do(client, regions, setting):
    with (
        with_regions(client, **regions),
        pytest.raises(WrongRegionError, match=setting) as raised,
    ):
        check_bucket_regions(client, library())
    message = str(raised.value)
    assert "in eu-west-1, the library's region is us-east-1" in message
    assert "or region, or give what lies in eu-west-1 a library of its own" in message


def test_the_region_counts_also_where_the_bucket_may_not_be_looked_into(client):
    with Stubber(client) as stubber:
        stubber.add_client_error(
            "head_bucket",
            "403",
            http_status_code=403,
            response_meta={"HTTPHeaders": {"x-amz-bucket-region": "ap-northeast-2"}},
        )
        with pytest.raises(WrongRegionError, match="ap-northeast-2"):
            check_bucket_regions(client, library())


def test_where_the_region_may_not_be_asked_for_a_notice_says_so(client):
    with Stubber(client) as stubber:
        stubber.add_response("head_bucket", {"BucketRegion": "us-east-1"}, {"Bucket": "films"})
        stubber.add_client_error("head_bucket", "403")
        stubber.add_response("head_bucket", {"BucketRegion": "us-east-1"}, {"Bucket": "scratch"})
        (notice,) = check_bucket_regions(client, library())

    assert notice.startswith("tables: the region of bucket vectors can't be told; allow s3:ListBucket")


def test_what_else_is_wrong_with_a_bucket_is_left_to_who_uses_it(client, monkeypatch):
    def unreachable(**_):
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    monkeypatch.setattr(client, "head_bucket", unreachable)
    assert check_bucket_regions(client, library()) == ()
