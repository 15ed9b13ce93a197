"""The commands of ``fewfit analyse``: what a model does, looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewfit.cli.options import AsJson
from fewfit.cli.output import bar, plain_errors, say
from fewfit.cli.terminal import show
from fewfit.errors import InputError
from fewfit.markdown import Table

if TYPE_CHECKING:
    from fewfit.analysis.local import Answered

analyse = typer.Typer(help="Look at what models do; nothing is trained.")

_WORDS = 15


@analyse.callback()
def analyses() -> None:
    """Look at what models do; nothing is trained."""


@analyse.command("token-shift")
@plain_errors
def shift(
    base: Annotated[str, typer.Argument(help="The base model, hf:NAME.")],
    aligned: Annotated[
        str, typer.Argument(help="The tuned one, hf:NAME, with &chat=true if it is a chat model.")
    ],
    prompts: Annotated[Path, typer.Argument(help="A file of questions, one to a line.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="CSV to write: each token of each answer, its rank."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Where an answer is cut.")] = 128,
    as_json: AsJson = False,
) -> None:
    """Say how much of a tuned model's answers its base model would have written anyway.

    The tuned model answers each question greedily, and the base model is asked at each token where
    it ranks there: first (unshifted), second or third (marginal), or below (shifted). Both read the
    same tokens, the tuned model's prompt and answer.
    """
    from fewfit.analysis.local import answer_and_rank
    from fewfit.cli.writing import Output
    from fewfit.estimators.opening import load_model

    if output is not None and output.suffix.lower() != ".csv":
        raise InputError(f"--output: {output}: name a .csv file")
    header, out = ["prompt", "position", "token", "rank"], None
    if output is not None:
        out = Output(str(output), header, as_json=False, not_over=[prompts])
    questions = _lines(prompts)
    with bar("answers", len(questions)) as progress:
        found = list(
            answer_and_rank(
                *(load_model(base), load_model(aligned)),
                questions,
                max_tokens=max_tokens,
                progress=progress,
            )
        )
    if out is not None:
        with out:
            for i, one in enumerate(found, 1):
                ranked = enumerate(one.ranked, 1)
                out.write([[i, t, token, rank] for t, (token, rank) in ranked], [])
    if as_json:
        say(json.dumps(_report(found), ensure_ascii=False))
        return
    show(*_tables(found))


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InputError(f"{path}: no questions")
    return found


def _report(found: list[Answered]) -> dict[str, Any]:
    from fewfit.analysis.local import shares, shifted_tokens

    return {
        "prompts": [
            {"question": one.question, "answer": one.answer, "tokens": len(one.ranked)}
            | shares(one.ranks)
            for one in found
        ],
        "all": {"tokens": sum(len(one.ranked) for one in found)}
        | shares([rank for one in found for rank in one.ranks]),
        "shifted_tokens": shifted_tokens(found),
    }


def _tables(found: list[Answered]) -> list[Any]:
    report = _report(found)

    def row(name: str, of: dict[str, Any]) -> list[str]:
        kinds = ("unshifted", "marginal", "shifted")
        return [name, str(of["tokens"]), *(f"{100 * of[kind]:.1f}" for kind in kinds)]

    header = ["question", "tokens", "unshifted, %", "marginal, %", "shifted, %"]
    rows = [row(own["question"][:60], own) for own in report["prompts"]]
    tables: list[Any] = [Table(header, [*rows, row("all", report["all"])])]
    if listed := report["shifted_tokens"][:_WORDS]:
        shown = [[repr(token), str(n)] for token, n in listed]
        tables += ["Shifted most often:", Table(["token", "times"], shown)]
    return tables
