"""The addresses of the page: its files, and what it asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from fewfit.serve.batching import Queue
from fewfit.serve.guard import Bounds
from fewfit.serve.page import uploads
from fewfit.serve.page.desk import LISTED, Desk
from fewfit.serve.page.guard import PageRoute, read_body
from fewfit.serve.tasks import Tasks

_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
_OFF = "Fitting is off. Whoever runs the server can allow it: fewfit serve FOLDER --allow-fit"


class Label(BaseModel):
    """The label of a row; null takes it away."""

    label: str | None


class Words(BaseModel):
    """The classes of a task, and the label words of each."""

    words: Annotated[dict[str, list[str]], Field(max_length=uploads.MAX_CLASSES)]


class Name(BaseModel):
    """The name of a task, once more."""

    name: str


Place = Annotated[int, Field(ge=0, le=2**62)]
"""Of a row; no larger one is a number to SQLite."""


class Text(BaseModel):
    """A text to try: each field of the template."""

    text: Annotated[dict[str, str], Field(max_length=20)]


def page_router(
    tasks: Tasks,
    queue: Queue,
    desk: Desk | None,
    *,
    bounds: Bounds,
    models: Sequence[str],
) -> APIRouter:
    """Return the routes of the page.

    Parameters
    ----------
    tasks : Tasks
        What is served. What is fitted here is added to it.
    queue : Queue
        What a text that is tried is asked through.
    desk : Desk or None
        Without it the page lists the tasks and lets one try texts, and nothing is written.
    bounds : Bounds
        Of a text that is tried, and of label words.
    models : sequence of str
        The frozen models that a new task may have.
    """
    off = _OFF if desk is None else ""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        if desk is not None:
            await run_in_threadpool(desk.jobs.close)

    router = APIRouter(route_class=PageRoute, include_in_schema=False, lifespan=lifespan)
    _add_files(router)

    def mine() -> Desk:
        if desk is None:
            raise HTTPException(403, _OFF)
        return desk

    @router.get("/page/tasks")
    def listed() -> dict[str, Any]:
        kept = [] if desk is None else [desk.summary(name) for name in desk.records.names()]
        own = {item["name"] for item in kept}
        served = [{"name": name, "mine": False} for name in tasks.names() if name not in own]
        return {
            "tasks": sorted([*kept, *served], key=lambda item: item["name"]),
            "allow_fit": desk is not None,
            "off": off,
            "models": list(models),
        }

    @router.post("/page/read")
    async def read(request: Request, file: str) -> dict[str, Any]:
        mine()
        data = await read_body(request, uploads.MAX_BYTES, uploads.MAX_SECONDS)
        return await run_in_threadpool(uploads.preview, data, file)

    @router.post("/page/tasks", status_code=201)
    async def create(
        request: Request,
        name: str,
        file: str,
        text: Annotated[list[str], Query()],
        label: str | None = None,
        model: str = models[0],
    ) -> dict[str, Any]:
        create = mine().create
        data = await read_body(request, uploads.MAX_BYTES, uploads.MAX_SECONDS)
        return await run_in_threadpool(create, name, data, file, text, label, model)

    @router.get("/page/tasks/{name}")
    def state(name: str) -> dict[str, Any]:
        if desk is not None and name in desk.records.names():
            return desk.state(name)
        if name not in tasks.names():
            raise HTTPException(404, f"There is no task {name!r:.80}")
        fields = tasks.get(name).fields
        return {"name": name, "mine": False, "fields": fields, "off": off}

    @router.delete("/page/tasks/{name}")
    def delete(name: str, given: Name) -> dict[str, Any]:
        mine().get(name)
        if given.name != name:
            raise HTTPException(422, f"name: {given.name!r:.80} is not the name of this task")
        mine().delete(name)
        return {"deleted": name}

    @router.get("/page/tasks/{name}/rows")
    def rows(
        name: str,
        label: str | None = None,
        blank: bool = False,
        search: Annotated[str, Query(max_length=1000)] = "",
        offset: Place = 0,
    ) -> dict[str, Any]:
        task = mine().get(name)
        n, found = mine().records.rows(
            task, label=label, blank=blank, search=search, offset=offset, limit=LISTED
        )
        return {"n": n, "offset": offset, "rows": found}

    @router.put("/page/tasks/{name}/rows/{place}")
    def relabel(name: str, place: Place, given: Label) -> dict[str, Any]:
        mine().get(name)
        try:
            return mine().changed(mine().records.set_label(name, place, given.label))
        except KeyError:
            raise HTTPException(404, f"Task {name!r:.80} has no row {place}") from None

    @router.post("/page/tasks/{name}/undo")
    def undo(name: str) -> dict[str, Any]:
        mine().get(name)
        task, place = mine().records.undo(name)
        _, found = mine().records.rows(task, places=[place])
        return {**mine().changed(task), "row": found[0]}

    @router.put("/page/tasks/{name}/words")
    def words(name: str, given: Words) -> dict[str, Any]:
        mine().get(name)
        bounds.check([word for own in given.words.values() for word in own], name="words")
        return mine().changed(mine().records.set_words(name, given.words))

    @router.post("/page/tasks/{name}/fit", status_code=202)
    def fit(name: str) -> dict[str, Any]:
        mine().jobs.start(mine().get(name).name)
        return mine().state(name)

    @router.delete("/page/tasks/{name}/fit")
    def cancel(name: str) -> dict[str, Any]:
        mine().jobs.cancel(mine().get(name).name)
        return mine().state(name)

    @router.post("/page/tasks/{name}/try")
    async def attempt(name: str, given: Text) -> dict[str, Any]:
        if name not in tasks.names():
            raise HTTPException(409, f"{name!r:.80} is not fitted yet")
        bounds.check([given.text])
        if not any(part.strip() for part in given.text.values()):
            raise HTTPException(422, "There is no text to try")
        classes, proba = await queue.predict(name, [given.text])
        if not np.isfinite(proba[0]).all():
            raise HTTPException(503, "The frozen model gave no usable answer to this text")
        ranked = sorted(zip(classes, proba[0], strict=True), key=lambda item: -item[1])
        return {"classes": [{"label": str(c), "probability": float(p)} for c, p in ranked]}

    @router.get("/page/tasks/{name}/labels.csv")
    def labels(name: str) -> Response:
        text = mine().csv(mine().get(name))
        return Response(text, media_type="text/csv; charset=utf-8", headers=_saved(f"{name}.csv"))

    @router.get("/page/tasks/{name}/artifact.zip")
    def artifact(name: str) -> Response:
        data = mine().zip(mine().get(name))
        return Response(data, media_type="application/zip", headers=_saved(f"{name}.zip"))

    return router


def _add_files(router: APIRouter) -> None:
    """Serve the files of the page; no others can be named."""
    known = {file.name: file for file in files("fewfit.serve.page").joinpath("static").iterdir()}

    def answer(name: str) -> Response:
        kind = _TYPES[Path(name).suffix]
        return Response(known[name].read_bytes(), media_type=kind, headers=_FRESH)

    @router.get("/")
    def index() -> Response:
        return answer("index.html")

    @router.get("/page/static/{name}")
    def static(name: str) -> Response:
        if name not in known or name == "index.html":
            raise HTTPException(404, f"There is no file {name!r:.80}")
        return answer(name)


_FRESH = {"Cache-Control": "no-cache"}


def _saved(file: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{file}"'}
