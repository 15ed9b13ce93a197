"""Text in, label out: one scikit-learn estimator around a frozen model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from fewfit import artifact
from fewfit._version import __version__
from fewfit.calibration import CALIBRATIONS, Calibration, make_calibration
from fewfit.decoders import DECODERS, Decoder, OffsetLogisticRegression
from fewfit.errors import (
    ArtifactError,
    InputError,
    ModelError,
    ModelMismatchError,
    ModelWarning,
)
from fewfit.models import FrozenModel, load_model
from fewfit.models.base import Progress
from fewfit.models.budget import BudgetedModel
from fewfit.observations import Observations, Status
from fewfit.prompts import Template, Verbalizer, read_labels, read_rows
from fewfit.prompts.verbalizer import Label
from fewfit.store import StoredModel, default_path
from fewfit.task import MAX_CENSORED, Task

_TUNED = "tuning.json"

DEFAULT_TEMPLATE = "{text} This is about {mask}."


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Adapt a frozen model to a classification task: one query per example, then milliseconds.

    Parameters
    ----------
    model : str or FrozenModel, default="embedded"
        Who is asked; see :func:`fewfit.load_model`.
    template : str, default="{text} This is about {mask}."
        Text with named fields and one slot for the label word.
    labels : mapping of class to str or list of str, optional
        The label words of each class. If left out, each class is spelled by its own name, with
        underscores read as spaces.
    decoder : Decoder, optional
        What is trained on the answers; left out, it is :class:`OffsetLogisticRegression`.
    calibration : {"contextual", "none", "ratio"} or Calibration, default="contextual"
        How the model's prior over labels is removed from its scores.
    store : "default", path or None, default="default"
        Where answers are kept so that none is paid for twice: "default" is a file in the user's
        cache folder (``$FEWFIT_CACHE`` moves it), None keeps nothing.
    max_queries : int, optional
        How many queries `fit` and all calls after it may pay for together. A call that needs more
        asks what it can, stores that and raises; the same call again goes on from there.
    errors : {"raise", "nan"}, default="raise"
        What becomes of an example that the model gave no usable answer to. "raise" raises, with
        everything else stored; "nan" leaves it out of `fit` and gives it a row of NaN in
        :meth:`predict_proba`. It never gets a guessed label: :meth:`predict` raises either way.
    max_censored : float, default=0.5
        Largest share of class scores that may be bounds in `fit`, for servers that list only
        their most probable tokens.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        The classes, sorted: the order of the columns of :meth:`predict_proba`.
    decoder_ : Decoder
        The fitted decoder.
    task_ : Task
        Template, label words and calibration as they were fitted, and the frozen model with the
        store in front of it.
    n_queries_ : int
        How many queries `fit` paid for: one per distinct prompt that the store lacked.
    n_retries_ : int
        How many attempts were made again for them.
    doctor_ : dict or None
        The report of :func:`fewfit.models.probe.probe` on the frozen model, if one was put here;
        it is saved with the task.

    Raises
    ------
    InputError
        From `fit` and `predict`, before any query: texts, labels, template or label words that do
        not go together.
    CapabilityError
        Before any query: the decoder or the calibration needs what the model does not give. After
        them: too many of the class scores are bounds.
    ModelError
        The model did not answer, or not all of it.
    BudgetExceededError
        More than `max_queries` are needed.

    Examples
    --------
    >>> from fewfit import FewShotClassifier
    >>> clf = FewShotClassifier(model="fake", labels={"no": "bad", "yes": "good"}, store=None)
    >>> clf = clf.fit(["so good", "quite bad"], ["yes", "no"])
    >>> clf.predict(["good"])
    array(['yes'], dtype='<U3')
    >>> clf.n_queries_  # two texts and the empty one, for the calibration
    3
    """

    classes_: NDArray[Any]
    decoder_: Decoder
    task_: Task
    n_queries_: int
    n_retries_: int
    doctor_: dict[str, Any] | None
    _example: artifact.Example | None

    def __init__(
        self,
        model: str | FrozenModel = "embedded",
        *,
        template: str = DEFAULT_TEMPLATE,
        labels: Mapping[Any, str | Sequence[str]] | None = None,
        decoder: Decoder | None = None,
        calibration: str | Calibration = "contextual",
        store: str | Path | None = "default",
        max_queries: int | None = None,
        errors: str = "raise",
        max_censored: float = MAX_CENSORED,
    ) -> None:
        self.model = model
        self.template = template
        self.labels = labels
        self.decoder = decoder
        self.calibration = calibration
        self.store = store
        self.max_queries = max_queries
        self.errors = errors
        self.max_censored = max_censored

    def fit(self, X: Any, y: Any, *, progress: Progress | None = None) -> Self:
        """Ask the model about each example once, and fit the decoder to its answers.

        Parameters
        ----------
        X : sequence of str, sequence of mapping, or table
            The examples; see :func:`fewfit.prompts.read_rows`.
        y : sequence of str or of int, length N
            Their classes: each has label words, and each class with label words occurs.
        progress : callable, optional
            Called with the number of prompts newly answered.

        Returns
        -------
        self
        """
        template = Template(self.template)
        rows = read_rows(X, template.fields)
        y = np.array(read_labels(y, len(rows)))
        verbalizer = Verbalizer.from_classes(y) if self.labels is None else Verbalizer(self.labels)
        _check_same_classes(verbalizer, y)
        decoder = cast(
            Decoder, clone(self.decoder if self.decoder is not None else OffsetLogisticRegression())
        )
        calibration = make_calibration(self.calibration)
        task = Task(
            open_model(self.model, self.store, self.max_queries),
            template,
            verbalizer,
            calibration,
            errors=_check_errors(self.errors),
            max_censored=self.max_censored,
        )
        task.check(decoder.requires, who=type(decoder).__name__)

        retries = task.model.retries
        self.task_, answers, self.n_queries_ = task.begin(rows, progress=progress)
        self.n_retries_ = task.model.retries - retries
        answered = np.flatnonzero(answers.status != Status.FAILED)
        _check_kept(verbalizer, y, answered)
        answers, y = answers[answered], y[answered]
        hidden, scores = self.task_.features(answers)
        self.decoder_ = decoder.fit(hidden, y, scores=scores)
        self.classes_ = self.decoder_.classes_
        self.n_examples_ = len(answered)
        self.doctor_ = None
        self._example = artifact.Example(
            row=dict(rows[answered[0]]), probabilities=self.decode(answers[:1])[0].tolist()
        )
        return self

    def predict_proba(self, X: Any, *, progress: Progress | None = None) -> NDArray[np.float64]:
        """Return the probability of each class, shape (N, K), columns as in ``classes_``.

        With ``errors="nan"`` an example without a usable answer has a row of NaN.
        """
        return self.decode(self.observe(X, progress=progress))

    def predict(self, X: Any, *, progress: Progress | None = None) -> NDArray[Any]:
        """Return the most probable class of each example, shape (N,).

        Raises
        ------
        ModelError
            If an example got no usable answer, with ``errors="nan"`` too: a label would be a guess.
        """
        probabilities = self.predict_proba(X, progress=progress)
        failed = int(np.isnan(probabilities[:, 0]).sum())
        if failed:
            raise ModelError(
                f"{failed} of {len(probabilities)} examples got no usable answer and so have no "
                "label; predict_proba gives the others, with NaN for these"
            )
        return self.classes_[probabilities.argmax(axis=1)]

    def observe(self, X: Any, *, progress: Progress | None = None) -> Observations:
        """Ask the frozen model about examples; :meth:`decode` turns the answers into probabilities.

        Returns
        -------
        Observations
            N rows with one score column per class; ``.queries`` says what they cost.
        """
        check_is_fitted(self, "classes_")
        return self.task_.observe(read_rows(X, self.task_.template.fields), progress=progress)

    def decode(self, observations: Observations) -> NDArray[np.float64]:
        """Turn the answers of :meth:`observe` into probabilities, shape (N, K), at no cost.

        A row that was not answered becomes NaN.
        """
        check_is_fitted(self, "classes_")
        answered = observations.status != Status.FAILED
        out = np.full((len(observations), len(self.classes_)), np.nan)
        if answered.any():
            hidden, scores = self.task_.features(observations[answered])
            out[answered] = self.decoder_.predict_proba(hidden, scores=scores)
        return out

    def save(self, folder: str | Path) -> None:
        """Write the fitted task to a folder: data only, kilobytes; see :mod:`fewfit.artifact`.

        Raises
        ------
        ArtifactError
            If the folder is something else, or the decoder is not one of fewfit's own.
        """
        check_is_fitted(self, "classes_")
        task, decoder = self.task_, self.decoder_
        if self._example is None:
            raise ArtifactError(f"{task.model.spec} is saved already; copy its folder")
        names = [name for name, kind in DECODERS.items() if kind is type(decoder)]
        if not names or type(task.calibration) not in CALIBRATIONS.values():
            raise ArtifactError(
                "only fewfit's own decoders and calibrations can be saved, since nothing in an "
                f"artifact is imported by name; this one has {type(decoder).__name__}"
            )
        arrays = {name: getattr(decoder, name) for name in decoder.fitted_arrays}
        if task.prior is not None:
            arrays["prior"] = task.prior
        manifest = artifact.Manifest(
            schema_version=artifact.SCHEMA_VERSION,
            fewfit_version=__version__,
            template=task.template.source,
            labels=task.verbalizer.to_list(),
            calibration=artifact.CalibrationEntry(
                name=task.calibration.name,
                content_free=list(task.calibration.content_free),
            ),
            decoder=artifact.DecoderEntry(name=names[0], parameters=_plain(decoder)),
            model_spec=task.model.spec,
            model_identity=dict(task.model.identity),
            n_examples=self.n_examples_,
            example=self._example,
            doctor=self.doctor_,
            files={},
        )
        artifact.write(folder, manifest, arrays)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        model: str | FrozenModel | None = None,
        store: str | Path | None = "default",
        max_queries: int | None = None,
        errors: str = "raise",
        verify: bool = False,
    ) -> Self:
        """Read a fitted task. No code in it is run, and nothing is fetched.

        Parameters
        ----------
        folder : path
            Written by :meth:`save` or by ``fewfit tune``.
        model : str or FrozenModel, optional
            The frozen model to predict with, if not the one that the artifact names. It must have
            the identity of the model that the task was fitted on.
        store : "default", path or None, default="default"
        max_queries : int, optional
        errors : {"raise", "nan"}, default="raise"
        verify : bool, default=False
            Whether to ask the artifact's example again and compare its probabilities. What
            ``fewfit tune`` wrote holds no example; its model is compared by its hashes.

        Raises
        ------
        ArtifactError
            If the artifact is damaged, foreign, or fails the verification.
        ModelMismatchError
            If the model is another one; the message names what differs.
        """
        if (Path(folder) / _TUNED).is_file():
            return cls._of_tuned(folder, model, store, max_queries, errors)
        manifest, arrays = artifact.read(folder)
        spec = model if model is not None else manifest.model_spec
        if spec is None:
            raise ModelError(
                f"{folder} was fitted on a model that only code can make; pass it as model=..."
            )
        try:
            decoder = DECODERS[manifest.decoder.name](**manifest.decoder.parameters)
            calibration = CALIBRATIONS[manifest.calibration.name](
                content_free=tuple(manifest.calibration.content_free)
            )
            labels = dict(manifest.labels)
            template, verbalizer = Template(manifest.template), Verbalizer(labels)
        except (KeyError, TypeError, InputError) as error:
            raise ArtifactError(
                f"{folder}: the manifest does not hold together: {error}"
            ) from error
        self = cls(
            spec,
            template=manifest.template,
            labels=labels,
            decoder=decoder,
            calibration=calibration,
            store=store,
            max_queries=max_queries,
            errors=errors,
        )
        task = Task(
            open_model(spec, store, max_queries),
            template,
            verbalizer,
            calibration,
            errors=_check_errors(errors),
        )
        _check_identity(manifest.model_identity, task.model.identity)
        prior = arrays.pop("prior", None)
        scored = task.model.capabilities.scores is not None
        if (prior is not None) != scored or (
            prior is not None and prior.shape != (len(verbalizer.classes),)
        ):
            raise ArtifactError(f"{folder}: array 'prior' does not fit the model and the classes")
        self.task_ = replace(task, prior=prior)
        self.decoder_ = decoder.restore(arrays, np.array(verbalizer.classes))
        self.classes_ = self.decoder_.classes_
        self.n_queries_, self.n_retries_, self.n_examples_ = 0, 0, manifest.n_examples
        self.doctor_ = manifest.doctor
        self._example = manifest.example
        if verify:
            self._verify(folder)
        return self

    @classmethod
    def _of_tuned(
        cls,
        folder: str | Path,
        model: str | FrozenModel | None,
        store: str | Path | None,
        max_queries: int | None,
        errors: str,
    ) -> Self:
        """Rank a tuned model's own scores; `model` says where its network is now."""
        from fewfit.tuning import TunedModel

        if isinstance(model, FrozenModel):
            raise InputError("model: tuned vectors need the string that names their checkpoint")
        tuned = TunedModel(folder, base=model)
        entry = tuned.manifest.task
        if entry is None:
            raise ArtifactError(f"{folder} holds vectors to start from, and no task")
        labels, source = dict(entry.labels), entry.templates[0]
        decoder, calibration = DECODERS["zero-shot"](), CALIBRATIONS["none"]()
        self = cls(
            tuned,
            template=source,
            labels=labels,
            decoder=decoder,
            calibration=calibration,
            store=store,
        )
        verbalizer = Verbalizer(labels)
        prior = np.zeros(len(verbalizer.classes))
        self.task_ = Task(
            open_model(tuned, store, max_queries),
            Template(source),
            verbalizer,
            calibration,
            prior=prior,
            errors=_check_errors(errors),
        )
        self.decoder_ = decoder.restore({}, np.array(verbalizer.classes))
        self.classes_ = self.decoder_.classes_
        self.n_queries_, self.n_examples_ = 0, tuned.manifest.n_examples
        self.n_retries_, self.doctor_ = 0, None
        self._example = None
        return self

    def _verify(self, folder: str | Path) -> None:
        assert self._example is not None
        again = self.predict_proba([self._example.row])[0]
        gap = float(np.abs(again - self._example.probabilities).max())
        if not gap <= 1e-4:
            raise ArtifactError(
                f"{folder}: the example of the artifact gives probabilities that differ by "
                f"{gap:.2g} from those it was saved with"
            )


