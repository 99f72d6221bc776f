"""Requests that the tests send."""

from __future__ import annotations

MARENGO_27 = "twelvelabs.marengo-embed-2-7-v1:0"
MARENGO_30 = "twelvelabs.marengo-embed-3-0-v1:0"
NOVA = "amazon.nova-2-multimodal-embeddings-v1:0"


def location(key: str, bucket: str = "media") -> dict:
    return {"s3Location": {"uri": f"s3://{bucket}/{key}"}}


def marengo_27(kind: str, key: str, **parameters: object) -> dict:
    return {"inputType": kind, "mediaSource": location(key), **parameters}


def marengo_30(kind: str, key: str, **parameters: object) -> dict:
    return {"inputType": kind, kind: {"mediaSource": location(key), **parameters}}


def nova(kind: str, key: str, *, dimension: int = 256, purpose: str = "GENERIC_INDEX", **parameters: object) -> dict:
    """Return an asynchronous request; ``format`` and what else is required stand among the parameters where it matters."""
    formats = {"video": {"format": "mp4"}, "audio": {"format": "wav"}, "image": {"format": "png"}, "text": {}}
    required = {
        "video": {"embeddingMode": "AUDIO_VIDEO_COMBINED", "segmentationConfig": {}},
        "audio": {"segmentationConfig": {}},
        "image": {},
        "text": {"truncationMode": "NONE", "segmentationConfig": {}},
    }
    payload = {**formats[kind], "source": location(key), **required[kind], **parameters}
    return {
        "taskType": "SEGMENTED_EMBEDDING",
        "segmentedEmbeddingParams": {"embeddingPurpose": purpose, "embeddingDimension": dimension, kind: payload},
    }


def nova_single(kind: str, payload: dict, **more: object) -> dict:
    """Return a request of InvokeModel for one embedding."""
    parameters = {"embeddingPurpose": "GENERIC_RETRIEVAL", "embeddingDimension": 256, kind: payload, **more}
    return {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": parameters}


def start_request(model_input: dict, model_id: str | None = None, uri: str = "s3://media/outputs", **more) -> dict:
    """Return the arguments of start_async_invoke; the model follows from the shape of its input."""
    nested = isinstance(model_input.get(model_input.get("inputType", "")), dict)
    of_shape = NOVA if "taskType" in model_input else MARENGO_30 if nested else MARENGO_27
    return {
        "modelId": model_id or of_shape,
        "modelInput": model_input,
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": uri}},
        **more,
    }
