"""What a comparison will do: who is asked, and one job for each cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fewfit._version import __version__
from fewfit.calibration import Calibration, NoCalibration, default_calibration
from fewfit.compare.data import Data, digest, text_of
from fewfit.compare.job import NOBODY, Job, Source
from fewfit.compare.methods import Method
from fewfit.compare.splits import Sample
from fewfit.errors import CapabilityError, InputError
from fewfit.estimators.opening import open_model
from fewfit.models import FrozenModel
from fewfit.observations import ScoreSpace
from fewfit.prompts import InContext, Row, Template, View, Views, make_views
from fewfit.task import Query, Task, check_pairs

T = TypeVar("T")

_SHOWN = 60  # characters of a row's text in a message


class Plan:
    """All jobs of a comparison; everything that cannot be run is refused here.

    Parameters
    ----------
    data : Data
    template : View or Views
    methods : mapping of str to Method
    models, store, calibration, search_trials : as for :func:`compare`
    where : pair of callables, optional
        Name a row of the pool and one of the test set in a message; left out, they count from 0.

    Attributes
    ----------
    sources : dict of str or None to Source
        In the order in which they are asked; None for methods that ask nobody.
    jobs : list of Job
    """

    def __init__(
        self,
        data: Data,
        template: View | Views,
        methods: Mapping[str, Method],
        *,
        models: Sequence[str | FrozenModel],
        store: str | Path | None,
        calibration: Calibration | None,
        search_trials: int,
        where: tuple[Callable[[int], str], Callable[[int], str]] | None = None,
    ) -> None:
        self.data = data
        self._where = where or ("train row {}".format, "test row {}".format)
        self.template = template
        self.methods = methods
        self.calibration = calibration
        self.search_trials = search_trials
        for name, method in methods.items():
            fewest = min(sample.shots for sample in data.samples)
            if fewest < method.least_shots:
                raise InputError(
                    f"methods: {name} needs {method.least_shots} examples of each class, and a "
                    f"sample of {fewest} has fewer; leave out the method or that number of shots"
                )
            for sample in data.samples if method.unlabelled else ():
                if not data.rest(sample):
                    raise InputError(
                        f"methods: {name} learns from texts without labels, and a sample of "
                        f"{sample.shots} per class leaves none of the pool; give more rows or "
                        "fewer shots"
                    )
        self.sources: dict[str | None, Source] = {**self._open(models, store), None: NOBODY}
        self._spelled = _once(lambda view: tuple(map(view.spell, data.verbalizer.words)))
        self._tested = _once(lambda view: _shown(view, data.test, self._spelled(view)))
        self._check_trials()
        self.jobs = list(self._jobs())

    def queries(self, job: Job, rows: Sequence[Row]) -> list[list[Query]]:
        """Return what is asked about rows, P queries each."""
        ways = [(view, self._spelled(view)) for view in job.views]
        return [[Query(view.render(row), words) for view, words in ways] for row in rows]

    def shared(self, jobs: Sequence[Job]) -> list[Query]:
        """Return all that these jobs look at, each query once; some ask on their own."""
        groups: dict[tuple[int, ...], list[Job]] = {tuple(map(id, self.template.views)): []}
        for job in jobs:
            if not job.method.alone:
                groups.setdefault(job.way, []).append(job)
        asked: dict[Query, None] = {}
        for group in filter(None, groups.values()):
            drawn = {int(i) for job in group if job.rows for i in job.sample.rows}
            if any(job.pool for job in group):
                drawn = set(range(len(self.data.train)))
            rows = [*self.data.test, *(self.data.train[i] for i in sorted(drawn))]
            for found in [*self.queries(group[0], rows), *(q for job in group for q in job.free)]:
                asked.update(dict.fromkeys(found))
        return list(asked)

    def named(self, query: Query) -> str:
        """Say about which row a query is, for a person."""
        ways = {job.way: job for job in self.jobs if job.source is not None}
        data, (of_pool, of_test) = self.data, self._where
        for job in ways.values():
            for where, rows, places in (
                (of_test, data.test, range(len(data.test))),
                (of_pool, data.train, data.kept),
            ):
                for place, row, asked in zip(places, rows, self.queries(job, rows), strict=True):
                    if query in asked:
                        return f"{where(place)} ({text_of(row)[:_SHOWN]!r})"
        return "a content-free input of a calibration"

    def _open(
        self, models: Sequence[str | FrozenModel], store: str | Path | None
    ) -> dict[str | None, Source]:
        asking = {name: method for name, method in self.methods.items() if method.asks}
        if isinstance(models, str) or (asking and not models):
            raise InputError("models: give a list with at least one frozen model")
        opened: dict[str | None, Source] = {}
        known: dict[str, dict[str, str]] = {}
        for spec in models if asking else ():
            plain = open_model(spec, store)
            model, identity = plain.spec or type(spec).__name__, dict(plain.identity)
            if model in known and (plain.spec or identity in known.values()):
                raise InputError(f"models: {model!r} is given twice")
            n, kind = 2, model
            while model in known:  # another object of the same class
                model, n = f"{kind} {n}", n + 1
            known[model] = identity
            for name, method in asking.items():
                frozen = plain
                calibration = self._calibration(method, plain.capabilities.resolution)
                if _reads_vocabulary(method):
                    frozen = open_model(plain, store, requires=method.requires)
                    calibration = NoCalibration()
                task = Task(frozen, self._base(method), self.data.verbalizer, calibration)
                self._check(name, model, method, task)
                opened.setdefault(_source(model, method), Source(model, task))
            every = [view for method in asking.values() for view in self._base(method).views]
            check_pairs(plain.capabilities, every)
        return opened

    def _check(self, name: str, model: str, method: Method, task: Task) -> None:
        task.check(method.requires, who=f"{name} on {model}")
        if method.demonstrations and task.model.capabilities.scores is ScoreSpace.SIMILARITY:
            raise CapabilityError(
                f"{name} puts examples in front of the text, which a sentence encoder does not "
                "read as examples; use a language model (hf:, a server), or leave this method out"
            )
        method.check(task, who=name)

    def _check_trials(self) -> None:
        """Refuse a budget with which a searcher would find nothing."""
        least: dict[str, int] = {}
        for name, method in self.methods.items():
            if method.budgeted:
                [view] = self._base(method).views
                for sample in self.data.samples:
                    rows = self.data.drawn(sample)
                    n_free = len(self._calibration(method).prompts(view, rows))
                    needed = method.least_trials(len(rows), n_free)
                    least[name] = max(least.get(name, 0), needed)
        short = {name: n for name, n in least.items() if n > self.search_trials}
        if short:
            needs = ", ".join(f"{name} needs at least {n}" for name, n in short.items())
            raise InputError(
                f"search_trials: {self.search_trials} prompts are too few to learn from: {needs} "
                "with these numbers of shots (--search-trials)"
            )

    def _calibration(self, method: Method, resolution: float = 0.0) -> Calibration:
        own = self.calibration if method.calibration is None else method.calibration
        return default_calibration(resolution) if own is None else own

    def _asking(self, method: Method) -> View | Views:
        return self.template if method.template is None else make_views(method.template)

    def _base(self, method: Method) -> View | Views:
        """Return how a method asks, before it has seen any example."""
        base = self._asking(method)
        if method.one_view:
            return base.views[0]
        other = [view for view in base.views if type(view) is not Template]
        if method.demonstrations and other:
            raise InputError(
                f"demonstrations stand in front of a template, and {other[0]!r} is none; leave out "
                "one of the two"
            )
        return base

    def _views(self, method: Method, sample: Sample) -> tuple[View, ...]:
        """Return how a method asks, with what its views keep of the sample."""
        base, rows = self._base(method), self.data.drawn(sample)
        if method.demonstrations and not method.alone:
            n, seed = method.demonstrations, sample.seed
            sources = [view.source for view in base.views if isinstance(view, Template)]
            base = Views([InContext(source, n=n, seed=seed) for source in sources])
        codes = np.searchsorted(self.data.classes, self.data.y_train[sample.rows])
        return base.learn(rows, [self.data.verbalizer.first[k] for k in codes]).views

    def _jobs(self) -> Iterator[Job]:
        first = self.data.samples[0].seed
        common = {"fewfit": __version__, "labels": self.data.verbalizer.to_list()}
        told: dict[tuple[str, ...], tuple[Data, str, list[str]]] = {}
        for source, (model, task) in self.sources.items():
            for number, sample in enumerate(self.data.samples):
                for name, method in self.methods.items():
                    if _source(model, method) != source or method.asks != (task is not None):
                        continue
                    fields = tuple(self._asking(method).fields)
                    if fields not in told:
                        told[fields] = _told(self.data.only(fields))
                    data, test, drawn = told[fields]
                    views = self._views(method, sample)
                    given = 0.0 if task is None else task.model.capabilities.resolution
                    calibration = self._calibration(method, given)
                    seen, free, max_queries = data.drawn(sample), [], 0
                    pool = data.rest(sample) if method.unlabelled else []
                    if method.budgeted:
                        blanks = calibration.prompts(views[0], seen)
                        max_queries = self.search_trials * (len(seen) + len(blanks))
                    elif (
                        not method.alone
                        and task is not None
                        and task.model.capabilities.scores is not None
                    ):
                        free = self._free(calibration, views, seen)
                    traced = method.traceable and sample.seed == first
                    decides = {
                        **common,
                        "test": test,
                        "template": self._decides(method, views, seen),
                        "calibration": [calibration.name, asdict(calibration)],
                        "model": [model, None if task is None else dict(task.model.identity)],
                        "method": [name, method.key()],
                        "sample": [sample.shots, sample.seed, drawn[number]],
                        "traced": traced,
                        **({"max_queries": max_queries} if max_queries else {}),
                        **({"unlabelled": digest(pool)} if pool else {}),
                    }
                    learns = method.learns or calibration.learns
                    yield Job(
                        source,
                        name,
                        data,
                        method,
                        calibration,
                        views,
                        sample,
                        seen if learns else [],
                        [] if method.alone else pool,
                        free,
                        max_queries,
                        digest(decides),
                        traced,
                    )

    def _free(
        self, calibration: Calibration, views: Sequence[View], rows: Sequence[Row]
    ) -> list[tuple[Query, ...]]:
        """Return the content-free prompts, each in every view; equal ones stay."""
        by_view = [
            [Query(prompt, self._spelled(view)) for prompt in calibration.prompts(view, rows)]
            for view in views
        ]
        return list(zip(*by_view, strict=True))

    def _decides(self, method: Method, views: Sequence[View], rows: Sequence[Row]) -> Any:
        """Return what stands for the views in a key: the template, or what is asked otherwise."""
        if method.demonstrations:  # the method and the sample say the rest
            views = self._base(method).views
        told = [
            view.source
            if type(view) is Template
            else [self._tested(view), _shown(view, rows, self._spelled(view))]
            for view in views
        ]
        return told[0] if len(told) == 1 else told


def _told(data: Data) -> tuple[Data, str, list[str]]:
    """Return rows with a hash of the test set and one of each sample."""
    y = data.y_train.tolist()  # Python's own, of classes of any size
    samples = [
        digest([[data.train[i], y[i]] for i in sample.rows.tolist()]) for sample in data.samples
    ]
    return data, digest([data.test, data.y_test.tolist()]), samples


def _reads_vocabulary(method: Method) -> bool:
    return "full_vocabulary" in method.requires


def _source(model: str | None, method: Method) -> str | None:
    return f"{model}, vocabulary" if model and _reads_vocabulary(method) else model


def _once(of: Callable[[View], T]) -> Callable[[View], T]:
    """Compute something of each view once; a view need not be hashable."""
    known: dict[int, tuple[View, T]] = {}

    def call(view: View) -> T:
        if id(view) not in known:
            known[id(view)] = view, of(view)
        return known[id(view)][1]

    return call


def _shown(view: View, rows: Sequence[Row], words: Sequence[str]) -> str:
    """Hash all that a model is shown of these rows in a view."""
    return digest([words, [view.render(row).parts for row in rows]])
