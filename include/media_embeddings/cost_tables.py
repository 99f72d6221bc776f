"""Costs as people read them: in the log of a plan, in the question for approval, in the run report. Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from media_embeddings.costs import Estimates, TypeEstimate

_COLUMNS = ("media type", "objects", "minutes", "USD", "hours", "left out", "USD left out")


def dollars(usd: float) -> str:
    """Return an amount with cents, and with more digits where it is less than a dollar."""
    return f"{usd:.2f}" if usd >= 1 or usd == 0 else f"{usd:.4f}"


def table_row(*cells: object) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def estimate_lines(estimates: Estimates) -> Iterable[str]:
    """Yield what a plan costs as a table, with what it rests on."""
    yield table_row(*_COLUMNS)
    yield "|---" * len(_COLUMNS) + "|"
    for media_type, one in estimates.by_media_type.items():
        yield _estimate(media_type, one)
    yield _estimate("all", estimates.total)
    yield ""
    yield from (f"- {line}" for line in _grounds(estimates))


def _estimate(name: str, one: TypeEstimate) -> str:
    return table_row(
        name,
        one.objects,
        f"{one.minutes:.1f}",
        dollars(one.usd),
        f"{one.hours:.2f}",
        one.left_out,
        dollars(one.left_out_usd),
    )


def _grounds(estimates: Estimates) -> Iterable[str]:
    total = estimates.total
    yield price_line(estimates)
    if total.from_size:
        yield f"the duration of {total.from_size} objects is estimated from their size, rather too long than too short"
    if total.paid_for:
        yield f"{total.paid_for} objects cost nothing again: their attempt is paid for already"
    if total.unpriced:
        yield f"{total.unpriced} objects are of media for which the model has no price; they are not in the sum"
    measured = [name for name, one in estimates.by_media_type.items() if one.is_measured]
    assumed = [name for name, one in estimates.by_media_type.items() if not one.is_measured]
    if measured:
        yield f"hours of {', '.join(measured)}: as long as the invocations of the last 30 days took"
    if assumed:
        yield f"hours of {', '.join(assumed)}: by the setting cost_assumptions, as too few invocations were seen"
    yield f"spent in {estimates.month} (UTC) before this run: {dollars(estimates.month_usd)} USD"


def price_line(estimates: Estimates) -> str:
    """Return the date and the source of the prices."""
    doubt = "" if estimates.price_confirmed else "; not confirmed by AWS, compare it with your bill"
    return f"prices of {estimates.price_as_of}: {estimates.price_source}{doubt}"


def spending_lines(
    spent: Mapping[str, float], unsettled_usd: float, estimates: Estimates, earlier_usd: float = 0.0
) -> Iterable[str]:
    """Yield what a run has spent beside what it was estimated to, by media type.

    :param earlier_usd: what it has spent beside that, which the month has as well.
    """
    yield table_row("media type", "estimated USD", "spent USD")
    yield "|---|---|---|"
    by_type = estimates.by_media_type
    for name in dict.fromkeys((*by_type, *spent)):
        estimated = by_type[name].usd if name in by_type else 0.0
        yield table_row(name, dollars(estimated), dollars(spent.get(name, 0.0)))
    spent_usd = sum(spent.values())
    yield table_row("all", dollars(estimates.usd), dollars(spent_usd))
    yield ""
    if unsettled_usd:
        yield f"- {dollars(unsettled_usd)} USD of that are estimates: their invocations have not ended yet"
    if estimates.month is not None:
        month_usd = estimates.month_usd + earlier_usd + spent_usd
        yield f"- spent in {estimates.month} (UTC) with this run: {dollars(month_usd)} USD"
