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
from fewfit.calibration import Calibration, NoCalibration, make_calibration
from fewfit.classifier import DEFAULT_TEMPLATE
from fewfit.compare.answers import Answers
from fewfit.compare.cell import run_cell
from fewfit.compare.diagnosis import diagnose
from fewfit.compare.journal import Journal
from fewfit.compare.methods import DEFAULT_METHODS, Method, make_methods
from fewfit.compare.schema import Asked, Comparison, Setup
from fewfit.compare.splits import Sample, check_classes, draw_samples, overlap
from fewfit.compare.statistics import summarise
from fewfit.decoders import Decoder
from fewfit.errors import CapabilityError, InputError
from fewfit.models import FrozenModel
from fewfit.observations import ScoreSpace
from fewfit.opening import open_model
from fewfit.prompts import InContext, Prompt, Template, Verbalizer, View, read_labels, read_rows
from fewfit.store import StoredModel
from fewfit.task import Task

Bar = Callable[[str, int, str], AbstractContextManager[Callable[[int], object]]]
"""``bar(phase, total, unit)`` shows progress; its value is called with the units newly done."""

CELLS = "cells.jsonl"


class Cost(NamedTuple):
    """What a run will ask of a frozen model.

    ``prompts`` are the distinct prompts that unfinished cells need; ``queries`` are those of them
    that the store lacks, which is what will be paid for. Distributions over the vocabulary are
    asked apart, and have a line of their own.
    """

    model: str
    prompts: int
    queries: int


