"""Requests that the tests send."""

from __future__ import annotations

MARENGO_27 = "twelvelabs.marengo-embed-2-7-v1:0"
MARENGO_30 = "twelvelabs.marengo-embed-3-0-v1:0"


def location(key: str, bucket: str = "media") -> dict:
    return {"s3Location": {"uri": f"s3://{bucket}/{key}"}}


def marengo_27(kind: str, key: str, **parameters: object) -> dict:
    return {"inputType": kind, "mediaSource": location(key), **parameters}


def marengo_30(kind: str, key: str, **parameters: object) -> dict:
    return {"inputType": kind, kind: {"mediaSource": location(key), **parameters}}


def start_request(model_input: dict, model_id: str | None = None, uri: str = "s3://media/outputs", **more) -> dict:
    """Return the arguments of start_async_invoke; the model follows from the shape of its input."""
    nested = isinstance(model_input.get(model_input.get("inputType", "")), dict)
    return {
        "modelId": model_id or (MARENGO_30 if nested else MARENGO_27),
        "modelInput": model_input,
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": uri}},
        **more,
    }
