"""The embedding models that the pipeline knows: every module here that defines ``MODEL``, or ``MODELS`` for several."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from media_embeddings.models.protocol import EmbeddingModel

__all__ = ["EmbeddingModel", "model_named", "model_names"]


@cache
def _models() -> dict[str, EmbeddingModel]:
    found: dict[str, EmbeddingModel] = {}
    for model in sorted(_defined(), key=lambda model: model.name):
        if model.name in found:
            raise ValueError(f"two modules define a model with the name {model.name}")
        found[model.name] = model
    return found


def _defined() -> Iterator[EmbeddingModel]:
    for module in iter_modules(__path__):
        found = import_module(f"{__name__}.{module.name}")
        yield from getattr(found, "MODELS", ())
        if hasattr(found, "MODEL"):
            yield found.MODEL


def model_names() -> tuple[str, ...]:
    """Return the names that a library may give as its model."""
    return tuple(_models())


def model_named(name: str) -> EmbeddingModel:
    """Return the model with this name.

    :raises ValueError: naming the models that there are.
    """
    try:
        return _models()[name]
    except KeyError:
        raise ValueError(f"there is no model {name!r}; there are {', '.join(model_names())}") from None
