"""Whether to tune the model or to leave it frozen: decided on the labelled examples alone."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from fewfit.decoders import Decoder
from fewfit.decoders.base import tell_views
from fewfit.errors import DivergenceError, InputError, MissingExtraError, TruncationWarning
from fewfit.estimators.examples import fit_decoder
from fewfit.estimators.expected import Training, assign_folds
from fewfit.estimators.temperature import find_temperature
from fewfit.models import FrozenModel
from fewfit.models.paired import JOINT
from fewfit.progress import Progress, showing
from fewfit.prompts import Row, Template
from fewfit.task import Task
from fewfit.tuning import ENCODERS, is_encoder

if TYPE_CHECKING:
    from torch import Tensor

    from fewfit.tuning import Recipe, Trunk, TunedModel, TuningMethod

METHOD = "contrastive"
N_FOLDS = 2
ALPHAS = (0.5, 1.0)
"""How far to go from the frozen model to the trained one, beside not at all."""
ENOUGH = 8
"""Different examples, below which nothing is trained; fewer were not tried."""
MANY = 64
"""Different examples from which on longer trainings are better, of a language model always."""
_SHORT, _LONG = (6, 0.1), (10, 0.06)
"""Steps of a training and their rate, halved in the last one, which goes on from the others."""
_TUNABLE = (*ENCODERS, "hf")


@dataclass(frozen=True)
class Tuning:
    """What ``tune="auto"`` chose, and what that cost.

    Attributes
    ----------
    chosen : {"frozen", "tuned"}
    reason : str
        Why, in words.
    alpha : float
        How far the model is from the frozen one, 0, on the way to what was trained, 1.
    frozen, tuned : float or None
        Share of the labelled examples that were given their class by a classifier that had not
        seen them; None where none could be held out.
    gain : float or None
        Mean probability of their classes, tuned less frozen; what decides. Where the model stays
        frozen, that of the best that is tuned.
    n_trainings, steps : int
        Trainings, those for the decision among them, and the steps of all.
    queries : int
        Texts that tuned models were asked about.
    seconds : float
    values : int
        Numbers that were learnt in the model, and are kept.
    temperature : float
        By what the log-odds of the default decoder or a linear probe are divided, since it is
        fitted to examples that the tuned model has seen: as those held out say, and at least 1.
    """

    chosen: str
    reason: str
    alpha: float = 0.0
    frozen: float | None = None
    tuned: float | None = None
    gain: float | None = None
    n_trainings: int = 0
    steps: int = 0
    queries: int = 0
    seconds: float = 0.0
    values: int = 0
    temperature: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON keeps it."""
        return asdict(self)


def check_tunable(
    model: str | FrozenModel,
    hidden: str | FrozenModel | None,
    views: Sequence[Any],
    max_queries: int | None,
) -> str:
    """Return the spec of a model whose weights are at hand, or refuse it before anything is asked.

    Raises
    ------
    InputError
        For a server, a template that shows examples, or a budget.
    MissingExtraError
        Without torch.
    """
    from fewfit.tuning import load

    spec = model if isinstance(model, str) else model.spec
    if (spec or "").partition(":")[0] not in _TUNABLE:
        raise InputError(
            f"tune: 'auto' trains beside a model's weights, those of {', '.join(_TUNABLE)}, and "
            f"has none of {spec or type(model).__name__}; leave it out"
        )
    if hidden is not None or JOINT in str(spec):
        raise InputError("tune: 'auto' tunes one model, and hidden= names a second; leave one out")
    if (spec or "").startswith("hf:"):
        from fewfit.models.local import split_trained

        if others := split_trained(str(spec))[2]:
            raise InputError(
                f"tune: 'auto' trains a model without {others[0]!r}, which {spec} has; leave out "
                "one of them"
            )
    if any(type(view) is not Template for view in views):
        raise InputError("tune: 'auto' reads templates without examples in them; leave it out")
    if max_queries is not None:
        raise InputError("tune: 'auto' reads the texts as often as it takes; leave out max_queries")
    load(METHOD)
    if find_spec("accelerate") is None:
        raise MissingExtraError('tuning needs accelerate: pip install "fewfit[tune]"')
    return str(spec)


