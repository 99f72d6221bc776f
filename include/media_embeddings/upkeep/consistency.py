"""Whether ledger and tables agree, and the files are there that the log names. Reports; repairs nothing.

Runs go on meanwhile: between two commits of a merge the tables know more than the ledger, and between two of a deletion the
ledger more than the tables. So what was committed within a day is left to the runs, and what looks wrong is looked at again.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pyarrow.compute as pc

from media_embeddings.table_files import File
from media_embeddings.tables import Tables
from media_embeddings.upkeep.evidence import (
    LEDGER_COLUMNS,
    SEGMENT_COLUMNS,
    Evidence,
    collected,
    is_embeddings,
    model_of,
    no_evidence,
)
from media_embeddings.upkeep.kept_tables import KeptTable
from media_embeddings.upkeep.reading import read_ahead

logger = logging.getLogger(__name__)

_GRACE = timedelta(days=1)
SETTLE_SECONDS = 30.0
_LOOKS = 3
"""How often: between two commits of a deletion there are seconds, or minutes where other writers are faster."""
_MOST_LOOKED_AT_AGAIN = 1000
_SHOWN = 20


class Defect(StrEnum):
    """What may be wrong with an object or a file."""

    FILE_ABSENT = "file_absent"
    ROWS_MISSING = "rows_missing"
    NOT_IN_LEDGER = "not_in_ledger"
    DELETED_WITH_ROWS = "deleted_with_rows"
    MIXED_CONTENTS = "mixed_contents"
    WRONG_SEGMENTS = "wrong_segments"
    OTHER_REQUEST = "other_request"
    OTHER_CONTENT = "other_content"
    OTHER_COUNT = "other_count"
    TWICE_IN_LEDGER = "twice_in_ledger"
    WRONG_VECTORS = "wrong_vectors"


REMEDIES: dict[Defect, str] = {
    Defect.FILE_ABSENT: "restore the file from a bucket version or a backup, or remove it from the log with "
    "DeltaTable.repair(); its objects then show as rows_missing",
    Defect.ROWS_MISSING: "if it still stands when check is cleared, run embed_media with force and the object's prefix, which "
    "is paid for; its raw output, if it has not expired before, is kept",
    Defect.NOT_IN_LEDGER: "let embed_media run: of an object that is still listed it takes the rows into the ledger; those "
    "of any other are to be deleted from the table, as docs/maintenance.md shows",
    Defect.DELETED_WITH_ROWS: "let embed_media run with deletions: on; if the rows stay, delete them from the table, as "
    "docs/maintenance.md shows",
    Defect.MIXED_CONTENTS: "run embed_media with force and the object's prefix: all its rows are replaced",
    Defect.WRONG_SEGMENTS: "run embed_media with force and the object's prefix: all its rows are replaced",
    Defect.OTHER_REQUEST: "run embed_media with force and the object's prefix, which is paid for: all its rows are replaced",
    Defect.OTHER_CONTENT: "run embed_media with force and the object's prefix, which is paid for: all its rows are replaced",
    Defect.OTHER_COUNT: "run embed_media with force and the object's prefix: all its rows are replaced",
    Defect.TWICE_IN_LEDGER: "delete the older of the rows from the ledger",
    Defect.WRONG_VECTORS: "run embed_media with force and the prefix of the file's objects",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    defect: Defect
    table: str
    what: str
    """The URI of the media object or of the file."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a check has found."""

    objects: int
    rows: int
    ledger_rows: int
    in_flight: int
    """Objects that do not agree yet and were written within a day: a run is at them, or the next one is."""
    counts: dict[str, int]
    """Findings by defect."""
    findings: tuple[Finding, ...]
    """The first of each defect."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, for people, each with what to do."""
        return tuple(
            f"{number} x {defect}, first {self._first(defect)}: {REMEDIES[Defect(defect)]}"
            for defect, number in self.counts.items()
        )

    def _first(self, defect: str) -> str:
        return next((one.what for one in self.findings if one.defect == defect), "")

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"problems": list(self.problems)}


