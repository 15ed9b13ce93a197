"""``fewfit fit``."""

from __future__ import annotations

import json
import shlex
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewfit.choices import SEEDS, choose
from fewfit.cli.doctor import joined, probed
from fewfit.cli.examples import columns_of
from fewfit.cli.labels import (
    check_names,
    find_labels,
    label_sets,
    one_label,
    read_label_words,
    read_separator,
    read_taxonomy,
)
from fewfit.cli.options import (
    AsJson,
    Delimiter,
    Encoding,
    Errors,
    Folder,
    Format,
    Hidden,
    Input,
    LabelColumn,
    LabelFile,
    LabelWords,
    MaxQueries,
    MultiLabel,
    Separator,
    Store,
    Taxonomy,
    TextColumn,
    Transforms,
    store_path,
    through,
)
from fewfit.cli.output import note, plain_errors, say, watched
from fewfit.cli.suspicions import suspicions
from fewfit.errors import InputError
from fewfit.tables import open_table
from fewfit.tables.columns import (
    Examples,
    column_names,
    count,
    find_texts,
    read_examples,
    split_labelled,
)
from fewfit.tables.source import suffix_of

if TYPE_CHECKING:
    from fewfit.estimators.base import TextEstimator
    from fewfit.estimators.expected import ExpectedAccuracy
    from fewfit.estimators.tuning import Tuning


