"""What a server counts, in Prometheus' format. No text, and no name of a caller, is in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one server.

    Parameters
    ----------
    tasks, waiting : callable
        How many tasks there are, and how many prompts wait, now.
    """

    def __init__(self, tasks: Callable[[], float], waiting: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()

        def made(kind: Any, name: str, text: str, *labels: str, **options: Any) -> Any:
            return kind(f"fewfit_{name}", text, labels, registry=self.registry, **options)

        self.requests: Counter = made(Counter, "requests", "Requests.", "route", "status")
        self.seconds: Histogram = made(
            Histogram, "request_seconds", "Until the answer began.", "route", buckets=_SECONDS
        )
        self.texts: Counter = made(Counter, "texts", "Texts labelled.", "task")
        self.failed: Counter = made(Counter, "texts_failed", "Texts without an answer.", "task")
        self.prompts: Counter = made(Counter, "prompts", "Prompts asked of frozen models.")
        self.queries: Counter = made(Counter, "queries", "Queries paid for.")
        self.busy: Counter = made(Counter, "model_seconds", "In which frozen models were asked.")
        for name, text, value in (
            ("tasks", "Tasks served.", tasks),
            ("prompts_waiting", "Prompts that wait or are being asked.", waiting),
        ):
            gauge = Gauge(f"fewfit_{name}", text, registry=self.registry)
            gauge.set_function(value)

    def labelled(self, task: str, reasons: Sequence[str]) -> None:
        """Count the texts of a request; the reason of one that was answered is empty."""
        self.texts.labels(task).inc(len(reasons))
        if failed := sum(map(bool, reasons)):
            self.failed.labels(task).inc(failed)

    def batch(self, prompts: int, seconds: float, queries: int) -> None:
        """Count a batch that a frozen model was asked."""
        self.prompts.inc(prompts)
        self.busy.inc(seconds)
        self.queries.inc(queries)

    def text(self) -> bytes:
        """Return all of it as it is scraped."""
        return generate_latest(self.registry)
