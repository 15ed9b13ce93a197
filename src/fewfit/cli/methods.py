"""The command ``fewfit methods``."""

from __future__ import annotations

import json
from importlib.util import find_spec
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewfit.choices import choose
from fewfit.cli.options import AsJson
from fewfit.cli.output import plain_errors, say
from fewfit.cli.terminal import is_terminal, show
from fewfit.errors import InputError

if TYPE_CHECKING:
    from fewfit.methods import Method

_INDENT = " " * 14


@plain_errors
def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="One method, by its name or that of its paper or system: PTEC, PET."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--for", help="Only these: decoder, calibration, view, tuning, ..."),
    ] = None,
    needs: Annotated[
        str | None,
        typer.Option(
            help="Only what such a model can serve: what it gives, by commas (scores, hidden, "
            "full_vocabulary, gradients, soft_prompts), or none."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all methods: what each requires, what it costs, where it comes from."""
    from fewfit.methods import (
        find_methods,
        first_table,
        list_methods,
        methods_table,
        options_of,
        summary_of,
        use_of,
    )

    found = list_methods() if name is None else find_methods(name)
    if kind is not None:
        choose("--for", kind, sorted({method.kind for method in list_methods()}))
        found = [method for method in found if method.kind == kind]
    if needs is not None:
        given = _given(needs)
        found = [method for method in found if set(method.requires) <= given]
    if not found:
        raise InputError("no method is of that kind and needs no more than that")
    if as_json:
        rows: list[dict[str, Any]] = [dict(method._asdict()) for method in found]
        if name is not None:
            for row, method in zip(rows, found, strict=True):
                row |= {
                    "summary": summary_of(method),
                    "use": use_of(method),
                    "options": options_of(method),
                }
        say(json.dumps(rows, ensure_ascii=False, indent=1, default=str))
    elif name is not None:
        say("\n\n".join(map(_described, found)))
    elif kind is not None or needs is not None:
        show(methods_table(found, short=is_terminal()))
    else:
        more = "'fewfit methods NAME' says more of one, also by the name of its paper or system."
        everything = methods_table(found, short=is_terminal())
        show("What most people need:", first_table(), f"All {len(found)}. {more}", everything)


def _given(needs: str) -> set[str]:
    from fewfit.methods import list_methods

    known = sorted({need for method in list_methods() for need in method.requires})
    given = {item.strip() for item in needs.split(",") if item.strip()} - {"none"}
    for item in given:
        choose("--needs", item, [*known, "none"])
    return given | ({"word_scores"} & set(known) if "scores" in given else set())


def _described(method: Method) -> str:
    """One method on a few lines."""
    from fewfit.methods import ALIASES, meanings_of, options_of, summary_of, use_of

    known = sorted(alias for alias, names in ALIASES.items() if method.name in names)
    lines = [
        f"{method.name}: {summary_of(method)}".removesuffix(": "),
        f"  use       {use_of(method)}",
        f"  kind      {method.kind}, {method.room}",
        f"  requires  {', '.join(method.requires) or 'nothing of the model'}",
        f"  queries   {method.queries} per example",
        f"  labels    {method.labels}",
        f"  source    {method.source or 'common knowledge'}",
    ]
    if method.note:
        lines.append(f"  note      {method.note}")
    if known:
        lines.append(f"  known as  {', '.join(known)}")
    meaning = meanings_of(method)
    for name, value in options_of(method).items():
        lines.append(f"  option    {name}={_value(value)}")
        lines += wrap(meaning[name], 100, initial_indent=_INDENT, subsequent_indent=_INDENT)
    if method.kind == "tuning":
        if find_spec("torch") is None:
            lines.append("  option    its own are shown where fewfit[tune] is installed")
        lines.append("  training  has options too: fewfit tune --help")
    return "\n".join(lines)


def _value(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)
