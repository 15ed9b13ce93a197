"""A fitted task to a folder and back; :mod:`fewfit.artifacts.schema` says what it holds."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit._version import __version__
from fewfit.artifacts import schema
from fewfit.artifacts.files import CARD, SCHEMA_VERSION, write_files
from fewfit.asking import Policy
from fewfit.calibration import CALIBRATIONS, Calibration
from fewfit.decoders import DECODERS, Decoder, MultiLabel
from fewfit.errors import ArtifactError, InputError, ModelError, ModelMismatchError
from fewfit.estimators.opening import load_model, open_model, pair
from fewfit.estimators.transforms import open_transform
from fewfit.models import FrozenModel
from fewfit.models.base import FrontModel
from fewfit.models.embedded import renamed
from fewfit.models.local.soft import SoftPromptModel
from fewfit.models.optional import carried_by, takes_soft_prompts
from fewfit.models.paired import JOINT, PairedModel
from fewfit.models.trust import check_spec, check_unnamed, spec_to_write
from fewfit.prompts import Conjugate, InContext, Template, Verbalizer, View, make_views
from fewfit.prompts.labels import class_array
from fewfit.task import Task

_TUNED = "tuning.json"
_SOFT = "soft_prompt"
_DECODERS: Mapping[str, type[Any]] = ChainMap({"multi-label": MultiLabel}, DECODERS)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Fitted:
    """What an estimator has learnt.

    Attributes
    ----------
    task : Task
        With its prior.
    decoder : Decoder or MultiLabel
        Fitted.
    n_examples : int
    example : schema.Example or None
        A row and the probabilities that it must give again, if there is one.
    doctor : dict or None
        The report on the frozen model.
    columns : schema.ColumnsEntry or None
        Of the file that it was fitted on, on the command line.
    counts : list of int or None
        Examples of each class, in the order of the classes.
    expected : dict or None
        The accuracy to expect, if it was estimated; see :meth:`ExpectedAccuracy.to_dict`.
    tuned : path or None
        The folder, if ``fewfit tune`` wrote it.
    """

    task: Task
    decoder: Decoder | MultiLabel
    n_examples: int
    example: schema.Example | None
    doctor: dict[str, Any] | None = None
    columns: schema.ColumnsEntry | None = None
    counts: list[int] | None = None
    expected: dict[str, Any] | None = None
    tuned: Path | None = None

    @property
    def shows_example(self) -> bool:
        """Whether the example is one of the user's, and no probe."""
        return self.example is not None and self.example.row != dict(self.task.probe)


def save_fitted(fitted: Fitted, folder: str | Path) -> None:
    """Write `fitted` to a folder (ArtifactError if it holds code of the user's)."""
    task, decoder = fitted.task, fitted.decoder
    if fitted.tuned is not None:
        _copy_tuned(fitted.tuned, folder)
        return
    name = next((name for name, kind in _DECODERS.items() if kind is type(decoder)), None)
    if name is None or type(task.calibration) not in CALIBRATIONS.values():
        raise ArtifactError(
            "only fewfit's own decoders and calibrations, and decoders of installed packages "
            "(entry points 'fewfit.decoders'), can be saved, since nothing in an artifact is "
            f"imported by name; this one has {type(decoder).__name__}"
        )
    arrays = {name: getattr(decoder, name) for name in decoder.fitted_arrays}
    if task.prior is not None:
        arrays["prior"] = task.prior
    soft, named = _soft_prompt(task.model)
    if soft is not None:
        arrays[_SOFT] = soft
    manifest = schema.Manifest(
        schema_version=SCHEMA_VERSION,
        fewfit_version=__version__,
        template=[_view_entry(view) for view in task.template.views],
        labels=task.verbalizer.to_list(),
        calibration=schema.CalibrationEntry(
            name=task.calibration.name,
            parameters=_plain(asdict(task.calibration)),
        ),
        decoder=schema.DecoderEntry(name=name, parameters=_plain(decoder.get_params())),
        model_spec=spec_to_write(named.spec),
        model_identity=dict(task.model.identity),
        n_examples=fitted.n_examples,
        example=fitted.example,
        doctor=fitted.doctor,
        columns=fitted.columns,
        counts=fitted.counts,
        expected=schema.ExpectedEntry(**fitted.expected) if fitted.expected else None,
        files={},
    )
    schema.write(folder, manifest, arrays, carried_by(task.model))


