"""The commands ``fewfit tune | merge``: training that needs the model's weights."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewfit.choices import SEEDS, choose, did_you_mean
from fewfit.cli.examples import (
    answers_of,
    labelled,
    labelled_sets,
    names_of,
    unlabelled_texts,
    wordings,
)
from fewfit.cli.labels import read_label_words, read_separator
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
    MaxTokens,
    MultiLabel,
    Separator,
    TextColumn,
    read_options,
)
from fewfit.cli.output import bar, plain_errors, say
from fewfit.errors import InputError
from fewfit.tables.columns import count
from fewfit.tuning import ENTRIES, METHODS

if TYPE_CHECKING:
    from fewfit.estimators import FewShotClassifier
    from fewfit.estimators.multi_label import MultiLabelClassifier
    from fewfit.models import FrozenModel
    from fewfit.prompts import Template, Verbalizer
    from fewfit.tuning import ChoiceExample

DTYPES = ("float32", "bfloat16", "float16")
ARTIFACT = ("tuning.json", "adapter.safetensors")
"""The files of what is tuned, here since the room cannot be entered without torch."""
DECODED = ("manifest.json", "decoder.safetensors")
"""Those beside them where a decoder reads it."""


def check_output(output: Path, names: Collection[str], checkpoint: Path | None) -> None:
    """Refuse, before anything is trained, where an artifact could not be written at the end."""
    from fewfit.artifacts.files import check_folder

    check_folder(output, names)
    if checkpoint is not None:
        folder, file = output.resolve(), checkpoint.resolve()
        if folder == file or folder in file.parents:
            raise InputError(
                f"--checkpoint: {checkpoint} is in the artifact's folder, which has no place "
                "for it; name a file beside it"
            )


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
    multi_label: MultiLabel = False,
    label_separator: Separator = None,
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
    rate: Annotated[
        str | None,
        typer.Option(
            help="auto: try a third, once and three times the learning rate on a quarter of the "
            "rows, held out, and take the best."
        ),
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
    max_tokens: MaxTokens = None,
    seed: Annotated[
        int, typer.Option(min=0, max=SEEDS - 1, help="Of the order of the rows and of the dropout.")
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
    from fewfit.estimators.classifier import DEFAULT_TEMPLATE
    from fewfit.prompts import Template, Verbalizer
    from fewfit.tuning import is_encoder, make_method

    if method not in METHODS:  # not by choose(), which a type checker cannot look into
        raise InputError(
            f"--method: {method!r} is not one of {list(METHODS)}"
            f"{did_you_mean(method, list(METHODS))}"
        )
    choose("--dtype", dtype, DTYPES)
    choose("--reading", reading, ("answers", "words"))
    choose("--rate", rate, ("auto",))
    older = {
        "unlikelihood": unlikelihood,
        "length_normalised": length_normalised,
        "repetitions": repetitions,
        "generations": generations,
    }
    options = {name: value for name, value in older.items() if value is not None}
    named = read_options(option or [])
    if twice := sorted(options.keys() & named.keys()):
        raise InputError(f"--option: {twice[0]!r} is given by its own option too; leave out one")
    chosen = make_method(method, {**options, **named})
    if chosen.unlabelled and unlabelled is None:
        raise InputError(f"--method {method}: it learns from texts; name them: --unlabelled")
    if not chosen.unlabelled and unlabelled is not None:
        raise InputError(f"--method {method} has no use for --unlabelled")
    if is_encoder(model):
        chosen.check_kind("encoder")
    separator = read_separator(multi_label, label_separator)
    if chosen.several != multi_label:
        raise InputError(
            f"--method {method}: it is for rows with several labels; add --multi-label"
            if chosen.several
            else f"--multi-label: {method} learns one label for each row; take --method ptec"
        )
    for name, given in {"--label": label, "--labels": labels, "--rate": rate}.items():
        if multi_label and given:
            raise InputError(f"{name}: has no use with --multi-label; leave it out")
    if rate is not None:
        from fewfit.tuning.rates import check_trials

        check_trials(chosen)
    check_output(output, ARTIFACT if not chosen.decoded else (*ARTIFACT, *DECODED), checkpoint)
    templates = [Template(source) for source in template or [DEFAULT_TEMPLATE]]
    words = read_label_words(label, labels)
    name = "label" if label_column is None else label_column
    file = {"format": format, "delimiter": delimiter, "encoding": encoding}
    sets, rest = None, None
    if separator is not None:
        examples, own, columns = labelled_sets(
            train, templates, text_column, name, separator, **file
        )
        verbalizer = names_of(own)
        sets = [[verbalizer.classes.index(k) for k in one] for one in own]
        y = [str(verbalizer.classes[0])] * len(own)  # what is looked at are the sets
    else:
        examples, rest, y, columns = labelled(
            train, templates, text_column, name, words, use=chosen.unlabelled, **file
        )
        verbalizer = answers_of(y, None if words is None else Verbalizer(words))
        own = y
    rows = wordings(examples, y, templates, verbalizer)
    pool: list[list[ChoiceExample]] = []
    if unlabelled is not None:
        texts = unlabelled_texts(unlabelled, templates, text_column, **file)
        any_class = [str(verbalizer.classes[0])]
        pool = wordings(texts, any_class * len(texts), templates, verbalizer)
        if rest is not None and len(rest):
            pool += wordings(rest, any_class * len(rest), templates, verbalizer)

    from fewfit.tuning import Data, Meter, Run, Trunk, TunedModel, fit_at_best_rate, load_start
    from fewfit.tuning.artifact import TaskEntry, adapter_files, save_files
    from fewfit.tuning.checkpoint import digest
    from fewfit.tuning.costs import costs_of
    from fewfit.tuning.rates import FACTORS
    from fewfit.tuning.sites import read_sites
    from fewfit.tuning.training import make_accelerator

    if start is not None:
        load_start(start)  # what is not there or damaged is said before weights are loaded
    layout = None if sites is None else read_sites(sites)
    asked = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    asked = {name: value for name, value in asked.items() if value is not None}
    recipe = replace(chosen.usual(), **asked)
    accelerator = make_accelerator()
    device = str(accelerator.device)
    loading: dict[str, Any] = {"dtype": dtype, "device": device, "max_tokens": max_tokens}
    base = Trunk.load(model, **loading, layout=layout)
    base = base.reads(reading or chosen.reading)  # pyright: ignore[reportArgumentType], checked
    if reading is not None and base.reading != reading:
        raise InputError(
            f"--reading {reading}: of {model} there are {base.reading} only; leave it out"
        )
    n_trainings = chosen.trainings(len(templates))
    begun, meter, tried = time.perf_counter(), Meter(), None
    n_tries = 1 + (len(FACTORS) if rate is not None else 0)
    longest = recipe.longest(len(rows or pool)) * n_trainings * n_tries
    with bar("tuning", longest, unit="step") as progress:
        run = Run(
            recipe,
            seed,
            None if start is None else load_start(start, base.identity),
            checkpoint,
            progress if accelerator.is_main_process else None,
            accelerator,
            meter=meter,
        )
        if rate is None:
            adapter = chosen.fit(base, Data(rows, pool, sets), run)
        else:
            tried = fit_at_best_rate(chosen, base, Data(rows, pool), run)
            adapter = tried.adapter
            recipe = replace(recipe, learning_rate=tried.best.rate)
    seconds = time.perf_counter() - begun
    if not accelerator.is_main_process:
        return
    tokens, query_flops, costs = costs_of(base, rows or pool, adapter, meter)
    made = adapter_files(
        adapter,
        method=chosen,
        base_spec=base.spec,
        base_identity=base.identity,
        recipe=recipe,
        seed=seed,
        n_examples=len(y),
        data_sha256=digest([repr(rows), repr(pool), *([] if sets is None else [repr(sets)])]),
        layout=layout,
        task=TaskEntry(
            templates=[item.source for item in templates],
            labels=[
                (k, [word]) for k, word in zip(verbalizer.classes, verbalizer.first, strict=True)
            ],
            columns=columns,
        ),
        costs=costs,
    )
    if chosen.decoded:
        tuned = TunedModel.of(made, trunk=base)
        classifier = decoded(tuned, templates, verbalizer, several=multi_label)
        classifier.fit(examples.texts, own)
        classifier.columns_ = columns
        classifier.save(output)
    else:
        save_files(output, made)
    steps = recipe.steps if tried is None else tried.steps  # of each training
    if tried is None and n_trainings == 1 and meter.steps:
        steps = sum(meter.steps)  # it may have ended before the recipe does
    report = {
        "artifact": str(output),
        "method": method,
        "examples": len(y),
        "unlabelled": len(pool),
        "classes": list(verbalizer.classes),
        "values": adapter.count,
        "trainings": n_trainings,
        "steps": steps,
        "seconds": round(seconds, 3),
        "artifact_bytes": sum(file.stat().st_size for file in output.iterdir()),
        "tokens_per_query": round(tokens, 1),
        "query_flops": query_flops,
        "training_flops": costs.training_flops,
        "saved_bytes": costs.saved_bytes,
        "optimizer_bytes": costs.optimizer_bytes,
        "rates": None if tried is None else [one._asdict() for one in tried.tries],
    }
    if as_json:
        say(json.dumps(report, ensure_ascii=False))
        return
    if tried is not None:
        say(
            f"rate {tried.best.rate:.3g}, of {', '.join(f'{t.rate:.3g}' for t in tried.tries)}, by "
            f"the loss on {tried.n_held_out} examples held out ({tried.best.loss:.3f}, accuracy "
            f"{tried.best.accuracy:.2f}); trained on all for {steps} steps"
        )
    more = f" in each of {n_trainings} trainings" if n_trainings > 1 else ""
    more += f", {count(len(pool), 'unlabelled text')}" if pool else ""
    say(
        f"{count(len(y), 'example')}, {len(verbalizer.classes)} classes, "
        f"{count(steps, 'step')}{more}, "
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


def decoded(
    model: FrozenModel, templates: list[Template], words: Verbalizer, *, several: bool
) -> FewShotClassifier | MultiLabelClassifier:
    """Return the classifier that reads a tuned model: the default decoder, or a head per label."""
    from fewfit.estimators.classifier import FewShotClassifier
    from fewfit.estimators.multi_label import MultiLabelClassifier

    if several:
        return MultiLabelClassifier(model, template=list(templates), store=None)
    own = {str(k): word for k, word in zip(words.classes, words.first, strict=True)}
    return FewShotClassifier(model, template=list(templates), labels=own, store=None)


@plain_errors
def compose(
    base: Annotated[str, typer.Argument(help="hf:FOLDER, the checkpoint they were tuned on.")],
    artifacts: Annotated[list[Path], typer.Argument(help="Folders written by 'fewfit tune'.")],
    output: Folder,
    dtype: Annotated[
        str, typer.Option(help="Of the weights: float32, bfloat16, float16.")
    ] = "float32",
    max_tokens: MaxTokens = None,
) -> None:
    """Add up what several artifacts change in a model's own weights: a task and a language, say.

    The template and the answers are those of the first.
    """
    from fewfit.artifacts.files import check_folder

    choose("--dtype", dtype, DTYPES)
    check_folder(output, ARTIFACT)
    from fewfit.tuning import Trunk
    from fewfit.tuning import compose as add_up
    from fewfit.tuning.artifact import read_manifest

    for folder in artifacts:  # what is not there or damaged is said before weights are loaded
        read_manifest(folder)
    if (Path(base) / ARTIFACT[0]).is_file():
        raise InputError(
            f"{base} is an artifact; the checkpoint that it was tuned on comes first: fewfit "
            f"compose hf:CHECKPOINT {base} {' '.join(map(str, artifacts))} -o {output}"
        )
    kept = add_up(Trunk.load(base, dtype=dtype, max_tokens=max_tokens), artifacts, output)
    say(f"{output}: {kept.count:,} scalars, the changes of {len(artifacts)} artifacts together")
