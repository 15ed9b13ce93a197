"""What a comparison gives, as data: the schema of ``comparison.json`` (see docs/compare.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
)

from fewfit.errors import InputError

SCHEMA_VERSION = 4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Ledger(_Strict):
    """What one fitted method cost, measured by the same code for every method.

    Attributes
    ----------
    queries, tokens : int
        Distinct prompts that fitting needs answered, those of the calibration included, and their
        length in the frozen model's tokens. Counted whether the store had them or not. All are
        prompt tokens, but of a model that answers in words, which counts what it writes too.
    predict_queries, predict_tokens : int
        The same for the test set.
    row_queries : float or None
        Queries of one test row on average: how many views it has, less where two of them are the
        same prompt. None in files of earlier versions.
    fit_seconds, predict_seconds : float
        Wall clock from answers (for a text method: from texts) to the fitted method, and to the
        probabilities of the test set. What the frozen model took is in :class:`Asked`, for a
        searcher too.
    peak_memory : int or None
        Most bytes allocated by Python and NumPy at one time in fitting and predicting, beyond what
        was there before; traced in a second, untimed run of the first seed. None elsewhere, and
        for a method that runs in another process.
    parameters : int
        Numbers that training changes; of a searcher, the numbers or words of what it found.
    artifact_bytes : int
        Size of the fitted arrays as one safetensors file, and of a tuned model's vectors.
    fit_flops, predict_flops : float or None
        By the accounting of T-Few's paper: FLOPs of the frozen model in fitting, a tuned model's
        training included, and for one test row. None where its size or the prompts' lengths are
        not known, as of a server, and for a method without a frozen model. What the decoder itself
        computes is not in it, nor are further passes for label words of several tokens.
    saved_bytes : int or None
        Of a tuning method: what one of its steps keeps for the backward pass, measured, as its
        FLOPs are.
    optimizer_bytes : int or None
        Of a tuning method: what its optimiser keeps from step to step, measured.
    in_context_flops, in_context_bytes : float or None
        What one test row would take, and what would be kept, if the sample stood in front of every
        prompt instead: in-context learning with the same examples.
    """

    queries: int
    tokens: int | None
    predict_queries: int
    predict_tokens: int | None
    row_queries: float | None = None
    fit_seconds: float
    predict_seconds: float
    peak_memory: int | None
    parameters: int
    artifact_bytes: int
    fit_flops: float | None = None
    predict_flops: float | None = None
    saved_bytes: int | None = None
    optimizer_bytes: int | None = None
    in_context_flops: float | None = None
    in_context_bytes: float | None = None


class Cell(_Strict):
    """One method on one model, fitted on one sample, measured on the test set.

    ``model`` is None for a method that reads the texts itself. The metrics are those of
    :class:`fewfit.compare.Metrics`.
    """

    method: str
    model: str | None
    shots: int
    seed: int
    accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    ledger: Ledger


class Summary(_Strict):
    """The cells of one method, model and number of shots, over seeds.

    Attributes
    ----------
    accuracy, sd : float
        Mean and sample standard deviation over seeds, as DecT reports; None for one seed, and
        where all samples are the same rows and give the same accuracy.
    median, q25, q75 : float
        As T-Few reports: median, and the quartiles whose difference is the IQR.
    low, high : float
        95 % bootstrap interval of the mean accuracy, over test rows and seeds.
    macro_f1, log_loss, ece : float
        Means over seeds.
    best : bool
        Whether the mean accuracy is the highest at this number of shots (the first of equals).
    p_value : float or None
        Of the paired test against the best, Holm-corrected; None for the best itself.
    tied : bool
        Whether it cannot be told apart from the best at the 5 % level; true for the best.
    ahead, ahead_low, ahead_high : float or None
        How much more accurate it is than the default, paired by test row and sample, with an
        interval. The intervals of all methods at this number of shots hold together with 95 %
        (Bonferroni). None for the default itself, where the default was not compared, and in files
        of earlier versions.
    queries, tokens, fit_seconds, predict_seconds, parameters, artifact_bytes
        Medians of the ledger over seeds.
    fit_flops, predict_flops, saved_bytes, optimizer_bytes : number or None
    in_context_flops, in_context_bytes : number or None
        The same, where they are known.
    row_queries : float or None
        Queries of one test row; the median over seeds.
    row_tokens : float or None
        Their tokens on average, demonstrations included; the median over seeds.
    peak_memory : int or None
        The maximum over the seeds that were traced.
    seconds : float or None
        Fitting, plus its queries at the pace at which the frozen model answered in this comparison;
        None where the store had all answers and no pace is known.
    cost : float or None
        Price of the tokens of fitting and of the test set, if a price was given and the tokens
        are known.
    """

    method: str
    model: str | None
    shots: int
    seeds: int
    accuracy: float
    sd: float | None
    median: float
    q25: float
    q75: float
    low: float
    high: float
    macro_f1: float
    log_loss: float
    ece: float
    best: bool
    p_value: float | None
    tied: bool
    ahead: float | None = None
    ahead_low: float | None = None
    ahead_high: float | None = None
    queries: int
    tokens: int | None
    fit_seconds: float
    predict_seconds: float
    peak_memory: int | None
    parameters: int
    artifact_bytes: int
    seconds: float | None
    cost: float | None
    row_queries: float | None = None
    row_tokens: float | None = None
    fit_flops: float | None = None
    predict_flops: float | None = None
    saved_bytes: int | None = None
    optimizer_bytes: int | None = None
    in_context_flops: float | None = None
    in_context_bytes: float | None = None


class Bin(_Strict):
    """A bin of the reliability diagram: `n` predictions of this mean confidence and accuracy."""

    n: int
    confidence: float
    accuracy: float


class Wrong(_Strict):
    """A test row, from 0, that was predicted wrong; the mean probability of the wrong class."""

    row: int
    text: str
    label: str
    predicted: str
    confidence: float


class Diagnosis(_Strict):
    """How one method errs at one number of shots.

    Attributes
    ----------
    reliability : list of Bin
        15 bins of equal width over all seeds; bins without a prediction are left out.
    confusion : list of list of int
        Rows are true classes, columns predicted ones, summed over seeds.
    wrong : list of Wrong
        The most confidently wrong rows: those that most seeds agree on, then the surest.
    """

    method: str
    model: str | None
    shots: int
    reliability: list[Bin]
    confusion: list[list[int]]
    wrong: list[Wrong]


class Asked(_Strict):
    """What a frozen model was asked in this comparison, resumed runs included.

    Attributes
    ----------
    queries : int
        What was paid for.
    seconds : float
        The wall clock of asking, reading the store included.
    prompts : int or None
        What was wanted, the answers that the store had among them. None in files of earlier
        versions.
    """

    model: str
    queries: int
    seconds: float
    prompts: int | None = None


class Setup(_Strict):
    """What was compared.

    Attributes
    ----------
    template : list of str
        Each view of a row; a single string in files of earlier versions is a list of one.
    method_templates : dict of str to list of str
        The same for methods that have their own.
    search_trials : int or None
        A searcher could ask so many times the examples of a cell; None if there was none.
    default : str or None
        The method that is used where none is named, by its name in this comparison; None if it was
        not compared, and in files of earlier versions.
    same_samples : list of int
        Numbers of shots for which all samples are the same rows, as where the pool has no others.
    """

    fewfit_version: str
    template: list[str]
    method_templates: dict[str, list[str]] = {}
    search_trials: int | None = None
    default: str | None = None
    labels: list[tuple[StrictBool | StrictInt | StrictStr, list[str] | list[tuple[str, float]]]]
    calibration: str
    identities: dict[str, dict[str, str]]
    shots: list[int]
    seeds: list[int]
    same_samples: list[int] = []
    train_rows: int
    test_rows: int
    dropped_train_rows: int
    price_per_token: float | None

    @field_validator("template", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class Comparison(_Strict):
    """Everything a comparison found; ``write`` and ``read`` keep it as JSON."""

    schema_version: Literal[1, 2, 3, 4] = SCHEMA_VERSION
    setup: Setup
    asked: list[Asked]
    summaries: list[Summary]
    cells: list[Cell]
    diagnoses: list[Diagnosis]

    def write(self, path: str | Path) -> None:
        """Write as JSON."""
        Path(path).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> Comparison:
        """Read what :meth:`write` wrote.

        Raises
        ------
        InputError
            If the file cannot be read or is not of this schema.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(f"{path} is not a comparison of this schema: {error}") from error
