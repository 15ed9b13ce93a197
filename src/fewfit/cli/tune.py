"""The commands ``fewfit tune | merge``: training that needs the model's weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewfit.cli.choices import choose, did_you_mean
from fewfit.cli.columns import (
    Examples,
    column_names,
    find_texts,
    read_examples,
    split_labelled,
)
from fewfit.cli.labels import check_names, find_labels, one_label, read_label_words
from fewfit.cli.options import (
    AsJson,
    Delimiter,
    Encoding,
    Folder,
    Format,
    Input,
    LabelColumn,
    LabelFile,
    LabelWords,
    TextColumn,
)
from fewfit.cli.output import bar, note, plain_errors, say
from fewfit.cli.tables import open_table
from fewfit.errors import InputError

if TYPE_CHECKING:
    from fewfit.prompts import Template, Verbalizer
    from fewfit.tuning import ChoiceExample

METHODS = ("pet", "t-few")
DTYPES = ("float32", "bfloat16", "float16")
ARTIFACT = ("tuning.json", "vectors.safetensors")
"""The files of what is tuned, here since the room cannot be entered without torch."""


@plain_errors
def tune(
    train: Input,
    output: Folder,
    model: Annotated[str, typer.Option(help="hf:FOLDER, a checkpoint of transformers.")],
    method: Annotated[str, typer.Option(help=f"How to train: {', '.join(METHODS)}.")] = "t-few",
    unlabelled: Annotated[
        str | None, typer.Option(help="File of texts without labels, for pet, which needs them.")
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    template: Annotated[
        list[str] | None,
        typer.Option(help="Text with fields and one {mask}; repeat for several wordings."),
    ] = None,
    label: LabelWords = None,
    labels: LabelFile = None,
    start: Annotated[
        Path | None, typer.Option(help="Vectors to start from: an artifact, or a published file.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each training.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step.")] = 8,
    unlikelihood: Annotated[bool, typer.Option(help="Add the loss L_UL (t-few).")] = True,
    length_normalised: Annotated[bool, typer.Option(help="Add the loss L_LN (t-few).")] = True,
    repetitions: Annotated[int, typer.Option(min=1, help="Trainings per template (pet).")] = 3,
    generations: Annotated[
        int,
        typer.Option(
            min=0,
            help="Rounds in which templates teach each other (pet): 2 for iPET, whose code counts "
            "the first, from labels alone, as one more.",
        ),
    ] = 0,
    dtype: Annotated[
        str, typer.Option(help="Of the weights: float32, bfloat16, float16.")
    ] = "float32",
    max_tokens: Annotated[int, typer.Option(min=8, help="Longer prompts are cut.")] = 256,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the order of the rows and of the dropout.")
    ] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File from which an interrupted training goes on (t-few).")
    ] = None,
    format: Format = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Train a few thousand scalars of a model from a file of labelled examples.

    The artifact is read by 'fewfit predict' and 'fewfit evaluate', and 'tuned:FOLDER' is a model
    like any other. Several processes: accelerate launch -m fewfit tune ...
    """
    from fewfit.artifacts.files import check_folder
    from fewfit.estimators.classifier import DEFAULT_TEMPLATE
    from fewfit.prompts import Template, Verbalizer

    if method not in METHODS:  # not by choose(), which a type checker cannot look into
        raise InputError(
            f"--method: {method!r} is not one of {list(METHODS)}{did_you_mean(method, METHODS)}"
        )
    choose("--dtype", dtype, DTYPES)
    _check_options(method, unlabelled, generations, checkpoint)
    check_folder(output, ARTIFACT)
    templates = [Template(source) for source in template or [DEFAULT_TEMPLATE]]
    words = read_label_words(label, labels)
    name = label_column or "label"
    file = {"format": format, "delimiter": delimiter, "encoding": encoding}
    examples, rest, y = labelled(
        train, templates, text_column, name, words, use=method == "pet", **file
    )
    verbalizer = answers_of(y, None if words is None else Verbalizer(words))
    rows = wordings(examples, y, templates, verbalizer)
    pool: list[list[ChoiceExample]] = []
    if unlabelled is not None:
        fields = fields_of(templates)
        table = open_table(unlabelled, wanted=_flat(fields, text_column), say=note, **file)
        texts = read_examples(table, find_texts(table, fields, text_column))
        any_class = [str(verbalizer.classes[0])]
        pool = wordings(texts, any_class * len(texts), templates, verbalizer)
        if len(rest):
            pool += wordings(rest, any_class * len(rest), templates, verbalizer)

    from fewfit.tuning import Objective, Recipe, Trunk, load_start, pet, save_vectors, t_few
    from fewfit.tuning.costs import costs_of, costs_of_pet
    from fewfit.tuning.training import make_accelerator
    from fewfit.tuning.vectors import TaskEntry

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
        say(json.dumps(report, ensure_ascii=False))
        return
    more = f" in each of {n_trainings} trainings, {len(pool)} unlabelled texts" if pool else ""
    say(
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
    from fewfit.artifacts.files import check_folder

    check_folder(output, None)
    from fewfit.tuning import TunedModel

    TunedModel(artifact, base=model).export(output)
    say(f"{output} is a checkpoint of transformers with {artifact} merged into it")


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


def fields_of(templates: list[Template]) -> tuple[str, ...]:
    """Return the fields of all templates."""
    return tuple(dict.fromkeys(field for item in templates for field in item.fields))


def labelled(
    path: str,
    templates: list[Template],
    text_column: list[str] | None,
    label_column: str,
    words: dict[str, Any] | None,
    *,
    use: bool,
    **file: Any,
) -> tuple[Examples, Examples, list[str]]:
    """Read a file: its rows with a label, those without, and the labels."""
    fields = fields_of(templates)
    wanted = [*_flat(fields, text_column), label_column]
    table = open_table(path, wanted=wanted, say=note, **file)
    places, place = find_texts(table, fields, text_column), find_labels(table, label_column)
    examples, rest = split_labelled(table, read_examples(table, places, place), use=use)
    y = one_label(table, examples, table.columns[place])
    check_names(table, examples, y, table.columns[place], words)
    return examples, rest, y


def wordings(
    examples: Examples, y: list[str], templates: list[Template], verbalizer: Verbalizer
) -> list[list[ChoiceExample]]:
    """Return each row in every template."""
    from fewfit.tuning import ChoiceExample

    texts = examples.texts
    answer = {str(name): k for k, name in enumerate(verbalizer.classes)}
    rows = [dict(zip(texts, values, strict=True)) for values in zip(*texts.values(), strict=True)]
    return [
        [ChoiceExample(item.render(row), verbalizer.words, answer[name]) for item in templates]
        for row, name in zip(rows, y, strict=True)
    ]


def _flat(fields: tuple[str, ...], text_column: list[str] | None) -> list[str]:
    return [name for own in column_names(fields, text_column).values() for name in own]
