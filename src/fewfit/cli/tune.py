"""The commands ``fewfit tune | merge``: training that needs the model's weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewfit.cli.columns import pick_columns, pick_labels, read_label_words
from fewfit.cli.options import AsJson, Format, Input, LabelColumn, TextColumn
from fewfit.cli.output import bar, plain_errors
from fewfit.cli.tables import Table, read_table
from fewfit.errors import InputError

if TYPE_CHECKING:
    from fewfit.prompts import Template, Verbalizer
    from fewfit.tuning import ChoiceExample

METHODS = ("pet", "t-few")


@plain_errors
def tune(
    train: Input,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the artifact.")],
    model: Annotated[str, typer.Option(help="hf:FOLDER, a checkpoint of transformers.")],
    method: Annotated[str, typer.Option(help=f"How to train: {', '.join(METHODS)}.")] = "t-few",
    unlabelled: Annotated[
        str | None, typer.Option(help="File of texts without labels, for pet, which needs them.")
    ] = None,
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
    steps: Annotated[int, typer.Option(min=1, help="Steps of each training.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step.")] = 8,
    unlikelihood: Annotated[bool, typer.Option(help="Add the loss L_UL (t-few).")] = True,
    length_normalised: Annotated[bool, typer.Option(help="Add the loss L_LN (t-few).")] = True,
    repetitions: Annotated[int, typer.Option(min=1, help="Trainings per template (pet).")] = 3,
    generations: Annotated[
        int, typer.Option(min=0, help="In which templates teach each other, 3 for iPET (pet).")
    ] = 0,
    dtype: Annotated[
        str, typer.Option(help="Of the weights: float32, bfloat16, float16.")
    ] = "float32",
    max_tokens: Annotated[int, typer.Option(min=8, help="Longer prompts are cut.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the order of the rows and of the dropout.")] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File from which an interrupted training goes on (t-few).")
    ] = None,
    format: Format = None,
    as_json: AsJson = False,
) -> None:
    """Train a few thousand scalars of a model from a file of labelled examples.

    The artifact is read by 'fewfit predict' and 'fewfit evaluate', and 'tuned:FOLDER' is a model
    like any other. Several processes: accelerate launch -m fewfit tune ...
    """
    from fewfit.estimators.classifier import DEFAULT_TEMPLATE
    from fewfit.prompts import Template, Verbalizer

    if method not in METHODS:
        raise InputError(f"--method: {method!r} is not one of {list(METHODS)}")
    _check_options(method, unlabelled, generations, checkpoint)
    templates = [Template(source) for source in template or [DEFAULT_TEMPLATE]]
    table = read_table(train, format)
    y = pick_labels(table, label_column)
    words = read_label_words(label, labels)
    verbalizer = answers_of(y, None if words is None else Verbalizer(words))
    rows = wordings(table, y, templates, verbalizer, text_column)
    pool: list[list[ChoiceExample]] = []
    if unlabelled is not None:
        texts = read_table(unlabelled, format)
        any_class = [str(verbalizer.classes[0])] * len(next(iter(texts.values())))
        pool = wordings(texts, any_class, templates, verbalizer, text_column)

    from fewfit.tuning import Objective, Recipe, Trunk, load_start, pet, save_vectors, t_few
    from fewfit.tuning.costs import costs_of, costs_of_pet
    from fewfit.tuning.training import make_accelerator
    from fewfit.tuning.artifact import TaskEntry

    accelerator = make_accelerator()
    device = str(accelerator.device)
    trunk = Trunk.load(model, dtype=dtype, device=device, max_tokens=max_tokens)
    recipe = Recipe(steps=steps, batch_size=batch_size)
    rounds = {"repetitions": repetitions, "generations": generations}
    n_trainings = 1 + len(templates) * repetitions * (1 + generations) if pool else 1
    begun = time.perf_counter()
    with bar("tuning", steps * n_trainings, unit="step") as progress:
        options: dict[str, Any] = {
            "start": None if start is None else load_start(start, trunk.identity),
            "recipe": recipe,
            "seed": seed,
            "progress": progress if accelerator.is_main_process else None,
            "accelerator": accelerator,
        }
        if method == "pet":
            vectors = pet(trunk, rows, pool, **rounds, **options)
        else:
            objective = Objective(unlikelihood, length_normalised)
            vectors = t_few(trunk, rows, objective=objective, checkpoint=checkpoint, **options)
    seconds = time.perf_counter() - begun
    if not accelerator.is_main_process:
        return
    if method == "pet":
        tokens, query_flops, costs = costs_of_pet(trunk, rows, pool, recipe, **rounds)
    else:
        tokens, query_flops, costs = costs_of(trunk, rows, recipe)
    save_vectors(
        output,
        vectors,
        method=method,
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
        "unlabelled": len(pool),
        "classes": list(verbalizer.classes),
        "values": vectors.count,
        "trainings": n_trainings,
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
    more = f" in each of {n_trainings} trainings, {len(pool)} unlabelled texts" if pool else ""
    typer.echo(
        f"{len(y)} examples, {len(verbalizer.classes)} classes, {steps} steps{more}, "
        f"{seconds:.1f} s; "
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


def _check_options(
    method: str, unlabelled: str | None, generations: int, checkpoint: Path | None
) -> None:
    """Refuse what another method would need, before anything is read."""
    if method == "pet" and unlabelled is None:
        raise InputError("--method pet: its student learns from texts; name them: --unlabelled")
    if method == "pet" and checkpoint is not None:
        raise InputError(
            "--checkpoint: pet is many trainings, which cannot be resumed; leave it out"
        )
    if method != "pet" and (unlabelled is not None or generations):
        raise InputError(f"--method {method} has no use for --unlabelled or --generations; pet has")


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