def check(
    tables: Sequence[KeptTable],
    keeper: Tables,
    *,
    vectors: bool = False,
    settle_seconds: float = SETTLE_SECONDS,
    grace: timedelta = _GRACE,
) -> Check:
    """Compare ledger and embeddings, object by object.

    :param vectors: whether the numbers of all vectors are read as well, and not only counted in the files' footers.
    :param settle_seconds: how long to wait before what looks wrong is looked at again.
    :param grace: how long a run may take between its commits, tries and all.
    """
    since = datetime.now(UTC) - grace
    found = [finding for table in tables for finding in _file_findings(table, vectors=vectors)]
    absent = frozenset(one.what for one in found if one.defect is Defect.FILE_ABSENT)
    with collected([one for one in tables if one.name != "invocations"], absent=absent) as evidence:
        evidence.connection.execute(_JUDGED)
        counts = Counter({Defect(defect): number for defect, number in _all(evidence, _COUNTED, since)})
        suspects = _suspects(evidence, since)
        in_flight = _number(evidence, _IN_FLIGHT, since)
        twice = _all(evidence, _TWICE, _MOST_LOOKED_AT_AGAIN)
        objects, rows, ledger_rows = (_number(evidence, statement) for statement in _TOTALS)
    found += [Finding(Defect.TWICE_IN_LEDGER, model, uri) for model, uri in twice]
    # Where files are lost there is nothing to wait for, and nothing that could be read again.
    looks = 0 if absent else _LOOKS
    while suspects and looks:
        logger.info("%d objects look wrong; they are looked at again in %g s", counts.total(), settle_seconds)
        time.sleep(settle_seconds)
        standing = _looked_at_again(keeper, suspects, since)
        counts.subtract(one.defect for one in suspects)
        counts.update(one.defect for one in standing)
        suspects, looks = standing, looks - 1
    found += suspects
    counts.update(one.defect for one in found if one.defect in _NOT_IN_THE_VIEW)
    shown = [one for defect in Defect for one in [each for each in found if each.defect is defect][:_SHOWN]]
    return Check(
        objects=objects,
        rows=rows,
        ledger_rows=ledger_rows,
        in_flight=in_flight,
        counts={str(defect): counts[defect] for defect in Defect if counts[defect] > 0},
        findings=tuple(shown),
    )


_NOT_IN_THE_VIEW = frozenset({Defect.FILE_ABSENT, Defect.WRONG_VECTORS, Defect.TWICE_IN_LEDGER})
_JUDGED = """
CREATE VIEW judged AS
    SELECT coalesce(l.model, o.model) AS model, coalesce(l.media_uri, o.media_uri) AS media_uri, CASE
        WHEN o.media_uri IS NULL AND l.status = 'embedded' THEN 'rows_missing'
        WHEN o.media_uri IS NULL THEN NULL
        WHEN o.embedding_key <> o.other_key OR o.etag <> o.other_etag THEN 'mixed_contents'
        -- Only a text has rows of several requests, one for each of its parts.
        WHEN o.request_id <> o.other_request AND NOT o.is_text THEN 'mixed_contents'
        WHEN o.rows <> o.numbers OR o.rows <> o.last_number + 1 OR o.number_sum * 2 <> o.rows * (o.rows - 1)
            THEN 'wrong_segments'
        WHEN l.media_uri IS NULL THEN 'not_in_ledger'
        WHEN l.status = 'deleted' THEN 'deleted_with_rows'
        -- What failed or waits keeps the rows of its former content.
        WHEN l.status <> 'embedded' THEN NULL
        WHEN l.etag <> o.etag THEN 'other_content'
        WHEN o.request_id = o.other_request AND l.request_id IS DISTINCT FROM o.request_id THEN 'other_request'
        WHEN o.request_id <> o.other_request AND l.embedding_key IS DISTINCT FROM o.embedding_key THEN 'other_request'
        WHEN l.segments <> o.rows THEN 'other_count'
    END AS defect, o.embedded_at
    FROM ledger l FULL JOIN objects o ON l.model = o.model AND l.media_uri = o.media_uri
"""
_COUNTED = """
    SELECT defect, count(DISTINCT (model, media_uri)) FROM judged
    WHERE defect IS NOT NULL AND coalesce(embedded_at <= ?, true) GROUP BY defect
"""
_SUSPECTS = """
    SELECT DISTINCT defect, model, media_uri FROM judged
    WHERE defect IS NOT NULL AND coalesce(embedded_at <= ?, true) ORDER BY ALL LIMIT ?
"""
_IN_FLIGHT = "SELECT count(DISTINCT (model, media_uri)) FROM judged WHERE defect IS NOT NULL AND embedded_at > ?"
_TWICE = "SELECT model, media_uri FROM ledger GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT ?"
_TOTALS = (
    "SELECT count(*) FROM objects",
    "SELECT coalesce(sum(rows), 0) FROM held",
    "SELECT count(*) FROM ledger",
)


