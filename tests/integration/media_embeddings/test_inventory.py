"""Runs over an inventory instead of a listing, against a real S3 server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from media_embeddings.listing import NothingListedError, list_media
from media_embeddings.planning import Status
from tests.integration.media_embeddings.conftest import picture, starts
from tests.made_inventory import data_file, deliver


@pytest.fixture
def library(pipeline, monkeypatch):
    """Give a library whose inventory takes in all of its bucket, as S3 tells of the configuration."""
    destination = pipeline.library.work.removeprefix("s3://").partition("/")[0]
    pipeline.configure(inventory=f"s3://{destination}/inventories", deletions="on", max_deleted_share=0.5)
    for number, name in enumerate(("a.png", "b c+ä%20.png", "2026/c.png")):
        pipeline.put(name, picture("red", (64 + number, 64)))
    monkeypatch.setattr(
        pipeline.storage.client,
        "get_bucket_inventory_configuration",
        lambda **asked: {"InventoryConfiguration": {"Id": "nightly"}},
    )
    return pipeline


def scan(pipeline, *, ago=timedelta(), **others):
    """Deliver an inventory of what is in the bucket now."""
    client = pipeline.storage.client
    destination = pipeline.library.inventory.removeprefix("s3://").partition("/")[0]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=pipeline.bucket)
    rows = [
        {
            "bucket": pipeline.bucket,
            "key": entry["Key"],
            "size": entry["Size"],
            "last_modified_date": entry["LastModified"],
            "e_tag": entry["ETag"].strip('"'),
        }
        for page in pages
        for entry in page.get("Contents", ())
    ]
    deliver(
        lambda key, content: client.put_object(Bucket=destination, Key=key, Body=content),
        pipeline.bucket,
        datetime.now(UTC) - ago,
        [data_file(rows[::2]), data_file(rows[1::2])],
        **others,
    )


def test_a_run_over_an_inventory_embeds_and_then_finds_everything_unchanged(library, simulator):
    scan(library)
    before = starts(simulator)
    report = library.run()
    assert (report.totals[Status.EMBEDDED], report.succeeded, report.balanced) == (3, True, True)
    assert set(library.rows()) == {"a.png", "b c+ä%20.png", "2026/c.png"}
    # Listed, the same objects are the same: what was bought by an inventory is not bought again.
    library.configure(inventory=None)
    assert library.run().totals[Status.UNCHANGED] == 3
    assert starts(simulator) == before + 3


def test_what_was_embedded_after_the_scan_does_not_count_as_gone(library):
    library.delete("a.png")
    scan(library, ago=timedelta(minutes=2))
    inventory = library.library.inventory
    library.put("a.png", picture("green"))
    library.configure(inventory=None)
    assert library.run().totals[Status.EMBEDDED] == 3
    library.configure(inventory=inventory)
    report = library.run()
    assert (report.gone, report.totals[Status.UNCHANGED]) == (0, 2)
    assert set(library.rows()) == {"a.png", "b c+ä%20.png", "2026/c.png"}


def test_what_a_later_inventory_lacks_is_deleted(library):
    scan(library, ago=timedelta(minutes=5))
    library.run()
    library.delete("a.png")
    # The names of inventories tell minutes: this one has to begin in one after the ledger was written.
    scan(library, ago=-timedelta(minutes=1))
    report = library.run()
    assert (report.gone, report.totals[Status.DELETED], report.succeeded) == (1, 1, True)
    assert set(library.rows()) == {"b c+ä%20.png", "2026/c.png"}


def test_where_s3_does_not_tell_what_it_takes_in_nothing_is_deleted_and_the_report_says_why(library, monkeypatch):
    scan(library, ago=timedelta(minutes=5))
    library.run()
    monkeypatch.undo()
    library.delete("a.png")
    scan(library, ago=-timedelta(minutes=1))
    report = library.run()
    assert (report.gone, report.totals[Status.UNCHANGED]) == (0, 2)
    assert any("s3:GetInventoryConfiguration" in notice for notice in report.notices)
    assert "a.png" in library.rows()


def test_one_that_is_limited_to_a_part_of_the_source_is_refused(library, monkeypatch):
    scan(library)
    monkeypatch.setattr(
        library.storage.client,
        "get_bucket_inventory_configuration",
        lambda **asked: {"InventoryConfiguration": {"Id": "nightly", "Filter": {"Prefix": "library/2026/"}}},
    )
    with pytest.raises(NothingListedError, match="nightly is limited to a part of"):
        list_media(library.storage, library.library, f"{library.library.work}/listing.parquet")


@pytest.mark.parametrize(
    ("scanned", "said"),
    [
        (None, "no complete inventory of bucket"),
        ({"is_complete": False}, "no complete inventory of bucket"),
        ({"ago": timedelta(hours=49)}, "older than max_inventory_age_hours 48 allows"),
        ({"fileFormat": "ORC"}, "format to Apache Parquet"),
    ],
)
def test_without_a_usable_inventory_nothing_is_planned_and_nothing_is_gone(library, scanned, said):
    if scanned is not None:
        scan(library, **scanned)
    with pytest.raises(NothingListedError, match=said):
        library.run()


def test_an_inventory_bucket_that_does_not_exist_names_the_setting(library):
    library.configure(inventory="s3://nowhere-at-all/inventories")
    with pytest.raises(NothingListedError, match="setting inventory"):
        library.run()
