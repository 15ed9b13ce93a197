"""Text in, label out: one scikit-learn estimator around a frozen model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from fewfit import artifact
from fewfit._version import __version__
from fewfit.calibration import CALIBRATIONS, Calibration, make_calibration
from fewfit.decoders import DECODERS, Decoder
from fewfit.errors import (
    ArtifactError,
    InputError,
    ModelError,
    ModelMismatchError,
)
from fewfit.models import FrozenModel, load_model
from fewfit.models.base import Progress
from fewfit.models.vocabulary import VocabularyModel
from fewfit.observations import Observations
from fewfit.prompts import (
    InContext,
    Template,
    Verbalizer,
    View,
    Views,
    read_labels,
    read_rows,
)
from fewfit.prompts.verbalizer import Label
from fewfit.store import StoredModel, default_path
from fewfit.task import Task

DEFAULT_TEMPLATE = "{text} This is about {mask}."


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Adapt a frozen model to a classification task: one query per example, then milliseconds.

    Parameters
    ----------
    model : str or FrozenModel, default="embedded"
        Who is asked; see :func:`fewfit.load_model`.
    template : str, View, or list of these, default="{text} This is about {mask}."
        Text with named fields and one slot for the label word. Of several, each is asked about
        every example: their hidden states are put side by side and their calibrated scores are
        averaged, unless the decoder does better.
    labels : mapping of class to str, list of str, or mapping of str to float, optional
        The label words of each class, with weights or without; see :class:`Verbalizer`. If
        left out, each class is spelled by its own name, with
        underscores read as spaces.
    decoder : Decoder, optional
        What is trained on the answers; left out, it is :class:`DecT`.
    calibration : str or Calibration, default="contextual"
        How the model's prior over labels is removed from its scores: "none", "contextual",
        "domain-context", "batch", "pmi" or "ratio"; see :mod:`fewfit.calibration`.
    store : "default", path or None, default="default"
        Where answers are kept so that none is paid for twice: "default" is a file in the user's
        cache folder (``$FEWFIT_CACHE`` moves it), None keeps nothing.

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

    Raises
    ------
    InputError
        From `fit` and `predict`, before any query: texts, labels, template or label words that do
        not go together.
    CapabilityError
        Before any query: the decoder or the calibration needs what the model does not give.

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

    def __init__(
        self,
        model: str | FrozenModel = "embedded",
        *,
        template: str | View | Sequence[str | View] = DEFAULT_TEMPLATE,
        labels: Mapping[Any, str | Sequence[str] | Mapping[str, float]] | None = None,
        decoder: Decoder | None = None,
        calibration: str | Calibration = "contextual",
        store: str | Path | None = "default",
    ) -> None:
        self.model = model
        self.template = template
        self.labels = labels
        self.decoder = decoder
        self.calibration = calibration
        self.store = store

    def fit(
        self, X: Any, y: Any, *, unlabelled: Any = None, progress: Progress | None = None
    ) -> Self:
        """Ask the model about each example once, and fit the decoder to its answers.

        Parameters
        ----------
        X : sequence of str, sequence of mapping, or table
            The examples; see :func:`fewfit.prompts.read_rows`.
        y : sequence of str or of int, length N
            Their classes: each has label words, and each class with label words occurs.
        unlabelled : like X, optional
            Further examples, for a decoder that learns from texts without labels; one query each
            and view.
        progress : callable, optional
            Called with the number of prompts newly answered.

        Returns
        -------
        self
        """
        template = make_views(self.template)
        rows = read_rows(X, template.fields)
        y = np.array(read_labels(y, len(rows)))
        verbalizer = Verbalizer.from_classes(y) if self.labels is None else Verbalizer(self.labels)
        _check_same_classes(verbalizer, y)
        pool_rows = None if unlabelled is None else read_rows(unlabelled, template.fields)
        decoder = cast(Decoder, clone(self.decoder if self.decoder is not None else _default()))
        _tell_views(decoder, len(template.views))
        if pool_rows is not None and not decoder.unlabelled:
            raise InputError(
                f"unlabelled: {type(decoder).__name__} does not learn from texts without labels; "
                "take IPET, or leave them out"
            )
        calibration = make_calibration(self.calibration)
        model = open_model(self.model, self.store, decoder.requires)
        task = Task(model, template, verbalizer, calibration)
        task.check(decoder.requires, who=type(decoder).__name__)

        codes = np.searchsorted(np.array(verbalizer.classes), y)
        self.task_, answers, self.n_queries_ = task.begin(rows, y=codes, progress=progress)
        hidden, scores = self.task_.features(answers)
        further: dict[str, Any] = {}
        if pool_rows is not None:
            pool = self.task_.observe(pool_rows, progress=progress)
            self.n_queries_ += pool.queries
            further["pool"] = self.task_.features(pool)[0]
        self.decoder_ = decoder.fit(hidden, y, scores=scores, **further)
        self.classes_ = self.decoder_.classes_
        self.n_examples_ = len(rows)
        self._example = artifact.Example(
            row=dict(rows[0]), probabilities=self.decode(answers[: len(template.views)])[0].tolist()
        )
        return self

    def predict_proba(self, X: Any, *, progress: Progress | None = None) -> NDArray[np.float64]:
        """Return the probability of each class, shape (N, K), columns as in ``classes_``."""
        return self.decode(self.observe(X, progress=progress))

    def predict(self, X: Any, *, progress: Progress | None = None) -> NDArray[Any]:
        """Return the most probable class of each example, shape (N,)."""
        best = self.predict_proba(X, progress=progress).argmax(axis=1)
        return self.classes_[best]

    def observe(self, X: Any, *, progress: Progress | None = None) -> Observations:
        """Ask the frozen model about examples; :meth:`decode` turns the answers into probabilities.

        Returns
        -------
        Observations
            One row per example and view, with one score column per class; ``.queries`` says what
            they cost.
        """
        check_is_fitted(self, "classes_")
        return self.task_.observe(read_rows(X, self.task_.template.fields), progress=progress)

    def decode(self, observations: Observations) -> NDArray[np.float64]:
        """Turn the answers of :meth:`observe` into probabilities, shape (N, K), at no cost."""
        check_is_fitted(self, "classes_")
        hidden, scores = self.task_.features(observations)
        return self.decoder_.predict_proba(hidden, scores=scores).astype(np.float64)

    def save(self, folder: str | Path) -> None:
        """Write the fitted task to a folder: data only, kilobytes; see :mod:`fewfit.artifact`.

        Raises
        ------
        ArtifactError
            If the folder is something else, or the decoder, the calibration or a view is not one
            of fewfit's own.
        """
        check_is_fitted(self, "classes_")
        task, decoder = self.task_, self.decoder_
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
            template=[_view_entry(view) for view in task.template.views],
            labels=task.verbalizer.to_list(),
            calibration=artifact.CalibrationEntry(
                name=task.calibration.name,
                parameters={
                    name: list(value) if isinstance(value, tuple) else value
                    for name, value in asdict(task.calibration).items()
                },
            ),
            decoder=artifact.DecoderEntry(name=names[0], parameters=_plain(decoder)),
            model_spec=task.model.spec,
            model_identity=dict(task.model.identity),
            n_examples=self.n_examples_,
            example=self._example,
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
        verify: bool = False,
    ) -> Self:
        """Read a fitted task. No code in it is run, and nothing is fetched.

        Parameters
        ----------
        folder : path
        model : str or FrozenModel, optional
            The frozen model to predict with, if not the one that the artifact names. It must have
            the identity of the model that the task was fitted on.
        store : "default", path or None, default="default"
        verify : bool, default=False
            Whether to ask the artifact's example again and compare its probabilities.

        Raises
        ------
        ArtifactError
            If the artifact is damaged, foreign, or fails the verification.
        ModelMismatchError
            If the model is another one; the message names what differs.
        """
        manifest, arrays = artifact.read(folder)
        spec = model if model is not None else manifest.model_spec
        if spec is None:
            raise ModelError(
                f"{folder} was fitted on a model that only code can make; pass it as model=..."
            )
        try:
            decoder = DECODERS[manifest.decoder.name](**manifest.decoder.parameters)
            parameters: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in manifest.calibration.parameters.items()
            }
            calibration = CALIBRATIONS[manifest.calibration.name](**parameters)
            views = [_read_view(entry) for entry in manifest.template]
            template, verbalizer = make_views(views), Verbalizer.from_list(manifest.labels)
        except (KeyError, TypeError, InputError) as error:
            raise ArtifactError(
                f"{folder}: the manifest does not hold together: {error}"
            ) from error
        self = cls(
            spec,
            template=views if len(views) > 1 else views[0],
            labels=verbalizer.labels,
            decoder=decoder,
            calibration=calibration,
            store=store,
        )
        frozen = open_model(spec, store, decoder.requires)
        task = Task(frozen, template, verbalizer, calibration)
        _check_identity(manifest.model_identity, task.model.identity)
        prior = arrays.pop("prior", None)
        scored = task.model.capabilities.scores is not None
        if (prior is not None) != scored or (
            prior is not None and prior.shape != (len(views), len(verbalizer.classes))
        ):
            raise ArtifactError(f"{folder}: array 'prior' does not fit the model and the classes")
        self.task_ = replace(task, prior=prior)
        self.decoder_ = decoder.restore(arrays, np.array(verbalizer.classes))
        self.classes_ = self.decoder_.classes_
        self.n_queries_, self.n_examples_ = 0, manifest.n_examples
        self._example = manifest.example
        if verify:
            self._verify(folder)
        return self

    def _verify(self, folder: str | Path) -> None:
        again = self.predict_proba([self._example.row])[0]
        gap = float(np.abs(again - self._example.probabilities).max())
        if not gap <= 1e-4:
            raise ArtifactError(
                f"{folder}: the example of the artifact gives probabilities that differ by "
                f"{gap:.2g} from those it was saved with"
            )


def make_views(template: str | View | Views | Sequence[str | View]) -> View | Views:
    """Return the view, or the set of views, that `template` spells (InputError if it is none)."""
    if isinstance(template, View | Views):
        return template
    if isinstance(template, list | tuple):
        views = [part if isinstance(part, View) else Template(part) for part in template]
        return views[0] if len(views) == 1 else Views(views)
    return Template(cast(str, template))


def open_model(
    spec: str | FrozenModel, store: str | Path | None, requires: frozenset[str] = frozenset()
) -> FrozenModel:
    """Return the frozen model that `spec` names, with the store in front of it unless None.

    Where a decoder `requires` the full vocabulary, the model's hidden state is its distribution
    over the vocabulary; see :class:`fewfit.models.vocabulary.VocabularyModel`.
    """
    model = load_model(spec)
    if isinstance(model, StoredModel) and "full_vocabulary" in requires:
        model, store = model.model, model.path
    if "full_vocabulary" in requires:
        model = VocabularyModel(model)
    if store is None or isinstance(model, StoredModel):
        return model
    return StoredModel(model, default_path() if store == "default" else store)


def _default() -> Decoder:
    return DECODERS["dect"]()


def _tell_views(decoder: Decoder, P: int) -> None:
    """Tell a decoder that cuts the hidden states into views how many there are."""
    if "n_views" not in decoder.get_params():
        return
    if decoder.get_params()["n_views"] not in (None, P):
        raise InputError(
            f"decoder: {type(decoder).__name__} expects {decoder.get_params()['n_views']} views, "
            f"the template has {P}; leave n_views out"
        )
    decoder.set_params(n_views=P)


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


def _view_entry(view: View) -> artifact.ViewEntry:
    if type(view) is Template:
        return artifact.ViewEntry(template=view.source, in_context=None)
    if type(view) is InContext:
        options = view.options()
        options["demonstrations"] = [(dict(row), word) for row, word in view.demonstrations or ()]
        return artifact.ViewEntry(
            template=view.template, in_context=artifact.DemonstrationsEntry(**options)
        )
    raise ArtifactError(f"{view!r} holds code of the user's and cannot be saved")


def _read_view(entry: artifact.ViewEntry) -> Any:
    if entry.in_context is None:
        Template(entry.template)
        return entry.template
    options = entry.in_context.model_dump()
    return InContext(entry.template, **options)


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
