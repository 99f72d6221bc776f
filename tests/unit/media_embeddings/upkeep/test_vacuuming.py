from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from media_embeddings.upkeep.vacuuming import vacuum
from tests.unit.media_embeddings.test_tables import commit, content, files, rows

DAY = 86_400
WEEK = timedelta(days=7)


@pytest.fixture
def folder(tables, table) -> Path:
    """Give the folder of a table in which a file was replaced."""
    for number in range(4):
        commit(tables, rows({f"s3://b/{number}": 2}), str(number))
    commit(tables, rows({"s3://b/0": 1}, tag="e2"), "replace")
    return Path(table.uri)


def orphan(folder: Path, name: str) -> Path:
    """Leave a file as a killed write does."""
    path = next(folder.glob("media_type=*/*")) / f"part-{name}.zstd.parquet"
    path.write_bytes(b"half a file")
    return path


def age(folder: Path, days: float, pattern: str = "**/*") -> None:
    """Let files have been written so many days ago."""
    then = time.time() - days * DAY
    for path in folder.glob(pattern):
        if path.is_file():
            os.utime(path, (then, then))


def test_the_file_of_a_killed_write_goes_when_it_is_old_and_stays_while_its_write_may_still_commit(folder, table):
    old = orphan(folder, "old")
    age(folder, 8)
    young = orphan(folder, "young")

    made = vacuum(table, WEEK)

    assert made is not None
    assert (made.files, made.bytes) == (1, len(b"half a file"))
    assert (old.exists(), young.exists()) == (False, True)


def test_a_replaced_file_stays_for_the_retention_however_old_it_is(folder, table, tables):
    age(folder, 30)
    stored = sorted(folder.rglob("*.parquet"))

    made = vacuum(table, WEEK)

    assert made is not None
    assert made.files == 0
    assert sorted(folder.rglob("*.parquet")) == stored
    assert len(DeltaTable(table.uri, version=4).to_pyarrow_dataset().to_table()) == 8


def removed_days_ago(folder: Path, days: float) -> None:
    """Let the log have taken its removed files out of the table so many days ago."""
    for path in sorted((folder / "_delta_log").glob("*.json")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if "remove" in line:
                line["remove"]["deletionTimestamp"] = int((time.time() - days * DAY) * 1000)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_replaced_file_goes_after_the_retention_and_the_others_stay(folder, table, tables):
    removed_days_ago(folder, 8)
    age(folder, 30)
    before = content(tables)

    made = vacuum(table, WEEK)

    assert made is not None
    assert made.files == 1
    assert {str(path) for path in folder.rglob("part-*.parquet")} == files(tables)
    assert content(tables) == before


def test_a_longer_retention_holds_after_a_checkpoint_too(folder, table):
    vacuum(table, timedelta(days=30))
    removed_days_ago(folder, 20)
    age(folder, 40, "media_type=*/**/*")
    DeltaTable(table.uri).create_checkpoint()
    for path in (folder / "_delta_log").glob("*.json"):
        if path.stem < f"{DeltaTable(table.uri).version():020}":
            path.unlink()

    made = vacuum(table, timedelta(days=30))

    assert made is not None
    assert made.files == 0


def test_a_longer_retention_in_the_tables_own_properties_holds(folder, table):
    DeltaTable(table.uri).alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 30 days"})
    orphan(folder, "old")
    age(folder, 20)

    made = vacuum(table, WEEK)

    assert made is not None
    assert made.files == 0


def test_a_retention_in_the_tables_properties_that_is_not_understood_deletes_nothing(folder, table):
    DeltaTable(table.uri).alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 3 weeks"})
    old = orphan(folder, "old")
    age(folder, 20)

    with pytest.raises(ValueError, match="interval 3 weeks"):
        vacuum(table, WEEK)
    assert old.exists()


def test_a_dry_run_says_what_would_go_and_removes_nothing(folder, table):
    orphan(folder, "old")
    age(folder, 8)
    before = sorted(folder.rglob("*"))

    made = vacuum(table, WEEK, dry_run=True)

    assert made is not None
    assert (made.files, made.bytes, made.log_files, made.checkpointed) == (1, len(b"half a file"), 0, False)
    assert sorted(folder.rglob("*")) == before


def test_the_log_is_cut_behind_a_checkpoint_and_commit_ids_are_still_known(tables, table):
    for number in range(12):
        commit(tables, rows({f"s3://b/{number:02}": 1}), str(number))
    age(Path(table.uri), 31, "_delta_log/*")

    made = vacuum(table, WEEK)

    assert made is not None
    assert made.checkpointed
    assert made.log_files >= 10
    assert not (Path(table.uri) / "_delta_log" / f"{3:020}.json").exists()
    assert commit(tables, rows({"s3://b/00": 9}), "0").repeated
    assert len(content(tables)) == 12


def test_commit_ids_are_forgotten_only_after_ninety_days(tables, table):
    for number in range(12):
        commit(tables, rows({f"s3://b/{number:02}": 1}), str(number))
    for number, days in ((1, 89), (2, 91)):
        path = Path(table.uri, "_delta_log", f"{number:020}.json")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if "txn" in line:
                line["txn"]["lastUpdated"] = int((time.time() - days * DAY) * 1000)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    age(Path(table.uri), 31, "_delta_log/*")

    vacuum(table, WEEK)

    opened = DeltaTable(table.uri)
    assert opened.transaction_version("0") == 1
    assert opened.transaction_version("1") is None


def test_a_retention_that_a_write_may_outlast_is_refused(table):
    with pytest.raises(ValueError, match="too short"):
        vacuum(table, timedelta(hours=23))


def test_a_table_that_is_not_there_is_left_so(table):
    assert vacuum(table, WEEK) is None