@plain_errors
def fit(
    train: Input,
    output: Folder,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    model: Annotated[str, typer.Option(help="The frozen model.")] = "embedded",
    hidden: Hidden = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Text with fields and one {mask}; repeat it for several views of each example. "
            "[default: '{text} This is about …']"
        ),
    ] = None,
    transform: Transforms = None,
    label: LabelWords = None,
    labels: LabelFile = None,
    taxonomy: Taxonomy = None,
    decoder: Annotated[
        str | None,
        typer.Option(help="What is trained on the answers. [default: offset-regression]"),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="none, contextual, domain-context, batch, pmi or ratio (logits only). "
            "[default: contextual; none where few answers in words are the scores]"
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of the decoder, or of the calibration as calibration.NAME=VALUE; "
            "repeatable ('fewfit methods NAME' lists them).",
        ),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(help="File of texts without labels, for a decoder that learns from them."),
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(
            help="auto: also tune a few thousand numbers inside the model, and keep it tuned where "
            "held-out examples speak for it."
        ),
    ] = None,
    multi_label: MultiLabel = False,
    label_separator: Separator = None,
    shots: Annotated[
        int | None, typer.Option(min=1, help="Use this many examples of each class, at random.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=SEEDS - 1, help="Seed of the sample that --shots draws.")
    ] = 0,
    probe: Annotated[
        bool,
        typer.Option(
            "--doctor",
            help="Probe the model first, with each template, and keep the report in the artifact.",
        ),
    ] = False,
    keep_example: Annotated[
        bool,
        typer.Option(
            "--keep-example",
            help="Keep one example in the artifact, text and all, to verify it by.",
        ),
    ] = False,
    show_prompt: Annotated[
        bool,
        typer.Option(
            "--show-prompt", help="Only print what would be asked about the first example."
        ),
    ] = False,
    expect: Annotated[
        bool,
        typer.Option(
            help="Estimate the accuracy to expect by fitting on parts of the examples; no query."
        ),
    ] = True,
    store: Store = "default",
    max_queries: MaxQueries = None,
    errors: Errors = "raise",
    format: Format = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Fit a classifier from a file of labelled examples: one query each.

    Rows without a label are learnt from where the decoder needs such, else left out.
    """
    from fewfit.artifacts import schema
    from fewfit.artifacts.files import check_folder
    from fewfit.estimators.fitted import check_savable
    from fewfit.prompts import make_views
    from fewfit.task import DEFAULT_TEMPLATE

    separator = read_separator(multi_label, label_separator)
    choose("--errors", errors, ("raise", "nan"))
    model, words = read_taxonomy(taxonomy, model, read_label_words(label, labels))
    kept = {"store": store_path(store), "max_queries": max_queries, "errors": errors}
    choose("--tune", tune, ("auto",))
    source = template or [DEFAULT_TEMPLATE]
    views = through(source, transform, store)
    fields = make_views(views).fields
    if multi_label:
        given = {
            "--hidden": hidden,
            "--show-prompt": show_prompt,
            "--decoder": decoder not in (None, "multi-label"),
            "--calibration": calibration,
            "--option": option,
            "--label": label,
            "--labels": labels,
            "--taxonomy": taxonomy,
            "--shots": shots,
            "--unlabelled": unlabelled,
            "--tune": tune,
        }
        _refuse(given)
        classifier = _several(model, views, kept)
    else:
        more = {**kept, "hidden": hidden, "tune": tune}
        classifier = _single(model, views, words, decoder, calibration, option or [], more)
    check_folder(output, schema.files_of(output))
    for view in make_views(views).views:
        check_savable(view)

    names = column_names(fields, text_column)
    name = "label" if label_column is None else label_column
    wanted = [n for own in names.values() for n in own]
    file = {"delimiter": delimiter, "encoding": encoding, "say": note}
    table = open_table(train, format, wanted=[*wanted, name], **file)
    places, place = find_texts(table, fields, text_column), find_labels(table, name)
    examples = read_examples(table, places, place)
    learns = not multi_label and classifier.decoder.unlabelled
    needs = not multi_label and classifier.decoder.needs_unlabelled
    pool: list[Examples] = []
    if unlabelled is not None:
        if not learns:
            later = " in fit, but does in predict (--adapt)" * classifier.decoder.adapts
            raise InputError(
                f"--unlabelled: the decoder {decoder or 'offset-regression'!r} does not learn from "
                f"texts without labels{later}; take offset-regression or ipet, or leave them out"
            )
        other = open_table(unlabelled, format, wanted=wanted, **file)
        pool.append(read_examples(other, find_texts(other, fields, text_column)))
    y: list[Any]
    if separator is not None:
        y = label_sets(table, examples, separator, table.columns[place])
    else:
        examples, rest = split_labelled(table, examples, use=needs)
        pool += [rest] if needs and len(rest) else []
        y = one_label(table, examples, table.columns[place], words)
        check_names(table, examples, y, table.columns[place], words)
    if needs and not pool:
        raise InputError(
            f"--decoder {decoder}: it learns from texts without labels; name them with "
            "--unlabelled, or leave cells of the label column empty"
        )
    if shots is not None:
        from fewfit.compare import sample_shots

        sample = sample_shots(y, shots, seed=seed).tolist()
        examples, y = examples.select(sample), [y[i] for i in sample]

    if show_prompt:
        say("\n\n".join(classifier.show_prompts(examples.texts, y)))
        return
    report = None
    if probe:
        report = probed(joined(model, hidden), source, _words(words, y), max_queries)
        if max_queries is not None:
            left = classifier.max_queries = max_queries - report["queries"]
            asked = count(report["queries"], "query", "queries")
            note(f"doctor: {asked}, {left} of --max-queries {max_queries} left")
    texts = [{k: v[i] for k, v in p.texts.items()} for p in pool for i in range(len(p))]
    start = time.perf_counter()
    given: dict[str, Any] = {"unlabelled": texts} if texts else {}
    classifier.fit(examples.texts, y, progress=watched(), **given)
    seconds = time.perf_counter() - start
    classifier.doctor_ = report
    classifier.columns_ = columns_of(table, places, place, separator)
    expected = classifier.expected_accuracy() if expect else None
    classifier.save(output, keep_example=keep_example)
    told: Tuning | None = None if multi_label else classifier.tuning_
    found = {
        "artifact": str(output),
        "examples": len(y),
        "unlabelled": len(texts),
        "classes": classifier.classes_.tolist(),
        "decoder": "multi-label" if multi_label else decoder or "offset-regression",
        "queries": classifier.n_queries_,
        "retries": classifier.n_retries_,
        "seconds": round(seconds, 3),
        "artifact_bytes": sum(file.stat().st_size for file in output.iterdir()),
        "tuning": None if told is None else told.to_dict(),
        "expected_accuracy": None if expected is None else expected.to_dict(),
        "warnings": suspicions(classifier, table, examples, y),
    }
    if as_json:
        say(json.dumps(found, ensure_ascii=False))
    else:
        _print(found, report, expected, train)


def _single(
    model: str,
    template: list[Any],
    words: Any,
    decoder: str | None,
    calibration: str | None,
    options: list[str],
    kept: dict[str, Any],
) -> Any:
    from fewfit.calibration import CALIBRATIONS, make_calibration
    from fewfit.decoders import DECODERS, make_decoder
    from fewfit.estimators.classifier import FewShotClassifier

    own, of_calibration = _options(options)
    name = choose("--decoder", decoder, sorted(DECODERS), default="offset-regression")
    made = make_decoder(name, options=own)
    how = None
    if calibration is not None or of_calibration:
        name = choose("--calibration", calibration, sorted(CALIBRATIONS), default="contextual")
        how = make_calibration(name, options=of_calibration)
    return FewShotClassifier(
        model, template=template, labels=words, decoder=made, calibration=how, **kept
    )


def _options(given: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the decoder's options and the calibration's."""
    decoder: dict[str, str] = {}
    calibration: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        room, dot, rest = name.strip().partition(".")
        if not (equals and name.strip()) or (dot and room != "calibration"):
            raise InputError(
                f"--option: {item[:60]!r} is not NAME=VALUE, or calibration.NAME=VALUE"
            )
        into, key = (calibration, rest) if dot else (decoder, room)
        if key in into:
            raise InputError(f"--option: {name.strip()} is given twice")
        into[key] = value
    return decoder, calibration


def _several(model: str, template: list[Any], kept: dict[str, Any]) -> TextEstimator:
    from fewfit.estimators.multi_label import MultiLabelClassifier

    return MultiLabelClassifier(model, template=template, **kept)


def _refuse(given: dict[str, Any]) -> None:
    """Refuse options that rows with several labels have no use for."""
    for option, value in given.items():
        if value:
            raise InputError(
                f"{option}: has no use with --multi-label, which learns a head and a threshold per "
                "label on hidden states; leave it out"
            )


def _print(
    found: dict[str, Any],
    report: dict[str, Any] | None,
    expected: ExpectedAccuracy | None,
    train: str,
) -> None:
    output, more = found["artifact"], ""
    if found["unlabelled"]:
        more = f", {count(found['unlabelled'], 'text')} without labels"
    say(
        f"{count(found['examples'], 'example')}, {len(found['classes'])} classes{more}, "
        f"{count(found['queries'], 'query', 'queries')}, {found['seconds']:.1f} s; "
        f"{found['artifact_bytes'] / 1024:.0f} KiB in {output}"
    )
    if found["tuning"] is not None:
        say(_told(found["tuning"]))
    if report is not None:
        problems = [c["name"] for c in report["checks"] if c["outcome"] == "problem"]
        asked = count(report["queries"], "query", "queries")
        say(f"doctor: {asked}, problems: {', '.join(problems) or 0}")
    if expected is not None:
        from fewfit.estimators.expected import expectation

        for line in expectation(expected, several=found["decoder"] == "multi-label"):
            say(line)
    for line in found["warnings"]:
        say(f"Look at this: {line}")
    new = f"NEW{suffix_of(train) or '.csv'}"
    say(f"Next: {shlex.join(['fewfit', 'predict', output, new, '-o', 'labelled.csv'])}")


def _told(tuning: dict[str, Any]) -> str:
    """Say what --tune auto chose, and what it cost."""
    held = ""
    if tuning["frozen"] is not None:
        held = f" ({tuning['tuned']:.0%} right, frozen {tuning['frozen']:.0%})"
    cost = f"{count(tuning['n_trainings'], 'training')}, {tuning['seconds']:.1f} s"
    return f"model: {tuning['chosen']}, since {tuning['reason']}{held}; {cost}"


def _words(labels: Any, y: list[Any]) -> tuple[str, ...]:
    from fewfit.prompts import Verbalizer

    if y and isinstance(y[0], list):
        y = sorted({name for own in y for name in own})
    return (Verbalizer.from_classes(y) if labels is None else Verbalizer(labels)).words
