from __future__ import annotations

from media_embeddings.library import Library
from media_embeddings.upkeep.roots import table_roots


def library(name: str, tables: str = "s3://vectors/tables", work: str = "s3://vectors/work", **settings) -> Library:
    return Library(
        name=name,
        sources=[f"s3://{name}/raw/"],
        region="us-east-1",
        model="marengo-2-7",
        tables=tables,
        work=work,
        **settings,
    )


def test_libraries_that_share_a_root_are_kept_once():
    one, other, third = (
        library("films"),
        library("clips", "s3://vectors/tables/"),
        library("talks", "s3://vectors/more"),
    )

    roots = table_roots([one, other, third])

    assert [(root.name, [each.name for each in root.libraries]) for root in roots] == [
        ("films", ["films", "clips"]),
        ("talks", ["talks"]),
    ]


def test_where_libraries_want_different_retentions_the_longest_holds():
    (root,) = table_roots(
        [
            library("films", vacuum_retention_days=3, outputs_retention_days=10, intents_retention_days=90),
            library("clips", vacuum_retention_days=9, outputs_retention_days=20, intents_retention_days=400),
            library("talks", outputs_retention_days=None, work="s3://vectors/other"),
        ]
    )

    assert root.vacuum_retention_days == 9
    assert root.intents_retention_days == 400
    assert {work: days for work, (_, days) in root.outputs.items()} == {
        "s3://vectors/work": 20,
        "s3://vectors/other": None,
    }


def test_what_one_library_wants_to_keep_for_ever_is_kept_for_ever():
    (root,) = table_roots(
        [
            library("films", outputs_retention_days=10, intents_retention_days=90),
            library("clips", outputs_retention_days=None, intents_retention_days=None),
        ]
    )

    assert root.intents_retention_days is None
    assert root.outputs["s3://vectors/work"][1] is None
