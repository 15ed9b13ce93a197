"""The commands ``fewfit tune | merge``: training that needs the model's weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewfit.cli.columns import pick_columns, pick_labels, read_label_words
from fewfit.cli.options import AsJson, Format, Input, LabelColumn, TextColumn
from fewfit.cli.output import bar, plain_errors
from fewfit.cli.tables import Table, read_table
from fewfit.errors import InputError

if TYPE_CHECKING:
    from fewfit.prompts import Template, Verbalizer
    from fewfit.tuning import ChoiceExample

METHODS = ("t-few",)


@plain_errors
def tune(
    train: Input,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the artifact.")],
    model: Annotated[str, typer.Option(help="hf:FOLDER, a checkpoint of transformers.")],
    method: Annotated[str, typer.Option(help=f"What is trained: {', '.join(METHODS)}.")] = "t-few",
    text_column: TextColumn = None,
    label_column: LabelColumn = "label",
    template: Annotated[
        list[str] | None,
        typer.Option(help="Text with fields and one {mask}; repeat for several wordings."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="CLASS=answer; repeat for each class.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help='JSON file {"class": "answer", ...}.')] = None,
    start: Annotated[
        Path | None, typer.Option(help="Vectors to start from: an artifact, or a published file.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the training.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step.")] = 8,
    unlikelihood: Annotated[bool, typer.Option(help="Add the loss L_UL.")] = True,
    length_normalised: Annotated[bool, typer.Option(help="Add the loss L_LN.")] = True,
    dtype: Annotated[
        str, typer.Option(help="Of the weights: float32, bfloat16, float16.")
    ] = "float32",
    max_tokens: Annotated[int, typer.Option(min=8, help="Longer prompts are cut.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the order of the rows and of the dropout.")] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File from which an interrupted training goes on.")
    ] = None,
    format: Format = None,
    as_json: AsJson = False,
) -> None:
    """Train a few thousand scalars of a model from a file of labelled examples.

    The artifact is read by 'fewfit predict' and 'fewfit evaluate', and 'tuned:FOLDER' is a model
    like any other. Several processes: accelerate launch -m fewfit tune ...
    """
    from fewfit.classifier import DEFAULT_TEMPLATE
    from fewfit.prompts import Template, Verbalizer

    if method not in METHODS:
        raise InputError(f"--method: {method!r} is not one of {list(METHODS)}")
    templates = [Template(source) for source in template or [DEFAULT_TEMPLATE]]
    table = read_table(train, format)
    y = pick_labels(table, label_column)
    words = read_label_words(label, labels)
    verbalizer = answers_of(y, None if words is None else Verbalizer(words))
    rows = wordings(table, y, templates, verbalizer, text_column)

    from fewfit.tuning import Objective, Recipe, Trunk, load_start, save_vectors, t_few
    from fewfit.tuning.tfew import costs_of
    from fewfit.tuning.training import make_accelerator
    from fewfit.tuning.vectors import TaskEntry

    accelerator = make_accelerator()
    device = str(accelerator.device)
    trunk = Trunk.load(model, dtype=dtype, device=device, max_tokens=max_tokens)
    recipe = Recipe(steps=steps, batch_size=batch_size)
    begun = time.perf_counter()
    with bar("tuning", steps, unit="step") as progress:
        vectors = t_few(
            trunk,
            rows,
            start=None if start is None else load_start(start, trunk.identity),
            recipe=recipe,
            objective=Objective(unlikelihood, length_normalised),
            seed=seed,
            checkpoint=checkpoint,
            progress=progress if accelerator.is_main_process else None,
            accelerator=accelerator,
        )
    seconds = time.perf_counter() - begun
    if not accelerator.is_main_process:
        return
    tokens, query_flops, costs = costs_of(trunk, rows, recipe)
    save_vectors(
        output,
        vectors,
        base_spec=trunk.spec,
        base_identity=trunk.identity,
        recipe=recipe,
        n_examples=len(y),
        task=TaskEntry(
            templates=[item.source for item in templates],
            labels=[
                (k, [word]) for k, word in zip(verbalizer.classes, verbalizer.first, strict=True)
            ],
        ),
        costs=costs,
    )
    report = {
        "artifact": str(output),
        "method": method,
        "examples": len(y),
        "classes": list(verbalizer.classes),
        "values": vectors.count,
        "steps": steps,
        "seconds": round(seconds, 3),
        "artifact_bytes": sum(file.stat().st_size for file in output.iterdir()),
        "tokens_per_query": round(tokens, 1),
        "query_flops": query_flops,
        "training_flops": costs.training_flops,
    }
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
        return
    typer.echo(
        f"{len(y)} examples, {len(verbalizer.classes)} classes, {steps} steps, {seconds:.1f} s; "
        f"{vectors.count:,} values, {report['artifact_bytes'] / 1024:.0f} KiB in {output}; "
        f"{report['training_flops']:.1e} FLOPs, {report['query_flops']:.1e} per query"
    )


@plain_errors
def merge(
    artifact: Annotated[Path, typer.Argument(help="A folder written by 'fewfit tune'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the checkpoint.")],
    model: Annotated[str | None, typer.Option(help="The model, if it is elsewhere now.")] = None,
) -> None:
    """Write an ordinary checkpoint of transformers with the tuned vectors in its weights."""
    from fewfit.tuning import TunedModel

    TunedModel(artifact, base=model).export(output)
    typer.echo(f"{output} is a checkpoint of transformers with {artifact} merged into it")


def answers_of(y: list[str], given: Verbalizer | None) -> Verbalizer:
    """Return the answer of each class, its own name where none is given."""
    from fewfit.prompts import Verbalizer

    verbalizer = given or Verbalizer.from_classes(y)
    if len(verbalizer.words) != len(verbalizer.classes) or verbalizer.weights:
        raise InputError("--label: tuning trains one answer per class; give one each, no weights")
    unknown = sorted(set(y) - {str(name) for name in verbalizer.classes})
    if unknown:
        raise InputError(
            f"class {unknown[0]!r} has no answer; --label gives {list(verbalizer.classes)}"
        )
    return verbalizer


def wordings(
    table: Table,
    y: list[str],
    templates: list[Template],
    verbalizer: Verbalizer,
    text_column: str | None,
) -> list[list[ChoiceExample]]:
    """Return each row of a table in every template."""
    from fewfit.tuning import ChoiceExample

    fields = tuple(dict.fromkeys(field for item in templates for field in item.fields))
    columns = pick_columns(table, fields, text_column)
    answer = {str(name): k for k, name in enumerate(verbalizer.classes)}
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    return [
        [ChoiceExample(item.render(row), verbalizer.words, answer[name]) for item in templates]
        for row, name in zip(rows, y, strict=True)
    ]