def _all(evidence: Evidence, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    return evidence.connection.execute(statement, arguments).fetchall()


def _number(evidence: Evidence, statement: str, *arguments: object) -> int:
    return int(_all(evidence, statement, *arguments)[0][0])


def _suspects(evidence: Evidence, since: datetime) -> list[Finding]:
    found = _all(evidence, _SUSPECTS, since, _MOST_LOOKED_AT_AGAIN)
    return [Finding(Defect(defect), model, uri) for defect, model, uri in found]


def _looked_at_again(keeper: Tables, suspects: Sequence[Finding], since: datetime) -> list[Finding]:
    """Return which of the findings still stand."""
    with no_evidence() as evidence:
        for model in sorted({one.table for one in suspects}):
            uris = sorted({one.what for one in suspects if one.table == model})
            evidence.add_ledger(keeper.ledger_rows(model, uris).select(list(LEDGER_COLUMNS)))
            evidence.add_segments(model, keeper.read_embeddings(model, uris, SEGMENT_COLUMNS))
        evidence.connection.execute(_JUDGED)
        return _suspects(evidence, since)


def _file_findings(table: KeptTable, *, vectors: bool) -> Iterator[Finding]:
    opened = table.open()
    if opened is None:
        return
    files = list(table.files.of(opened))
    there = {one.path for one in table.stored()}
    for file in files:
        if file.path not in there:
            yield Finding(Defect.FILE_ABSENT, table.name, f"{table.uri}/{file.path}")
    if not is_embeddings(table):
        return
    files = [file for file in files if file.path in there]
    right = read_ahead(lambda file: _vectors_are_right(table, file), files)
    if vectors:
        # One at a time: each is as large as its file.
        right = (footer and _numbers_are_right(table, file) for footer, file in zip(right, files, strict=True))
    for file, is_right in zip(files, right, strict=True):
        if not is_right:
            yield Finding(Defect.WRONG_VECTORS, model_of(table), f"{table.uri}/{file.path}")


def _vectors_are_right(table: KeptTable, file: File) -> bool:
    """Return whether there are as many numbers as vectors of the table's dimension have, by the file's footer."""
    metadata = table.files.metadata(file)
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return all(
        group.column(number).num_values == group.num_rows * _dimension(table)
        for group in groups
        for number in range(group.num_columns)
        if group.column(number).path_in_schema.startswith("embedding.")
    )


def _numbers_are_right(table: KeptTable, file: File) -> bool:
    """Return whether every row has a vector of the table's dimension, and all its numbers are finite."""
    column = table.files.read(file, ["embedding"])["embedding"]
    lengths = pc.list_value_length(column)
    numbers = pc.list_flatten(column)
    return bool(
        column.null_count == 0
        and pc.all(pc.equal(lengths, _dimension(table)), min_count=0).as_py()
        and numbers.null_count == 0
        and pc.all(pc.is_finite(numbers), min_count=0).as_py()
    )


def _dimension(table: KeptTable) -> int:
    return int(table.layout.schema.metadata[b"embedding_dimension"])
