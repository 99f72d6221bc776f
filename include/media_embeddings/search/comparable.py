"""Which vectors may be compared: only those of one model. What would compare others is refused, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from media_embeddings.library import Library
from media_embeddings.models import model_named, model_names
from media_embeddings.search.queries import SearchRefusedError, VectorQuery


class CrossModelError(SearchRefusedError):
    """Vectors of two models would be compared; the message names both, and what to do."""


def common_model(libraries: Sequence[Library], named: str | None = None) -> str:
    """Return the one model whose tables are searched.

    :param named: a model that is named for all of them.
    :raises CrossModelError: where none is named and the libraries are searched with several.
    """
    if named is not None:
        return model_named(named).name
    by_model: dict[str, list[str]] = {}
    for library in libraries:
        by_model.setdefault(library.searched_model.name, []).append(library.name)
    if len(by_model) == 1:
        return next(iter(by_model))
    who = " and ".join(f"{', '.join(names)} with {model}" for model, names in sorted(by_model.items()))
    raise CrossModelError(
        f"the vectors of two models can't be compared, and these libraries are searched with different ones: {who}. "
        f"Name one whose tables all of them have (--model {' or --model '.join(sorted(by_model))}), or set search_model "
        "of the libraries to the same"
    )


def refuse_other_tables(absent: Mapping[str, Sequence[str]], model: str) -> None:
    """Refuse libraries that have no table of the searched model, but one of another.

    :param absent: of libraries without a table of the searched model, the models that they have tables of.
    """
    others = {library: models for library, models in absent.items() if models}
    if not others:
        return
    who = "; ".join(f"{library} has {_tables(models)}" for library, models in others.items())
    options = " or ".join(f"--model {name}" for name in sorted({name for models in others.values() for name in models}))
    raise CrossModelError(
        f"there is no table of {model} to search: {who}, and vectors of another model can't be compared with those of "
        f"{model}. Search with {options} (or set search_model of the library to it), or embed the library with {model} first"
    )


def refuse_other_rows(media_uri: str, models: Sequence[str], model: str) -> None:
    """Refuse an object whose rows are only in the tables of other models.

    :param models: the other models that have rows of it.
    """
    if models:
        raise CrossModelError(
            f"{media_uri} has vectors of {' and '.join(models)} only, and {model} is searched: vectors of different "
            f"models can't be compared. Search with --model {' or --model '.join(models)} (or set search_model of the "
            f"library to it), or embed the object with {model} first"
        )


def refuse_other_vector(query: VectorQuery, model: str) -> None:
    """Refuse a vector that another model has made, as it says itself or as its length tells."""
    if query.model is not None and model_named(query.model).name != model:
        raise CrossModelError(
            f"the vector is one of {query.model}, and {model} is searched: vectors of different models can't be compared. "
            f"Search with --model {query.model} (or set search_model of the library to it), or give a vector of {model}"
        )
    dimension = model_named(model).dimension
    if len(query.vector) != dimension:
        makers = [name for name in model_names() if model_named(name).dimension == len(query.vector)]
        whose = f"as those of {' and '.join(makers)}" if makers else "as those of no model here"
        remedy = "".join(f"search with --model {name}, or " for name in makers)
        raise CrossModelError(
            f"the vector has {len(query.vector)} numbers, {whose}, and {model} is searched, whose vectors have {dimension}: "
            f"{remedy}give a vector of {model}"
        )


def _tables(models: Sequence[str]) -> str:
    return f"{'a table' if len(models) == 1 else 'tables'} of {' and '.join(models)}"