def open_model(
    spec: str | FrozenModel, store: str | Path | None, max_queries: int | None = None
) -> FrozenModel:
    """Return the frozen model that `spec` names, behind a store and a budget unless None."""
    if isinstance(spec, str) and spec.startswith("tuned:"):
        from fewfit.tuning import TunedModel

        model: FrozenModel = TunedModel(spec.removeprefix("tuned:"))
    else:
        model = load_model(spec)
    if isinstance(model, StoredModel):
        model, store = model.model, model.path
    if max_queries is not None:
        model = BudgetedModel(model, max_queries, keeps=store is not None)
    if store is None:
        return model
    return StoredModel(model, default_path() if store == "default" else store)


def _check_same_classes(verbalizer: Verbalizer, y: NDArray[Any]) -> None:
    known: set[Label] = set(verbalizer.classes)
    seen: set[Label] = set(y.tolist())
    if seen - known:
        raise InputError(
            f"y: class {min(seen - known, key=str)!r} has no label words; labels has "
            f"{list(verbalizer.classes)}"
        )
    if known - seen:
        raise InputError(
            f"labels: class {min(known - seen, key=str)!r} has label words but no example in y; "
            "give it at least one example or leave it out"
        )


def _check_errors(errors: str) -> str:
    if errors not in ("raise", "nan"):
        raise InputError(f"errors: expected 'raise' or 'nan', got {errors!r}")
    return errors


