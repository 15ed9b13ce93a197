"""The commands ``fewfit demo | fit | predict | evaluate``; others have files of their own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fewfit._version import __version__
from fewfit.cli.columns import pick_columns, pick_labels, read_label_words
from fewfit.cli.compare import compare
from fewfit.cli.doctor import doctor, probed
from fewfit.cli.output import bar, plain_errors
from fewfit.cli.tables import FORMATS, Table, read_table, write_csv, writing
from fewfit.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Adapt a frozen pre-trained model to your task from a handful of labels.",
    epilog="Exit codes: 0 done, 2 bad input, 3 model, 4 artifact, 5 store, "
    "6 query budget used up, 130 interrupted.",
)

Input = Annotated[
    str, typer.Argument(help="CSV, TSV, JSON lines or Parquet, .gz allowed; - reads from a pipe.")
]
Artifact = Annotated[Path, typer.Argument(help="A folder written by 'fewfit fit'.")]
TextColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the text, for a template with one field. [default: the field's name]"
    ),
]
LabelColumn = Annotated[str, typer.Option(help="Column of the labels.")]
Format = Annotated[
    str | None,
    typer.Option(help=f"Format of the input, if its name does not tell: {', '.join(FORMATS)}."),
]
Model = Annotated[str | None, typer.Option(help="The frozen model, if not the artifact's own.")]
Store = Annotated[
    str,
    typer.Option(help="File that keeps the model's answers; 'none' keeps nothing."),
]
MaxQueries = Annotated[
    int | None,
    typer.Option(min=0, help="Stop before asking more; run again to go on from there."),
]
Errors = Annotated[
    str,
    typer.Option(help="Rows that the model cannot answer: raise, or nan to go on without them."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


app.command()(compare)


def main() -> None:
    """Run the command line."""
    app()


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Adapt a frozen pre-trained model to your task from a handful of labels."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
@plain_errors
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the artifact and the plot.")] = Path(
        "demo-output"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Samples per number of shots.")] = 5,
    model: Annotated[str, typer.Option(help="The frozen model.")] = "embedded",
    store: Store = "default",
) -> None:
    """Run the whole story on the built-in support-desk data, offline."""
    from fewfit.demo import run_demo

    run_demo(output, seeds=seeds, model=model, store=_store(store), say=typer.echo, bar=bar)


@app.command()
@plain_errors
def fit(
    train: Input,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the artifact.")],
    text_column: TextColumn = None,
    label_column: LabelColumn = "label",
    model: Annotated[str, typer.Option(help="The frozen model.")] = "embedded",
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Text with fields and one {mask}; repeat it for several views of each example. "
            "[default: '{text} This is about …']"
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="CLASS=word or CLASS=word,word; repeat for each class."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help='JSON file {"class": "word" or ["word", ...], ...}.')
    ] = None,
    decoder: Annotated[
        str, typer.Option(help="What is trained on the answers.")
    ] = "offset-regression",
    calibration: Annotated[
        str,
        typer.Option(help="none, contextual, domain-context, batch, pmi or ratio (logits only)."),
    ] = "contextual",
    shots: Annotated[
        int | None, typer.Option(min=1, help="Use this many examples of each class, at random.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample that --shots draws.")] = 0,
    probe: Annotated[
        bool,
        typer.Option(
            "--doctor",
            help="Probe the model first, with each template, and keep the report in the artifact.",
        ),
    ] = False,
    store: Store = "default",
    max_queries: MaxQueries = None,
    errors: Errors = "raise",
    format: Format = None,
    as_json: AsJson = False,
) -> None:
    """Fit a classifier from a file of labelled examples: one query each."""
    from fewfit.classifier import DEFAULT_TEMPLATE, FewShotClassifier
    from fewfit.compare import sample_shots
    from fewfit.decoders import DECODERS
    from fewfit.prompts import make_views

    if decoder not in DECODERS:
        raise InputError(f"--decoder: {decoder!r} is not one of {sorted(DECODERS)}")
    source = template or [DEFAULT_TEMPLATE]
    table = read_table(train, format)
    columns = pick_columns(table, make_views(source).fields, text_column)
    y = pick_labels(table, label_column)
    if shots is not None:
        sample = sample_shots(y, shots, seed=seed)
        columns = {name: [column[i] for i in sample] for name, column in columns.items()}
        y = [y[i] for i in sample]
    classifier = FewShotClassifier(
        model,
        template=source,
        labels=read_label_words(label, labels),
        decoder=DECODERS[decoder](),
        calibration=calibration,
        store=_store(store),
        max_queries=max_queries,
        errors=errors,
    )
    found = probed(model, source, _words(classifier.labels, y)) if probe else None
    start = time.perf_counter()
    with bar("asking", len(y)) as progress:
        classifier.fit(columns, y, progress=progress)
    seconds = time.perf_counter() - start
    classifier.doctor_ = found
    classifier.save(output)
    size = sum(file.stat().st_size for file in output.iterdir())
    report = {
        "artifact": str(output),
        "examples": len(y),
        "classes": classifier.classes_.tolist(),
        "decoder": decoder,
        "queries": classifier.n_queries_,
        "retries": classifier.n_retries_,
        "seconds": round(seconds, 3),
        "artifact_bytes": size,
    }
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
    else:
        typer.echo(
            f"{len(y)} examples, {len(classifier.classes_)} classes, {classifier.n_queries_} "
            f"queries, {seconds:.1f} s; {size / 1024:.0f} KiB in {output}"
        )
        if found is not None:
            problems = [c["name"] for c in found["checks"] if c["outcome"] == "problem"]
            typer.echo(f"doctor: {found['queries']} queries, problems: {', '.join(problems) or 0}")


@app.command()
@plain_errors
def predict(
    artifact: Artifact,
    input: Input,
    output: Annotated[str, typer.Option("--output", "-o", help="File to write; - prints.")] = "-",
    text_column: TextColumn = None,
    proba: Annotated[bool, typer.Option(help="Add a column for each class.")] = False,
    model: Model = None,
    store: Store = "default",
    max_queries: MaxQueries = None,
    errors: Errors = "raise",
    format: Format = None,
    as_json: AsJson = False,
) -> None:
    """Label new rows: the input's columns, then 'prediction' and 'probability'.

    With --errors nan a row that the model cannot answer has no label: the cells stay empty.
    """
    classifier, columns, table = _loaded(
        artifact, input, text_column, model, store, format, max_queries, errors
    )
    probabilities = _predicted(classifier, columns)
    answered = (probabilities == probabilities).all(axis=1)
    best = probabilities.argmax(axis=1)
    predicted = [
        classifier.classes_[k].item() if ok else None for k, ok in zip(best, answered, strict=True)
    ]
    with writing(output) as stream:
        if as_json:
            for name, p in zip(predicted, probabilities, strict=True):
                shares = p.tolist() if name is not None else [None] * len(p)
                row = dict(zip([str(c) for c in classifier.classes_], shares, strict=True))
                json.dump({"prediction": name, "probabilities": row}, stream, ensure_ascii=False)
                stream.write("\n")
        else:
            shown: dict[str, Any] = dict(table)
            shown["prediction"] = ["" if name is None else name for name in predicted]
            shown["probability"] = [_shown(p) for p in probabilities.max(axis=1)]
            if proba:
                for k, name in enumerate(classifier.classes_):
                    shown[f"probability_{name}"] = [_shown(p) for p in probabilities[:, k]]
            write_csv(shown, stream)


@app.command()
@plain_errors
def evaluate(
    artifact: Artifact,
    test: Input,
    text_column: TextColumn = None,
    label_column: LabelColumn = "label",
    model: Model = None,
    store: Store = "default",
    max_queries: MaxQueries = None,
    format: Format = None,
    as_json: AsJson = False,
) -> None:
    """Measure a classifier on labelled rows."""
    import numpy as np

    from fewfit.compare import measure
    from fewfit.compare.tables import markdown_table

    classifier, columns, table = _loaded(
        artifact, test, text_column, model, store, format, max_queries
    )
    y = np.array(pick_labels(table, label_column))
    unknown = sorted(set(y.tolist()) - {str(name) for name in classifier.classes_})
    if unknown:
        raise InputError(
            f"{test}: class {unknown[0]!r} is not one of {classifier.classes_.tolist()}"
        )
    start = time.perf_counter()
    probabilities = _predicted(classifier, columns)
    seconds = time.perf_counter() - start
    metrics = measure(y, probabilities, classifier.classes_.astype(str))
    if as_json:
        typer.echo(json.dumps({**metrics._asdict(), "seconds": round(seconds, 3)}))
        return
    rows = [
        [
            "accuracy",
            f"{metrics.accuracy:.3f}",
            f"{metrics.accuracy_low:.3f} to {metrics.accuracy_high:.3f}",
        ],
        ["macro F1", f"{metrics.macro_f1:.3f}", ""],
        ["log loss", f"{metrics.log_loss:.3f}", ""],
        ["calibration error", f"{metrics.ece:.3f}", ""],
        ["rows", str(metrics.n), ""],
    ]
    typer.echo(markdown_table(["", "value", "95 % interval"], rows))


app.command()(doctor)


def _words(labels: Any, y: list[str]) -> tuple[str, ...]:
    from fewfit.prompts import Verbalizer

    return (Verbalizer.from_classes(y) if labels is None else Verbalizer(labels)).words


def _shown(probability: float) -> str:
    return "" if probability != probability else f"{probability:.6f}"


def _loaded(
    artifact: Path,
    input: str,
    text_column: str | None,
    model: str | None,
    store: str,
    format: str | None,
    max_queries: int | None = None,
    errors: str = "raise",
) -> tuple[Any, Table, Table]:
    from fewfit.classifier import FewShotClassifier

    classifier = FewShotClassifier.load(
        artifact, model=model, store=_store(store), max_queries=max_queries, errors=errors
    )
    table = read_table(input, format)
    return classifier, pick_columns(table, classifier.task_.template.fields, text_column), table


def _predicted(classifier: Any, columns: Table) -> Any:
    with bar("asking", len(next(iter(columns.values())))) as progress:
        return classifier.predict_proba(columns, progress=progress)


def _store(value: str) -> str | None:
    return None if value == "none" else value
