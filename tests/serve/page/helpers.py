"""A server with the page on it, and a file to begin with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI
from fastapi.testclient import TestClient

from fewfit.serve.app import create_app
from fewfit.serve.guard import Bounds
from fewfit.serve.tasks import Tasks

FILE = (
    b"id;text;label\n1;good fun;pos\n2;bad taste;neg\n3;quite good;pos\n4;so bad;neg\n"
    b"5;fine good;pos\n6;bad bad;neg\n7;a good day;\n8;a bad day;\n9;so so;\n10;;pos\n"
)


def app(
    workspace: Path,
    *,
    allow_fit: bool = True,
    model: str = "fake",
    key: str | None = None,
    bounds: Bounds | None = None,
) -> FastAPI:
    return create_app(
        Tasks([workspace]),
        allow_fit=allow_fit,
        api_key=key,
        bounds=bounds,
        models=(model,),
        fit_store=workspace / "answers.sqlite3",
    )


class Page:
    """What the page's own script asks."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def get(self, path: str, code: int = 200) -> Any:
        return self._checked(self.client.get(f"/page{path}"), code)

    def send(self, method: str, path: str, body: Any = None, code: int = 200) -> Any:
        return self._checked(self.client.request(method, f"/page{path}", json=body or {}), code)

    def upload(self, path: str, data: bytes, code: int = 200, **query: Any) -> Any:
        return self._checked(
            self.client.post(
                f"/page{path}?{urlencode(query, doseq=True)}",
                content=data,
                headers={"content-type": "application/octet-stream"},
            ),
            code,
        )

    def create(self, name: str = "mood", data: bytes = FILE, **query: Any) -> Any:
        given = {"file": "mood.csv", "text": "text", "label": "label", "name": name, **query}
        given = {key: value for key, value in given.items() if value is not None}
        return self.upload("/tasks", data, 201, **given)

    def attempt(self, name: str, row: dict[str, str], code: int = 200) -> Any:
        return self.send("POST", f"/tasks/{name}/try", {"text": row}, code)

    def fitted(self, name: str = "mood") -> Any:
        self.send("POST", f"/tasks/{name}/fit", code=202)
        return self.settled(name)

    def settled(self, name: str = "mood") -> Any:
        """Wait until no fit runs."""
        for _ in range(2000):
            state = self.get(f"/tasks/{name}")
            if state["job"]["state"] in ("done", "failed", "cancelled"):
                return state
            time.sleep(0.005)
        raise AssertionError(f"still at work: {state['job']}")

    @staticmethod
    def _checked(response: Any, code: int) -> Any:
        assert response.status_code == code, response.text
        return response.json()
