"""Checks requests against botocore's own model of ``bedrock-runtime``, including what botocore leaves to the server.

botocore checks types, required members and minimum lengths before it sends a request; maximum lengths, patterns,
enums and ranges are the server's. The wording follows AWS's ("1 validation error detected: Value at ...").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

import botocore.loaders

from .errors import validation_error

SERVICE = "bedrock-runtime"

Shape = dict[str, Any]


@lru_cache(maxsize=1)
def _service_model() -> dict[str, Any]:
    model = botocore.loaders.Loader().load_service_model(SERVICE, "service-2")
    return {"shapes": model["shapes"], "operations": model["operations"]}


def _shape(name: str) -> Shape:
    shape: Shape = _service_model()["shapes"][name]
    return shape


def input_members(operation: str) -> dict[str, str]:
    """Return where each member of the operation's input travels: ``body``, ``uri``, ``querystring`` or ``header``."""
    shape = _shape(_service_model()["operations"][operation]["input"]["shape"])
    return {name: member.get("location", "body") for name, member in shape["members"].items()}


def validate(operation: str, parameters: dict[str, Any]) -> None:
    """Check an operation's parameters.

    :raises BedrockError: a ``ValidationException`` that lists every violated constraint.
    """
    shape_name = _service_model()["operations"][operation]["input"]["shape"]
    violations = list(_violations(shape_name, parameters, ""))
    if violations:
        count = f"{len(violations)} validation error{'s' if len(violations) > 1 else ''} detected"
        raise validation_error(f"{count}: {'; '.join(violations)}")


def _violations(shape_name: str, value: object, path: str) -> Iterator[str]:
    shape = _shape(shape_name)
    kind = shape["type"]
    if kind == "structure" and not shape.get("document"):
        yield from _structure_violations(shape, value, path)
    elif kind == "structure":
        if not isinstance(value, dict):
            yield _violation(path, "Member must be a JSON object")
    elif kind == "list":
        yield from _list_violations(shape, value, path)
    elif kind == "string":
        yield from _string_violations(shape, value, path)
    elif kind in ("integer", "long", "float", "double"):
        yield from _number_violations(shape, value, path)
    elif kind == "timestamp":
        if not isinstance(value, datetime):
            yield _violation(path, "Member must be a timestamp")
    elif kind == "blob" and isinstance(value, bytes):
        yield from _length_violations(shape, len(value), path)


def _violation(path: str, constraint: str) -> str:
    return f"Value at '{path}' failed to satisfy constraint: {constraint}"


def _structure_violations(shape: Shape, value: object, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _violation(path, "Member must be a structure")
        return
    prefix = f"{path}." if path else ""
    for name in shape.get("required", ()):
        if value.get(name) is None:
            yield _violation(prefix + name, "Member must not be null")
    if shape.get("union") and len([name for name in value if value[name] is not None]) != 1:
        yield _violation(path, f"Exactly one of {', '.join(shape['members'])} must be set")
    for name, member in value.items():
        if name not in shape["members"]:
            yield _violation(prefix + name, "Member is not known")
        elif member is not None:
            yield from _violations(shape["members"][name]["shape"], member, prefix + name)


def _list_violations(shape: Shape, value: object, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield _violation(path, "Member must be a list")
        return
    yield from _length_violations(shape, len(value), path)
    for number, item in enumerate(value, start=1):
        yield from _violations(shape["member"]["shape"], item, f"{path}.{number}.member")


def _string_violations(shape: Shape, value: object, path: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield _violation(path, "Member must be a string")
        return
    yield from _length_violations(shape, len(value), path)
    if "pattern" in shape and not _pattern(shape["pattern"]).fullmatch(value):
        yield _violation(path, f"Member must satisfy regular expression pattern: {shape['pattern']}")
    if "enum" in shape and value not in shape["enum"]:
        yield _violation(path, f"Member must satisfy enum value set: [{', '.join(shape['enum'])}]")


@lru_cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _length_violations(shape: Shape, length: int, path: str) -> Iterator[str]:
    if length < shape.get("min", 0):
        yield _violation(path, f"Member must have length greater than or equal to {shape['min']}")
    if "max" in shape and length > shape["max"]:
        yield _violation(path, f"Member must have length less than or equal to {shape['max']}")


def _number_violations(shape: Shape, value: object, path: str) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield _violation(path, "Member must be a number")
        return
    if "min" in shape and value < shape["min"]:
        yield _violation(path, f"Member must have value greater than or equal to {shape['min']}")
    if "max" in shape and value > shape["max"]:
        yield _violation(path, f"Member must have value less than or equal to {shape['max']}")
