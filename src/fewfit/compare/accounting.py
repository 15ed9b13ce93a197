"""What a cell costs the frozen model, by the accounting of T-Few's paper."""

from __future__ import annotations

from typing import NamedTuple

from fewfit.models import FrozenModel
from fewfit.models.costs import in_context_bytes, in_context_flops, inference_flops
from fewfit.models.optional import size_of
from fewfit.observations import ScoreSpace


class Load(NamedTuple):
    """How many examples a model is asked about, and the tokens of all their prompts.

    `tokens` is None where the model does not say how long a prompt is.
    """

    rows: int
    tokens: int | None


def flops(
    frozen: FrozenModel | None, *, fit_tokens: int | None, sample: Load, test: Load
) -> dict[str, float]:
    """Return the FLOPs of a :class:`fewfit.compare.Ledger`, as far as they are known.

    Parameters
    ----------
    frozen : FrozenModel or None
        None for a method that asks none.
    fit_tokens : int or None
        Of all prompts of fitting.
    sample, test : Load
    """
    size = None if frozen is None else size_of(frozen)
    if frozen is None or size is None or fit_tokens is None or not test.tokens or not test.rows:
        return {}
    n, kind = size.n_parameters, {"encoder_decoder": size.encoder_decoder}
    query = test.tokens / test.rows
    known = {
        "fit_flops": size.task_flops + inference_flops(n, fit_tokens, **kind),
        "predict_flops": inference_flops(n, query, **kind),
    }
    # Examples cannot stand in the prompt of a sentence encoder.
    reads_examples = frozen.capabilities.scores is not ScoreSpace.SIMILARITY
    if sample.rows and sample.tokens is not None and reads_examples:
        shown = {"shots": sample.rows, "shot_tokens": sample.tokens / sample.rows}
        known["in_context_flops"] = in_context_flops(n, query, **shown, **kind)
        known["in_context_bytes"] = in_context_bytes(**shown)
    return known


def task_bytes(frozen: FrozenModel | None) -> int:
    """Bytes of the part of a model that is the task's own: tuned vectors."""
    size = None if frozen is None else size_of(frozen)
    return 0 if size is None else size.task_bytes
