"""The command ``fewfit pretrain``: vectors for T-Few to start from."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from fewfit.artifacts import files
from fewfit.choices import SEEDS, choose
from fewfit.cli.examples import answers_of, labelled, wordings
from fewfit.cli.options import AsJson, MaxTokens
from fewfit.cli.output import bar, plain_errors, say
from fewfit.cli.tune import ARTIFACT, DTYPES, check_output
from fewfit.errors import InputError
from fewfit.tables.columns import count


class MixtureTask(files.Strict):
    """One ``[[task]]`` of a mixture."""

    train: str
    templates: list[str]
    labels: dict[str, str] | None = None
    text_column: str | None = None
    label_column: str = "label"


class Mixture(files.Strict):
    """The tasks of a mixture, as a TOML file has them."""

    task: list[MixtureTask]


@plain_errors
def pretrain(
    mixture: Annotated[Path, typer.Argument(help="TOML file with a [[task]] for each task.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the vectors.")],
    model: Annotated[str, typer.Option(help="hf:FOLDER, a checkpoint of transformers.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of the training.")] = 100_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="At its peak.")] = 3e-4,
    dtype: Annotated[
        str, typer.Option(help="Of the weights: float32, bfloat16, float16.")
    ] = "float32",
    max_tokens: MaxTokens = None,
    seed: Annotated[
        int, typer.Option(min=0, max=SEEDS - 1, help="Of the order of the rows and of the dropout.")
    ] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File from which an interrupted training goes on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train vectors on several tasks at once, for 'fewfit tune --start' to start from.

    Each [[task]] has train (a file, relative to the mixture's), templates, and where they are not
    the usual ones labels, text_column and label_column. All rows are drawn alike, with the loss of
    the right answer alone.
    """
    choose("--dtype", dtype, DTYPES)
    check_output(output, ARTIFACT, checkpoint)
    rows = _rows(mixture)

    from fewfit.tuning import Data, Recipe, Run, Trunk, make_method, save_adapter
    from fewfit.tuning.training import make_accelerator

    accelerator = make_accelerator()
    device = str(accelerator.device)
    trunk = Trunk.load(model, dtype=dtype, device=device, max_tokens=max_tokens)
    recipe = Recipe(steps=steps, batch_size=batch_size, learning_rate=learning_rate)
    method = make_method("t-few", {"unlikelihood": False, "length_normalised": False})
    begun = time.perf_counter()
    with bar("pre-training", steps, unit="step") as progress:
        run = Run(
            recipe,
            seed,
            None,
            checkpoint,
            progress if accelerator.is_main_process else None,
            accelerator,
        )
        vectors = method.fit(trunk, Data(rows), run)
    seconds = time.perf_counter() - begun
    if not accelerator.is_main_process:
        return
    save_adapter(
        output,
        vectors,
        method=method,
        seed=seed,
        base_spec=trunk.spec,
        base_identity=trunk.identity,
        recipe=recipe,
        n_examples=len(rows),
    )
    report = {
        "vectors": str(output),
        "examples": len(rows),
        "values": vectors.count,
        "steps": steps,
        "seconds": round(seconds, 3),
    }
    say(
        json.dumps(report)
        if as_json
        else f"{count(len(rows), 'example')}, {count(steps, 'step')}, {seconds:.1f} s; "
        f"{vectors.count:,} values in {output}: fewfit tune ... --start {output}"
    )


def _rows(path: Path) -> list[Any]:
    """Read every row of every task, in every wording."""
    from fewfit.prompts import Template, Verbalizer

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        tasks = Mixture.model_validate(content).task
    except (OSError, ValueError, ValidationError) as error:
        raise InputError(
            f"mixture: {path} cannot be read as TOML with a [[task]] for each task: {error}"
        ) from error
    rows: list[Any] = []
    for number, task in enumerate(tasks, start=1):
        if not task.templates:
            raise InputError(f"mixture: task {number} of {path} has no template")
        try:
            templates = [Template(source) for source in task.templates]
            columns = None if task.text_column is None else [task.text_column]
            train = str(path.parent / task.train)
            given = None if task.labels is None else Verbalizer(task.labels)
            examples, _, y, _ = labelled(
                train, templates, columns, task.label_column, task.labels, use=False
            )
            rows += wordings(examples, y, templates, answers_of(y, given))
        except InputError as error:
            raise InputError(f"mixture: task {number} of {path}: {error}") from error
    if not rows:
        raise InputError(f"mixture: {path} has no task")
    return rows
