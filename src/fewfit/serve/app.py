"""The application: tasks, their queues, the guard in front, and the routes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from fewfit._version import __version__
from fewfit.errors import (
    ArtifactError,
    BudgetExceededError,
    CapabilityError,
    FewfitError,
    InputError,
    ModelError,
    StoreError,
)
from fewfit.serve.api import api_router
from fewfit.serve.batching import BusyError, LateError, Limits, Queue
from fewfit.serve.guard import Bounds, Guard, logged
from fewfit.serve.metrics import Metrics
from fewfit.serve.page import Desk, page_router
from fewfit.serve.tasks import MANIFESTS, TakenError, Tasks

LOG = logging.getLogger("fewfit.serve")

_STATUS: tuple[tuple[type[FewfitError], int, str], ...] = (
    (BusyError, 429, "busy"),
    (LateError, 504, "late"),
    (CapabilityError, 422, "cannot"),
    (InputError, 422, "invalid"),
    (BudgetExceededError, 503, "budget"),
    (StoreError, 503, "store"),
    (ModelError, 503, "model"),
    (TakenError, 409, "conflict"),
    (ArtifactError, 409, "conflict"),  # the folder of a new task holds something else
    (FewfitError, 500, "failed"),
)
_CODES = {  # of a status, whoever gives it: the same as above, and as the guard's
    400: "invalid",
    403: "not_allowed",
    404: "not_found",
    405: "wrong_method",
    408: "too_slow",
    409: "conflict",
    413: "too_large",
    415: "wrong_type",
    422: "invalid",
    499: "gone",
    503: "model",
}


def create_app(
    tasks: Tasks,
    *,
    allow_fit: bool = False,
    api_key: str | None = None,
    hosts: Sequence[str] | None = None,
    limits: Limits | None = None,
    bounds: Bounds | None = None,
    models: Sequence[str] = ("embedded",),
    fit_store: str | Path | None = "default",
) -> FastAPI:
    """Return the ASGI application of ``fewfit serve``.

    Parameters
    ----------
    tasks : Tasks
    allow_fit : bool, default=False
        Whether callers may fit new tasks, which are written to the first folder.
    api_key : str, optional
        Without it nothing but the page's files and the health is answered.
    hosts : sequence of str, optional
        See :class:`fewfit.serve.guard.Guard`.
    limits : Limits, optional
        Of the queues.
    bounds : Bounds, optional
        Of a request.
    models : sequence of str, default=("embedded",)
        What a new task may be fitted on.
    fit_store : path, "default" or None
        Where answers to what is fitted are kept.

    Returns
    -------
    FastAPI
        ``state.tasks`` and ``state.queue`` are what routes ask.
    """
    first = tasks.folders[0]
    if allow_fit and any((first / name).is_file() for name in MANIFESTS):
        raise InputError(
            f"--allow-fit: {first} is an artifact itself, and new tasks go beside one; name the "
            "folder that holds it first"
        )
    bounds = bounds or Bounds()
    metrics = Metrics(
        lambda: len(tasks.names()), lambda: sum(e.waiting for e in queue.engines.values())
    )
    queue = Queue(tasks, limits, metrics.batch)
    desk = Desk(tasks, first, models, fit_store) if allow_fit else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await queue.close()

    # The framework's pages that show it load scripts from elsewhere.
    shown: dict[str, Any] = {"docs_url": None, "redoc_url": None}
    app = FastAPI(title="fewfit", version=__version__, lifespan=lifespan, **shown)
    app.state.tasks, app.state.queue, app.state.metrics = tasks, queue, metrics
    routers = (
        api_router(
            tasks,
            queue,
            metrics,
            bounds=bounds,
            allow_fit=allow_fit,
            models=models,
            fit_store=fit_store,
            held=desk.records.names if desk is not None else list,
        ),
        page_router(tasks, queue, desk, bounds=bounds, models=models),
    )
    for router in routers:
        app.include_router(router)
    app.state.routes = [route for router in routers for route in router.routes]
    app.add_exception_handler(FewfitError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(
        Guard,
        metrics=metrics,
        bounds=bounds,
        key=api_key,
        hosts=hosts,
    )
    return app


def problem(status: int, code: str, message: str, **headers: str) -> JSONResponse:
    """Return an answer that is an error."""
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def _ours(request: Request, error: Any) -> JSONResponse:
    status, code = next((status, code) for kind, status, code in _STATUS if isinstance(error, kind))
    if isinstance(error, BusyError):
        return problem(status, code, str(error), **{"Retry-After": str(error.after)})
    if status >= 500:
        LOG.warning("%s %s: %s", request.method, _route(request), logged(error))
    return problem(status, code, request.app.state.tasks.told(str(error)))


def _invalid(request: Request, error: Any) -> JSONResponse:
    told = []
    for one in error.errors()[:5]:  # what was sent is not repeated: it may be a user's text
        if one["type"] == "json_invalid":
            why, place = one["ctx"]["error"], one["loc"][-1]
            told.append(f"the body is no JSON: {why}, character {place}")
            continue
        where = ".".join(_plain(part) for part in one["loc"] if part != "body")
        told.append(f"{where or 'the body'}: {one['msg']}")
    return problem(422, "invalid", "; ".join(told))


def _http(request: Request, error: Any) -> JSONResponse:
    code, message = _CODES.get(error.status_code, "failed"), str(error.detail)
    headers = dict(error.headers or {})
    if error.status_code == 405:  # the framework names those of the first route alone
        met = [r for r in request.app.state.routes if r.matches(request.scope)[0] != Match.NONE]
        own = {name for route in met for name in getattr(route, "methods", None) or ()}
        headers["Allow"] = ", ".join(sorted(own)) or headers.get("Allow", "")
        message = f"this address is for {headers['Allow']} alone"
    elif error.status_code == 400:  # is the framework's alone, of what Python could not read
        message = "the body cannot be read; send JSON in UTF-8, not compressed"
    elif message == HTTPStatus.NOT_FOUND.phrase:
        message = "there is no such address; /openapi.json lists those for programs"
    return problem(error.status_code, code, message, **headers)


def _route(request: Request) -> str:
    return getattr(request.scope.get("route"), "path", "-")


def _plain(part: Any) -> str:
    """Return a key of a body as text that can be sent."""
    return str(part)[:80].encode("ascii", "backslashreplace").decode()
