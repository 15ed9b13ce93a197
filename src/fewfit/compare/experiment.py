"""One comparison: the same samples, prompts and answers for every method, every cost on paper."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewfit._version import __version__
from fewfit.calibration import Calibration, make_calibration
from fewfit.classifier import DEFAULT_TEMPLATE
from fewfit.compare.cell import Answers, run_cell
from fewfit.compare.diagnosis import diagnose
from fewfit.compare.journal import Journal
from fewfit.compare.methods import DEFAULT_METHODS, Features, Method, make_methods
from fewfit.compare.schema import Asked, Comparison, Setup
from fewfit.compare.splits import Sample, check_classes, draw_samples, overlap
from fewfit.compare.statistics import summarise
from fewfit.decoders import Decoder
from fewfit.errors import InputError
from fewfit.models import FrozenModel
from fewfit.opening import open_model
from fewfit.prompts import Template, Verbalizer, read_labels, read_rows
from fewfit.store import StoredModel
from fewfit.task import Task

Bar = Callable[[str, int, str], AbstractContextManager[Callable[[int], object]]]
"""``bar(phase, total, unit)`` shows progress; its value is called with the units newly done."""

CELLS = "cells.jsonl"


class Cost(NamedTuple):
    """What a run will ask of a frozen model.

    ``prompts`` are the distinct prompts that unfinished cells need; ``queries`` are those of them
    that the store lacks, which is what will be paid for.
    """

    model: str
    prompts: int
    queries: int


@dataclass(frozen=True, eq=False)
class _Job:
    model: str | None
    method: str
    sample: Sample
    key: str
    traced: bool


class Experiment:
    """A comparison that is checked and drawn, and has asked nothing yet.

    The parameters are those of :func:`compare`. :meth:`cost` says what a run will ask.
    """

    def __init__(
        self,
        X_train: Any,
        y_train: Any,
        X_test: Any,
        y_test: Any,
        *,
        template: str = DEFAULT_TEMPLATE,
        labels: Mapping[Any, str | Sequence[str] | Mapping[str, float]] | None = None,
        methods: Sequence[str] | Mapping[str, Method | Decoder] = DEFAULT_METHODS,
        models: Sequence[str | FrozenModel] = ("embedded",),
        shots: Sequence[int] = (1, 4, 16),
        seeds: int | Sequence[int] = 5,
        calibration: str | Calibration = "contextual",
        store: str | Path | None = "default",
        drop_overlap: bool = False,
    ) -> None:
        self.template = Template(template)
        self.train = read_rows(X_train, self.template.fields)
        self.test = read_rows(X_test, self.template.fields)
        if not self.train or not self.test:
            raise InputError("the training pool and the test set need at least one row each")
        y = np.array(read_labels(y_train, len(self.train)))
        self.y_test = np.array(read_labels(y_test, len(self.test)))
        self.verbalizer = Verbalizer.from_classes(y) if labels is None else Verbalizer(labels)
        self.classes = np.array(self.verbalizer.classes)
        check_classes(self.verbalizer.classes, y, self.y_test)
        kept = overlap(self.train, self.test, drop=drop_overlap)
        self.n_dropped = len(y) - len(kept)
        self.train, self.y_train = [self.train[i] for i in kept], y[kept]
        self.shots = _whole("shots", shots)
        self.seeds = _whole("seeds", range(seeds) if isinstance(seeds, int) else seeds)
        self.samples = draw_samples(self.y_train, shots=self.shots, seeds=self.seeds)
        self.methods = make_methods(methods)
        self.calibration = make_calibration(calibration)
        self._check_calibration()
        self.tasks = self._open(models, store)
        self._jobs = list(self._plan())

    def cost(self, output: str | Path | None = None) -> list[Cost]:
        """Return what :meth:`run` will ask of each frozen model; nothing is asked."""
        journal = _journal(output)
        costs = []
        for name, task in self.tasks.items():
            pending = self._pending(journal, name)
            if not pending:
                costs.append(Cost(name, 0, 0))
                continue
            rows = [*_blanks(task), *(self.train[i] for i in self._drawn(pending)), *self.test]
            prompts = list({self.template.render(row) for row in rows})
            stored = 0
            if isinstance(task.model, StoredModel):
                stored = task.model.count(prompts, self.verbalizer.words)
            costs.append(Cost(name, len(prompts), len(prompts) - stored))
        return costs

    def run(
        self,
        output: str | Path | None = None,
        *,
        price_per_token: float | None = None,
        bar: Bar | None = None,
    ) -> Comparison:
        """Ask what is missing, fit what is not finished, and summarise.

        Parameters
        ----------
        output : path, optional
            Folder of ``cells.jsonl``: each finished cell is appended to it, and cells that it
            already holds are not computed again.
        price_per_token : float, optional
            Of the frozen models' tokens, in any currency.
        bar : callable, optional
            ``bar(phase, total, unit)`` shows progress; its value is called with the units done.
        """
        journal, shown = _journal(output), bar or _silent
        for name in [*self.tasks, None]:
            pending = self._pending(journal, name)
            if not pending:
                continue
            answers = self._answers(name, pending, journal, shown)
            with shown(f"fitting, {name or 'texts'}", len(pending), "cell") as done:
                for job in pending:
                    finished = run_cell(
                        job.method,
                        self.methods[job.method],
                        answers,
                        self.classes,
                        model=name,
                        shots=job.sample.shots,
                        seed=job.sample.seed,
                        rows=job.sample.rows,
                        traced=job.traced,
                    )
                    journal.add(job.key, finished)
                    done(1)
        finished = [journal.cells[job.key] for job in self._jobs]
        y = np.searchsorted(self.classes, self.y_test)
        texts = [self.template.render(row).user_text for row in self.test]
        return Comparison(
            setup=self._setup(price_per_token),
            asked=journal.asked,
            summaries=summarise(finished, y, asked=journal.asked, price=price_per_token),
            cells=[item.cell for item in finished],
            diagnoses=diagnose(finished, y, [str(name) for name in self.classes], texts),
        )

    def _check_calibration(self) -> None:
        """Refuse a prior that depends on the rows: all samples share what was asked once."""
        calibration, template = self.calibration, self.template
        blanks = [dict.fromkeys(template.fields, text) for text in calibration.content_free]
        asked = calibration.prompts(template, self.train)
        if not calibration.row_independent or asked != [template.render(row) for row in blanks]:
            raise InputError(
                f"calibration: {calibration.name!r} as given here takes its prior from the rows or "
                "from another prompt than the template, which samples cannot share; take "
                "'contextual', 'none', 'pmi' or 'ratio'"
            )

    def _open(self, models: Sequence[str | FrozenModel], store: Any) -> dict[str, Task]:
        asking = {name: method for name, method in self.methods.items() if method.asks}
        if isinstance(models, str) or (asking and not models):
            raise InputError("models: give a list with at least one frozen model")
        tasks: dict[str, Task] = {}
        for spec in models if asking else ():
            model = open_model(spec, store)
            name = model.spec or type(spec).__name__
            if name in tasks:
                raise InputError(f"models: {name!r} is given twice")
            tasks[name] = Task(model, self.template, self.verbalizer, self.calibration)
            for method, item in asking.items():
                tasks[name].check(item.requires, who=f"{method} on {name}")
        return tasks

    def _plan(self) -> Iterator[_Job]:
        common = {
            "fewfit": __version__,
            "template": self.template.source,
            "labels": self.verbalizer.to_list(),
            "calibration": [self.calibration.name, asdict(self.calibration)],
            "test": _digest([self.test, self.y_test.tolist()]),
        }
        drawn = [
            _digest([[self.train[i], self.y_train[i].item()] for i in sample.rows])
            for sample in self.samples
        ]
        for model in [*self.tasks, None]:
            identity = None if model is None else dict(self.tasks[model].model.identity)
            for sample, rows in zip(self.samples, drawn, strict=True):
                for name, method in self.methods.items():
                    if method.asks != (model is not None):
                        continue
                    traced = method.in_process and sample.seed == self.seeds[0]
                    decides = {
                        **common,
                        "model": [model, identity],
                        "method": [name, method.key()],
                        "sample": [sample.shots, sample.seed, rows],
                        "traced": traced,
                    }
                    yield _Job(model, name, sample, _digest(decides), traced)

    def _pending(self, journal: Journal, model: str | None) -> list[_Job]:
        return [job for job in self._jobs if job.model == model and job.key not in journal.cells]

    def _drawn(self, jobs: Sequence[_Job]) -> list[int]:
        """Rows of the training pool that these jobs look at; no other row is asked about."""
        rows = [job.sample.rows for job in jobs if self.methods[job.method].learns]
        return np.unique(np.concatenate(rows)).tolist() if rows else []

    def _answers(
        self, name: str | None, jobs: Sequence[_Job], journal: Journal, bar: Bar
    ) -> Answers:
        drawn = self._drawn(jobs)
        blanks = [] if name is None else _blanks(self.tasks[name])
        rows = [*blanks, *(self.train[i] for i in drawn), *self.test]
        prompts = [self.template.render(row) for row in rows]
        hidden, scores = np.empty((len(rows), 0), np.float32), None
        tokens = np.zeros(len(rows), np.int32)
        if name is not None:
            start = time.perf_counter()
            with bar(f"asking {name}", len(set(prompts)), "prompt") as done:
                # The blanks are among the rows to have their tokens; they are asked once.
                task, answers, queries = self.tasks[name].begin(rows, progress=done)
            if queries:
                seconds = time.perf_counter() - start
                journal.add_asked(Asked(model=name, queries=queries, seconds=seconds))
            (hidden, scores), tokens = task.features(answers), answers.n_tokens
        free = slice(0, len(blanks))
        pool = slice(len(blanks), len(blanks) + len(drawn))
        test = slice(pool.stop, None)
        unlabelled = np.repeat(self.y_test[:1], len(blanks))  # cut off again below
        y = np.concatenate([unlabelled, self.y_train[drawn], self.y_test])
        asked = np.empty(len(prompts), dtype=object)
        asked[:] = prompts
        everything = Features(hidden, scores, y, asked, tokens)
        place = np.full(len(self.train), -1)
        place[drawn] = np.arange(len(drawn))
        model = None if name is None else self.tasks[name].model
        free_tokens = tuple(tokens[free].tolist())
        return Answers(everything[pool], place, everything[test], free_tokens, model)

    def _setup(self, price: float | None) -> Setup:
        return Setup(
            fewfit_version=__version__,
            template=self.template.source,
            labels=self.verbalizer.to_list(),
            calibration=self.calibration.name,
            identities={name: dict(task.model.identity) for name, task in self.tasks.items()},
            shots=self.shots,
            seeds=self.seeds,
            train_rows=len(self.train),
            test_rows=len(self.test),
            dropped_train_rows=self.n_dropped,
            price_per_token=price,
        )


def _blanks(task: Task) -> list[dict[str, str]]:
    """The content-free rows that :meth:`Task.begin` asks about, each once."""
    scored = task.model.capabilities.scores is not None
    free = dict.fromkeys(task.calibration.content_free) if scored else ()
    return [dict.fromkeys(task.template.fields, text) for text in free]


def _journal(output: str | Path | None) -> Journal:
    return Journal(None if output is None else Path(output) / CELLS)


def _whole(name: str, values: Sequence[int]) -> list[int]:
    numbers = list(values)
    if not numbers or len(set(numbers)) != len(numbers):
        raise InputError(f"{name}: give at least one number, each once, got {numbers}")
    return numbers


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("ascii")).hexdigest()


def _silent(phase: str, total: int, unit: str) -> AbstractContextManager[Callable[[int], object]]:
    return nullcontext(lambda done: None)
