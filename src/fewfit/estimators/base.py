"""What the estimators on texts share: asking, decoding, and a folder on disk."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from fewfit.artifacts.schema import ColumnsEntry, Example
from fewfit.decoders import Decoder, MultiLabel
from fewfit.errors import (
    ArtifactError,
    InputError,
    ModelError,
    ModelMismatchError,
    ModelWarning,
)
from fewfit.estimators.expected import ExpectedAccuracy, Training, cross_validate
from fewfit.estimators.fitted import Fitted, check_identity, load_fitted, save_fitted, verify_fitted
from fewfit.estimators.hub import fetched, push
from fewfit.models import FrozenModel
from fewfit.models.optional import check_installed, tuned_on
from fewfit.observations import Observations
from fewfit.progress import Progress, showing
from fewfit.prompts import Row, Template, read_rows
from fewfit.prompts.containers import shown
from fewfit.prompts.labels import class_array
from fewfit.task import Task

_HUB_OPTIONS = ("token", "cache_dir", "force_download", "local_files_only")


class TextEstimator(BaseEstimator):
    """A fitted task with a decoder on it; see :class:`fewfit.FewShotClassifier`."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "model": [str, FrozenModel],
        "template": "no_validation",  # make_views reads it
        "decoder": "no_validation",  # make_decoder looks it up
        "store": [str, PathLike, None],
        "max_queries": [Interval(Integral, 0, None, closed="left"), None],
        "errors": [StrOptions({"raise", "nan"})],
    }

    kind: ClassVar[type[Decoder | MultiLabel]]
    """The decoders that an artifact of this estimator holds."""

    classes_: NDArray[Any]
    decoder_: Any
    task_: Task
    n_queries_: int
    n_retries_: int
    doctor_: dict[str, Any] | None
    columns_: ColumnsEntry | None
    n_examples_: int
    _counts: list[int] | None = None
    _expected: dict[str, Any] | None = None
    _tuned: Path | None = None
    _probe: Example | None = None
    """What the model is asked again to see if it still answers the same; no text of the user's."""

    _example: Example | None = None
    """One of the user's, in its place, as long as the object lives or was loaded with it."""

    _training: Training | None = None
    """What the decoder was fitted on, as long as the object lives."""

    _identity: Mapping[str, str] | None = None
    """The model that a pickled classifier was fitted on; checked when it asks again."""

    def predict_proba(
        self, X: Any, *, progress: Progress | bool | None = None
    ) -> NDArray[np.float64]:
        """Return the probability of each class, shape (N, K), columns as in ``classes_``.

        Nothing is written to the estimator, so that threads may share it. With ``errors="nan"`` an
        example without a usable answer has a row of NaN.
        """
        return self.decode(self.observe(X, progress=progress))

    def predict_log_proba(
        self, X: Any, *, progress: Progress | bool | None = None
    ) -> NDArray[np.float64]:
        """Return the logarithm of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X, progress=progress))

    def expected_accuracy(self, *, n_folds: int = 10, seed: int = 0) -> ExpectedAccuracy:
        """Return the cross-validated accuracy on the examples of `fit`; no query is asked.

        Where an example has several labels, the share that is given exactly its labels. Of a model
        that was tuned on labelled rows (``tuned:``) it may be too high, which `reason` says.

        Parameters
        ----------
        n_folds : int, default=10
            The decoder is fitted this often, each time without a part of the rows: stratified, and
            with equal texts in the same part.
        seed : int, default=0
            Which rows are held out together.

        Raises
        ------
        InputError
            If the classifier was loaded or unpickled, or fitted without examples: the answers are
            kept in memory alone.
        """
        check_is_fitted(self, "classes_")
        if self._training is None:
            raise InputError(
                "expected_accuracy: the answers of fit are not here; only the object that was "
                "fitted, on examples, has them"
            )
        classes = self.classes_.tolist()
        told = {"n_folds": n_folds, "seed": seed, "n_tuned": tuned_on(self.task_.model)}
        found = cross_validate(self._training, self.decoder_, classes, **told)
        self._expected = found.to_dict()  # the model card says it
        return found

    def observe(self, X: Any, *, progress: Progress | bool | None = None) -> Observations:
        """Ask the frozen model about examples; :meth:`decode` turns the answers into probabilities.

        Parameters
        ----------
        X : sequence of str, sequence of mapping, or table
        progress : callable or bool, optional
            True shows a bar; a function is called with the number of prompts newly answered.

        Returns
        -------
        Observations
            One row per example and view, with one score column per class; ``.queries`` says what
            they cost.
        """
        check_is_fitted(self, "classes_")
        rows = read_rows(X, self.task_.template.fields)
        check_installed(self.task_.model)
        if self._identity is not None:
            given = self.task_.model.identity
            check_identity(self._identity, given, what="the pickled classifier")
        with showing(progress, len(rows) * len(self.task_.template.views)) as told:
            return self.task_.observe(rows, progress=told)

    def decode(self, observations: Observations) -> NDArray[np.float64]:
        """Turn the answers of :meth:`observe` into probabilities, shape (N, K), at no cost.

        An example that was not answered, in any of its views, becomes a row of NaN.

        Raises
        ------
        InputError
            If they are answers to another question: about other classes, or in other views.
        ModelMismatchError
            If the model gave hidden states of another size than in the fit.
        """
        check_is_fitted(self, "classes_")
        names = tuple(str(name) for name in self.classes_.tolist())
        P = len(self.task_.template.views)
        if observations.columns != names or len(observations) % P:
            raise InputError(
                f"observations: {len(observations)} answers about {shown(observations.columns)} "
                f"are not those of this classifier, which asks about {shown(names)}"
                f"{f' in {P} views' * (P > 1)}; observe asks what decode reads"
            )
        there = self.task_.answered(observations)
        out = np.full((len(there), len(self.classes_)), np.nan)
        if there.any():
            hidden, scores = self.task_.features(self.task_.select(observations, there))
            expected = getattr(self.decoder_, "n_features_in_", hidden.shape[1])
            if hidden.shape[1] != expected:
                raise ModelMismatchError(
                    f"the classifier was fitted on hidden states of {expected} numbers, and the "
                    f"model now gives {hidden.shape[1]}: it is another model, or the artifact was "
                    "damaged"
                )
            out[there] = self._proba(hidden, scores)
        return out

    def save(self, folder: str | Path, *, keep_example: bool = False) -> None:
        """Write the fitted task to a folder: data only, kilobytes, and a model card for people.

        No text of an example is in it, unless demonstrations in the prompt are; see
        :mod:`fewfit.artifacts.schema`.

        Parameters
        ----------
        folder : path
            New, empty, or holding an older artifact, which is replaced.
        keep_example : bool, default=False
            Whether to keep one of the examples for ``load(..., verify=True)`` to ask again, in
            place of a text that says nothing.

        Raises
        ------
        ArtifactError
            If the folder is something else, or the decoder, the calibration or a view is not one
            of fewfit's own.
        InputError
            If an example is to be kept and there is none: the classifier was loaded or unpickled,
            or fitted without examples.
        """
        check_is_fitted(self, "classes_")
        if keep_example and self._example is None:
            raise InputError(
                "keep_example: the examples of fit are not here; only the object that was fitted, "
                "on examples, has them"
            )
        fitted = Fitted(
            self.task_,
            self.decoder_,
            self.n_examples_,
            self._example if keep_example else self._probe,
            self.doctor_,
            self.columns_,
            self._counts,
            self._expected,
            self._tuned,
        )
        save_fitted(fitted, folder)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        model: str | FrozenModel | None = None,
        hidden: str | FrozenModel | None = None,
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
        hidden : str or FrozenModel, optional
            The same for the one that gives the hidden states, where they are two.
        store : "default", path or None, default="default"
        max_queries : int, optional
        errors : {"raise", "nan"}, default="raise"
        verify : bool, default=False
            Whether to ask again about the input that the artifact keeps for this, and compare its
            probabilities. Where it keeps none, as what ``fewfit tune`` wrote, the model is compared
            by its identity alone, as always.

        Raises
        ------
        ArtifactError
            If the artifact is damaged, foreign, or fails the verification.
        ModelMismatchError
            If the model is another one; the message names what differs.
        """
        fitted, model = load_fitted(folder, model, store, max_queries, errors, hidden)
        task = fitted.task
        if not isinstance(fitted.decoder, cls.kind):
            raise ArtifactError(
                f"{folder} holds a {type(fitted.decoder).__name__}, which {cls.__name__} does not "
                "read: examples with several labels are MultiLabelClassifier's, others "
                "FewShotClassifier's"
            )
        views = [v.source if type(v) is Template else v for v in task.template.views]
        self = cls(
            model=model,
            template=views if len(views) > 1 else views[0],
            decoder=clone(fitted.decoder),
            store=store,
            max_queries=max_queries,
            errors=errors,
            **cls._options(task),
        )
        self.n_queries_ = self.n_retries_ = 0
        self._keep(fitted)
        if verify and fitted.example is not None:
            again = self.predict_proba([fitted.example.row])[0]
            verify_fitted(fitted, folder, again)
        return self

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, **options: Any
    ) -> Self:
        """Read a fitted task from a folder, or from the hub of models by its name.

        Of the hub, two files are fetched and no other, and no code is run. A model that they name
        is opened as :meth:`load` opens it: what is not on this machine waits until you name it.

        Parameters
        ----------
        name : str or path
            A folder, or ``OWNER/NAME``.
        revision : str, optional
            Branch, tag or commit on the hub.
        **options
            Those of :meth:`load`; and for the hub, as its own library takes them: `token`,
            `cache_dir`, `force_download`, `local_files_only`.

        Raises
        ------
        ArtifactError
            If there is no such artifact, or it is damaged or foreign.
        MissingExtraError
            If `name` is no folder and huggingface_hub is not installed (``fewfit[hf]``).
        """
        hub = {key: options.pop(key) for key in _HUB_OPTIONS if key in options}
        with fetched(str(name), revision, hub) as folder:
            return cls.load(folder, **options)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        keep_example: bool = False,
        **options: Any,
    ) -> str | None:
        """Write the fitted task to a folder, as :meth:`save` does, and if wished to the hub.

        Parameters
        ----------
        folder : path
        push_to_hub : bool, default=False
        repo_id : str, optional
            Name on the hub; left out, that of the folder.
        keep_example : bool, default=False
        **options
            As :meth:`push_to_hub` takes them.

        Returns
        -------
        str or None
            The address on the hub.
        """
        self.save(folder, keep_example=keep_example)
        if not push_to_hub:
            return None
        name = repo_id or Path(folder).name
        return self.push_to_hub(name, keep_example=keep_example, **options)

    def push_to_hub(self, repo_id: str, *, keep_example: bool = False, **options: Any) -> str:
        """Write the fitted task, with its model card, to the hub in one commit.

        Parameters
        ----------
        repo_id : str
            ``OWNER/NAME``; it is made if it is not there.
        keep_example : bool, default=False
            As for :meth:`save`.
        **options
            As ``huggingface_hub.ModelHubMixin.push_to_hub`` takes them: `commit_message`,
            `private`, `token`, `branch`, `create_pr`.

        Returns
        -------
        str
            The address of the commit.

        Raises
        ------
        MissingExtraError
            If huggingface_hub is not installed (``fewfit[hf]``).
        """
        check_is_fitted(self, "classes_")
        return push(self, repo_id, keep_example, options)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_training", None)  # megabytes, which no prediction needs
        state.pop("_example", None)
        if "task_" in state:
            state["_identity"] = dict(self.task_.model.identity)
        return state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = tags.input_tags.dict = True
        tags.input_tags.two_d_array = False
        return tags

    @abstractmethod
    def _proba(
        self, hidden: NDArray[np.float32], scores: NDArray[np.float32] | None
    ) -> NDArray[Any]:
        """Return the decoder's probabilities, shape (N, K)."""

    @classmethod
    @abstractmethod
    def _options(cls, task: Task) -> dict[str, Any]:
        """Return the parameters of an estimator with this task that not all estimators have."""

    def _keep(self, fitted: Fitted) -> None:
        self.task_, self.decoder_ = fitted.task, fitted.decoder
        self.classes_ = class_array(fitted.task.verbalizer.classes)
        self._identity = self._training = None
        self.n_examples_, self.doctor_ = fitted.n_examples, fitted.doctor
        self.columns_ = fitted.columns
        self._counts, self._expected = fitted.counts, fitted.expected
        self._tuned = fitted.tuned
        own = fitted.shows_example
        self._example, self._probe = (fitted.example, None) if own else (None, fitted.example)

    def _recorded(self, row: Row, answers: Observations) -> Example | None:
        """Return a row with what its answers are decoded to; None if it was not answered."""
        probabilities = self.decode(answers)[0].tolist()
        if probabilities[0] != probabilities[0]:
            warnings.warn(
                "the model gave no usable answer to the text by which an artifact is verified, so "
                "that load(..., verify=True) will compare the model's identity alone",
                ModelWarning,
                stacklevel=3,
            )
            return None
        return Example(row=dict(row), probabilities=probabilities)


def check_labelled(probabilities: NDArray[np.float64]) -> None:
    """Refuse to give a label to a row of NaN (ModelError)."""
    failed = int(np.isnan(probabilities[:, 0]).sum())
    if failed:
        raise ModelError(
            f"{failed} of {len(probabilities)} examples got no usable answer and so have no "
            "label; predict_proba gives the others, with NaN for these"
        )