def load_fitted(
    folder: str | Path,
    model: str | FrozenModel | None,
    store: str | Path | None,
    max_queries: int | None,
    errors: str,
    hidden: str | FrozenModel | None = None,
) -> tuple[Fitted, str | FrozenModel]:
    """Read what :func:`save_fitted` or ``fewfit tune`` wrote, and the frozen model it is bound to.

    `model` and `hidden` are asked in the place of the one, or the two, that the artifact names.

    Raises
    ------
    ArtifactError
        If the folder is damaged or foreign.
    ModelMismatchError
        If `model` is another than the one it was fitted on.
    """
    if (Path(folder) / _TUNED).is_file() and not (Path(folder) / schema.MANIFEST).is_file():
        if hidden is not None:
            raise InputError("hidden: a tuned model decides by its own scores alone")
        return _load_tuned(folder, model, store, max_queries, errors)
    manifest, arrays = schema.read(folder)
    if manifest.model_spec == schema.CARRIED:
        model = _carried(folder, model)
    spec = _named(manifest, Path(folder), model, hidden)
    path = Path(folder) / schema.MANIFEST
    try:
        decoder = _DECODERS[manifest.decoder.name](**manifest.decoder.parameters)
        parameters: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in manifest.calibration.parameters.items()
        }
        calibration: Calibration = CALIBRATIONS[manifest.calibration.name](**parameters)
        template = make_views([_read_view(entry, path, store) for entry in manifest.template])
        verbalizer = Verbalizer.from_list(manifest.labels)
        if manifest.counts is not None and len(manifest.counts) != len(verbalizer.classes):
            raise InputError(f"counts of {len(manifest.counts)} classes")
    except (KeyError, TypeError, InputError) as error:
        raise ArtifactError(f"{folder}: the manifest does not hold together: {error}") from error
    if _SOFT in arrays:
        soft = arrays.pop(_SOFT)
        spec = takes_soft_prompts(load_model(spec)).with_soft_prompt(soft)
    opened = open_model(spec, store, max_queries, decoder.requires)
    task = Task(
        opened,
        template,
        verbalizer,
        calibration,
        policy=Policy(errors, chosen=True),
        reads_words="word_scores" in decoder.requires,
    )
    check_identity(manifest.model_identity, task.model.identity)
    prior = arrays.pop("prior", None)
    shape = (len(template.views), len(verbalizer.classes))
    scored = task.model.capabilities.scores is not None
    if (prior is not None) != scored or (prior is not None and prior.shape != shape):
        raise ArtifactError(f"{folder}: array 'prior' does not fit the model and the classes")
    fitted = Fitted(
        replace(task, prior=prior),
        decoder.restore(arrays, class_array(verbalizer.classes)),
        manifest.n_examples,
        manifest.example,
        manifest.doctor,
        manifest.columns,
        manifest.counts,
        manifest.expected and manifest.expected.model_dump(by_alias=True),
    )
    return fitted, spec


def _soft_prompt(model: FrozenModel) -> tuple[Any, FrozenModel]:
    """Return the vectors in front of all that a model reads, if there are any, and the model."""
    inner = model
    while isinstance(inner, FrontModel):
        inner = inner.model
    return (inner.vectors, inner.model) if isinstance(inner, SoftPromptModel) else (None, model)


def _carried(folder: str | Path, model: str | FrozenModel | None) -> FrozenModel:
    """Return the tuned model whose files lie in the folder; `model` says where its network is."""
    from fewfit.tuning import TunedModel
    from fewfit.tuning.artifact import read_files

    if isinstance(model, FrozenModel):
        raise InputError("model: tuned vectors need the string that names their checkpoint")
    return TunedModel.of(read_files(folder), base=model, folder=Path(folder))


def _named(
    manifest: schema.Manifest,
    folder: Path,
    model: str | FrozenModel | None,
    hidden: str | FrozenModel | None,
) -> str | FrozenModel:
    """Return who is asked: as the user says, else as the artifact does, if it may."""
    path, identity = folder / schema.MANIFEST, manifest.model_identity
    check_spec(manifest.model_spec, path)
    written: list[str | None] = [manifest.model_spec, None]
    if manifest.model_spec is not None and JOINT in manifest.model_spec:
        written = [*manifest.model_spec.split(JOINT, 1)]
    if isinstance(model, PairedModel) or (isinstance(model, str) and JOINT in model):
        return pair(model, hidden)
    given = [model, hidden]
    for i, part in enumerate(("scores: ", "hidden: ")):
        own = written[i]
        if given[i] is None and own is not None:
            check_unnamed(
                own, path, identity.get(part * (written[1] is not None) + "hidden") == "True"
            )
            given[i] = own
    scores, state = given
    if scores is None:
        raise ModelError(
            f"{folder} was fitted on a model that only code can make; pass it as model=..."
        )
    if isinstance(scores, str) and state is None:
        return renamed(scores, identity)
    return pair(scores, state)


def verify_fitted(fitted: Fitted, folder: str | Path, again: NDArray[np.float64]) -> None:
    """Compare the probabilities that the artifact's example has now with those it was saved with.

    Parameters
    ----------
    again : ndarray of shape (K,)
    """
    if fitted.example is None:
        return
    gap = float(np.abs(again - fitted.example.probabilities).max())
    if not gap <= 1e-4:
        raise ArtifactError(
            f"{folder}: the example of the artifact gives probabilities that differ by "
            f"{gap:.2g} from those it was saved with"
        )


