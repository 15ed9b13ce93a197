"""Means, intervals and paired tests, from one set of resamples that all methods share.

Accuracy varies with the few examples that were drawn (seeds) and with the rows that it is measured
on. Both are resampled, independently of each other and with replacement (the bootstrap for crossed
factors of Owen, 2007, Annals of Applied Statistics 1:386, which errs to the wide side). Every
method is measured on the same resamples, so that differences between methods are paired by seed
and by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.compare.journal import Finished
from fewfit.compare.schema import Asked, Ledger, Summary

N_RESAMPLES = 2000
LEVEL = 0.05
FLOPS = (
    "fit_flops",
    "predict_flops",
    "saved_bytes",
    "optimizer_bytes",
    "in_context_flops",
    "in_context_bytes",
)

_CHUNK = 250


def resampled_accuracy(
    correct: NDArray[np.bool_], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Return the mean accuracy of each method on each resample of seeds and rows.

    Parameters
    ----------
    correct : ndarray of shape (G, S, N), bool
        Whether method g, fitted on the sample of seed s, is right about test row n.

    Returns
    -------
    ndarray of shape (G, n_resamples)
        Column b is the same resample for every method.
    """
    G, S, N = correct.shape
    rng = np.random.default_rng(seed)
    flat = correct.reshape(G * S, N).astype(np.float32)
    out = np.empty((G, n_resamples))
    for start in range(0, n_resamples, _CHUNK):
        B = min(_CHUNK, n_resamples - start)
        rows = _counts(rng, B, N)
        seeds = _counts(rng, B, S)
        # Whole numbers below 2**24, so float32 sums are exact and equal methods stay equal.
        by_seed = (flat @ rows.T.astype(np.float32)).reshape(G, S, B).astype(np.float64)
        out[:, start : start + B] = np.einsum("gsb,bs->gb", by_seed, seeds)
    return out / (S * N)


