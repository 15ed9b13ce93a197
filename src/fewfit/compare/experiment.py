"""One comparison: the same samples, prompts and answers for every method, every cost on paper."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewfit._version import __version__
from fewfit.calibration import (
    Calibration,
    NoCalibration,
    default_calibration,
    make_calibration,
)
from fewfit.compare.answers import Answers, Places
from fewfit.compare.cell import run_cell
from fewfit.compare.data import Data, digest, text_of
from fewfit.compare.diagnosis import diagnose
from fewfit.compare.job import Job
from fewfit.compare.journal import Finished, Journal
from fewfit.compare.methods import Features, Method
from fewfit.compare.names import DEFAULT_METHODS, default_of, make_methods
from fewfit.compare.plan import Plan
from fewfit.compare.remembered import Remembered, identity_of
from fewfit.compare.report.statistics import summarise
from fewfit.compare.schema import Asked, Comparison, Setup, Summary
from fewfit.compare.splits import read_seeds, same_samples, whole_numbers
from fewfit.decoders import Decoder
from fewfit.errors import CalibrationError, InputError, InputWarning, ModelError
from fewfit.estimators.classifier import DEFAULT_TEMPLATE
from fewfit.models import FrozenModel
from fewfit.models.metered import MeteredModel
from fewfit.models.optional import stored as stored_of
from fewfit.models.paired import halves
from fewfit.progress import bar as progress_bar
from fewfit.prompts import Template, View, Views, make_views
from fewfit.task import Query

Bar = Callable[[str, int, str], AbstractContextManager[Callable[[int], object]]]
"""``bar(phase, total, unit)`` shows progress; its value is called with the units newly done."""

CELLS = "cells.jsonl"
SEARCH_TRIALS = 50


class Cost(NamedTuple):
    """What a run will ask of a frozen model.

    ``prompts`` are the distinct prompts that unfinished cells share; ``queries`` are those of them
    that the store lacks and no line above asks, which is what will be paid for. Distributions over
    the vocabulary are asked apart, and have a line of their own. ``search_queries`` is what the
    searchers' unfinished cells may ask besides, at most: what they ask depends on the answers, and
    what the store has of it too.
    """

    model: str
    prompts: int
    queries: int
    search_queries: int = 0


class Experiment:
    """A comparison that is checked and drawn, and has asked nothing yet.

    The parameters are those of :func:`compare`, and `where`, a pair of functions that name a row of
    the pool and one of the test set in a message. :meth:`cost` says what a run will ask.
    """

    def __init__(
        self,
        X_train: Any,
        y_train: Any,
        X_test: Any,
        y_test: Any,
        *,
        template: str | View | Views | Sequence[str | View] = DEFAULT_TEMPLATE,
        labels: Mapping[Any, str | Sequence[str] | Mapping[str, float]] | None = None,
        methods: Sequence[str] | Mapping[str, Method | Decoder] = DEFAULT_METHODS,
        models: Sequence[str | FrozenModel] = ("embedded",),
        shots: Sequence[int] | None = None,
        seeds: int | Sequence[int] = 5,
        calibration: str | Calibration | None = None,
        store: str | Path | None = "default",
        drop_overlap: bool = False,
        search_trials: int = SEARCH_TRIALS,
        where: tuple[Callable[[int], str], Callable[[int], str]] | None = None,
    ) -> None:
        self.template = make_views(template)
        self.methods = make_methods(methods)
        shared = None if calibration is None else make_calibration(calibration)
        taken = any(m.asks and m.calibration is None for m in self.methods.values())
        if shared not in (None, NoCalibration()) and not taken:
            warnings.warn(
                f"calibration: no method takes {shared.name!r}, since each has its own or asks "
                "nothing; name it with a method, as in 'prompt-search+contextual'",
                InputWarning,
                stacklevel=2,
            )
        wanted = None if shots is None else whole_numbers("shots", shots)
        self.seeds = read_seeds(seeds)
        if isinstance(search_trials, bool) or not isinstance(search_trials, Integral):
            raise InputError(f"search_trials: expected a whole number, got {search_trials!r:.50}")
        if search_trials < 2:
            raise InputError(f"search_trials: a searcher tries at least 2, not {search_trials}")
        own = [make_views(m.template) for m in self.methods.values() if m.template is not None]
        fields = [name for views in (self.template, *own) for name in views.fields]
        self.data = Data.read(
            (X_train, y_train),
            (X_test, y_test),
            fields=list(dict.fromkeys(fields)),
            text=self.template.views[0].fields,
            labels=labels,
            shots=wanted,
            seeds=self.seeds,
            drop_overlap=drop_overlap,
        )
        self.shots = list(dict.fromkeys(sample.shots for sample in self.data.samples))
        self.plan = Plan(
            self.data,
            self.template,
            self.methods,
            models=models,
            store=store,
            calibration=shared,
            search_trials=search_trials,
            where=where,
        )

    def cost(self, output: str | Path | None = None) -> list[Cost]:
        """Return what :meth:`run` will ask of each frozen model; nothing is asked."""
        journal = self._journal(output)
        costs = []
        earlier: dict[Any, set[Query]] = {}  # what each model is asked by the sources before
        for source, (_, task) in self.plan.sources.items():
            if source is None or task is None:
                continue
            pending = self._pending(journal, source)
            queries = self.plan.shared(pending)
            paid: set[Query] = set()
            for half in halves(task.model):
                asked = earlier.setdefault(identity_of(half), set())
                new = [query for query in queries if query not in asked]
                asked.update(new)
                for words in {query.words for query in new}:
                    alike = [query for query in new if query.words == words]
                    there = stored_of(half, [query.prompt for query in alike], words)
                    paid.update(alike[i] for i in np.flatnonzero(~there))
            searched = sum(
                job.max_queries + len(self.data.test) for job in pending if job.max_queries
            )
            costs.append(Cost(source, len(queries), len(paid), searched))
        return costs

    def run(
        self,
        output: str | Path | None = None,
        *,
        price_per_token: float | None = None,
        bar: Bar | None = None,
        progress: bool = False,
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
        progress : bool, default=False
            True shows a bar for each phase.
        """
        if price_per_token is not None and not 0 <= price_per_token < math.inf:
            raise InputError(
                f"price_per_token: expected a number from 0 on, got {price_per_token!r:.50}"
            )
        journal, shown = self._journal(output), bar or (progress_bar if progress else _silent)
        tasks = [task for _, task in self.plan.sources.values() if task is not None]
        remembered = Remembered([task.model for task in tasks])
        for source in self.plan.sources:
            pending = self._pending(journal, source)
            if not pending:
                continue
            answers = self._ask(source, self.plan.shared(pending), journal, shown, remembered)
            tested: dict[tuple[int, ...], Places] = {}
            with shown(f"fitting, {source or 'texts'}", len(pending), "cell") as done:
                for job in pending:
                    with _named(job):
                        if job.method.alone:
                            finished = self._alone(job, journal)
                        else:
                            finished = self._fit(job, answers, tested)
                    journal.add(job.key, finished)
                    done(1)
        data, finished = self.data, [journal.cells[job.key] for job in self.plan.jobs]
        names = {model for model, _ in self.plan.sources.values()}
        asked = [item for item in journal.asked if item.model in names]
        y = np.searchsorted(data.classes, data.y_test)
        texts = [text_of(row) for row in data.only(self.template.fields).test]
        return Comparison(
            setup=self._setup(price_per_token),
            asked=asked,
            summaries=[
                self._plain(item)
                for item in summarise(
                    finished,
                    y,
                    asked=asked,
                    price=price_per_token,
                    default=default_of(self.methods),
                )
            ],
            cells=[item.cell for item in finished],
            diagnoses=diagnose(finished, y, [str(name) for name in data.classes], texts),
        )

    def _plain(self, item: Summary) -> Summary:
        """Leave out an sd of 0 that only says that all samples were the same."""
        same = item.shots in same_samples(self.data.samples)
        nothing = item.sd is not None and item.sd < 1e-9
        return item.model_copy(update={"sd": None}) if same and nothing else item

    def _journal(self, output: str | Path | None) -> Journal:
        data = self.data.only(self.template.fields)
        rows = [data.train, data.y_train.tolist(), data.test, data.y_test.tolist()]
        of = digest([_shown(self.template), data.verbalizer.to_list(), rows])
        return Journal(None if output is None else Path(output) / CELLS, of)

    def _pending(self, journal: Journal, source: str | None) -> list[Job]:
        return [j for j in self.plan.jobs if j.source == source and j.key not in journal.cells]

    def _ask(
        self,
        source: str | None,
        queries: Sequence[Query],
        journal: Journal,
        bar: Bar,
        remembered: Remembered,
    ) -> Answers | None:
        """Ask what is shared; None where nothing is."""
        model, task = self.plan.sources[source]
        if task is None or model is None or not queries:
            return None
        meter = MeteredModel(remembered(task.model))
        try:
            with bar(f"asking {source}", len(queries), "prompt") as done:
                asking = replace(task, model=meter)
                found = Answers.ask(asking, queries, named=self.plan.named, progress=done)
        finally:  # what was paid for before a failure is in the store, and not paid for again
            _note(journal, model, meter)
        return replace(found, task=task)

    def _fit(
        self, job: Job, answers: Answers | None, tested: dict[tuple[int, ...], Places]
    ) -> Finished:
        """Compute a cell from shared answers; `tested` keeps where those to the test set are."""
        data, free = job.data, {}
        y = data.y_train[job.sample.rows][: len(job.rows)]
        if answers is None:
            sample, test = Features.unasked(job.rows, y), Features.unasked(data.test, data.y_test)
        else:
            if job.way not in tested:
                tested[job.way] = answers.where(self.plan.queries(job, data.test))
            blank = answers.where(job.free)
            seen = answers.where(self.plan.queries(job, job.rows))
            pool = None
            if job.pool:
                pool = answers.where(self.plan.queries(job, job.pool)), job.pool
            sample, test = answers.cell(
                job.views,
                job.calibration,
                blank,
                (seen, job.rows, y),
                (tested[job.way], data.test, data.y_test),
                data.classes,
                reads_words="word_scores" in job.method.requires,
                pool=pool,
            )
            free = answers.tokens(blank)
        model, task = self.plan.sources[job.source]
        return run_cell(
            job, sample, test, data.classes, model=model, free=free, frozen=task and task.model
        )

    def _alone(self, job: Job, journal: Journal) -> Finished:
        """Compute a cell of a method that asks, or trains, on its own."""
        data, (model, task) = job.data, self.plan.sources[job.source]
        assert task is not None
        meter = MeteredModel(task.model)
        template = job.views[0] if job.method.one_view else Views(list(job.views))
        own = replace(task, model=meter, template=template, calibration=job.calibration)
        pool = data.rest(job.sample) if job.method.unlabelled else []
        ready = job.method.on(own, max_queries=job.max_queries, seed=job.sample.seed, pool=pool)
        try:
            return run_cell(
                replace(job, method=ready),
                Features.unasked(data.drawn(job.sample), data.y_train[job.sample.rows]),
                Features.unasked(data.test, data.y_test),
                data.classes,
                model=model,
                meter=meter,
                frozen=task.model,
            )
        finally:
            _note(journal, str(model), meter)

    def _setup(self, price: float | None) -> Setup:
        plan, data = self.plan, self.data
        own = {
            name: _shown(make_views(method.template))
            for name, method in self.methods.items()
            if method.template is not None
        }
        searches = any(method.budgeted for method in self.methods.values())
        return Setup(
            fewfit_version=__version__,
            template=_shown(self.template),
            method_templates=own,
            labels=data.verbalizer.to_list(),
            calibration=(plan.calibration or default_calibration()).name,
            search_trials=plan.search_trials if searches else None,
            identities={
                source: dict(task.model.identity)
                for source, (_, task) in plan.sources.items()
                if source is not None and task is not None
            },
            shots=self.shots,
            seeds=self.seeds,
            default=default_of(self.methods),
            same_samples=same_samples(self.data.samples),
            train_rows=len(data.train),
            test_rows=len(data.test),
            dropped_train_rows=data.n_dropped,
            price_per_token=price,
        )


@contextmanager
def _named(job: Job) -> Iterator[None]:
    """Say in which cell a training diverged, a model did not answer, a calibration is undefined."""
    try:
        yield
    except (ModelError, CalibrationError) as error:
        raise type(error)(
            f"{job.name}, {job.sample.shots} shots, seed {job.sample.seed}: {error}; without this "
            "method, or with other options, a run goes on from the cells in its output folder"
        ) from error


def _note(journal: Journal, model: str, meter: MeteredModel) -> None:
    """Write down what a model was paid for."""
    bill = meter.bill
    if bill.paid:
        journal.add_asked(
            Asked(model=model, queries=bill.paid, seconds=bill.seconds, prompts=bill.queries)
        )


def _shown(template: View | Views) -> list[str]:
    return [v.source if type(v) is Template else repr(v) for v in template.views]


def _silent(phase: str, total: int, unit: str) -> AbstractContextManager[Callable[[int], object]]:
    return nullcontext(lambda done: None)