def _load_tuned(
    folder: str | Path,
    model: str | FrozenModel | None,
    store: str | Path | None,
    max_queries: int | None,
    errors: str,
) -> tuple[Fitted, FrozenModel]:
    """Rank a tuned model's own scores; `model` says where its network is now."""
    from fewfit.tuning import TunedModel

    if isinstance(model, FrozenModel):
        raise InputError("model: tuned vectors need the string that names their checkpoint")
    tuned = TunedModel(folder, base=model)
    entry = tuned.manifest.task
    if entry is None:
        raise ArtifactError(
            f"{folder} holds no task: a training may start from it (--start), and as a model it is "
            f"tuned:{folder}"
        )
    if not entry.templates or len(dict(entry.labels)) != len(entry.labels):
        raise ArtifactError(f"{folder}: the task has no template, or a class twice")
    try:
        verbalizer, template = Verbalizer(dict(entry.labels)), Template(entry.templates[0])
    except InputError as error:
        raise ArtifactError(f"{folder}: the task does not hold together: {error}") from error
    task = Task(
        open_model(tuned, store, max_queries),
        template,
        verbalizer,
        CALIBRATIONS["none"](),
        prior=np.zeros((1, len(verbalizer.classes))),
        policy=Policy(errors, chosen=True),
    )
    decoder = DECODERS["zero-shot"]().restore({}, np.array(verbalizer.classes))
    n = tuned.manifest.n_examples
    return Fitted(task, decoder, n, None, columns=entry.columns, tuned=tuned.folder), tuned


def _copy_tuned(source: Path, folder: str | Path) -> None:
    from fewfit.tuning.artifact import load_adapter, read_manifest

    names = (_TUNED, read_manifest(source).tensors_file)
    held = {name: (source / name).read_bytes() for name in names}
    if (source / CARD).is_file():
        held[CARD] = (source / CARD).read_bytes()
    write_files(folder, held, load_adapter)


def check_savable(view: View) -> None:
    """Refuse a view that no artifact may hold (ArtifactError)."""
    _view_entry(view)


def _view_entry(view: View) -> schema.ViewEntry:
    if type(view) is Template:
        return schema.ViewEntry(template=view.source, in_context=None)
    if type(view) is InContext:
        options = view.options()
        options["demonstrations"] = options["demonstrations"] or []
        return schema.ViewEntry(
            template=view.template, in_context=schema.DemonstrationsEntry(**options)
        )
    if type(view) is Conjugate and view.transform.data:
        data: Any = view.transform.data
        if not isinstance(data, str) and "writer" in data:
            _check_writer(str(data["writer"]))
        return schema.ViewEntry(template=view.template, in_context=None, transform=data)
    raise ArtifactError(f"{view!r} holds code of the user's and cannot be saved")


def _check_writer(spec: str) -> None:
    """Refuse a writer with which what is saved would be opened by nobody."""
    path = Path(schema.MANIFEST)
    try:
        check_spec(spec, path)
        check_unnamed(spec, path)
    except ArtifactError:
        raise ArtifactError(
            f"transform: no artifact may name the writer {spec}, which wants a key or is not of "
            "this machine, so that what is saved could not be opened again; take a server on "
            "localhost without key_env=, or a model that is here (hf:)"
        ) from None


def _read_view(entry: schema.ViewEntry, path: Path, store: str | Path | None) -> View:
    if entry.transform is not None:
        if not isinstance(entry.transform, str) and "writer" in entry.transform:
            check_spec(str(entry.transform["writer"]), path)
            check_unnamed(str(entry.transform["writer"]), path)
        return Conjugate(entry.template, open_transform(entry.transform, store))
    if entry.in_context is None:
        return Template(entry.template)
    options = entry.in_context.model_dump()
    return InContext(entry.template, **options)


def check_identity(
    fitted: Mapping[str, str], given: Mapping[str, str], *, what: str = "the artifact"
) -> None:
    """Refuse another frozen model than the one that was fitted on (ModelMismatchError)."""
    for field in sorted({*fitted, *given}):
        if fitted.get(field) != given.get(field):
            raise ModelMismatchError(
                f"{what} was fitted on another frozen model: {field} was "
                f"{fitted.get(field)!r}, this model has {given.get(field)!r}"
            )


def _plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON keeps them; a random state that is not a number cannot be kept."""
    parameters: dict[str, Any] = {}
    for name, value in given.items():
        value = value.item() if isinstance(value, np.generic) else value
        value = list(value) if isinstance(value, tuple) else value
        parameters[name] = None if isinstance(value, np.random.RandomState) else value
    return parameters
