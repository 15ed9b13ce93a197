"""The routes for programs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool

from fewfit.errors import InputError
from fewfit.estimators import FewShotClassifier
from fewfit.models import FrozenModel
from fewfit.serve import schemas as s
from fewfit.serve.answers import answered, asked_for, described, labelled, public
from fewfit.serve.batching import BusyError, LateError, Queue
from fewfit.serve.guard import Bounds
from fewfit.serve.metrics import Metrics
from fewfit.serve.tasks import Report, Served, TakenError, Tasks
from fewfit.store import StoredModel

T = TypeVar("T")
_SELDOM = 5.0  # seconds between two tries of a frozen model that gave no answer

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": s.ErrorResponse, "description": text}
    for status, text in (
        (400, "The body cannot be read."),
        (401, "The key is missing or wrong."),
        (404, "There is no such task."),
        (408, "The request did not arrive in time."),
        (413, "The request is too large."),
        (415, "The body is no JSON."),
        (421, "The server is not addressed by its name."),
        (422, "Something in the request is wrong; the message says what."),
        (429, "Too many texts are waiting; Retry-After says when to come again."),
        (503, "The frozen model gave no answer."),
        (504, "The deadline passed."),
    )
}


def api_router(
    tasks: Tasks,
    queue: Queue,
    metrics: Metrics,
    *,
    bounds: Bounds,
    allow_fit: bool,
    models: Sequence[str],
    fit_store: str | Path | None,
    held: Callable[[], Sequence[str]],
) -> APIRouter:
    """Return the routes; :func:`fewfit.serve.app.create_app` says what the parameters are.

    `held` says which names are those of the page's tasks.
    """
    router = APIRouter()
    busy = asyncio.Lock()

    def named(name: str) -> Served:
        try:
            return tasks.get(name)
        except KeyError:
            raise HTTPException(404, f"there is no task {name!r:.80}") from None

    def place(name: str) -> Path:
        """Return where a new task goes (InputError, TakenError)."""
        folder = tasks.place(name)
        if name.casefold() in map(str.casefold, held()):  # one folder, on some disks
            raise TakenError(f"the page has a task {name!r}; take another name, or delete it there")
        return folder

    def broken(report: Report) -> dict[str, str]:
        return {tasks.shown(folder): tasks.told(why) for folder, why in report.broken.items()}

    async def alone(work: Any) -> Any:
        """Run what takes a thread for seconds; one at a time."""
        if busy.locked():
            raise BusyError(5)
        async with busy:
            return await run_in_threadpool(work)

    @router.post("/v1/predict", responses=_ERRORS, response_model_exclude_none=True)
    async def predict(request: Request, body: s.PredictRequest) -> s.PredictResponse:
        """Label texts, for one task or several."""
        own = tasks.names()
        names = [body.tasks] if isinstance(body.tasks, str) else body.tasks
        if names is None:
            if len(own) != 1:
                raise InputError(f"tasks: name one; there are {len(own)}")
            names = own
        asked = [named(name) for name in dict.fromkeys(names)]
        texts = body.texts if isinstance(body.texts, list) else [body.texts]
        bounds.check(texts, len(asked))
        found = await while_there(request, queue.answer(asked, texts, deadline=body.deadline))
        results = {task.name: labelled(task, found[task.name]) for task in asked}
        for name, answers in found.items():
            metrics.labelled(name, answers.reasons)
        return s.PredictResponse(
            results=results, queries=sum(found[task.name].queries for task in asked)
        )

    @router.get("/v1/tasks", responses=_ERRORS)
    def list_tasks() -> s.TaskList:
        """Say which tasks are served, and what of the folders is not."""
        return s.TaskList(
            tasks=[described(task) for task in tasks.all()], broken=broken(tasks.report)
        )

    @router.get("/v1/tasks/{name}", responses=_ERRORS)
    def show_task(name: str) -> s.TaskInfo:
        """Say what a task is."""
        return described(named(name))

    @router.post("/v1/tasks", status_code=201, responses=_ERRORS | _FIT)
    async def fit(body: s.FitRequest) -> s.FitResponse:
        """Fit a new task on labelled texts; it is served, and kept, from then on."""
        if not allow_fit:
            raise HTTPException(403, "fitting is off; start the server with --allow-fit")
        folder = place(body.name)
        texts = [example.text for example in body.examples]
        bounds.check([*texts, *(body.unlabelled or [])])
        bounds.check([body.template or ""], name="template")
        given = (body.labels or {}).values()
        bounds.check(
            [word for own in given for word in ([own] if isinstance(own, str) else own)],
            name="labels",
        )
        spec = body.model or models[0]
        if spec not in models:
            raise InputError(f"model: a new task is fitted on one of {list(models)}")
        if (body.name in tasks.names() or folder.exists()) and not body.replace:
            # What lies there and is not served, as a broken artifact, is not lost unasked either.
            raise HTTPException(409, f"there is a {body.name!r} already; replace it?")

        def work() -> s.FitResponse:
            begun = time.perf_counter()
            options: dict[str, Any] = {"model": bare(tasks.open_model(spec)), "store": fit_store}
            if body.template is not None:
                options["template"] = body.template
            if body.labels is not None:
                options["labels"] = body.labels
            classifier = FewShotClassifier(**options).fit(
                texts, [example.label for example in body.examples], unlabelled=body.unlabelled
            )
            if len(classifier.classes_) > 1:
                expect(classifier)
            place(body.name)  # it may have been taken while the model was asked
            classifier.save(folder)
            task = tasks.add(body.name, folder)
            return s.FitResponse(
                task=described(task),
                queries=classifier.n_queries_,
                seconds=round(time.perf_counter() - begun, 3),
            )

        return await alone(work)

    @router.post("/v1/suggest", responses=_ERRORS)
    async def suggest(body: s.SuggestRequest) -> s.SuggestResponse:
        """Say which texts of a pool are worth labelling next."""
        task = named(body.task)
        if not isinstance(task.estimator, FewShotClassifier):
            raise InputError(f"task: {body.task} gives several labels per text")
        bounds.check([*body.texts, *(example.text for example in body.labelled)])
        known = None
        if body.labelled:
            known = ([e.text for e in body.labelled], [e.label for e in body.labelled])
        classifier = task.estimator
        found = await alone(lambda: classifier.suggest(body.texts, body.n, labelled=known))
        return s.SuggestResponse(
            suggestions=[
                s.Suggested(row=one.index, text=body.texts[one.index], reason=one.reason)
                for one in found
            ],
            queries=found.queries,
        )

    @router.post("/v1/reload", responses=_ERRORS)
    async def reload() -> s.ReloadResponse:
        """Look at the folders again."""
        report = await run_in_threadpool(tasks.reload)
        queue.forget()
        return s.ReloadResponse(
            loaded=report.loaded, kept=report.kept, gone=report.gone, broken=broken(report)
        )

    @router.post("/v1/systemone", responses=_ERRORS)
    async def systemone(request: Request, body: s.SystemOneRequest) -> s.SystemOneResponse:
        """Answer as servers of language models do: a probability for each allowed answer."""
        task = named(body.model)
        bounds.check([body.state])
        for name, question in body.questions.items():
            asked_for(task, question, name)
        found = await while_there(request, queue.answer([task], [body.state]))
        metrics.labelled(task.name, found[task.name].reasons)
        return answered(task, body.questions, found[task.name])

    @router.get("/health/live")
    def live() -> s.Health:
        """Say that the process answers."""
        return s.Health(status="ok", tasks=len(tasks.names()))

    tried: dict[str, float] = {}

    @router.get("/health/ready", responses={503: {"model": s.Health}})
    async def ready(response: Response) -> s.Health:
        """Say whether every frozen model answers: the last text, or else one that is no one's."""
        first = {task.network: task for task in reversed(tasks.all())}
        for key, task in first.items():
            engine = queue.engine(task)
            again = not engine.waiting and (not engine.asked or engine.failing)
            # Where nothing was answered, it may be the model, or texts that it refuses: so what
            # waits does not tell either.
            due = time.monotonic() - tried.get(key, -_SELDOM) >= _SELDOM
            if due and (again or engine.is_silent):
                tried[key] = time.monotonic()
                try:
                    await queue.answer([task], [dict(task.estimator.task_.probe)])
                    # A batch that answered others says that it is not the model.
                    engine.failing = "no usable answer" if engine.is_silent else None
                except BusyError:
                    continue
                except LateError:
                    if not engine.waiting:
                        engine.failing = LateError.__name__
                except Exception as error:
                    engine.failing = type(error).__name__
        waiting = {
            str(task.model.spec): "has not answered yet"
            for key, task in first.items()
            if not queue.engine(task).asked
        }
        # Nobody needs the key to ask this, and what an error says may hold an address or a text.
        failing = {public(spec): why for spec, why in {**waiting, **queue.failing()}.items()}
        response.status_code = 503 if failing else 200
        return s.Health(
            status="failing" if failing else "ok", tasks=len(tasks.names()), failing=failing
        )

    @router.get("/metrics", response_class=Response, responses={401: _ERRORS[401]})
    def scraped() -> Response:
        """Give what is counted, to Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


_FIT: dict[int | str, dict[str, Any]] = {
    403: {"model": s.ErrorResponse, "description": "Fitting is off."},
    409: {"model": s.ErrorResponse, "description": "There is a task of this name."},
}


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for some work as long as the client does; what it left is given up."""
    task = asyncio.ensure_future(work)
    try:
        while True:
            done, _ = await asyncio.wait([task], timeout=0.25)
            if done:
                return task.result()
            if await request.is_disconnected():
                raise HTTPException(499, "the client has gone")
    finally:
        task.cancel()


def expect(classifier: FewShotClassifier) -> None:
    """Estimate the accuracy to expect, if there are enough examples; the card says it."""
    try:
        classifier.expected_accuracy()
    except InputError:
        return  # of a single example a class nothing can be held out


def bare(model: FrozenModel) -> FrozenModel:
    """Return a frozen model without the store in front of it."""
    return model.model if isinstance(model, StoredModel) else model
