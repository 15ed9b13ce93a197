"""The command ``fewfit generate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewfit.choices import choose
from fewfit.cli.options import (
    AsJson,
    Delimiter,
    Encoding,
    Errors,
    Format,
    Input,
    MaxQueries,
    Store,
    TextColumn,
    Transforms,
    store_path,
)
from fewfit.cli.output import bar, note, plain_errors, say
from fewfit.errors import BudgetExceededError, InputError, ModelError
from fewfit.tables import Row, open_table
from fewfit.tables.columns import column_names, count, find_texts, has_text, named, texts_of

if TYPE_CHECKING:
    from fewfit.models.base import FrozenModel
    from fewfit.models.generation import Writing, Written
    from fewfit.prompts import View

_ROWS = 256  # that are asked about together


@plain_errors
def generate(
    input: Input,
    model: Annotated[str, typer.Option(help="The frozen model, for example hf:smollm2.")],
    output: Annotated[str, typer.Option("--output", "-o", help="File to write; - prints.")] = "-",
    text_column: TextColumn = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="urial: answered questions in front, by which a base model answers as an "
            "assistant does; plain: nothing; or a JSON file with an instruction and examples of "
            "your own. [default: urial, and plain where the model is asked as a chat]"
        ),
    ] = None,
    template: Annotated[
        str, typer.Option(help="What is asked about a row: text with fields.")
    ] = "{text}",
    transform: Transforms = None,
    column: Annotated[str, typer.Option(help="Column that is added.")] = "generated",
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Where a text is cut. [default: what the address says, or 256]"),
    ] = None,
    store: Store = "default",
    max_queries: MaxQueries = None,
    errors: Errors = "raise",
    show_prompt: Annotated[
        bool,
        typer.Option("--show-prompt", help="Only print what would be asked about the first row."),
    ] = False,
    format: Format = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Let a model write a text for each row: the input's columns, and what it wrote.

    It writes greedily. Rows are written as they are answered; run again to go on from where a run
    stopped. A row without a text has none; with --errors nan neither has one that the model did not
    answer, and a further column says why.
    """
    from fewfit.cli.writing import Output
    from fewfit.estimators.opening import load_model
    from fewfit.models.generation import Writing, length_of, writes

    choose("--errors", errors, ("raise", "nan"))
    asked = load_model(model)
    longest = max_tokens or length_of(writes(asked)) or Writing.max_tokens
    view = _view(asked, prompt, template, transform, store)
    how = Writing(longest, view.stop)
    names = [n for own in column_names(view.fields, text_column).values() for n in own]
    table = open_table(
        input, format, delimiter=delimiter, encoding=encoding, wanted=names, say=note
    )
    places = find_texts(table, view.fields, text_column)
    status = f"{column}_status"
    added = [column, *[status] * (errors == "nan")]
    taken = [name for name in added if name in table.columns]
    if taken:
        raise InputError(f"{input}: has a column {taken[0]!r} already; name another with --column")
    out = Output(output, [*table.columns, *added], as_json=as_json, not_over=[input, store])
    if show_prompt:
        [first] = islice(table.read(), 1)
        texts = texts_of(table, [first], places)
        say(_shown(asked, view, {name: own[0] for name, own in texts.items()}))
        return
    tally = _Tally()
    try:
        with bar("writing", table.n) as progress, out:
            for rows in table.chunks(_ROWS):
                texts = texts_of(table, rows, places)
                left = None if max_queries is None else max_queries - tally.queries
                asking = _answers(asked, view, how, texts, store_path(store), left, tally)
                for row, there, found in zip(rows, has_text(texts), asking, strict=True):
                    text = view.read(found.text) if there and not found.reason else ""
                    why = found.reason if there else "no text"
                    if there and why and errors == "raise":
                        raise ModelError(f"{table.where(row[0])}: {why}")
                    said = [f"failed: {why}" if why else "ok"] * (errors == "nan")
                    own = dict(zip(added, [text, *said], strict=True))
                    out.write([[*row[1], text, *said]], [own])
                    tally.add(row, found, there)
                    progress(1)
    except BaseException as error:
        if isinstance(error, BudgetExceededError) or (output != "-" and out.rows):
            kept = "" if store == "none" else "; run again to go on from there"
            note(f"{count(out.rows, 'row')} of {table.n:,} are in {output}{kept}")
        raise
    if output != "-":
        asked_of = count(tally.queries, "query", "queries")
        tokens = f", {tally.tokens:,} tokens" if tally.tokens else ""
        note(
            f"{count(out.rows, 'row')} in {output}: {asked_of} asked, {tally.stored} from the "
            f"store{tokens}"
        )
    if tally.cut:
        note(
            f"warning: {count(len(tally.cut), 'text')} cut at {longest} tokens "
            f"({named(table, tally.cut)}); --max-tokens allows for more"
        )


