"""What is believed of an inventory, and what is said of one that is not."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

from media_embeddings.inventory import InventoryUnusableError, covers, find_inventory, read_objects
from media_embeddings.s3_pages import OBJECTS_SCHEMA
from media_embeddings.storage import ObjectNotFoundError
from tests.made_inventory import VERSIONS, data_file, deliver

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
SCANNED = NOW - timedelta(hours=5)
DESTINATION = "s3://reports/inventories"


class Kept:
    """What `Storage` does of objects in memory."""

    def __init__(self):
        self.objects = {}
        self.client = SimpleNamespace()

    def put(self, key, content):
        self.objects[f"s3://reports/{key}"] = content

    def read(self, uri):
        if uri not in self.objects:
            raise ObjectNotFoundError(uri)
        return self.objects[uri]

    def download(self, uri, path):
        path.write_bytes(self.read(uri))

    def folders(self, prefix_uri):
        below = (uri.removeprefix(prefix_uri) for uri in self.objects if uri.startswith(prefix_uri))
        yield sorted({rest.partition("/")[0] for rest in below if "/" in rest})


@pytest.fixture
def storage():
    return Kept()


def row(key, **others):
    return {
        "bucket": "films",
        "key": key,
        "size": 7,
        "last_modified_date": datetime(2026, 11, 1, 3, 4, 5, 678000, tzinfo=UTC),
        "e_tag": "0123456789abcdef",
        "is_latest": True,
        "is_delete_marker": False,
    } | others


def found_in(storage, destination=DESTINATION, hours=48):
    return find_inventory(storage, destination, "films", max_age=timedelta(hours=hours), now=NOW)


def objects_in(storage, prefix="raw/"):
    parts = {}
    order = read_objects(storage, found_in(storage), prefix, lambda part, rows: parts.setdefault(part, []).append(rows))
    return pa.concat_tables([OBJECTS_SCHEMA.empty_table(), *[rows for part in order for rows in parts[part]]])


def keys_in(storage, prefix="raw/"):
    return objects_in(storage, prefix)["key"].to_pylist()


def test_its_rows_are_those_of_a_listing_and_keys_stand_as_they_are(storage):
    deliver(storage.put, "films", SCANNED, [data_file([row("raw/a+b%20 ä.mp4"), row("other/x.mp4")])])
    objects = objects_in(storage)
    assert objects.schema == OBJECTS_SCHEMA
    assert objects.to_pylist() == [
        {
            "key": "raw/a+b%20 ä.mp4",
            "etag": "0123456789abcdef",
            "size_bytes": 7,
            "last_modified": datetime(2026, 11, 1, 3, 4, 5, 678000, tzinfo=UTC),
        }
    ]


def test_all_files_are_read(storage):
    deliver(storage.put, "films", SCANNED, [data_file([row("raw/1.mp4")]), data_file([row("raw/2.mp4")])])
    assert keys_in(storage) == ["raw/1.mp4", "raw/2.mp4"]


def test_of_versions_only_those_count_that_are_present(storage):
    rows = [
        row("raw/there.mp4"),
        row("raw/there.mp4", is_latest=False),
        row("raw/deleted.mp4", is_delete_marker=True, size=None, e_tag=None),
        row("raw/deleted.mp4", is_latest=False),
    ]
    deliver(storage.put, "films", SCANNED, [data_file(rows, leaving_out=())])
    assert keys_in(storage) == ["raw/there.mp4"]


def test_the_newest_complete_one_is_taken_whatever_its_configuration(storage):
    for hours, name, complete in ((30, "old", True), (5, "nightly", True), (1, "nightly", False)):
        deliver(
            storage.put,
            "films",
            NOW - timedelta(hours=hours),
            [data_file([row(f"raw/{hours}.mp4")])],
            configuration=name,
            is_complete=complete,
        )
    found = found_in(storage)
    assert (found.scanned_at, found.configuration) == (SCANNED, "nightly")


def test_the_folder_of_one_configuration_may_be_named_instead(storage):
    for hours, name in ((9, "one"), (5, "other")):
        deliver(storage.put, "films", NOW - timedelta(hours=hours), [data_file([row("raw/a")])], configuration=name)
    assert found_in(storage, f"{DESTINATION}/films/one/").configuration == "one"


def test_of_two_times_the_earlier_one_is_believed(storage):
    later = str(int((SCANNED + timedelta(hours=2)).timestamp() * 1000))
    deliver(storage.put, "films", SCANNED, [data_file([row("raw/a")])], creationTimestamp=later)
    assert found_in(storage).scanned_at == SCANNED


def test_where_there_is_none_the_setting_is_named(storage):
    deliver(storage.put, "photos", SCANNED, [])
    with pytest.raises(InventoryUnusableError, match=r"setting inventory .* no complete inventory of bucket films"):
        found_in(storage)


def test_one_that_is_too_old_is_not_believed(storage):
    deliver(storage.put, "films", SCANNED, [data_file([row("raw/a")])])
    with pytest.raises(InventoryUnusableError, match="max_inventory_age_hours 4 allows"):
        found_in(storage, hours=4)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({"fileFormat": "CSV"}, "set the inventory configuration's format to Apache Parquet"),
        ({"sourceBucket": "photos"}, "is an inventory of bucket photos, not of films"),
        ({"creationTimestamp": None}, "is not a manifest of S3 Inventory"),
        ({"creationTimestamp": "yesterday"}, "is not a manifest of S3 Inventory"),
    ],
)
def test_a_manifest_of_something_else_is_refused(storage, manifest, said):
    deliver(storage.put, "films", SCANNED, [data_file([row("raw/a")])], **manifest)
    with pytest.raises(InventoryUnusableError, match=said):
        found_in(storage)


def test_a_manifest_that_its_checksum_does_not_fit_is_refused(storage):
    key = deliver(storage.put, "films", SCANNED, [data_file([row("raw/a")])])
    storage.objects[f"s3://reports/{key}"] += b" "
    with pytest.raises(InventoryUnusableError, match=r"manifest\.json has the MD5 .* damaged or replaced"):
        found_in(storage)


@pytest.fixture
def data_uri(storage):
    deliver(storage.put, "films", SCANNED, [data_file([row("raw/a")])])
    return next(uri for uri in storage.objects if "/data/" in uri)


def test_a_data_file_that_was_replaced_is_refused(storage, data_uri):
    storage.objects[data_uri] = data_file([row("raw/b")])
    with pytest.raises(InventoryUnusableError, match="damaged or replaced"):
        keys_in(storage)


def test_a_data_file_that_is_gone_is_not_taken_for_an_empty_one(storage, data_uri):
    del storage.objects[data_uri]
    with pytest.raises(InventoryUnusableError, match="a file of the inventory can't be read"):
        keys_in(storage)


@pytest.mark.parametrize(
    ("rows", "leaving_out", "said"),
    [
        ([row("raw/a")], {*VERSIONS, "size", "e_tag"}, "lacks Size, ETag; add these fields"),
        ([row("raw/a")], {"is_latest"}, "not both IsLatest and IsDeleteMarker"),
        ([row("raw/a")], {"is_latest", "is_delete_marker"}, "not both IsLatest and IsDeleteMarker"),
        ([row("raw/a", e_tag=None)], VERSIONS, "objects without a size, an ETag or a date"),
        ([row("raw/a", bucket="photos")], VERSIONS, "objects of another bucket than films"),
        ([row("other/a")], VERSIONS, "holds no object below s3://films/raw/"),
        ([], VERSIONS, "holds no object below s3://films/raw/"),
    ],
)
def test_files_that_do_not_tell_what_is_there_are_refused(storage, rows, leaving_out, said):
    deliver(storage.put, "films", SCANNED, [data_file(rows, leaving_out=leaving_out)])
    with pytest.raises(InventoryUnusableError, match=said):
        keys_in(storage)


def test_a_data_file_that_is_no_parquet_is_refused(storage):
    deliver(storage.put, "films", SCANNED, [b"bucket,key"])
    with pytest.raises(InventoryUnusableError, match="can't be read as an inventory in Parquet"):
        keys_in(storage)


@pytest.mark.parametrize(
    ("limited_to", "prefix", "expected"),
    [({}, "raw/", True), ({"Prefix": "raw/"}, "raw/2026/", True), ({"Prefix": "raw/2026/"}, "raw/", False)],
)
def test_a_configuration_tells_what_its_inventories_take_in(storage, data_uri, limited_to, prefix, expected):
    configuration = {"Id": "nightly", "Filter": limited_to}
    storage.client.get_bucket_inventory_configuration = lambda **asked: {"InventoryConfiguration": configuration}
    assert covers(storage, found_in(storage), prefix) is expected


def test_where_the_configuration_is_not_told_nothing_is_assumed(storage, data_uri):
    def denied(**asked):
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetBucketInventoryConfiguration")

    for answer in (denied, lambda **asked: {}):
        storage.client.get_bucket_inventory_configuration = answer
        assert covers(storage, found_in(storage), "raw/") is None
