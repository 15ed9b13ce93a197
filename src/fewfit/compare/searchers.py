"""Searchers as methods of a comparison: each asks prompts of its own, within a budget."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from fewfit.calibration import BatchCalibration, Calibration, NoCalibration
from fewfit.compare.methods import Arrays, Features, Method
from fewfit.errors import InputError
from fewfit.observations import Observations
from fewfit.parameters import check_values, did_you_mean, look_up
from fewfit.prompts import Row, Template
from fewfit.searchers import SEARCHERS, black_box_tune, learn_unsupervised, search_options
from fewfit.searchers.bbt import import_cma
from fewfit.searchers.prompt_search import PROMPT, check_words
from fewfit.task import Task

N_WORDS = 200  # candidates, if none are given
LENGTH = 5  # words of the prompt that unsupervised learning starts from


class Searched(NamedTuple):
    """The question that was found, and what its calibration was told; `arrays` are what is kept."""

    task: Task
    blank: Observations | None
    arrays: Arrays
    parameters: int


@dataclass(frozen=True)
class SearcherMethod(Method):
    """A searcher: it looks for a better question, and pays for each that it tries.

    It starts from the first template of the comparison; words are put in front of it. The question
    that it finds is then asked about each row to predict, and the model's scores are believed.

    Parameters
    ----------
    searcher : str
        A key of :data:`SEARCHERS`.
    calibration : Calibration, optional
        Of its scores; left out, there is none, as in the papers. "unsupervised-prompts" takes
        none but its own, by the batch.
    options : mapping, optional
        Parameters of the searcher: ``{"length": 10}``. Left out, `vocabulary` is the most frequent
        words of the cell's own sample, and `start` the first of them; text is a list of one word.
    task, max_queries, seed
        Whom it asks, how much and from where; :meth:`on` fills them in.
    """

    searcher: str
    calibration: Calibration | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    task: Task | None = None
    max_queries: int = 0
    seed: int = 0
    alone: ClassVar[bool] = True
    one_view: ClassVar[bool] = True
    budgeted: ClassVar[bool] = True
    asks: ClassVar[bool] = True
    traceable: ClassVar[bool] = False  # a second run would pay again

    def __post_init__(self) -> None:
        search = look_up(self.searcher, SEARCHERS, parameter="searcher")
        known = set(search_options(self.searcher))
        unknown = sorted(set(self.options) - known)
        if unknown:
            raise InputError(
                f"options: {self.searcher} has no {unknown[0]!r}; it has {sorted(known)}"
                f"{did_you_mean(unknown[0], dict.fromkeys(known))}"
            )
        listed = {name for name in self.options if list in search.constraints.get(name, ())}
        options = {
            name: [value] if name in listed and isinstance(value, str) else value
            for name, value in self.options.items()
        }
        object.__setattr__(self, "options", options)
        check_values(self.searcher, search.constraints, options)
        for name in listed:
            check_words(name, options[name])
        if self._unsupervised:
            if self.calibration not in (None, BatchCalibration()):
                raise InputError(
                    f"{self.searcher} calibrates by the batch; leave its calibration out"
                )
            object.__setattr__(self, "calibration", BatchCalibration())
            object.__setattr__(self, "demonstrations", self.options.get("n_demonstrations", 4))
        elif self.calibration is None:
            object.__setattr__(self, "calibration", NoCalibration())
        elif self.calibration.learns:
            raise InputError(
                f"{self.searcher}: a calibration that learns from labels is fitted once, not with "
                "every prompt that is tried; take another"
            )
        object.__setattr__(self, "requires", search.requires)

    @property
    def _unsupervised(self) -> bool:
        return SEARCHERS[self.searcher] is learn_unsupervised

    def key(self) -> str:
        return f"{self.searcher} {sorted(self.options.items())}"

    def check(self, task: Task, *, who: str) -> None:
        """Refuse what cannot be searched, before anything is paid for."""
        view = task.template.views[0]
        if type(view) is not Template:
            raise InputError(f"{who} starts from a template, and {view!r} is none; put one first")
        if "soft_prompts" in self.requires:
            import_cma()
        elif PROMPT in view.source:
            raise InputError(
                f"{who}: {PROMPT} stands for the words that are searched; rename the field"
            )

    def least_trials(self, n_rows: int, n_free: int) -> int:
        """Return how many prompts it has to be allowed on so many rows to learn anything.

        Parameters
        ----------
        n_rows : int
            Examples of the sample.
        n_free : int
            Content-free prompts of its calibration; those of what it finds are asked once more.
        """
        return -(-self.least_queries(n_rows, n_free) // (n_rows + n_free))

    def least_queries(self, n_rows: int, n_free: int) -> int:
        """Return how many queries that are, where it need not be whole trials."""
        smallest = SEARCHERS[self.searcher].smallest_budget
        if smallest is None:
            return n_rows + n_free
        return smallest(n_rows, n_free, **self.options) + n_free

    def on(
        self, task: Task, *, max_queries: int, seed: int, pool: Sequence[Row] = ()
    ) -> SearcherMethod:
        """Return the searcher, ready to ask a task of one template."""
        return replace(self, task=task, max_queries=max_queries, seed=seed)

    def fit(self, sample: Features, classes: NDArray[Any]) -> Searched:
        if self.task is None:
            raise InputError(f"{self.searcher} asks on its own: an Experiment says whom")
        rows, y = sample.rows, np.searchsorted(classes, sample.y)
        n_free = len(self.task.calibration.prompts(self.task.template.views[0], rows))
        given = {**self.options, "max_queries": self.max_queries - n_free, "seed": self.seed}
        if "soft_prompts" not in self.requires:
            given.setdefault("vocabulary", frequent_words(sample.texts, N_WORDS))
            if not given["vocabulary"]:
                raise InputError(f"{self.searcher}: the sample holds no words; give a vocabulary")
        task, arrays, parameters = self._search(self.task, rows, y, given)
        free = task.calibration.prompts(task.template.views[0], rows)
        blank = task.ask([[prompt] for prompt in free]) if free else None
        return Searched(task, blank, arrays, parameters)

    def _search(
        self, task: Task, rows: Sequence[Row], y: NDArray[np.intp], given: dict[str, Any]
    ) -> tuple[Task, Arrays, int]:
        """Return the task that was found, what is kept of it, and how much of that was learnt."""
        search, model, [view] = SEARCHERS[self.searcher], task.model, task.template.views
        assert isinstance(view, Template)
        told = (rows, y, task.verbalizer, task.calibration)
        if search is black_box_tune:
            found = search(model, view, *told, **given)
            return replace(task, model=found.model), {"p": found.vectors}, found.vectors.size
        template = f"{PROMPT} {view.source}"
        words = given.pop("vocabulary")
        if self._unsupervised:
            given.setdefault("start", words[:LENGTH])
            learnt = search(model, template, words, rows, task.verbalizer.labels, **given)
            found, source = learnt.view, learnt.view.template
        else:
            source = search(model, template, words, *told, **given).template
            found = Template(source)
        text = found.render(dict.fromkeys(found.fields, "")).text("{mask}")
        arrays = {"prompt": np.frombuffer(text.encode("utf-8"), dtype=np.uint8)}
        return replace(task, template=found), arrays, len(source.removesuffix(view.source).split())

    def predict_proba(self, fitted: Searched, test: Features) -> NDArray[Any]:
        answers = fitted.task.observe(test.rows)
        blank = answers[:0] if fitted.blank is None else fitted.blank
        scores = fitted.task.estimate(blank, answers).features(answers)[1]
        return softmax(np.asarray(scores, dtype=np.float64), axis=1)

    def arrays(self, fitted: Searched) -> Arrays:
        return fitted.arrays

    def parameters(self, fitted: Searched) -> int:
        return fitted.parameters


def frequent_words(texts: Sequence[str], n: int) -> list[str]:
    """Return the n most frequent words of the texts, of equals the first in the alphabet."""
    counts = Counter(word for text in texts for word in re.findall(r"[^\W\d_]{2,}", text.lower()))
    return sorted(counts, key=lambda word: (-counts[word], word))[:n]