class _Tally:
    """What a run came to."""

    def __init__(self) -> None:
        self.queries, self.stored, self.tokens = 0, 0, 0
        self.cut: list[int] = []

    def add(self, row: Row, found: Written, there: bool) -> None:
        if not there:
            return
        self.stored += not found.was_asked
        self.tokens += max(found.n_tokens, 0) * found.was_asked
        if not found.is_whole:
            self.cut.append(row[0])


def _view(
    model: FrozenModel, prompt: str | None, template: str, transforms: list[str] | None, store: str
) -> View:
    from fewfit.estimators.transforms import read_transform
    from fewfit.prompts import Conjugate, Template, Urial

    if "{mask}" in template:
        raise InputError("--template: the model writes behind it, so that it has no {mask}")
    if "{" not in template:
        raise InputError(
            f"--template: no field for the text in {template!r}; write for example "
            "'Summarise this: {text}'"
        )
    if transforms:
        if prompt not in (None, "plain") or len(transforms) > 1:
            raise InputError("--transform: one, and with the plain prompt alone")
        way = read_transform(transforms[0], store_path(store))
        source = f"{template}{{mask}}"
        return Template(source) if way is None else Conjugate(source, way)
    name = prompt or ("plain" if _is_chat(model) else "urial")
    if name == "plain":
        return Template(f"{template}{{mask}}")
    if name == "urial":
        return Urial(query=template)
    if not Path(name).is_file():
        raise InputError(f"--prompt: urial, plain or a JSON file, and {name!r} is none of them")
    return Urial.from_file(name, query=template)


def _is_chat(model: Any) -> bool:
    """Whether a model is asked in the turns of a chat, as it was taught to answer."""
    options = getattr(model, "options", None)
    chat = getattr(options, "chat", False) if options is not None else getattr(model, "chat", False)
    return bool(chat) or getattr(model, "scheme", "") in ("openai-chat", "anthropic")


def _shown(model: FrozenModel, view: View, row: dict[str, str]) -> str:
    from fewfit.models.optional import show

    return show(model, view.render(row), ())


def _answers(
    model: FrozenModel,
    view: View,
    how: Writing,
    texts: dict[str, list[str]],
    store: str | None,
    left: int | None,
    tally: _Tally,
) -> Iterator[Written]:
    """Yield what was written for each of some rows, in order, as soon as it and those before are.

    A row without a text is not asked about, and has an empty one.
    """
    from fewfit.models.generation import Written
    from fewfit.store.texts import write_texts

    there = has_text(texts)
    rows: Sequence[dict[str, str]] = [
        dict(zip(texts, values, strict=True)) for values in zip(*texts.values(), strict=True)
    ]
    where = [i for i, yes in enumerate(there) if yes]
    prompts = [view.render(rows[i]) for i in where]
    found: dict[int, Written] = {i: Written() for i, yes in enumerate(there) if not yes}
    done = 0
    for positions, written in write_texts(model, prompts, how, store=store, max_queries=left):
        tally.queries += sum(text.was_asked for text in written)
        found |= {where[int(p)]: text for p, text in zip(positions, written, strict=True)}
        while done in found:
            yield found[done]
            done += 1
    while done in found:
        yield found[done]
        done += 1
