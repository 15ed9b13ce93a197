"""The command ``fewfit edit``: facts written into one matrix of a language model."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewfit.choices import SEEDS, choose
from fewfit.cli.options import AsJson, Folder, MaxTokens, read_options
from fewfit.cli.output import bar, note, plain_errors, say
from fewfit.cli.tune import ARTIFACT, DTYPES, check_output
from fewfit.errors import InputError
from fewfit.tables import open_table

if TYPE_CHECKING:
    from fewfit.tuning import ChoiceExample


@plain_errors
def edit(
    facts: Annotated[
        str, typer.Argument(help="File of facts: prompt, target, and maybe rephrased.")
    ],
    output: Folder,
    model: Annotated[str, typer.Option(help="hf:FOLDER, a checkpoint of transformers.")],
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of the method locft: block, layer, depth_first; repeat it."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Over all facts, at most.")] = 25,
    batch_size: Annotated[int, typer.Option(min=1, help="Facts per step.")] = 100,
    learning_rate: Annotated[float, typer.Option(help="Constant.")] = 5e-4,
    dtype: Annotated[
        str, typer.Option(help="Of the weights: float32, bfloat16, float16.")
    ] = "float32",
    max_tokens: MaxTokens = None,
    seed: Annotated[int, typer.Option(min=0, max=SEEDS - 1, help="Of the order of the facts.")] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File from which an interrupted training goes on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write facts into a language model: one matrix changes, in epochs over all of them.

    A fact is a row with a prompt and the target that is to follow it; where a row has rephrased, a
    prompt in other words, it is told whether that is answered too. 'fewfit merge' makes an ordinary
    checkpoint of it.
    """
    from fewfit.tuning import is_encoder, make_method

    choose("--dtype", dtype, DTYPES)
    method = make_method("locft", read_options(option or []))
    check_output(output, ARTIFACT, checkpoint)
    table = _read(facts)

    from fewfit.tuning import Data, Run, Trunk, save_adapter
    from fewfit.tuning.sparse.locft import recalled
    from fewfit.tuning.training import digest

    rows = [_example(prompt, target) for prompt, target, _ in table]
    again = [_example(other, target) for _, target, other in table if other]
    recipe: Any = replace(
        method.recipe, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate
    )
    if is_encoder(model):
        raise InputError(f"--model: {model} is an encoder and writes no words; name an hf: model")
    base = Trunk.load(model, dtype=dtype, max_tokens=max_tokens, reading="answers")
    known = recalled(base, rows)
    begun = time.perf_counter()
    with bar("editing", recipe.longest(len(rows)), unit="step") as progress:
        run = Run(recipe, seed, checkpoint=checkpoint, progress=progress)
        adapter = method.fit(base, Data([[row] for row in rows]), run)
    seconds = time.perf_counter() - begun
    with adapter.on(base.network):
        after, rephrased = recalled(base, rows, adapter), recalled(base, again, adapter)
    save_adapter(
        output,
        adapter,
        method=method,
        seed=seed,
        base_spec=base.spec,
        base_identity=base.identity,
        recipe=recipe,
        n_examples=len(rows),
        data_sha256=digest(repr(rows)),
    )
    report = {
        "artifact": str(output),
        "facts": len(rows),
        "known_before": sum(known),
        "known": sum(after),
        "rephrased": len(again),
        "rephrased_known": sum(rephrased),
        "values": adapter.count,
        "seconds": round(seconds, 3),
    }
    if as_json:
        say(json.dumps(report))
        return
    other = f"; {sum(rephrased)} of {len(again)} rephrased" if again else ""
    say(
        f"{sum(after)} of {len(rows)} facts are answered word for word, {sum(known)} before"
        f"{other}; {adapter.count:,} values in {output}, {seconds:.1f} s"
    )


def _read(path: str) -> list[tuple[str, str, str]]:
    """Return prompt, target and rephrased prompt of each row."""
    table = open_table(path, wanted=["prompt", "target"], say=note)
    missing = [name for name in ("prompt", "target") if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]!r}, but {list(table.columns)}; a fact is a prompt "
            "and the target that follows it"
        )
    names = ("prompt", "target", "rephrased")
    places = [table.columns.index(name) if name in table.columns else None for name in names]
    found: list[tuple[str, str, str]] = []
    for number, row in table.read():
        prompt, target, other = ("" if i is None else _text(row[i]) for i in places)
        if not prompt or not target:
            raise InputError(f"{path}: {table.where(number)} has no prompt or no target")
        found.append((prompt, target, other))
    return found


def _example(prompt: str, target: str) -> ChoiceExample:
    from fewfit.prompts import Template
    from fewfit.tuning import ChoiceExample

    # The second is never read: an example has a wrong choice, and a fact has none.
    choices = (target, f"not {target}")
    return ChoiceExample(Template("{text} {mask}").render({"text": prompt}), choices, 0)


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()
