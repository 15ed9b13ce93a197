"""The commands ``fewfit tune | merge``: training that needs the model's weights."""

from __future__ import annotations

import json
import time
from dataclasses import replace
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
    read_options,
)
from fewfit.cli.output import bar, note, plain_errors, say
from fewfit.cli.tables import open_table
from fewfit.errors import InputError
from fewfit.tuning import ENTRIES, METHODS

if TYPE_CHECKING:
    from fewfit.estimators import FewShotClassifier
    from fewfit.models import FrozenModel
    from fewfit.prompts import Template, Verbalizer
    from fewfit.tuning import ChoiceExample

DTYPES = ("float32", "bfloat16", "float16")
ARTIFACT = ("tuning.json", "adapter.safetensors")
"""The files of what is tuned, here since the room cannot be entered without torch."""
DECODED = ("manifest.json", "decoder.safetensors")
"""Those beside them where a decoder reads it."""


@plain_errors
def tune(
    train: Input,
    output: Folder,
    model: Annotated[
        str,
        typer.Option(
            help="hf:FOLDER, a checkpoint of transformers; for contrastive also embedded or "
            "encoder:FOLDER."
        ),
    ],
    method: Annotated[
        str, typer.Option(help=f"How to train: {', '.join(ENTRIES)} (see 'fewfit methods').")
    ] = "t-few",
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, an option of the method; repeat it. Lists by commas."),
    ] = None,
    unlabelled: Annotated[
        str | None, typer.Option(help="File of texts without labels, for methods that need them.")
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
        Path | None, typer.Option(help="What to start from: an artifact, or published vectors.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of each training. [default: the method's]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows per step. [default: the method's]")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="At its peak. [default: the method's]")
    ] = None,
    unlikelihood: Annotated[
        bool | None, typer.Option(help="The same as --option unlikelihood=... (t-few).")
    ] = None,
    length_normalised: Annotated[
        bool | None, typer.Option(help="The same as --option length_normalised=... (t-few).")
    ] = None,
    repetitions: Annotated[
        int | None, typer.Option(min=1, help="The same as --option repetitions=... (pet).")
    ] = None,
    generations: Annotated[
        int | None, typer.Option(min=0, help="The same as --option generations=... (pet).")
    ] = None,
    reading: Annotated[
        str | None,
        typer.Option(
            help="How choices are scored: answers (with their end, per token) or words (as hf: "
            "does). [default: the method's; answers for an encoder-decoder]"
        ),
    ] = None,
    sites: Annotated[
        Path | None,
        typer.Option(help="File that says where an unknown architecture keeps its layers."),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Of the weights: float32, bfloat16, float16.")
    ] = "float32",
    max_tokens: Annotated[int, typer.Option(min=8, help="Longer prompts are cut.")] = 256,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the order of the rows and of the dropout.")
    ] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File from which an interrupted training goes on.")
    ] = None,
    format: Format = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Train a small part of, or beside, a model from a file of labelled examples.

    The artifact is read by 'fewfit predict' and 'fewfit evaluate', and 'tuned:FOLDER' is a model
    like any other. Several processes: accelerate launch -m fewfit tune ...
    """
    from fewfit.artifacts.files import check_folder
    from fewfit.estimators.classifier import DEFAULT_TEMPLATE
    from fewfit.prompts import Template, Verbalizer
    from fewfit.tuning import make_method
    from fewfit.tuning.trunk import is_encoder

    if method not in METHODS:  # not by choose(), which a type checker cannot look into
        raise InputError(
            f"--method: {method!r} is not one of {list(METHODS)}"
            f"{did_you_mean(method, list(METHODS))}"
        )
    choose("--dtype", dtype, DTYPES)
    choose("--reading", reading or "words", ("answers", "words"))
    older = {
        "unlikelihood": unlikelihood,
        "length_normalised": length_normalised,
        "repetitions": repetitions,
        "generations": generations,
    }
    options = {name: value for name, value in older.items() if value is not None}
    chosen = make_method(method, {**options, **read_options(option or [])})
    if chosen.unlabelled and unlabelled is None:
        raise InputError(f"--method {method}: it learns from texts; name them: --unlabelled")
    if not chosen.unlabelled and unlabelled is not None:
        raise InputError(f"--method {method} has no use for --unlabelled")
    if is_encoder(model):
        chosen.check_kind("encoder")
    check_folder(output, ARTIFACT if not chosen.decoded else (*ARTIFACT, *DECODED))
    templates = [Template(source) for source in template or [DEFAULT_TEMPLATE]]
    words = read_label_words(label, labels)
    name = label_column or "label"
    file = {"format": format, "delimiter": delimiter, "encoding": encoding}
    examples, rest, y = labelled(
        train, templates, text_column, name, words, use=chosen.unlabelled, **file
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

    from fewfit.tuning import Data, Run, Trunk, TunedModel, load_start
    from fewfit.tuning.artifact import TaskEntry, adapter_files, save_files
    from fewfit.tuning.costs import costs_of_method
    from fewfit.tuning.sites import read_sites
    from fewfit.tuning.training import digest, make_accelerator

    if start is not None:
        load_start(start)  # what is not there or damaged is said before weights are loaded
    layout = None if sites is None else read_sites(sites)
    asked = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    asked = {name: value for name, value in asked.items() if value is not None}
    recipe = replace(chosen.recipe, **asked)
    accelerator = make_accelerator()
    device = str(accelerator.device)
    loading: dict[str, Any] = {"dtype": dtype, "device": device, "max_tokens": max_tokens}
    base = Trunk.load(model, **loading, layout=layout)
    base = base.reads(reading or chosen.reading)  # pyright: ignore[reportArgumentType], checked
    n_trainings = chosen.trainings(len(templates))
    begun = time.perf_counter()
    with bar("tuning", recipe.steps * n_trainings, unit="step") as progress:
        run = Run(
            recipe,
            seed,
            None if start is None else load_start(start, base.identity),
            checkpoint,
            progress if accelerator.is_main_process else None,
            accelerator,
        )
        adapter = chosen.fit(base, Data(rows, pool), run)
    seconds = time.perf_counter() - begun
    if not accelerator.is_main_process:
        return
    tokens, query_flops, costs = costs_of_method(base, chosen, Data(rows, pool), recipe)
    made = adapter_files(
        adapter,
        method=chosen,
        base_spec=base.spec,
        base_identity=base.identity,
        recipe=recipe,
        seed=seed,
        n_examples=len(y),
        data_sha256=digest([repr(rows), repr(pool)]),
        layout=layout,
        task=TaskEntry(
            templates=[item.source for item in templates],
            labels=[
                (k, [word]) for k, word in zip(verbalizer.classes, verbalizer.first, strict=True)
            ],
        ),
        costs=costs,
    )
    if chosen.decoded:
        classifier = decoded(TunedModel.of(made, trunk=base), templates, verbalizer)
        classifier.fit(examples.texts, y).save(output)
    else:
        save_files(output, made)
    report = {
        "artifact": str(output),
        "method": method,
        "examples": len(y),
        "unlabelled": len(pool),
        "classes": list(verbalizer.classes),
        "values": adapter.count,
        "trainings": n_trainings,
        "steps": recipe.steps,
        "seconds": round(seconds, 3),
        "artifact_bytes": sum(file.stat().st_size for file in output.iterdir()),
        "tokens_per_query": round(tokens, 1),
        "query_flops": query_flops,
        "training_flops": costs.training_flops,
    }
    if as_json:
        say(json.dumps(report, ensure_ascii=False))
        return
    more = f" in each of {n_trainings} trainings" if n_trainings > 1 else ""
    more += f", {len(pool)} unlabelled texts" if pool else ""
    say(
        f"{len(y)} examples, {len(verbalizer.classes)} classes, {recipe.steps} steps{more}, "
        f"{seconds:.1f} s; "
        f"{adapter.count:,} values, {report['artifact_bytes'] / 1024:.0f} KiB in {output}; "
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


def decoded(model: FrozenModel, templates: list[Template], words: Verbalizer) -> FewShotClassifier:
    """Return the classifier that reads a tuned model with the default decoder."""
    from fewfit.estimators.classifier import FewShotClassifier

    own = {str(k): word for k, word in zip(words.classes, words.first, strict=True)}
    return FewShotClassifier(model, template=list(templates), labels=own, store=None)


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
