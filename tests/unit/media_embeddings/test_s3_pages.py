"""What is read of S3's answers is what botocore reads of them, in whatever way S3 writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote
from xml.sax.saxutils import escape

import boto3
import pyarrow as pa
import pytest
from botocore.awsrequest import AWSResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from media_embeddings.s3_pages import OBJECTS_SCHEMA, PageReader, parse_objects

AWS = """<Contents><Key>{key}</Key><LastModified>2026-11-01T02:03:04.000Z</LastModified><ETag>&quot;{etag}&quot;</ETag>
<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType><Size>{size}</Size><Owner>
<ID>7</ID><DisplayName>Key &lt;Key&gt;</DisplayName></Owner><StorageClass>STANDARD</StorageClass></Contents>"""
OTHER = """<Contents>
  <ETag>&#34;{etag}&#34;</ETag><Key>{key}</Key><LastModified>2026-11-01T02:03:04Z</LastModified><Size>{size}</Size>
</Contents>
"""


def answer(contents, *, encoded=True, truncated=False):
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>media</Name><Prefix>library/</Prefix>{'<EncodingType>url</EncodingType>' if encoded else ''}"
        f"<IsTruncated>{str(truncated).lower()}</IsTruncated>"
        f"{'<NextContinuationToken>1/a+b==</NextContinuationToken>' if truncated else ''}"
        f"{contents}<KeyCount>1</KeyCount></ListBucketResult>"
    )


class Server:
    """Answers every request of a client with the same text, and remembers what was asked."""

    def __init__(self, text):
        self.body = text.encode()
        self.client = boto3.client(
            "s3", region_name="us-east-1", aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret"
        )
        self.client.meta.events.register("before-send.s3.ListObjectsV2", self._answer)
        self.urls = []

    def _answer(self, request, **_):
        self.urls.append(request.url)
        response = AWSResponse(request.url, 200, {}, None)
        response._content = self.body
        return response

    def page(self, **arguments):
        return PageReader(self.client, "media", "library/").read(**arguments)

    def read_by_botocore(self):
        return self.client.list_objects_v2(Bucket="media", Prefix="library/").get("Contents", [])


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), max_size=6),
    template=st.sampled_from([AWS, OTHER]),
    encoded=st.booleans(),
)
def test_every_key_is_read_as_botocore_reads_it(keys, template, encoded):
    names = [quote(key).replace("%20", "+") if encoded else escape(key) for key in keys]
    contents = "".join(
        template.format(key=name, etag=f"e{number}-2", size=number * 10**9) for number, name in enumerate(names)
    )
    server = Server(answer(contents, encoded=encoded))

    rows = server.page().objects.to_pylist()

    assert [row["key"] for row in rows] == [entry["Key"] for entry in server.read_by_botocore()]
    assert [row["etag"] for row in rows] == [entry["ETag"].strip('"') for entry in server.read_by_botocore()]
    assert [row["size_bytes"] for row in rows] == [entry["Size"] for entry in server.read_by_botocore()]
    assert [row["last_modified"] for row in rows] == [entry["LastModified"] for entry in server.read_by_botocore()]


@pytest.mark.parametrize("template", [AWS, OTHER])
def test_the_usual_answers_are_not_left_to_botocore(template):
    body = answer(template.format(key="library/a+b%26c.mp4", etag="0a", size=5)).encode()

    objects, rest = parse_objects(body)

    assert objects.schema == OBJECTS_SCHEMA
    assert objects.to_pylist() == [
        {
            "key": "library/a+b%26c.mp4",
            "etag": "0a",
            "size_bytes": 5,
            "last_modified": datetime(2026, 11, 1, 2, 3, 4, tzinfo=UTC),
        }
    ]
    assert b"Contents" not in rest
    assert b"<KeyCount>1</KeyCount>" in rest


ONE = AWS.format(key="library/a.mp4", etag="0a", size=5)


@pytest.mark.parametrize(
    "contents",
    [
        ONE.replace("<Contents>", "<Contents kind='new'>"),
        ONE.replace("<Key>library/a.mp4", "<Key><![CDATA[library/a.mp4]]>"),
        ONE + "<!-- <Contents> -->",
        ONE.replace("2026-11-01T02:03:04.000Z", "Sun, 01 Nov 2026 02:03:04 GMT"),
        ONE + "\r\n" + ONE,
        ONE + "<Delimiter>/</Delimiter>" + ONE,
    ],
    ids=["attribute", "CDATA", "comment", "date", "line end", "scattered"],
)
def test_an_answer_of_another_shape_is_left_to_botocore_and_read_all_the_same(contents):
    text = answer(contents)
    assert parse_objects(text.encode()) is None

    rows = Server(text).page().objects.to_pylist()

    assert {row["key"] for row in rows} == {"library/a.mp4"}
    assert {row["last_modified"] for row in rows} == {datetime(2026, 11, 1, 2, 3, 4, tzinfo=UTC)}


def test_an_empty_answer_has_no_objects_and_no_next_page():
    page = Server(answer("")).page()

    assert page.objects.equals(OBJECTS_SCHEMA.empty_table())
    assert page.next_token is None


def test_the_next_page_is_asked_for_by_the_token_of_this_one():
    server = Server(answer(ONE, truncated=True))

    assert server.page().next_token == "1/a+b=="
    server.page(token="1/a+b==")
    server.page(after="library/ä+")
    assert "continuation-token=1%2Fa%2Bb%3D%3D" in server.urls[1]
    assert "start-after=library%2F%C3%A4%2B" in server.urls[2]


def test_listings_of_others_through_the_same_client_are_left_alone():
    server = Server(answer(ONE))
    server.page()

    assert server.read_by_botocore()[0]["StorageClass"] == "STANDARD"
    assert isinstance(server.page().objects, pa.Table)