def _check_kept(verbalizer: Verbalizer, y: NDArray[Any], answered: NDArray[np.intp]) -> None:
    """Report examples that are left out of a fit; refuse if a class has none left."""
    if len(answered) == len(y):
        return
    lost = set(verbalizer.classes) - set(y[answered].tolist())
    if lost:
        raise ModelError(
            f"the model gave no usable answer to any example of class {min(lost, key=str)!r}; run "
            "again to ask only what is missing"
        )
    warnings.warn(
        f"{len(y) - len(answered)} of {len(y)} examples got no usable answer and are left out",
        ModelWarning,
        stacklevel=3,
    )


def _check_identity(fitted: Mapping[str, str], given: Mapping[str, str]) -> None:
    for field in sorted({*fitted, *given}):
        if fitted.get(field) != given.get(field):
            raise ModelMismatchError(
                f"the artifact was fitted on another frozen model: {field} was "
                f"{fitted.get(field)!r}, this model has {given.get(field)!r}"
            )


def _plain(decoder: Decoder) -> dict[str, Any]:
    """Parameters as JSON keeps them; a random state that is not a number cannot be kept."""
    parameters: dict[str, Any] = {}
    for name, value in decoder.get_params().items():
        value = value.item() if isinstance(value, np.generic) else value
        parameters[name] = None if isinstance(value, np.random.RandomState) else value
    return parameters
