"""Tuning methods as methods of a comparison: each trains an adapter on the cell's sample."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from scipy.special import softmax

from fewfit.calibration import Calibration, ContextualCalibration, NoCalibration
from fewfit.compare.methods import Arrays, Features, Method
from fewfit.decoders import Decoder, OffsetLogisticRegression
from fewfit.decoders.base import tell_views
from fewfit.errors import CapabilityError, InputError
from fewfit.estimators.examples import fit_decoder
from fewfit.prompts import Row, Template
from fewfit.task import Task
from fewfit.tuning import ENCODERS, load, make_method

if TYPE_CHECKING:
    from fewfit.tuning import Adapter, ChoiceExample, Recipe, Trunk


class Trained(NamedTuple):
    """An adapter, the network that it is for, and what its training cost.

    `decoder` and `task` are what reads the tuned model, where its own ranking is not meant.
    """

    trunk: Trunk
    adapter: Adapter
    costs: Mapping[str, Any]
    decoder: Decoder | None = None
    task: Task | None = None


@dataclass(frozen=True)
class TuningRow(Method):
    """A tuning method: trained on a cell's sample in all templates, it ranks the first class word.

    One whose result is not read as a ranking has the default decoder behind it, as with
    ``fewfit tune``.

    It reads the weights of the comparison's model, which has to be a checkpoint (``hf:``, for some
    methods also ``encoder:`` or ``embedded``), and
    takes the rows of the pool that are in no sample of the cell for texts without labels, where it
    needs such.

    Parameters
    ----------
    tuner : str
        A key of :data:`fewfit.tuning.METHODS`.
    options : mapping, optional
        Of the method, and of its recipe: ``{"rank": 8, "steps": 300}``. With ``{"rate": "auto"}``
        the rate is chosen in each cell, on a part of its sample
        (:func:`fewfit.tuning.fit_at_best_rate`). ``{"start": PATH}`` is where it starts from: an
        artifact's folder, or published vectors.
    n_unlabelled : int, default=200
        Texts without labels at most, drawn with the cell's seed.
    task, seed, pool
        Whom it trains, on what besides, and from where; :meth:`on` fills them in.
    """

    tuner: str
    options: Mapping[str, Any] = field(default_factory=dict)
    n_unlabelled: int = 200
    task: Task | None = None
    seed: int = 0
    pool: Sequence[Row] = ()
    asks: ClassVar[bool] = True
    alone: ClassVar[bool] = True
    traceable: ClassVar[bool] = False  # a second run would train again
    calibration: Calibration | None = field(default_factory=NoCalibration)

    def __post_init__(self) -> None:
        method, _, tries = self._made()
        object.__setattr__(self, "unlabelled", type(method).unlabelled)
        object.__setattr__(self, "least_shots", 2 if tries else 1)  # one is held out

    def key(self) -> str:
        start = self.options.get("start")
        read = f" {_digest(Path(start))}" if start is not None and Path(start).exists() else ""
        return f"tune:{self.tuner} {sorted(self.options.items())} {self.n_unlabelled}{read}"

    def check(self, task: Task, *, who: str) -> None:
        """Refuse a model without weights, and what is no template, before anything is trained."""
        from fewfit.models.local import split_trained

        name, _, _ = str(task.model.spec).partition(":")
        encoders = ENCODERS if "encoder" in load(self.tuner).kinds else ()
        if name not in ("hf", *encoders):
            raise CapabilityError(
                f"{who} trains beside the weights of a checkpoint, hf:FOLDER, and has none of "
                f"{task.model.spec}; leave the model or the method out"
            )
        kind = str(task.model.identity.get("kind", "")).removeprefix("transformers-")
        if name == "hf" and kind not in load(self.tuner).kinds:
            raise CapabilityError(
                f"{who} is for {sorted(load(self.tuner).kinds)} models, and {task.model.spec} is "
                f"{kind}; leave the model or the method out"
            )
        if name == "hf" and "chat" in split_trained(str(task.model.spec))[2]:
            raise CapabilityError(
                f"{who} reads prompts without a chat's template, and {task.model.spec} with one; "
                "leave the model or the method out"
            )
        start = self.options.get("start")
        if start is not None and not Path(start).exists():
            raise InputError(f"{who}: option: start: there is nothing at {start}")
        if name in encoders and any(len(view.fields) == 2 for view in task.template.views):
            raise InputError(
                f"{who} learns of one vector, and {task.model.spec} embeds the template's two "
                "fields one by one; leave the model or the method out"
            )
        other = [view for view in task.template.views if type(view) is not Template]
        if other:
            raise InputError(
                f"{who} reads templates, and {other[0]!r} is none; leave out one of them"
            )

    def on(self, task: Task, *, max_queries: int, seed: int, pool: Sequence[Row] = ()) -> TuningRow:
        """Return the method, ready to train beside the model of a task."""
        order = np.random.default_rng(seed).permutation(len(pool))[: self.n_unlabelled]
        return replace(self, task=task, seed=seed, pool=[pool[i] for i in order])

    def fit(self, sample: Features, classes: NDArray[Any]) -> Trained:
        from fewfit.tuning import Data, Meter, Run, TunedModel, fit_at_best_rate, load_start
        from fewfit.tuning.artifact import adapter_files
        from fewfit.tuning.costs import costs_of

        method, recipe, tries = self._made()
        model = self._task.model
        trunk = load_once(str(model.spec), json.dumps(dict(model.identity)))
        trunk = trunk.reads(method.reading)
        codes = np.searchsorted(classes, sample.y)
        rows = [self._wordings(r, int(k)) for r, k in zip(sample.rows, codes, strict=True)]
        data = Data(rows, [self._wordings(row, 0) for row in self.pool])
        path, meter = self.options.get("start"), Meter()
        start = None if path is None else load_start(path, trunk.identity)
        run = Run(recipe, self.seed, start, meter=meter)
        if tries:
            adapter = fit_at_best_rate(method, trunk, data, run).adapter
        else:
            adapter = method.fit(trunk, data, run)
        tokens, query, costs = costs_of(trunk, rows, adapter, meter)
        known = {
            "queries": len(rows) + len(data.unlabelled),
            "tokens": round(tokens * (len(rows) + len(data.unlabelled))),
            "row_queries": 1.0,
            "fit_flops": costs.training_flops,
            "predict_flops": query,
            "saved_bytes": costs.saved_bytes,
            "optimizer_bytes": costs.optimizer_bytes,
        }
        if not method.decoded:
            return Trained(trunk, adapter, known)
        made = adapter_files(
            adapter,
            method=method,
            base_spec=trunk.spec,
            base_identity=trunk.identity,
            recipe=recipe,
            n_examples=len(rows),
        )
        model, calibration = TunedModel.of(made, trunk=trunk), ContextualCalibration()
        tuned = replace(self._task, model=model, calibration=calibration, prior=None)
        tuned, answers, _ = tuned.begin(sample.rows, y=codes)
        hidden, scores = tuned.features(answers)
        decoder = OffsetLogisticRegression()
        tell_views(decoder, len(tuned.template.views))
        fit_decoder(decoder, codes, hidden, scores, classes.tolist(), {})
        return Trained(trunk, adapter, known, decoder, tuned)

    def predict_proba(self, fitted: Trained, test: Features) -> NDArray[Any]:
        from fewfit.tuning.reading import encode_rows, scored

        trunk, adapter, _, decoder, task = fitted
        if decoder is not None and task is not None:
            hidden, scores = task.features(task.observe(test.rows))
            return decoder.predict_proba(hidden, scores=scores)
        rows = encode_rows(trunk, [self._wordings(row, 0)[:1] for row in test.rows])
        encoded = [row[0] for row in rows]
        with adapter.on(trunk.network):
            beta = scored(trunk, encoded, adapter=adapter)
        return softmax(beta.astype(np.float64), axis=1)

    def arrays(self, fitted: Trained) -> Arrays:
        kept = {name: tensor.numpy() for name, tensor in fitted.adapter.tensors().items()}
        if (decoder := fitted.decoder) is not None:
            kept |= {f"decoder.{name}": getattr(decoder, name) for name in decoder.fitted_arrays}
        return kept

    def parameters(self, fitted: Trained) -> int:
        if fitted.decoder is None:
            return fitted.adapter.count
        own = set(fitted.decoder.fitted_arrays) - fitted.decoder.fixed_arrays
        return fitted.adapter.count + sum(getattr(fitted.decoder, name).size for name in own)

    def costs(self, fitted: Trained, test: Features) -> Mapping[str, Any]:
        """Return what the ledger says of training, and of one query for each test row."""
        tokens = fitted.costs["tokens"] / fitted.costs["queries"]
        n = len(test.rows)
        return {**fitted.costs, "predict_queries": n, "predict_tokens": round(tokens * n)}

    @property
    def _task(self) -> Task:
        if self.task is None:
            raise InputError(f"{self.tuner} trains beside a model: an Experiment says which")
        return self.task

    def _made(self) -> tuple[Any, Recipe, bool]:
        """The method, its recipe with what the options say of it, and whether rates are tried."""
        kind, options = load(self.tuner), dict(self.options)
        tries, start = options.pop("rate", None), options.pop("start", None)
        if start is not None and not isinstance(start, str):
            raise InputError(f"method {self.tuner}: option: start is a path, not {start!r}")
        if tries not in (None, "auto"):
            raise InputError(
                f"method {self.tuner}: option: rate is auto, not {tries!r}; a rate of your own is "
                "learning_rate"
            )
        known = {item.name for item in fields(kind.recipe)} - {"micro_batch"}
        known -= {item.name for item in fields(kind)}  # LoRA's own dropout, as in `tune`
        own = {name: value for name, value in options.items() if name in known}
        rest = {name: value for name, value in options.items() if name not in known}
        method = make_method(self.tuner, rest)
        if tries is not None:
            from fewfit.tuning.rates import check_trials

            check_trials(method)
        recipe = method.usual()
        try:
            made = TypeAdapter(type(recipe)).validate_python({**asdict(recipe), **own})
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "recipe"
            raise InputError(f"method {self.tuner}: option: {where}: {problem['msg']}") from None
        return method, made, tries is not None

    def _wordings(self, row: Row, answer: int) -> list[ChoiceExample]:
        from fewfit.tuning import ChoiceExample

        words = tuple(self._task.verbalizer.first)
        views = self._task.template.views
        return [ChoiceExample(view.render(row), words, answer) for view in views]


def _digest(path: Path) -> str:
    """A hash of a file, or of all files of a folder."""
    found = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(item.read_bytes() for item in found)).hexdigest()


@lru_cache(maxsize=1)
def load_once(spec: str, identity: str) -> Trunk:
    """Load a checkpoint; all cells of a model share it, since no method changes it."""
    from fewfit.models.local import split_trained
    from fewfit.tuning import Trunk

    if spec.partition(":")[0] != "hf":
        return Trunk.load(spec)
    name, kept, _ = split_trained(spec)  # others say how the frozen model's words are scored
    revision = kept.pop("revision", None)
    at = "" if revision is None else f"@{revision}"
    return Trunk.load(f"hf:{name}{at}", **kept)
