"""The report of an upkeep: what there was before and after, what was removed, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

STEPS = ("survey", "compact", "check", "expire", "vacuum")
"""The steps of an upkeep, in their order; the report follows."""

_DELETING = ("expire", "vacuum")

USD_A_GIB_AND_MONTH = 0.023
"""S3 Standard in us-east-1, first 50 TB; https://aws.amazon.com/s3/pricing/"""

Part = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """The report, as it stands in ``report.json``."""

    tables: str
    run_id: str
    dry_run: bool
    succeeded: bool
    problems: tuple[str, ...]
    notices: tuple[str, ...]
    before: Part
    after: Part
    compaction: Part
    consistency: Part
    expired: Part
    vacuumed: Part
    removed_bytes: int
    saved_usd_a_month: float
    """What the removed bytes would cost to keep, at :data:`USD_A_GIB_AND_MONTH`."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @property
    def summary(self) -> dict[str, Any]:
        """Return what is small enough for an XCom."""
        return {
            "succeeded": self.succeeded,
            "removed_bytes": self.removed_bytes,
            "saved_usd_a_month": self.saved_usd_a_month,
            "files": sum(one["files"] for one in self.after.values()),
            "rows": sum(one["rows"] for one in self.after.values()),
        }

    def as_markdown(self) -> str:
        """Return the report for people."""
        return "\n".join(
            [
                f"# Upkeep of {self.tables}",
                "",
                f"Run `{self.run_id}`{' (dry run: nothing was changed)' if self.dry_run else ''}: "
                + ("succeeded." if self.succeeded else "**failed**.")
                + f" {_size(self.removed_bytes)} {'would be' if self.dry_run else 'were'} removed, "
                f"${self.saved_usd_a_month:.2f} a month less at ${USD_A_GIB_AND_MONTH} a GiB.",
                "",
                *self._problem_lines(),
                *self._check_lines(),
                *self._table_lines(),
                *self._removed_lines(),
            ]
        )

    def _problem_lines(self) -> Iterator[str]:
        if self.problems or self.notices:
            yield "## What to look at"
            yield ""
            yield from (f"- {one}" for one in (*self.problems, *self.notices))
            yield ""

    def _check_lines(self) -> Iterator[str]:
        if self.consistency:
            yield (
                f"Compared {self.consistency['objects']} objects with {self.consistency['rows']} rows, and "
                f"{self.consistency['ledger_rows']} rows of the ledger."
            )
            yield ""

    def _table_lines(self) -> Iterator[str]:
        yield "## Tables, before and after"
        yield ""
        yield "| table | version | rows | files | size | smallest file | median file | in the folder | log |"
        yield "|---|---|---|---|---|---|---|---|---|"
        for name, after in self.after.items():
            before = self.before.get(name, after)
            cells = (
                _both(before["version"], after["version"]),
                _both(before["rows"], after["rows"]),
                _both(before["files"], after["files"]),
                *(
                    _both(_size(before[key]), _size(after[key]))
                    for key in ("bytes", "smallest_bytes", "median_bytes", "stored_bytes", "log_bytes")
                ),
            )
            yield f"| {name} | {' | '.join(cells)} |"
        yield ""

    def _removed_lines(self) -> Iterator[str]:
        yield "## What would be done" if self.dry_run else "## What was done"
        yield ""
        for name, made in self.compaction.items():
            yield (
                f"- {name}: {made['files_removed']} files written anew as {made['files_added']} in {made['sets']} commits"
                + (f", {made['overtaken']} sets overtaken by merges" if made["overtaken"] else "")
            )
        for name, made in self.vacuumed.items():
            yield (
                f"- {name}: {made['files']} files that no version needs, {_size(made['bytes'])}; "
                f"{made['log_files']} files of its log"
            )
        for kind, made in self.expired.items():
            yield (
                f"- {kind}: {made['objects']} objects, {_size(made['bytes'])}; {made['kept_objects']} kept, "
                f"{_size(made['kept_bytes'])}"
            )
        yield ""


def make_report(tables: str, run_id: str, parts: Mapping[str, Part | None], *, dry_run: bool) -> MaintenanceReport:
    """Put a report together.

    ``problems`` is empty exactly when the upkeep succeeded: every step has ended, and ledger and tables agree.

    :param parts: what each of :data:`STEPS` has written, and ``after``; None where a step did not come so far.
    """
    check, compaction = parts["check"] or {}, parts["compact"] or {}
    expired, vacuumed = parts["expire"] or {}, parts["vacuum"] or {}
    problems = [*check.get("problems", ())]
    # What follows a failed check is not run.
    missing = [step for step in STEPS if parts[step] is None and not (problems and step in _DELETING)]
    problems += [f"{step} did not end: see its log, and clear it" for step in missing]
    removed = sum(one["bytes"] for one in (*expired.values(), *vacuumed.values()))
    return MaintenanceReport(
        tables=tables,
        run_id=run_id,
        dry_run=dry_run,
        succeeded=not problems,
        problems=tuple(problems),
        notices=tuple(_notices(check, compaction)),
        before=parts["survey"] or {},
        after=parts["after"] or {},
        compaction=compaction,
        consistency=check,
        expired=expired,
        vacuumed=vacuumed,
        removed_bytes=removed,
        saved_usd_a_month=round(removed / 1024**3 * USD_A_GIB_AND_MONTH, 4),
    )


def _notices(check: Part, compaction: Part) -> Iterator[str]:
    if check.get("problems"):
        yield "nothing was deleted, since ledger and tables do not agree; put that right and clear check"
    if number := check.get("in_flight"):
        yield f"{number} objects were written within a day and are not in the ledger yet: a run is at them, or the next one is"
    for name, made in compaction.items():
        if made["left"]:
            yield f"{name}: {made['left']} sets of files were given up to merges; the next upkeep sees to them"


def _both(before: object, after: object) -> str:
    return f"{before}" if before == after else f"{before} → {after}"


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
