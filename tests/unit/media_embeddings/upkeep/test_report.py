from __future__ import annotations

from media_embeddings.upkeep.report import make_report

FIGURES = {
    "version": 9,
    "rows": 1000,
    "files": 40,
    "bytes": 4_000_000,
    "smallest_bytes": 1000,
    "median_bytes": 2000,
    "stored_files": 60,
    "stored_bytes": 9_000_000,
    "log_files": 12,
    "log_bytes": 50_000,
}
COMPACTION = {"sets": 2, "files_removed": 40, "files_added": 2, "rows": 1000, "overtaken": 1, "left": 0}
CHECK = {"objects": 40, "rows": 1000, "ledger_rows": 41, "in_flight": 0, "problems": []}
PARTS = {
    "survey": {"media": FIGURES},
    "compact": {"media": COMPACTION},
    "check": CHECK,
    "expire": {"outputs": {"objects": 3, "bytes": 1024**3, "kept_objects": 1, "kept_bytes": 5}},
    "vacuum": {"media": {"files": 20, "bytes": 1024**3, "log_files": 4, "checkpointed": True}},
    "after": {"media": FIGURES | {"version": 11, "files": 2, "median_bytes": 2_000_000}},
}


def report(dry_run: bool = False, **parts):
    return make_report("s3://vectors/tables", "weekly", PARTS | parts, dry_run=dry_run)


def test_it_says_what_there_was_before_and_after_and_what_was_removed():
    made = report()
    text = made.as_markdown()

    assert made.succeeded
    assert (made.removed_bytes, made.saved_usd_a_month) == (2 * 1024**3, 0.046)
    assert "2.0 GiB were removed, $0.05 a month less" in text
    assert "Compared 40 objects with 1000 rows, and 41 rows of the ledger." in text
    assert "| media | 9 → 11 | 1000 | 40 → 2 | 3.8 MiB | 1000 B | 2.0 KiB → 1.9 MiB | 8.6 MiB | 48.8 KiB |" in text
    assert "- media: 40 files written anew as 2 in 2 commits, 1 sets overtaken by merges" in text
    assert "- media: 20 files that no version needs, 1.0 GiB; 4 files of its log" in text
    assert "- outputs: 3 objects, 1.0 GiB; 1 kept, 5 B" in text


def test_what_is_inconsistent_fails_it_and_stands_first():
    made = report(check=CHECK | {"problems": ["1 x rows_missing: do this"]}, expire=None, vacuum=None)

    assert not made.succeeded
    assert made.problems == ("1 x rows_missing: do this",)
    assert made.notices[0].startswith("nothing was deleted")
    assert made.as_markdown().index("1 x rows_missing") < made.as_markdown().index("before and after")


def test_a_step_that_did_not_end_fails_it():
    assert report(vacuum=None).problems == ("vacuum did not end: see its log, and clear it",)


def test_what_upkeep_leaves_to_the_next_one_is_said_and_fails_nothing():
    made = report(compact={"media": COMPACTION | {"left": 3}}, check=CHECK | {"in_flight": 7})

    assert made.succeeded
    assert len(made.notices) == 2


def test_a_dry_run_says_so():
    assert "(dry run: nothing was changed)" in report(dry_run=True).as_markdown()
    assert "would be removed" in report(dry_run=True).as_markdown()


def test_an_upkeep_of_which_nothing_ran_is_a_failure_and_no_crash():
    made = report(survey=None, compact=None, check=None, expire=None, vacuum=None, after=None)

    assert len(made.problems) == 5
    assert made.as_markdown()
