"""What is compared: decoders on a frozen model's answers, and peers that read the texts."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from fewfit.calibration import Calibration
from fewfit.compare.data import text_of
from fewfit.decoders import Decoder
from fewfit.decoders.base import tell_views
from fewfit.errors import InputError
from fewfit.parameters import check_parameters
from fewfit.prompts import Row, View, Views, make_views
from fewfit.task import Task

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Features:
    """A set of examples as methods see it.

    Attributes
    ----------
    hidden : ndarray of shape (N, P * H), float32
    scores : ndarray of shape (N, K) or (N, P, K), float32, or None
        Both as :meth:`fewfit.task.Task.features` gives them.
    y : ndarray of shape (N,)
        Labels.
    rows : sequence of Row, length N
        The examples; `texts` are the user's texts in them.
    queries : ndarray of shape (N, P), int
        A number for each query that was asked about a row, equal where two are one and the same;
        P is 0 where nothing was asked.
    n_tokens : ndarray of shape (N, P), int
        Length of each prompt, in the frozen model's tokens; -1 where it does not say.
    pool : Features, optional
        Of a sample: texts without labels beside it, whose `y` is empty.
    """

    hidden: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    y: NDArray[Any]
    rows: Sequence[Row]
    queries: NDArray[np.intp]
    n_tokens: NDArray[np.integer]
    pool: Features | None = None

    @classmethod
    def unasked(cls, rows: Sequence[Row], y: NDArray[Any]) -> Features:
        """Return examples that no frozen model was asked about."""
        nothing = np.empty((len(y), 0), np.intp)
        return cls(np.empty((len(y), 0), np.float32), None, y, rows, nothing, nothing)

    @property
    def texts(self) -> list[str]:
        """The user's text of each row, its fields joined by a space."""
        return [text_of(row) for row in self.rows]

    @property
    def n_asked(self) -> int:
        """How many rows differ in what was asked about them."""
        return len(np.unique(self.queries, axis=0)) if self.queries.size else 0

    @property
    def tokens(self) -> dict[int, int]:
        """The length of each query, each once."""
        return dict(zip(self.queries.ravel().tolist(), self.n_tokens.ravel().tolist(), strict=True))

    def __getitem__(self, index: slice) -> Features:
        scores = None if self.scores is None else self.scores[index]
        rows, queries, n_tokens = self.rows[index], self.queries[index], self.n_tokens[index]
        return Features(self.hidden[index], scores, self.y[index], rows, queries, n_tokens)


class Method(ABC):
    """Something that is fitted on a few labelled examples and gives class probabilities.

    Attributes
    ----------
    asks : bool
        Whether it works on a frozen model's answers; if not, it reads the texts, needs no model
        and is run once for all models.
    learns : bool
        Whether it looks at the labelled examples at all; if not, they need not be asked about.
    traceable : bool
        Whether it may be run a second time, here, to trace its memory.
    requires : frozenset of {"scores", "word_scores", "hidden", "full_vocabulary"}
        What it needs of the frozen model. With "word_scores" the hidden states are those of the
        label words; with "full_vocabulary" the log-probabilities of all tokens, without scores.
    calibration : Calibration or None
        How its scores are calibrated; None is the comparison's way.
    demonstrations : int
        How many of the sample's examples stand in front of every prompt.
    template : str, View, or sequence of these, or None
        How it asks about a row; None is the comparison's way.
    alone : bool
        Whether it asks, or trains, on its own: nothing that others share is asked for it, and
        :meth:`on` tells it whom.
    one_view : bool
        Whether it starts from the first template alone.
    budgeted : bool
        Whether it is given a budget of queries.
    unlabelled : bool
        Whether it is given texts without labels.
    least_shots : int
        How many examples of each class it needs at least.
    """

    alone: ClassVar[bool] = False
    one_view: ClassVar[bool] = False
    budgeted: ClassVar[bool] = False
    unlabelled: bool = False
    least_shots: int = 1
    asks: ClassVar[bool] = False
    traceable: ClassVar[bool] = True
    learns: bool = True
    requires: frozenset[str] = frozenset()
    calibration: Calibration | None = None
    demonstrations: int = 0
    template: str | View | Views | Sequence[str | View] | None = None

    @abstractmethod
    def key(self) -> str:
        """Everything about the method that decides its predictions."""

    def check(self, task: Task, *, who: str) -> None:
        """Refuse what it cannot be run on, before anything is paid for."""
        return

    def with_premise(self, premise: str) -> Method:
        """Return the method with a premise for its calibration; itself, if that takes none."""
        own = self.calibration
        told = own if own is None else own.with_premise(premise)
        return self if told is own else replace(cast(Any, self), calibration=told)

    def on(self, task: Task, *, max_queries: int, seed: int, pool: Sequence[Row] = ()) -> Method:
        """Return the method, told what it works on; only called where it is `alone`.

        Parameters
        ----------
        task : Task
            Of the cell's model and views.
        max_queries : int
            What fitting may ask, if it is `budgeted`.
        seed : int
            Of the cell.
        pool : sequence of Row
            Texts without labels, if it needs such.
        """
        return self

    def least_trials(self, n_rows: int, n_free: int) -> int:
        """Return how many prompts a `budgeted` method has to be allowed to learn anything."""
        return 1

    def costs(self, fitted: Any, test: Features) -> Mapping[str, Any]:
        """Return entries of the ledger that it knows better than whoever measures it."""
        return {}

    @abstractmethod
    def fit(self, sample: Features, classes: NDArray[Any]) -> Any:
        """Return the fitted method; the classes are sorted, and each occurs in the sample."""

    @abstractmethod
    def predict_proba(self, fitted: Any, test: Features) -> NDArray[Any]:
        """Return probabilities (N, K)."""

    @abstractmethod
    def arrays(self, fitted: Any) -> Arrays:
        """Return all that must be kept to predict again."""

    @abstractmethod
    def parameters(self, fitted: Any) -> int:
        """Return how many numbers training changed."""


