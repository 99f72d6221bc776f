"""Decides what the end of a model means for a library's runs: nothing yet, a warning, or a refusal. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

from media_embeddings.library import Library, LifecycleMode
from media_embeddings.models import model_named
from media_embeddings.models.lifecycle import Stage
from media_embeddings.models.protocol import EmbeddingModel

logger = logging.getLogger(__name__)


class ModelEndedError(Exception):
    """AWS has ended a model that a run would embed with, and the library doesn't say that it goes on nevertheless."""


@dataclass(frozen=True, slots=True)
class LifecycleJudgement:
    """What a person should know of a model's end; at most one of the two is there."""

    warning: str | None = None
    refusal: str | None = None
    """Why no run embeds with it, and what to do."""


def utc_today() -> date:
    """Return the day by which models are judged where nobody names another."""
    return datetime.now(UTC).date()


def judge_model(library: Library, model: EmbeddingModel, today: date) -> LifecycleJudgement:
    """Judge a model that a run of the library would embed with on a day."""
    stage, end = model.lifecycle.stage(library.region, today), model.lifecycle.ends.get(library.region)
    if stage is Stage.ACTIVE or end is None:
        return LifecycleJudgement()
    days = (end - today).days
    if stage is Stage.LEGACY:
        return LifecycleJudgement(
            warning=f"{model.name} is a legacy model: AWS ends it in {library.region} on {end:%Y-%m-%d}, "
            f"{_days(days)} from now; {_way_out(library, model)}. See {model.lifecycle.documentation}"
        )
    ended = f"AWS has ended {model.name} in {library.region} on {end:%Y-%m-%d}, {_days(-days)} ago"
    if library.model_lifecycle is LifecycleMode.WARN:
        return LifecycleJudgement(
            warning=f"{ended}; the library says model_lifecycle: warn, so its requests are sent nevertheless, which "
            f"Bedrock accepts from accounts with extended access only; {_way_out(library, model)}. "
            f"See {model.lifecycle.documentation}"
        )
    return LifecycleJudgement(
        refusal=f"library {library.name}, {_setting(library, model)}: {ended}, so the run was ended before anything was "
        f"submitted; its table stays as it is. {_remedy(library, model, today)} If the account has extended access, set "
        f"model_lifecycle: warn. See {model.lifecycle.documentation}"
    )


def check_models(library: Library, names: Iterable[str], today: date | None = None) -> tuple[str, ...]:
    """Return what a person should know of the ends of a run's models, and log it.

    :param names: the models that the run would embed with.
    :param today: in UTC; None takes it from the clock.
    :raises ModelEndedError: if AWS has ended one, naming the library, the setting, and what to do.
    """
    today = today or utc_today()
    judgements = [judge_model(library, model_named(name), today) for name in names]
    warnings = tuple(one.warning for one in judgements if one.warning is not None)
    for warning in warnings:
        logger.warning("%s", warning)
    if refusals := [one.refusal for one in judgements if one.refusal is not None]:
        raise ModelEndedError(" ".join(refusals))
    return warnings


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number} days"


def _setting(library: Library, model: EmbeddingModel) -> str:
    """Return where the model is named: in one of the library's two settings, or in the run's parameter."""
    if model.name == library.model:
        return "key `model`"
    return "key `next_model`" if model.name == library.next_model else "the run's parameter `model`"


def _way_out(library: Library, model: EmbeddingModel) -> str:
    if model.name != library.model:
        return "choose another one, since what is embedded with it can't be compared with what comes after it"
    if library.next_model is not None:
        return f"the library crosses to {library.next_model}: the run report says how far it is"
    return "set next_model to one that stays, and the library crosses to it (docs/crossing.md)"


def _remedy(library: Library, model: EmbeddingModel, today: date) -> str:
    if model.name == library.next_model:
        return "Set next_model to a model that is in service, or remove it."
    if model.name != library.model:
        return "Name a model that is in service."
    if library.next_model is not None and judge_model(library, model_named(library.next_model), today).refusal is None:
        return (
            f"Set model: {library.next_model} and model_parameters to what next_model_parameters is, and remove next_model "
            "(docs/crossing.md): what is embedded with it already is not paid for again."
        )
    return "Set model to one that is in service: all media are embedded anew with it (docs/crossing.md)."
