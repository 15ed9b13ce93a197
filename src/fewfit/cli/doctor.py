"""The command ``fewfit doctor``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from fewfit.cli.options import Hidden
from fewfit.cli.output import plain_errors
from fewfit.cli.terminal import show
from fewfit.errors import BudgetExceededError, InputError, ModelError
from fewfit.markdown import Table
from fewfit.tables.columns import count


@plain_errors
def doctor(
    model: Annotated[str, typer.Argument(help="The frozen model, for example a server's spec.")],
    template: Annotated[
        str, typer.Option(help="Text with fields and one {mask}.")
    ] = "{text} It was {mask}.",
    hidden: Hidden = None,
    words: Annotated[str, typer.Option(help="Label words to try: word,word,...")] = "good,bad",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Find out with at most five queries what a frozen model, or a pair of them, really gives.

    Exit code 3 if it gave no usable answer.
    """
    report = probed(joined(model, hidden), [template], _listed(words))
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
    else:
        rows = [[check["name"], check["outcome"], check["detail"]] for check in report["checks"]]
        show(
            f"{report['model'] or model}, {count(report['queries'], 'query', 'queries')}",
            Table(["check", "outcome", "detail"], rows, numbers=False),
        )
    if not report["answers"]:
        raise typer.Exit(ModelError.exit_code)


def _listed(words: str) -> list[str]:
    """Return the label words of the option, without the blanks around them (InputError)."""
    listed = [word.strip() for word in words.split(",")]
    if not all(listed) or len(set(listed)) < len(listed):
        raise InputError(f"--words: expected word,word,... each of them once, got {words!r:.80}")
    return listed


def joined(model: str, hidden: str | None) -> str:
    """Return the spec of two models in one; of `model` where there is no other."""
    from fewfit.models.paired import JOINT

    return model if hidden is None else model + JOINT + hidden


def probed(
    model: str, templates: Sequence[str], words: Sequence[str], max_queries: int | None = None
) -> dict[str, Any]:
    """Probe the model that a spec names with each template; the report as JSON keeps it.

    Raises
    ------
    BudgetExceededError
        If more may be asked than `max_queries`; nothing was.
    """
    from fewfit.estimators.opening import load_model
    from fewfit.models.probe import MOST, MOST_OF_VIEW, probe
    from fewfit.prompts import Template

    first, *further = map(Template, templates)
    most = MOST + MOST_OF_VIEW * len(further)
    if max_queries is not None and max_queries < most:
        raise BudgetExceededError(
            f"--doctor asks up to {most} queries, and --max-queries is {max_queries}; name a "
            "larger budget, or leave --doctor out",
            left=most,
        )
    return probe(load_model(model), template=first, further=further, words=words).to_dict()