@dataclass(frozen=True)
class DecoderMethod(Method):
    """One of fewfit's decoders, or yours, with a calibration or a template of its own if given.

    With `demonstrations` the question is another: so many examples of the cell's sample stand,
    answered, in front of every prompt (:class:`fewfit.prompts.InContext`). A `pooled` one is given
    the rest of the training pool too, without the labels.
    """

    decoder: Decoder
    calibration: Calibration | None = None
    demonstrations: int = 0
    template: str | View | Views | Sequence[str | View] | None = None
    pooled: bool = False
    asks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        whole = isinstance(self.demonstrations, Integral)
        if isinstance(self.demonstrations, bool) or not whole or self.demonstrations < 0:
            raise InputError(f"demonstrations: at least 0, not {self.demonstrations!r:.50}")
        check_parameters(self.decoder)
        for name, value in self.decoder.get_params().items():
            if isinstance(value, np.random.RandomState):
                raise InputError(
                    f"methods: {name} of {type(self.decoder).__name__} is a generator, by which no "
                    "later run knows its cells again; give a whole number"
                )
        if self.calibration is not None and "full_vocabulary" in self.decoder.requires:
            raise InputError(
                f"methods: {type(self.decoder).__name__} reads distributions over the vocabulary "
                "and no scores, so that there is nothing to calibrate"
            )
        if self.template is not None:
            object.__setattr__(self, "template", make_views(self.template))
        if self.pooled and not (self.decoder.unlabelled or self.decoder.adapts):
            raise InputError(
                f"methods: {type(self.decoder).__name__} does not learn from texts without labels; "
                "offset-regression, zero-shot and ipet do"
            )
        needs = self.decoder.needs_unlabelled
        object.__setattr__(self, "unlabelled", self.pooled or needs)
        grouped = {"hidden"} if self.pooled else set()
        object.__setattr__(self, "requires", self.decoder.requires | grouped)
        object.__setattr__(self, "learns", bool(self.decoder.fitted_arrays))

    def key(self) -> str:
        kind = type(self.decoder)
        shown = f" {self.demonstrations} demonstrations" if self.demonstrations else ""
        parameters = sorted(self.decoder.get_params().items())
        return f"{kind.__module__}.{kind.__qualname__} {parameters}{shown}"

    def fit(self, sample: Features, classes: NDArray[Any]) -> Decoder:
        pool = sample.pool
        decoder: Any = self.told(max(1, sample.queries.shape[1]))
        if self.learns:
            more: dict[str, Any] = {}
            if pool is not None:
                more = {"pool": pool.hidden, "pool_scores": pool.scores}
            y = np.searchsorted(classes, sample.y)  # as a classifier does: classes of any size
            return decoder.fit(sample.hidden, y, scores=sample.scores, **more)
        # It is told how many classes there are, and nothing about the examples.
        K = len(classes)
        scores = None if sample.scores is None else np.zeros((K, K), np.float32)
        hidden = np.zeros((K, sample.hidden.shape[1]), np.float32)
        fitted = decoder.fit(hidden, np.arange(K), scores=scores)
        return fitted if pool is None else fitted.adapt(pool.hidden, scores=pool.scores)

    def check(self, task: Task, *, who: str) -> None:
        self.told(len(task.template.views))

    def told(self, P: int) -> Decoder:
        """Return the decoder for P views (InputError if it was made for another number)."""
        decoder = cast(Decoder, clone(self.decoder))
        tell_views(decoder, P)
        return decoder

    def predict_proba(self, fitted: Decoder, test: Features) -> NDArray[Any]:
        return fitted.predict_proba(test.hidden, scores=test.scores)

    def arrays(self, fitted: Decoder) -> Arrays:
        return {name: np.asarray(getattr(fitted, name)) for name in fitted.fitted_arrays}

    def parameters(self, fitted: Decoder) -> int:
        trained = set(fitted.fitted_arrays) - fitted.fixed_arrays
        return sum(np.size(getattr(fitted, name)) for name in trained)


@dataclass(frozen=True)
class Tfidf(Method):
    """Logistic regression on TF-IDF of words and word pairs: what needs no frozen model at all.

    Sublinear term frequency, C = 10; scikit-learn does the rest.
    """

    def key(self) -> str:
        return "tf-idf, 1-2-grams, sublinear, C=10"

    def fit(self, sample: Features, classes: NDArray[Any]) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        if not any(text.strip() for text in sample.texts):
            raise InputError("tfidf: a sample holds no words; give texts, or leave the method out")
        # Symbols are words too: a sample of emoji has a vocabulary.
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
        pipeline = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))
        with warnings.catch_warnings():  # of one text of each of many classes, which is meant
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            return pipeline.fit(sample.texts, np.searchsorted(classes, sample.y))

    def predict_proba(self, fitted: Any, test: Features) -> NDArray[Any]:
        return fitted.predict_proba(test.texts)

    def arrays(self, fitted: Any) -> Arrays:
        words, regression = fitted[0], fitted[1]
        vocabulary = "\n".join(words.get_feature_names_out()).encode("utf-8")
        return {
            "vocabulary": np.frombuffer(vocabulary, dtype=np.uint8),
            "idf": words.idf_,
            "coef": regression.coef_,
            "intercept": regression.intercept_,
        }

    def parameters(self, fitted: Any) -> int:
        return fitted[1].coef_.size + fitted[1].intercept_.size
