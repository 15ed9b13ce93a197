"""Experiments as TOML files: what they may say, checked when they are read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmarks.peers import Peer
from benchmarks.tasks import TASKS
from fewfit.calibration import Calibration, make_calibration
from fewfit.compare import DecoderMethod, Method, TuningRow
from fewfit.compare.names import make_methods
from fewfit.decoders import DECODERS, Decoder, make_decoder
from fewfit.errors import InputError
from fewfit.prompts import Conjugate, Urial, Verbalizer, View, make_views
from fewfit.task import DEFAULT_TEMPLATE

FOLDER = Path(__file__).parent / "experiments"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prompt(_Strict):
    """How one data set is asked, in one or several views: fields are columns of its files."""

    template: str | list[str]
    labels: dict[str, str | list[str]]

    @model_validator(mode="after")
    def _sound(self) -> Prompt:
        make_views(self.template)
        Verbalizer(self.labels)
        return self


class ModelEntry(_Strict):
    """A frozen model, the calibration of its scores, and how many test rows it is asked about.

    `test_rows` are taken at random with seed 0; all rows if it is left out.
    """

    spec: str
    calibration: str = "contextual"
    test_rows: Annotated[int, Field(gt=0)] | None = None


class MethodEntry(_Strict):
    """A row: a decoder with parameters and maybe a calibration of its own, a peer, or else the
    method of this name.

    `tuner` is a tuning method with `options` of its own and of its recipe; where the name itself is
    one's, it can be left out. With `demonstrations`, so many examples stand in front of every
    prompt. A calibration is a name, or a table of its name and parameters. With `views`, it is
    asked in so many of the prompt's views, the first ones, and not in all. With a `transform` it is
    asked through that, and with `urial` behind the shipped prefix of URIAL, the slot being the
    answer.
    """

    decoder: str | None = None
    parameters: dict[str, str | float | int | bool] = {}
    calibration: str | dict[str, str | float | int] | None = None
    demonstrations: Annotated[int, Field(ge=0)] = 0
    views: Annotated[int, Field(gt=0)] | None = None
    transform: str | None = None
    urial: bool = False
    peer: str | None = None
    tuner: str | None = None
    options: dict[str, Any] = {}

    def make(self, name: str, template: str | list[str]) -> Method | Decoder:
        """Return the method for a prompt; MissingExtraError where a peer is not installed."""
        if self.peer is not None:
            return Peer(self.peer)
        if self.tuner is not None or self.options:
            return TuningRow(self.tuner or name, self.options)
        if self.decoder is None and name not in DECODERS:
            return make_methods([name])[name]
        decoder = make_decoder(self.decoder or name, options=self.parameters)
        own = None
        if self.views is not None:
            own = [template] if isinstance(template, str) else template[: self.views]
        if self.transform is not None or self.urial:
            sources = [template] if isinstance(template, str) else template
            own = [self._asked(source) for source in sources]
        return DecoderMethod(decoder, self._calibration(), self.demonstrations, own)

    def _asked(self, source: str) -> View:
        if self.transform is not None:
            return Conjugate(source, self.transform)
        return Urial(query=source.partition("{mask}")[0].rstrip())

    def check(self, name: str) -> None:
        """Refuse what :meth:`make` would not understand."""
        given = self.parameters or self.calibration or self.demonstrations or self.views
        given = given or self.transform or self.urial
        if (self.tuner is not None or self.options) and (self.peer or self.decoder or given):
            raise ValueError(
                f"method {name!r}: a tuning method has options, and none of a decoder's"
            )
        if self.peer is not None:
            if self.decoder or given:
                raise ValueError(f"method {name!r}: a peer has no decoder and no parameters")
            return
        if self.decoder is not None and self.decoder not in DECODERS:
            raise ValueError(f"method {name!r}: {self.decoder!r} is unknown")
        if self.decoder is None and name not in DECODERS and given:
            raise ValueError(f"method {name!r}: name the decoder that has these parameters")
        try:
            self.make(name, DEFAULT_TEMPLATE)
        except (TypeError, InputError) as error:
            raise ValueError(f"method {name!r}: {error}") from error

    def _calibration(self) -> Calibration | None:
        if self.calibration is None or isinstance(self.calibration, str):
            return None if self.calibration is None else make_calibration(self.calibration)
        parameters = dict(self.calibration)
        return make_calibration(str(parameters.pop("name", "")), options=parameters)


class Published(_Strict):
    """Accuracies that a paper reports, in percent: method -> shots -> [mean, sd] or [mean]."""

    model: str
    source: str
    accuracy: dict[str, dict[str, Annotated[list[float], Field(min_length=1, max_length=2)]]]


class ExperimentFile(_Strict):
    """One file under ``experiments/``.

    Attributes
    ----------
    sets : list of str
        Data sets; prompts that the file does not give are those of ``tasks.toml``.
    """

    title: str
    note: str = ""
    sets: list[str]
    prompts: dict[str, Prompt] = {}
    models: list[ModelEntry]
    methods: dict[str, MethodEntry]
    shots: list[int]
    seeds: list[int]
    published: Published | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentFile:
        for name in self.sets:
            if name not in self.prompts and name not in TASKS:
                raise ValueError(f"set {name!r} has no prompt here and none in tasks.toml")
        for name, entry in self.methods.items():
            entry.check(name)
        return self

    def prompt(self, name: str) -> Prompt:
        """Return the prompt of a set."""
        return self.prompts.get(name) or Prompt(**TASKS[name])


def read_experiment(path: Path) -> ExperimentFile:
    """Read and check an experiment.

    Raises
    ------
    InputError
        If it is not TOML, has an unknown key, or says something that cannot be run.
    """
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return ExperimentFile.model_validate(content)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise InputError(f"{path}: {where}: {problem['msg']}") from error
