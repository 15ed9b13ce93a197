"""The command ``fewfit words``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fewfit.cli.labels import read_label_words
from fewfit.cli.options import LabelFile, LabelWords, Store, store_path
from fewfit.cli.output import note, plain_errors, say
from fewfit.cli.writing import check_output
from fewfit.errors import InputError


@plain_errors
def words(
    terms: Annotated[
        Path | None, typer.Argument(help="A file of terms to choose from, one to a line.")
    ] = None,
    label: LabelWords = None,
    labels: LabelFile = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            help="hf:NAME, whose vocabulary's own words are the terms, in place of TERMS."
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="The encoder that says how alike a term and a class are.")
    ] = "embedded",
    threshold: Annotated[
        float,
        typer.Option(
            help="Least cosine of a term that is kept, from 0 to 1. Those of the embedded model "
            "lie above 0.8, so that 0.87 or more tells apart."
        ),
    ] = 0.5,
    n: Annotated[int, typer.Option("-n", min=1, help="At most so many words of a class.")] = 10,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; else it is printed.")
    ] = None,
    store: Store = "default",
) -> None:
    """Find label words with weights in a list of terms, for --labels of the other commands.

    Each class is named once, as --label CLASS=NAME. A term is kept where it is most alike, with the
    cosine as its weight (SciPrompt).
    """
    from fewfit.prompts import retrieve_words

    names = _names(read_label_words(label, labels))
    if (terms is None) == (vocabulary is None):
        raise InputError("words: give a file of terms, or --vocabulary hf:NAME, one of the two")
    if output is not None:
        check_output(str(output), [path for path in (terms, labels, store) if path is not None])
    found = _terms(terms) if terms is not None else _vocabulary(str(vocabulary))
    cosine = _cosines(model, list(names.values()), found, store_path(store))
    chosen = retrieve_words(names, found, cosine, threshold=threshold, n=n)
    rounded = {k: {w: round(v, 4) for w, v in own.items()} for k, own in chosen.items()}
    text = json.dumps(rounded, ensure_ascii=False, indent=1)
    if output is None:
        typer.echo(text)
        return
    output.write_text(text + "\n", encoding="utf-8")
    kept = sum(map(len, chosen.values()))
    note(f"{len(found):,} terms, {kept} words of {len(names)} classes in {output}")
    say(f"Next: fewfit fit FILE -o FOLDER --labels {output}")


def _names(given: Any) -> dict[str, str]:
    """Return the one name of each class, no two the same (InputError)."""
    from fewfit.prompts import Verbalizer

    names: dict[str, str] = {}
    for label, own in (given or {}).items():
        listed = [own] if isinstance(own, str) else list(own)
        if len(listed) != 1:
            raise InputError(
                f"words: class {label!r} has {len(listed)} names; give the one to find by"
            )
        names[str(label)] = str(listed[0])
    if len(names) < 2:
        raise InputError("words: name two classes or more, as --label CLASS=NAME")
    checked = Verbalizer(names).labels  # as --labels will read them
    return {label: checked[label][0] for label in names}


def _terms(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise InputError(f"{path}: no terms")
    return found


def _vocabulary(spec: str) -> list[str]:
    from fewfit.estimators.opening import load_model
    from fewfit.models import TransformersModel

    model = load_model(spec)
    if not isinstance(model, TransformersModel):
        raise InputError(f"--vocabulary: {spec!r:.60} is no language model of this process (hf:)")
    return model.output_vectors()[0]


def _cosines(spec: str, names: list[str], terms: list[str], store: str | None) -> Any:
    """Return the cosines of names and terms, (K, T), from hidden states of each text alone."""
    import numpy as np

    from fewfit.estimators.opening import open_model
    from fewfit.prompts import Template

    model = open_model(spec, store)
    model.capabilities.check(frozenset({"hidden"}), who="words", n_words=1)
    template = Template("{text} {mask}")
    prompts = [template.render({"text": text}) for text in (*names, *terms)]
    hidden = model.observe(prompts, ("it",)).hidden
    assert hidden is not None
    unit = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    return unit[: len(names)] @ unit[len(names) :].T
