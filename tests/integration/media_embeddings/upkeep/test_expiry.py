"""What expires of what real runs have left on S3. S3 tells when an object was written, so here the clock is put forward."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from media_embeddings.tables import Tables
from media_embeddings.upkeep.evidence import collected
from media_embeddings.upkeep.expiry import Expirer, Expiry
from media_embeddings.upkeep.kept_tables import kept_tables
from media_embeddings.upkeep.objects import list_objects
from tests.integration.media_embeddings.conftest import picture, starts


@pytest.fixture
def embedded(pipeline):
    """Give a library of three embedded pictures."""
    for name in ("red", "green", "blue"):
        pipeline.put(f"{name}.png", picture(name))
    assert pipeline.run().succeeded
    return pipeline


def expire(pipeline, kind: str, *arguments, days: float, dry_run: bool = False) -> Expiry:
    tables = kept_tables(pipeline.library.tables, pipeline.storage.table_options)
    with collected(tables) as evidence:
        expirer = Expirer(evidence, dry_run=dry_run, now=datetime.now(UTC) + timedelta(days=days))
        return getattr(expirer, kind)(pipeline.storage, *arguments)


def expire_outputs(pipeline, *, days: float = 31, dry_run: bool = False) -> Expiry:
    return expire(pipeline, "outputs", pipeline.library.work, 30, days=days, dry_run=dry_run)


def below(pipeline, folder: str) -> set[str]:
    """Return the files below a folder of the work or the tables, by their paths in it."""
    pages = list_objects(pipeline.storage, f"{folder}/")
    return {one.uri.removeprefix(f"{folder}/") for page in pages for one in page if not one.uri.endswith("/")}


def requests_with_outputs(pipeline) -> set[str]:
    return {path.partition("/")[0] for path in below(pipeline, f"{pipeline.library.work}/outputs")}


def test_outputs_whose_rows_are_committed_and_in_the_ledger_expire_and_their_bytes_are_counted(embedded):
    assert len(requests_with_outputs(embedded)) == 3

    made = expire_outputs(embedded)

    assert made.objects >= 3
    assert made.bytes > 1000
    assert (made.kept_objects, made.kept_bytes) == (0, 0)
    assert requests_with_outputs(embedded) == set()
    assert len(embedded.rows()) == 3


def test_younger_outputs_stay(embedded):
    made = expire_outputs(embedded, days=29)

    assert made.objects == 0
    assert made.kept_objects >= 3
    assert len(requests_with_outputs(embedded)) == 3


def test_a_dry_run_counts_and_deletes_nothing(embedded):
    made = expire_outputs(embedded, dry_run=True)

    assert made.objects >= 3
    assert len(requests_with_outputs(embedded)) == 3


def test_the_output_of_an_object_whose_rows_are_not_in_the_table_stays(embedded):
    row = embedded.ledger()["red.png"]
    tables = Tables(embedded.library.tables, embedded.storage.table_options)
    tables.delete_embeddings("marengo-2-7", 1024, [row["media_uri"]], "lost")

    expire_outputs(embedded)

    assert requests_with_outputs(embedded) == {row["request_id"]}


def test_the_output_of_an_object_that_the_ledger_does_not_call_embedded_stays(embedded):
    tables = Tables(embedded.library.tables, embedded.storage.table_options)
    rows = tables.ledger_rows("marengo-2-7", [embedded.uri("red.png")])
    index = rows.schema.get_field_index("status")
    field = rows.schema.field("status")
    import pyarrow as pa

    tables.update_ledger(rows.set_column(index, field, pa.array(["deleted"], pa.string())))

    expire_outputs(embedded)

    assert requests_with_outputs(embedded) == set(rows["request_id"].to_pylist())


def test_outputs_that_nobody_knows_of_stay_since_a_run_may_yet_take_them(embedded):
    embedded.storage.write(f"{embedded.library.work}/outputs/{'f' * 64}/x/output.json", b"{}")

    made = expire_outputs(embedded)

    assert requests_with_outputs(embedded) == {"f" * 64}
    assert (made.kept_objects, made.kept_bytes) == (1, 2)


def test_the_output_of_a_former_content_stays_and_is_taken_when_it_comes_back(embedded, simulator):
    embedded.put("red.png", picture("blue", (100, 100)))
    embedded.run()
    count = starts(simulator)

    expire_outputs(embedded)
    embedded.put("red.png", picture("red"))
    report = embedded.run()

    assert report.reused == 1
    assert starts(simulator) == count


def test_after_outputs_have_expired_an_unchanged_library_costs_nothing(embedded, simulator):
    count = starts(simulator)
    expire_outputs(embedded)

    report = embedded.run()

    assert report.totals["unchanged"] == 3
    assert starts(simulator) == count


def test_an_object_that_comes_back_after_its_output_has_expired_is_embedded_again(embedded, simulator):
    embedded.configure(retries_in_run=1, deletions="on", max_deleted_share=1.0)
    expire_outputs(embedded)
    embedded.delete("red.png")
    embedded.run()
    embedded.put("red.png", picture("red"))

    report = embedded.run()

    assert report.succeeded
    assert embedded.ledger()["red.png"]["status"] == "embedded"
    assert "red.png" in embedded.rows()


def test_of_an_old_run_only_its_reports_stay(embedded):
    runs = f"{embedded.library.work}/runs"
    before = below(embedded, runs)
    expire(embedded, "runs", embedded.library.work, "films", 180, days=179)
    assert below(embedded, runs) == before

    made = expire(embedded, "runs", embedded.library.work, "films", 180, days=181)

    assert below(embedded, runs) == {"films/run-1/report.json", "films/run-1/report.md"}
    assert made.objects == len(before) - 2


def test_the_runs_of_another_library_stay(embedded):
    before = below(embedded, f"{embedded.library.work}/runs")

    made = expire(embedded, "runs", embedded.library.work, "film", 180, days=181)

    assert made.objects == 0
    assert below(embedded, f"{embedded.library.work}/runs") == before


def test_intents_of_requests_that_ended_long_ago_expire_and_nothing_is_started_for_that(embedded, simulator):
    intents = embedded.library.intents_uri
    open_one = "e" * 64
    embedded.storage.write(f"{intents}/{open_one}", b"{}")
    count = starts(simulator)

    assert expire(embedded, "intents", intents, 365, days=364).objects == 0
    made = expire(embedded, "intents", intents, 365, days=366)

    assert made.objects == 3
    assert below(embedded, intents) == {open_one}
    embedded.run()
    assert starts(simulator) == count


def test_tickets_that_nobody_has_waited_for_in_a_week_expire_and_the_lease_stays(embedded):
    folder = embedded.library.submitter_uri("marengo-2-7")
    embedded.storage.write(f"{folder}/tickets/abandoned.json", b"{}")
    lease = below(embedded, folder) - {"tickets/abandoned.json"}

    assert expire(embedded, "tickets", folder, days=6).objects == 0
    assert expire(embedded, "tickets", folder, days=8).objects == 1
    assert below(embedded, folder) == lease
