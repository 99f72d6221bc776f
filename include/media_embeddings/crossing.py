"""How far a library that crosses to another model is, and what people do next. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from media_embeddings.planning import Status


@dataclass(frozen=True, slots=True)
class Crossing:
    """What the table of the next model has of the listed objects after a run, beside that of the library's model."""

    model: str
    next_model: str
    listed: int
    rejected: int
    """Objects that the next model does not take; the ledger says why."""
    embedded: int
    """Objects whose present content is in the next model's table."""
    deferred: int
    """Objects that are left for another run."""
    not_embedded: int
    """Objects that failed with the next model or are quarantined."""
    not_embedded_with_model: int
    """Objects that failed with the library's model or are quarantined: what both can't embed does not hold it up."""
    is_whole: bool
    """Whether the whole library was listed."""
    remaining_cost_usd: float | None = None
    """What the objects are estimated to cost that are left for another run; None where it is not known."""

    @classmethod
    def of_books(
        cls,
        models: tuple[str, str],
        totals: Mapping[str, int],
        next_totals: Mapping[str, int],
        listed: int,
        *,
        is_whole: bool,
        remaining_cost_usd: float | None = None,
    ) -> Crossing:
        """Read the progress from the books of a run.

        :param models: the library's, and the next one.
        :param totals: objects by status in the books of the library's model.
        :param next_totals: those of the next model.
        """
        return cls(
            *models,
            listed=listed,
            rejected=next_totals.get(Status.REJECTED, 0),
            embedded=next_totals.get(Status.UNCHANGED, 0) + next_totals.get(Status.EMBEDDED, 0),
            deferred=next_totals.get(Status.DEFERRED, 0),
            not_embedded=_not_embedded(next_totals),
            not_embedded_with_model=_not_embedded(totals),
            is_whole=is_whole,
            remaining_cost_usd=remaining_cost_usd,
        )

    @property
    def taken(self) -> int:
        """Return how many of the listed objects the next model takes."""
        return self.listed - self.rejected

    @property
    def remaining(self) -> int:
        """Return how many objects that the next model takes are not in its table."""
        return self.taken - self.embedded

    @property
    def has_caught_up(self) -> bool:
        """Return whether the next model's table can stand for the other: nothing waits, and no more is missing from it.

        Counted, not compared object by object. Objects that only the next model does not take are told beside it.
        """
        return self.is_whole and self.deferred == 0 and self.not_embedded <= self.not_embedded_with_model

    def sentences(self) -> tuple[str, ...]:
        """Return the progress, and what to do next, for people."""
        share = f" ({self.embedded / self.taken:.0%})" if self.taken else ""
        where = "" if self.is_whole else ", of the part of the library that this run has listed"
        told = [
            f"The table of {self.next_model} has {self.embedded} of the {self.taken} objects that it takes{share}{where}."
        ]
        if self.deferred:
            cost = "" if self.remaining_cost_usd is None else f", for an estimated ${self.remaining_cost_usd:,.2f}"
            told.append(f"{self.deferred} wait for another run{cost}.")
        if self.not_embedded:
            told.append(
                f"{self.not_embedded} failed or are quarantined, {self.not_embedded_with_model} with {self.model}; the ledger "
                "has the reason of each."
            )
        if self.rejected:
            told.append(f"{self.rejected} it does not take; the ledger has the reason of each.")
        return (*told, *self._what_next())

    def _what_next(self) -> tuple[str, ...]:
        if self.has_caught_up:
            return (
                f"{self.next_model} has caught up. Search it with search_model: {self.next_model}; when nothing reads the "
                f"table of {self.model} any more, set model: {self.next_model}, with next_model_parameters as its "
                "model_parameters, and remove next_model (docs/crossing.md).",
            )
        if self.not_embedded > self.not_embedded_with_model:
            return (
                f"More is missing from it than from that of {self.model}: look at its reasons before you change over.",
            )
        return ("The next runs go on with it.",) if self.deferred else ()


def _not_embedded(totals: Mapping[str, int]) -> int:
    return totals.get(Status.FAILED, 0) + totals.get(Status.QUARANTINED, 0)
