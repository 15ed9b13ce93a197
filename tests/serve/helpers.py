"""What the tests of the server share: tasks in folders, and a server that runs."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from fewfit import FewShotClassifier
from fewfit.models import FakeModel
from fewfit.serve.app import create_app
from fewfit.serve.tasks import Tasks

WORDS = {"no": "bad", "yes": "good"}
EXAMPLES = (["so good", "quite bad", "good fun", "bad taste"], ["yes", "no", "yes", "no"])
KEY = "a key of many letters"


def fitted(folder: Path, name: str, *, shift: int = 0, model: Any = "fake", **options: Any) -> Any:
    """Fit a task, another one for each `shift`, and save it in a folder; return the classifier."""
    texts, labels = EXAMPLES
    own = [f"{text} {shift + i}" for i, text in enumerate(texts)]
    options = {"labels": WORDS, "store": None, **options}
    classifier = FewShotClassifier(model, **options).fit(own, labels)
    classifier.save(folder / name)
    return classifier


def slow(tasks: Tasks, seconds: float) -> FakeModel:
    """Let the one frozen model of all tasks take its time, and return it."""
    [model] = {id(task.model): task.model for task in tasks.all()}.values()
    assert isinstance(model, FakeModel)
    model.seconds, model.queries = seconds, 0
    return model


class Reply(NamedTuple):
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: Any


class Site:
    """A server that runs, and how it is asked."""

    def __init__(self, port: int, app: Any = None) -> None:
        self.port, self.app = port, app

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Send one request; a body that is no bytes goes as JSON."""
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            given.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, given)
            reply = connection.getresponse()
            raw = reply.read()
        finally:
            connection.close()
        kind = reply.headers.get("content-type", "")
        told = json.loads(raw) if kind.startswith("application/json") else raw.decode()
        return Reply(reply.status, {k.lower(): v for k, v in reply.headers.items()}, told)

    def predict(self, texts: Any, tasks: Any = None, **more: Any) -> Reply:
        return self.ask("POST", "/v1/predict", {"texts": texts, "tasks": tasks, **more})


@contextmanager
def serving(tasks: Tasks, **options: Any) -> Iterator[Site]:
    """Run a server of tasks in a thread."""
    with running(create_app(tasks, **{"fit_store": None, "models": ("fake",), **options})) as site:
        yield site


@contextmanager
def running(app: Any) -> Iterator[Site]:
    """Run an application in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.005)
        yield Site(server.servers[0].sockets[0].getsockname()[1], app)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


if __name__ == "__main__":
    for i, one in enumerate(("mood", "topics")):
        fitted(Path(sys.argv[1]), one, shift=i)
