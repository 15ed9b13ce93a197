"""What a cell costs the frozen model, by the accounting of T-Few's paper."""

from __future__ import annotations

from collections.abc import Sequence

from fewfit.models import FrozenModel
from fewfit.models.costs import in_context_bytes, in_context_flops, inference_flops
from fewfit.observations import ScoreSpace


def flops(
    frozen: FrozenModel | None,
    *,
    fit_tokens: int | None,
    sample: Sequence[int],
    asked: Sequence[int],
) -> dict[str, float]:
    """Return the FLOPs of a :class:`fewfit.compare.Ledger`, as far as they are known.

    Parameters
    ----------
    frozen : FrozenModel or None
        None for a method that asks none.
    fit_tokens : int or None
        Of all prompts of fitting; None where the model does not say.
    sample, asked : sequence of int
        Tokens of each prompt of the sample, and of the test set.
    """
    size = None if frozen is None else frozen.size
    if frozen is None or size is None or fit_tokens is None or min(asked) < 0:
        return {}
    n, kind = size.n_parameters, {"encoder_decoder": size.encoder_decoder}
    query = sum(asked) / len(asked)
    known = {
        "fit_flops": size.task_flops + inference_flops(n, fit_tokens, **kind),
        "predict_flops": inference_flops(n, query, **kind),
    }
    # Examples cannot stand in the prompt of a sentence encoder.
    if sample and frozen.capabilities.scores is not ScoreSpace.SIMILARITY:
        shown = {"shots": len(sample), "shot_tokens": sum(sample) / len(sample)}
        known["in_context_flops"] = in_context_flops(n, query, **shown, **kind)
        known["in_context_bytes"] = in_context_bytes(**shown)
    return known


def task_bytes(frozen: FrozenModel | None) -> int:
    """Bytes of the part of a model that is the task's own: tuned vectors."""
    size = None if frozen is None else frozen.size
    return 0 if size is None else size.task_bytes
