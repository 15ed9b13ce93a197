"""What tuning costs, by the formulas of T-Few's paper."""

from __future__ import annotations

from fewfit.models.costs import inference_flops, training_flops
from fewfit.tuning.artifact import CostEntry
from fewfit.tuning.method import Data, Rows, TuningMethod
from fewfit.tuning.rounds.pet import PET
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


def costs_of(trunk: Trunk, rows: Rows, recipe: Recipe) -> tuple[float, float, CostEntry]:
    """Tokens and FLOPs of a query, and the training's costs, by the paper's formulas.

    The tokens are the mean over `rows`, in their first wording, of the input and all choices. What
    pre-trained vectors took is not counted.
    """
    encoded = [trunk.encoder.encode(row[0]) for row in rows]
    lengths = [len(e.before) + len(e.after) + sum(map(len, e.choices)) for e in encoded]
    tokens = sum(lengths) / len(lengths)
    n, halved = trunk.network.num_parameters(), trunk.kind == "seq2seq"
    size = min(recipe.batch_size, len(rows))
    trained = training_flops(n, tokens, steps=recipe.steps, batch_size=size, encoder_decoder=halved)
    entry = CostEntry(n_parameters=n, encoder_decoder=halved, training_flops=trained)
    return tokens, inference_flops(n, tokens, encoder_decoder=halved), entry


def costs_of_method(
    trunk: Trunk, method: TuningMethod, data: Data, recipe: Recipe
) -> tuple[float, float, CostEntry]:
    """Tokens and FLOPs of a query, and the costs of a method; see :func:`costs_of`.

    Every training is counted as one on the labelled rows; PET's by :func:`costs_of_pet`.
    """
    if isinstance(method, PET):
        rounds = {"repetitions": method.repetitions, "generations": method.generations}
        if data.rows:
            return costs_of_pet(trunk, data.rows, data.unlabelled, recipe, **rounds)
        return costs_of(trunk, data.unlabelled, recipe)
    tokens, query, entry = costs_of(trunk, data.rows, recipe)
    flops = entry.training_flops * method.trainings(len(data.rows[0]))
    return tokens, query, entry.model_copy(update={"training_flops": flops})


def costs_of_pet(
    trunk: Trunk,
    rows: Rows,
    unlabelled: Rows,
    recipe: Recipe,
    *,
    repetitions: int,
    generations: int,
) -> tuple[float, float, CostEntry]:
    """Tokens and FLOPs of a query, and the costs of :func:`pet`; see :func:`costs_of`.

    Every training and every scoring of the unlabelled texts is counted, as if all patterns were as
    long as the first and all batches as large as those of the labelled rows.
    """
    tokens, query, student = costs_of(trunk, unlabelled, recipe)
    _, asked, model = costs_of(trunk, rows, recipe)
    flops = student.training_flops + len(rows[0]) * (
        len(rows) * asked
        + repetitions * (1 + generations) * (model.training_flops + len(unlabelled) * query)
    )
    return tokens, query, student.model_copy(update={"training_flops": flops})
