"""The steps of one upkeep of one root, each of which writes what it found below the work prefix, for the report.

They can be repeated: what a step has done, it does not find again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from media_embeddings.library import Library
from media_embeddings.models import model_names
from media_embeddings.storage import ObjectNotFoundError, Storage, join_uri
from media_embeddings.tables import Tables
from media_embeddings.upkeep.compaction import compact
from media_embeddings.upkeep.consistency import SETTLE_SECONDS, check
from media_embeddings.upkeep.evidence import collected
from media_embeddings.upkeep.expiry import NOTHING, Expirer, Expiry
from media_embeddings.upkeep.kept_tables import KeptTable, kept_tables
from media_embeddings.upkeep.report import STEPS, MaintenanceReport, make_report
from media_embeddings.upkeep.roots import TableRoot
from media_embeddings.upkeep.survey import survey
from media_embeddings.upkeep.vacuuming import vacuum

logger = logging.getLogger(__name__)

_AFTER = "after"
_REPORT = "report"


class InconsistentTablesError(Exception):
    """Ledger and tables do not agree, or files are lost. Nothing was repaired."""


@dataclass(frozen=True, slots=True)
class Options:
    """What people choose for one upkeep."""

    dry_run: bool = False
    retention_days: int | None = None
    """Of what no version needs any more; None for the libraries' settings."""
    outputs_retention_days: int | None = None
    """Of raw outputs; None for the libraries' settings."""
    check_vectors: bool = False
    """Whether the numbers of all vectors are read and checked."""


class Maintenance:
    """One upkeep of the tables below one root.

    :param storage_of: returns the storage that a library's connection reaches.
    :param run_id: names the upkeep, and the folder of its reports.
    """

    settle_seconds = SETTLE_SECONDS

    def __init__(
        self, root: TableRoot, storage_of: Callable[[Library], Storage], run_id: str, options: Options | None = None
    ) -> None:
        self._root = root
        self._storage_of = storage_of
        self._run_id = run_id
        self._options = options or Options()
        self._storage = storage_of(root.first)
        folder = re.sub(r"[^A-Za-z0-9._=-]+", "-", run_id)
        self._folder = join_uri(root.first.work, "maintenance", root.name, folder)

    @property
    def report_uri(self) -> str:
        """Return where the report lies as JSON."""
        return self._part(_REPORT)

    def survey(self) -> dict[str, Any]:
        """Look at what the tables consist of before anything is done."""
        return self._write("survey", self._figures())

    def compact(self) -> dict[str, Any]:
        """Write small and overlapping files anew."""
        return self._write("compact", self._of_each(lambda one: compact(one, dry_run=self._options.dry_run)))

    def check(self) -> dict[str, Any]:
        """Compare ledger and tables.

        :raises InconsistentTablesError: with what is wrong and what to do about it.
        """
        found = check(
            self._tables(),
            self._keeper(),
            vectors=self._options.check_vectors,
            settle_seconds=self.settle_seconds,
        )
        self._write("check", found.as_dict())
        if found.problems:
            raise InconsistentTablesError("; ".join(found.problems))
        return {"objects": found.objects, "rows": found.rows, "in_flight": found.in_flight}

    def expire(self) -> dict[str, Any]:
        """Delete raw outputs, run folders, intents and tickets that nothing rests on any more."""
        with collected(self._tables()) as evidence:
            expirer = Expirer(evidence, dry_run=self._options.dry_run)
            made = {
                "outputs": self._expire_outputs(expirer),
                "runs": self._expire_runs(expirer),
                "intents": self._expire_intents(expirer),
                "tickets": self._expire_tickets(expirer),
            }
        return self._write("expire", {kind: asdict(one) for kind, one in made.items()})

    def vacuum(self) -> dict[str, Any]:
        """Remove files that no version needs, and keep the logs short."""
        days = self._options.retention_days or self._root.vacuum_retention_days
        retention = timedelta(days=days)
        made = self._of_each(lambda one: vacuum(one, retention, dry_run=self._options.dry_run))
        return self._write("vacuum", made)

    def report(self) -> MaintenanceReport:
        """Put together what the steps have found, write it as JSON and Markdown, and log it."""
        self._write(_AFTER, self._figures())
        parts = {name: self._read(name) for name in (*STEPS, _AFTER)}
        report = make_report(self._root.tables, self._run_id, parts, dry_run=self._options.dry_run)
        text = report.as_markdown()
        self._storage.write_json(self.report_uri, report.as_dict())
        markdown_uri = join_uri(self._folder, f"{_REPORT}.md")
        self._storage.write(markdown_uri, text.encode(), content_type="text/markdown; charset=utf-8")
        logger.info("%s", text)
        return report

    def _expire_outputs(self, expirer: Expirer) -> Expiry:
        total = NOTHING
        for work, (library, days) in self._root.outputs.items():
            kept = None if days is None else self._options.outputs_retention_days or days
            if kept is not None:
                total += expirer.outputs(self._storage_of(library), work, kept)
        return total

    def _expire_runs(self, expirer: Expirer) -> Expiry:
        total = NOTHING
        for one in self._root.libraries:
            if one.runs_retention_days is not None:
                total += expirer.runs(self._storage_of(one), one.work, one.name, one.runs_retention_days)
        return total

    def _expire_intents(self, expirer: Expirer) -> Expiry:
        days = self._root.intents_retention_days
        return NOTHING if days is None else expirer.intents(self._storage, self._root.first.intents_uri, days)

    def _expire_tickets(self, expirer: Expirer) -> Expiry:
        total = NOTHING
        folders = {one.submitter_uri(model): one for one in self._root.libraries for model in model_names()}
        for folder, library in folders.items():
            total += expirer.tickets(self._storage_of(library), folder)
        return total

    def _figures(self) -> dict[str, Any]:
        return self._of_each(survey)

    def _of_each(self, step: Callable[[KeptTable], Any]) -> dict[str, Any]:
        """Return what a step makes of each table that there is, as plain values."""
        made = {one.name: step(one) for one in self._tables()}
        return {name: asdict(value) for name, value in made.items() if value is not None}

    def _tables(self) -> list[KeptTable]:
        return kept_tables(self._root.tables, self._storage.table_options)

    def _keeper(self) -> Tables:
        return Tables(self._root.tables, self._storage.table_options)

    def _part(self, name: str) -> str:
        return join_uri(self._folder, f"{name}.json")

    def _write(self, name: str, value: dict[str, Any]) -> dict[str, Any]:
        self._storage.write_json(self._part(name), value)
        return value

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return self._storage.read_json(self._part(name))
        except ObjectNotFoundError:
            return None


def maintain(
    root: TableRoot, storage_of: Callable[[Library], Storage], run_id: str, options: Options | None = None
) -> MaintenanceReport:
    """Make a whole upkeep of one root, and return its report; after a check that fails nothing is deleted."""
    made = Maintenance(root, storage_of, run_id, options)
    made.survey()
    made.compact()
    try:
        made.check()
    except InconsistentTablesError:
        logger.exception("Nothing is deleted")
    else:
        made.expire()
        made.vacuum()
    return made.report()