@dataclass(frozen=True, eq=False)
class _Job:
    source: str | None
    """Who is asked: a key of ``Experiment.tasks``, or nobody."""
    model: str | None
    method: str
    calibration: Calibration
    view: View
    free: tuple[Prompt, ...]
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
        self.tasks = self._open(models, store)
        self._jobs = list(self._plan())

    def cost(self, output: str | Path | None = None) -> list[Cost]:
        """Return what :meth:`run` will ask of each frozen model; nothing is asked."""
        journal = _journal(output)
        costs = []
        for source, task in self.tasks.items():
            pending = self._pending(journal, source)
            prompts = self._prompts(pending)
            stored = 0
            if isinstance(task.model, StoredModel):
                stored = task.model.count(prompts, self.verbalizer.words)
            costs.append(Cost(source, len(prompts), len(prompts) - stored))
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
        for source in [*self.tasks, None]:
            pending = self._pending(journal, source)
            if not pending:
                continue
            answers = self._ask(source, pending, journal, shown)
            shared = None  # where the test set is, for all methods with the comparison's template
            with shown(f"fitting, {source or 'texts'}", len(pending), "cell") as done:
                for job in pending:
                    rows = self._rows(job)
                    seen = [job.view.render(self.train[i]) for i in rows]
                    if shared is None or job.view is not self.template:
                        tested = answers.where([job.view.render(row) for row in self.test])
                    else:
                        tested = shared
                    if job.view is self.template:
                        shared = tested
                    sample, test = answers.cell(
                        job.calibration,
                        answers.where(job.free),
                        (answers.where(seen), self.y_train[rows]),
                        (tested, self.y_test),
                        self.classes,
                        reads_words="word_scores" in self.methods[job.method].requires,
                    )
                    finished = run_cell(
                        job.method,
                        self.methods[job.method],
                        sample,
                        test,
                        self.classes,
                        free=answers.tokens(job.free),
                        model=job.model,
                        frozen=answers.model,
                        shots=job.sample.shots,
                        seed=job.sample.seed,
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

    def _open(self, models: Sequence[str | FrozenModel], store: Any) -> dict[str, Task]:
        """Return who is asked: each model, and each for its distributions over the vocabulary."""
        asking = {name: method for name, method in self.methods.items() if method.asks}
        if isinstance(models, str) or (asking and not models):
            raise InputError("models: give a list with at least one frozen model")
        self.names: dict[str | None, str | None] = {None: None}
        tasks: dict[str, Task] = {}
        for spec in models if asking else ():
            plain = open_model(spec, store)
            name = plain.spec or type(spec).__name__
            if name in self.names.values():
                raise InputError(f"models: {name!r} is given twice")
            for method, item in asking.items():
                source, model, calibration = name, plain, self._calibration(item)
                if _reads_vocabulary(item):
                    source, calibration = f"{name}, vocabulary", NoCalibration()
                    model = open_model(plain, store, requires=item.requires)
                task = Task(model, self.template, self.verbalizer, calibration)
                task.check(item.requires, who=f"{method} on {name}")
                _check_demonstrations(method, item, task)
                tasks.setdefault(source, task)
                self.names[source] = name
        return tasks

    def _calibration(self, method: Method) -> Calibration:
        return self.calibration if method.calibration is None else method.calibration

    def _learns(self, job: _Job) -> bool:
        return self.methods[job.method].learns or job.calibration.learns

    def _plan(self) -> Iterator[_Job]:
        common = {
            "fewfit": __version__,
            "template": self.template.source,
            "labels": self.verbalizer.to_list(),
            "test": _digest([self.test, self.y_test.tolist()]),
        }
        drawn = [
            _digest([[self.train[i], self.y_train[i].item()] for i in sample.rows])
            for sample in self.samples
        ]
        for source in [*self.tasks, None]:
            task = None if source is None else self.tasks[source]
            model = self.names[source]
            for sample, rows in zip(self.samples, drawn, strict=True):
                for name, method in self.methods.items():
                    if method.asks != (task is not None):
                        continue
                    if source != (f"{model}, vocabulary" if _reads_vocabulary(method) else model):
                        continue
                    calibration, view = self._calibration(method), self._view(method, sample)
                    free: list[Prompt] = []
                    if task is not None and task.model.capabilities.scores is not None:
                        examples = [self.train[i] for i in sample.rows]
                        free = calibration.prompts(view, examples)
                    traced = method.in_process and sample.seed == self.seeds[0]
                    decides = {
                        **common,
                        "calibration": [calibration.name, asdict(calibration)],
                        "model": [model, None if task is None else dict(task.model.identity)],
                        "method": [name, method.key()],
                        "sample": [sample.shots, sample.seed, rows],
                        "traced": traced,
                    }
                    yield _Job(
                        source,
                        model,
                        name,
                        calibration,
                        view,
                        tuple(dict.fromkeys(free)),
                        sample,
                        _digest(decides),
                        traced,
                    )

    def _pending(self, journal: Journal, source: str | None) -> list[_Job]:
        return [j for j in self._jobs if j.source == source and j.key not in journal.cells]

    def _view(self, method: Method, sample: Sample) -> View:
        """Return how a method asks about a row: the template, or with examples in front of it."""
        if not method.demonstrations:
            return self.template
        view = InContext(self.template.source, n=method.demonstrations, seed=sample.seed)
        codes = np.searchsorted(self.classes, self.y_train[sample.rows])
        words = [self.verbalizer.first[k] for k in codes]
        return view.learn([self.train[i] for i in sample.rows], words)

    def _rows(self, job: _Job) -> list[int]:
        """Return the rows of the pool that are asked about for this job."""
        return job.sample.rows.tolist() if self._learns(job) else []

    def _prompts(self, jobs: Sequence[_Job]) -> list[Prompt]:
        """Return what these jobs look at, each prompt once: the test set, samples, blanks."""
        plain = [job for job in jobs if job.view is self.template]
        rows = sorted({i for job in plain for i in self._rows(job)})
        prompts = [self.template.render(row) for row in (self.test if plain else [])]
        prompts += [self.template.render(self.train[i]) for i in rows]
        for job in jobs:
            if job.view is not self.template:
                asked = [*self.test, *(self.train[i] for i in self._rows(job))]
                prompts += [job.view.render(row) for row in asked]
            prompts += job.free
        return list(dict.fromkeys(prompts))

    def _ask(self, source: str | None, jobs: Sequence[_Job], journal: Journal, bar: Bar) -> Answers:
        prompts = self._prompts(jobs)
        if source is None:
            return Answers.ask(None, prompts)
        start, task = time.perf_counter(), self.tasks[source]
        with bar(f"asking {source}", len(prompts), "prompt") as done:
            answers = Answers.ask(task, prompts, progress=done)
        queries = 0 if answers.observations is None else answers.observations.queries
        if queries:
            seconds = time.perf_counter() - start
            name = str(self.names[source])
            journal.add_asked(Asked(model=name, queries=queries, seconds=seconds))
        return answers

    def _setup(self, price: float | None) -> Setup:
        return Setup(
            fewfit_version=__version__,
            template=self.template.source,
            labels=self.verbalizer.to_list(),
            calibration=self.calibration.name,
            identities={source: dict(task.model.identity) for source, task in self.tasks.items()},
            shots=self.shots,
            seeds=self.seeds,
            train_rows=len(self.train),
            test_rows=len(self.test),
            dropped_train_rows=self.n_dropped,
            price_per_token=price,
        )


def _check_demonstrations(name: str, method: Method, task: Task) -> None:
    if method.demonstrations and task.model.capabilities.scores is ScoreSpace.SIMILARITY:
        raise CapabilityError(
            f"{name} puts examples in front of the text, which a sentence encoder does not read as "
            "examples; use a language model (hf:, a server), or leave this method out"
        )


def _reads_vocabulary(method: Method) -> bool:
    return "full_vocabulary" in method.requires


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