def interval(resampled: NDArray[np.float64], *, level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval that errs with probability `level`, by default 5 %."""
    low, high = np.quantile(resampled, [level / 2, 1 - level / 2])
    return float(low), float(high)


def paired_p_value(best: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Two-sided p-value of "no difference", from resamples that both share.

    Twice the smaller share of resamples on which the sign of the difference is turned or zero.
    """
    difference = best - other
    turned = min((difference <= 0).sum(), (difference >= 0).sum())
    return min(1.0, 2 * (1 + float(turned)) / (1 + len(difference)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979); the order is kept."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted.tolist()


def summarise(
    finished: Sequence[Finished],
    y: NDArray[np.intp],
    *,
    asked: Sequence[Asked] = (),
    price: float | None = None,
    default: str | None = None,
) -> list[Summary]:
    """Summarise cells over seeds and compare methods at each number of shots.

    Parameters
    ----------
    finished : sequence of Finished
        A full grid: every method and model has the same seeds at each number of shots.
    y : ndarray of shape (N,)
        Position of the true class of each test row.
    asked : sequence of Asked
        Gives the pace of the frozen models.
    price : float, optional
        Of one token.
    default : str, optional
        Name of the method that others are compared with, on the first model that it has.

    Returns
    -------
    list of Summary
        By shots, then in the order of the cells.
    """
    pace = _pace(asked)
    groups: dict[tuple[int, str | None, str], list[Finished]] = {}
    for item in finished:
        cell = item.cell
        groups.setdefault((cell.shots, cell.model, cell.method), []).append(item)
    summaries: list[Summary] = []
    for shots in sorted({key[0] for key in groups}):
        members = [group for key, group in groups.items() if key[0] == shots]
        correct = np.array([[item.predicted == y for item in group] for group in members])
        resampled = resampled_accuracy(correct)
        best = int(correct.mean(axis=(1, 2)).argmax())
        others = [g for g in range(len(members)) if g != best]
        p_values = holm([paired_p_value(resampled[best], resampled[g]) for g in others])
        adjusted = dict(zip(others, p_values, strict=True))
        named = [g for g, group in enumerate(members) if group[0].cell.method == default]
        for g, group in enumerate(members):
            p = adjusted.get(g)
            low, high = interval(resampled[g])
            verdict = {"best": p is None, "p_value": p, "tied": p is None or p >= LEVEL}
            if named and g != named[0]:
                lead = resampled[g] - resampled[named[0]]
                least, most = interval(lead, level=LEVEL / len(others))
                mean = correct[g].mean() - correct[named[0]].mean()
                verdict |= {"ahead": float(mean), "ahead_low": least, "ahead_high": most}
            summaries.append(
                Summary(low=low, high=high, **verdict, **_over_seeds(group, pace, price))
            )
    return summaries


def _over_seeds(
    group: Sequence[Finished], pace: dict[str, float], price: float | None
) -> dict[str, Any]:
    cells = [item.cell for item in group]
    ledgers = [cell.ledger for cell in cells]
    first = cells[0]
    accuracy = np.array([cell.accuracy for cell in cells])
    q25, median, q75 = np.quantile(accuracy, [0.25, 0.5, 0.75])

    def middle(name: str) -> float:
        return float(np.median([getattr(ledger, name) for ledger in ledgers]))

    fit, queries = middle("fit_seconds"), round(middle("queries"))
    known = first.model is None or first.model in pace or not queries
    seconds = fit + queries * pace.get(first.model or "", 0.0)
    counted = all(None not in (item.tokens, item.predict_tokens) for item in ledgers)
    tokens = round(middle("tokens")) if counted else None
    cost = None
    if price is not None and tokens is not None:
        cost = price * (tokens + round(middle("predict_tokens")))
    return {
        "method": first.method,
        "model": first.model,
        "shots": first.shots,
        "seeds": len(cells),
        "accuracy": float(accuracy.mean()),
        "sd": float(accuracy.std(ddof=1)) if len(cells) > 1 else None,
        "median": float(median),
        "q25": float(q25),
        "q75": float(q75),
        "macro_f1": float(np.mean([cell.macro_f1 for cell in cells])),
        "log_loss": float(np.mean([cell.log_loss for cell in cells])),
        "ece": float(np.mean([cell.ece for cell in cells])),
        "queries": queries,
        "tokens": tokens,
        "fit_seconds": fit,
        "predict_seconds": middle("predict_seconds"),
        "peak_memory": max(
            (ledger.peak_memory for ledger in ledgers if ledger.peak_memory is not None),
            default=None,
        ),
        "parameters": round(middle("parameters")),
        "artifact_bytes": round(middle("artifact_bytes")),
        "seconds": seconds if known else None,
        "cost": cost,
        "row_tokens": _row_tokens(ledgers) if counted else None,
        **{
            name: middle(name)
            for name in ("row_queries", *FLOPS)
            if all(getattr(ledger, name) is not None for ledger in ledgers)
        },
    }


def _row_tokens(ledgers: Sequence[Ledger]) -> float | None:
    """Tokens of one test row's prompts; None for a method that asks none."""
    if not all(item.predict_queries for item in ledgers):
        return None
    per_query = [(item.predict_tokens or 0) / item.predict_queries for item in ledgers]
    queries = [1.0 if item.row_queries is None else item.row_queries for item in ledgers]
    return float(np.median(np.multiply(per_query, queries)))


def _pace(asked: Sequence[Asked]) -> dict[str, float]:
    """Seconds per query of each frozen model, where it was not the store that took them."""
    asked = [item for item in asked if 2 * item.queries >= (item.prompts or 0)]
    names = dict.fromkeys(item.model for item in asked)
    return {
        name: sum(item.seconds for item in asked if item.model == name)
        / sum(item.queries for item in asked if item.model == name)
        for name in names
    }


def _counts(rng: np.random.Generator, B: int, n: int) -> NDArray[np.intp]:
    """How often each of `n` is drawn in `B` resamples of size n, shape (B, n)."""
    drawn = rng.integers(n, size=(B, n)) + n * np.arange(B)[:, None]
    return np.bincount(drawn.ravel(), minlength=B * n).reshape(B, n)
