"""The embedding models that the pipeline knows: every module here that defines ``MODEL`` is one."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from media_embeddings.models.protocol import EmbeddingModel

__all__ = ["EmbeddingModel", "model_named", "model_names"]


@cache
def _models() -> dict[str, EmbeddingModel]:
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    found = (module.MODEL for module in modules if hasattr(module, "MODEL"))
    return {model.name: model for model in sorted(found, key=lambda model: model.name)}


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
