"""The endpoints below ``/simulator`` with which tests and people steer the simulator. They need no credentials."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .documents import as_object, from_document
from .faults import Fault
from .models import models
from .simulator import Simulator

Action = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class ClockAdvance:
    """How far the clock is put forward."""

    advance_seconds: float


def administration_routes(simulator: Simulator) -> list[Route]:
    """Return the routes, each an action on the simulator: a JSON document in (or None), a JSON document out."""
    actions: dict[tuple[str, str], Action] = {
        ("GET", "/health"): lambda _: _health(simulator),
        ("GET", "/settings"): lambda _: simulator.settings().document(),
        ("PUT", "/settings"): lambda changes: simulator.change_settings(changes).document(),
        ("GET", "/charges"): lambda _: {"charges": simulator.operations.charges()},
        ("GET", "/calls"): lambda _: {"calls": simulator.store.calls()},
        ("GET", "/faults"): lambda _: {"faults": simulator.faults.document()},
        ("PUT", "/faults"): lambda document: _set_faults(simulator, document, simulator.faults.replace),
        ("POST", "/faults"): lambda document: _set_faults(simulator, document, simulator.faults.add),
        ("DELETE", "/faults"): lambda _: _set_faults(simulator, {"faults": []}, simulator.faults.replace),
        ("GET", "/clock"): lambda _: {"now_ms": simulator.clock.now_ms()},
        ("PUT", "/clock"): lambda document: _advance(simulator, document),
        ("POST", "/jobs/end"): lambda _: {"ended": simulator.runner.end_waiting()},
    }
    return [
        Route(f"/simulator{path}", _endpoint(action), methods=[method]) for (method, path), action in actions.items()
    ]


def _endpoint(action: Action) -> Callable[[Request], Any]:
    @wraps(action)
    async def endpoint(request: Request) -> Response:
        body = await request.body()
        try:
            document = json.loads(body) if body else None
            result = await anyio.to_thread.run_sync(action, document)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse(result)

    return endpoint


def _health(simulator: Simulator) -> dict[str, Any]:
    return {
        "status": "ok",
        "region": simulator.region,
        "models": sorted(models()),
        "jobs": simulator.store.counts(),
        "vectors": "a stand-in, not Marengo's",
    }


def _set_faults(simulator: Simulator, document: object, apply: Callable[[list[Fault]], None]) -> dict[str, Any]:
    entries = as_object(document, "What sets faults").get("faults")
    if not isinstance(entries, list):
        raise ValueError('Faults are given as {"faults": [{"kind": ...}, ...]}.')  # noqa: TRY004 (bad content)
    apply([from_document(Fault, entry) for entry in entries])
    return {"faults": simulator.faults.document()}


def _advance(simulator: Simulator, document: object) -> dict[str, Any]:
    advance = from_document(ClockAdvance, document)
    return {"now_ms": simulator.advance_clock(advance.advance_seconds)}
