"""Users of the server, as locust runs them: in an environment of its own, without fewfit."""

from __future__ import annotations

import itertools

import gevent
from locust import FastHttpUser, task

TEXT = "my order has not come and the app says it was sent last week please help"
WORDS = list(TEXT.split())
NUMBERS = itertools.count()


class Labelling(FastHttpUser):
    """Asks for the label of one text after the other; told to come again later, it does."""

    @task
    def predict(self) -> None:
        i = next(NUMBERS)
        text = f"{i} " + " ".join(WORDS[(7 * i + j) % len(WORDS)] for j in range(12))
        body = {"texts": [text], "tasks": [f"task-{i % 20:04d}"]}
        with self.client.post(
            "/v1/predict", json=body, name="answered", catch_response=True
        ) as reply:
            if reply.status_code != 429:
                return
            reply.request_meta["name"] = "busy"
            reply.success()
            seconds = float(reply.headers["Retry-After"])
        gevent.sleep(seconds)