@dataclass
class Tuner:
    """Tunes a frozen model on parts of the examples, and on all of them.

    Parameters
    ----------
    spec : str
        Of the model.
    training : Training
        What the frozen model's decoder was fitted on.
    task : Task
        Of the frozen model.
    decoder : Decoder
        Of its parameters, copies are fitted.
    progress : callable or bool, optional
        True shows a bar; a function is called with the steps made since the last call.
    """

    spec: str
    training: Training
    task: Task
    decoder: Decoder
    progress: Progress | bool | None = None

    def __post_init__(self) -> None:
        self.queries = self.n_trainings = self.steps = self.values = 0
        self.right = np.zeros(len(self.training.codes), dtype=bool)
        self._n_different = len({tuple(row.items()) for row in self.training.rows})
        self._trunk: Trunk | None = None
        self._told: Progress | None = None
        self._parts: list[Mapping[str, Tensor]] = []

    def decide(self) -> tuple[Tuning, TunedModel | None]:
        """Return what is chosen, and the model tuned on all examples where that is it.

        :attr:`right` then says which of them the tuned candidate got right without having seen it.
        """
        begun, codes = time.perf_counter(), self.training.codes
        folds = assign_folds(self.training.rows, codes, N_FOLDS, 0)
        alone = [k for k in np.unique(codes) if len(np.unique(folds[codes == k])) < 2]
        if alone or len(np.unique(codes)) < 2:
            name = self.task.verbalizer.classes[int(alone[0]) if alone else 0]
            why = (
                f"class {str(name)!r} has no two different examples, one of which could be held out"
            )
            return Tuning("frozen", why), None
        if self._pairs():
            why = "a sentence encoder embeds the template's two fields one by one"
            return Tuning("frozen", why), None
        if self._n_different < ENOUGH:
            why = (
                f"{self._n_different} different examples are too few to tell which is better, "
                f"{ENOUGH} are needed; fewfit tune --method contrastive tunes in any case"
            )
            return Tuning("frozen", why), None
        with showing(
            self.progress, (1 + N_FOLDS) * self._recipe.steps, "tuning", "step"
        ) as self._told:
            try:
                told, model = self._chosen(folds)
            except DivergenceError as error:
                told, model = Tuning("frozen", f"it cannot be tuned so: {error}"), None
        self._trunk = None
        cost = {"n_trainings": self.n_trainings, "steps": self.steps, "queries": self.queries}
        return replace(told, **cost, seconds=time.perf_counter() - begun), model

    def _chosen(self, folds: NDArray[np.intp]) -> tuple[Tuning, TunedModel | None]:
        """Return what held-out examples speak for, without its cost, and the model tuned."""
        proba, codes = self.held_out(folds), self.training.codes
        right = proba.argmax(axis=2) == codes
        likely = proba[:, np.arange(len(codes)), codes].mean(axis=1)
        best = 1 + int(likely[1:].argmax())
        gain = float(likely[best] - likely[0])
        yes = gain > 0
        self.right = right[best]
        model = self.models((ALPHAS[best - 1],), shared=False)[0] if yes else None
        told = Tuning(
            "tuned" if yes else "frozen",
            f"held-out examples' classes are {'more' if yes else 'not more'} likely once tuned",
            ALPHAS[best - 1] if yes else 0.0,
            frozen=float(right[0].mean()),
            tuned=float(right[best].mean()),
            gain=gain,
            values=self.values if yes else 0,
            temperature=self._temperature(proba[best]) if yes else 1.0,
        )
        return told, model

    def held_out(self, folds: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the probabilities of the examples, each by models that have not seen it.

        Parameters
        ----------
        folds : ndarray of shape (N,)
            Which examples are held out together.

        Returns
        -------
        ndarray of shape (1 + A, N, K)
            Of the frozen model, then of each of ALPHAS.
        """
        shape = (1 + len(ALPHAS), len(folds), len(self.task.verbalizer.classes))
        proba = np.empty(shape)
        self._parts = []
        for fold in np.unique(folds):
            held = folds == fold
            proba[0, held] = self._frozen(~held, held)
            with warnings.catch_warnings():  # of texts that are cut, which a fit says of its own
                warnings.simplefilter("ignore", TruncationWarning)
                proba[1:, held] = self._tuned(~held, held)
        return proba

    def models(self, alphas: Sequence[float], *, shared: bool = True) -> list[TunedModel]:
        """Return the model tuned on all examples, for each alpha.

        The training goes on from the mean of those that :meth:`held_out` made on parts of them
        (Wortsman et al. 2022, arXiv 2203.05482).

        Parameters
        ----------
        shared : bool, default=True
            If not, the one model takes the network over.
        """
        import torch

        every = np.ones(len(self.training.codes), dtype=bool)
        parts, recipe, start = self._parts, self._recipe, None
        if parts:
            start = {name: torch.stack([p[name] for p in parts]).mean(dim=0) for name in parts[0]}
            recipe = replace(recipe, learning_rate=recipe.learning_rate / 2, warmup=0.0)
        trained = self._train(every, recipe, start)
        return self._at(trained, alphas, recipe, len(every), shared=shared)

    @property
    def _method(self) -> TuningMethod:
        from fewfit.tuning import make_method

        return make_method(METHOD)

    @property
    def _recipe(self) -> Recipe:
        short = is_encoder(self.spec) and self._n_different < MANY
        steps, rate = _SHORT if short else _LONG
        return replace(self._method.recipe, steps=steps, learning_rate=rate)

    def _temperature(self, proba: NDArray[np.float64]) -> float:
        training = self.training
        return (
            find_temperature(proba, training.codes, training.weight)
            if self.decoder.tempers
            else 1.0
        )

    def _pairs(self) -> bool:
        given = self.task.model.capabilities
        return given.pairs and any(len(view.fields) == 2 for view in self.task.template.views)

    def _frozen(self, kept: NDArray[np.bool_], held: NDArray[np.bool_]) -> NDArray[Any]:
        hidden, scores = self.training.hidden, self.training.scores
        own = None if scores is None else (scores[kept], scores[held])
        return self._decoded(kept, hidden[kept], hidden[held], own)

    def _tuned(self, kept: NDArray[np.bool_], held: NDArray[np.bool_]) -> list[NDArray[Any]]:
        """Return the probabilities of held rows for each of ALPHAS."""
        found, rows = [], self.training.rows
        self._parts.append(self._train(kept, self._recipe))
        for model in self._at(self._parts[-1], ALPHAS, self._recipe, int(kept.sum())):
            task = replace(self.task, model=model, prior=None)
            task, seen, n = task.begin([rows[i] for i in np.flatnonzero(kept).tolist()])
            new = task.observe([rows[i] for i in np.flatnonzero(held).tolist()])
            self.queries += n + new.queries
            (h, s), (g, t) = task.features(seen), task.features(new)
            found.append(self._decoded(kept, h, g, None if s is None or t is None else (s, t)))
        return found

    def _decoded(
        self,
        kept: NDArray[np.bool_],
        hidden: NDArray[np.float32],
        new: NDArray[np.float32],
        scores: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
    ) -> NDArray[Any]:
        """Return probabilities of `new` rows, of a decoder fitted to the rows that are kept."""
        copy = clone(self.decoder)
        tell_views(copy, self.training.n_views)
        known, unknown = scores or (None, None)
        classes = self.task.verbalizer.classes
        weight = None if self.training.weight is None else self.training.weight[kept]
        fit_decoder(copy, self.training.codes[kept], hidden, known, classes, {}, weight)
        return copy.predict_proba(new, scores=unknown)

    def _train(
        self,
        kept: NDArray[np.bool_],
        recipe: Recipe,
        start: Mapping[str, Tensor] | None = None,
    ) -> Mapping[str, Tensor]:
        """Return what is learnt of some rows, from the frozen model on or from another start."""
        from fewfit.tuning import Data, Run, Trunk

        if self._trunk is None:
            self._trunk = Trunk.load(self.spec).reads(self._method.reading)
        codes, texts = self.training.codes, self.training.rows
        rows = [self._wordings(texts[i], int(codes[i])) for i in np.flatnonzero(kept).tolist()]
        run = Run(recipe, start=start, progress=self._told)
        adapter = self._method.fit(self._trunk, Data(rows), run)
        self.n_trainings, self.steps = self.n_trainings + 1, self.steps + recipe.steps
        self.values = adapter.count
        return adapter.tensors()

    def _at(
        self,
        trained: Mapping[str, Tensor],
        alphas: Sequence[float],
        recipe: Recipe,
        n_examples: int,
        *,
        shared: bool = True,
    ) -> list[TunedModel]:
        """Return the model that lies so far on the way to what was trained, for each alpha."""
        from fewfit.tuning import Run, TunedModel
        from fewfit.tuning.artifact import adapter_files
        from fewfit.tuning.losses.contrastive import between

        trunk, method, run, made = self._trunk, self._method, Run(recipe), []
        assert trunk is not None
        for alpha in alphas:
            adapter = method.fresh(trunk, run)
            files = adapter_files(
                adapter.restore(between(adapter.tensors(), trained, alpha)),
                method=replace(method, alpha=alpha),
                base_spec=trunk.spec,
                base_identity=trunk.identity,
                recipe=recipe,
                n_examples=n_examples,
                seed=run.seed,
            )
            made.append(TunedModel.of(files, trunk=trunk, shared=shared))
        return made

    def _wordings(self, row: Row, answer: int) -> list[Any]:
        from fewfit.tuning import ChoiceExample

        words = tuple(self.task.verbalizer.first)
        return [ChoiceExample(v.render(row), words, answer) for v in self.task.template.views]
