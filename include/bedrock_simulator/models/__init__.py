"""The models, one module each.

Every module in this package with a ``MODEL`` is found by itself; a new model needs nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache

from .model import Embedding, Model

__all__ = ["Embedding", "Model", "models"]


@lru_cache(maxsize=1)
def models() -> dict[str, Model]:
    """Return all models by their bare id."""
    found: dict[str, Model] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        model = getattr(module, "MODEL", None)
        if isinstance(model, Model):
            found[model.model_id] = model
    return found
