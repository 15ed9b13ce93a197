"""What to use, in one sentence that claims no more than the intervals say."""

from __future__ import annotations

from collections.abc import Sequence

from fewfit.compare.names import DEFAULT_METHODS
from fewfit.compare.report.formats import lines, seconds
from fewfit.compare.schema import Comparison, Summary

_MORE = 2.0
"""A cost is worth a word from so many times that of the default on."""

_SECONDS = 5.0
"""Time of fitting is worth a word only from here on."""


def advice(comparison: Comparison) -> str:
    """Return which method to use at the largest number of shots, how sure that is, and its price.

    A method is preferred to the default only where the interval of its lead is above zero; of those
    that are, and that are not to be told apart from the best, the one that asks least is named.
    """
    grouped = lines(comparison.summaries)
    shots = max(item.shots for item in comparison.summaries)
    at = {name: own[-1] for name, own in grouped.items() if own[-1].shots == shots}
    default = next((n for n, s in at.items() if s.method == comparison.setup.default), None)
    rivals = {name: item for name, item in at.items() if item.ahead is not None}
    if default is None or not rivals:
        said = _of_these(at, comparison, shots)
    else:
        said = _against(default, at[default], rivals, comparison, shots)
    missing = [name for name in grouped if name not in at]
    return f"{said}{f'; not measured there: {_some(missing)}' if missing else ''}."


def _against(
    name: str, default: Summary, rivals: dict[str, Summary], comparison: Comparison, shots: int
) -> str:
    """Say which of the rivals is better than the default, or that none is."""
    drawn, over = _where(comparison, shots)
    known = f"{name}, {default.accuracy:.3f}"
    better = {n: item for n, item in rivals.items() if (item.ahead_low or 0) > 0}
    if not better:
        nearest = max(rivals, key=lambda n: rivals[n].accuracy)
        item = rivals[nearest]
        return (
            f"Keep the default ({known}): {drawn} no other method is better by more than "
            f"chance; the nearest, {nearest}, differs by {item.ahead:+.3f} (95 % interval "
            f"{item.ahead_low:+.3f} to {item.ahead_high:+.3f} {over})"
        )
    alike = {n: item for n, item in better.items() if item.tied} or better
    chosen = min(alike, key=lambda n: (_asked(alike[n]), -alike[n].accuracy))
    item = better[chosen]
    by = (
        f"ahead of the default ({known}) by {item.ahead:.3f} (95 % interval "
        f"{item.ahead_low:.3f} to {item.ahead_high:.3f} {over}){_price(item, default)}"
    )
    if _alone(comparison, shots):
        return (
            f"Not decided: {drawn} {chosen} is {by}, but another sample may say otherwise; "
            "compare on several (--seeds)"
        )
    return f"Use {chosen}: {drawn} its accuracy is {item.accuracy:.3f}, {by}"


def _of_these(at: dict[str, Summary], comparison: Comparison, shots: int) -> str:
    """Say which is best where there is no default to compare it with."""
    drawn, over = _where(comparison, shots)
    best = max(at, key=lambda n: (at[n].best, at[n].accuracy))
    item = at[best]
    known = f"{item.accuracy:.3f} (95 % interval {item.low:.3f} to {item.high:.3f} {over})"
    tied = [name for name in at if name != best and at[name].tied]
    if len(at) == 1:
        said = f"Nothing to choose from: {drawn} {best}, the only method, has an accuracy of"
        return f"{said} {known}"
    if tied:
        verb = "is" if len(tied) == 1 else "are"
        said = (
            f"Not decided: {drawn} {best} has {known}, and {_some(tied)} {verb} not to be told "
            "apart from it"
        )
    elif _alone(comparison, shots):
        said = (
            f"Not decided: {drawn} {best} is ahead of all others with {known}, but another sample "
            "may say otherwise"
        )
    else:
        said = (
            f"Of these use {best}: {drawn} its accuracy is {known}, ahead of all others by more "
            "than chance"
        )
    among = any(s.method in (comparison.setup.default, DEFAULT_METHODS[0]) for s in at.values())
    return said if among else f"{said}; the default, {DEFAULT_METHODS[0]}, was not compared"


def _where(comparison: Comparison, shots: int) -> tuple[str, str]:
    """On what it was measured, and what its interval is over."""
    labels = f"{shots} label{'s' * (shots > 1)} per class"
    if shots in comparison.setup.same_samples:
        return f"with these very {labels}", "over test rows"
    n = len(comparison.setup.seeds)
    if n == 1:
        return f"on the one sample of {labels}", "over test rows alone"
    return f"at {labels}", f"over test rows and {n} samples"


def _alone(comparison: Comparison, shots: int) -> bool:
    """Whether one sample was drawn of many that there could have been."""
    setup = comparison.setup
    return len(setup.seeds) == 1 and shots not in setup.same_samples


def _asked(item: Summary) -> tuple[float, float]:
    return item.row_queries or 0.0, item.queries


def _price(item: Summary, default: Summary) -> str:
    """Say what it costs more than the default, where that is much."""
    more = []
    if item.queries >= _MORE * max(default.queries, 1):
        more.append(f"{item.queries:,} queries of fitting instead of {default.queries:,}")
    tokens, usual = item.row_tokens, default.row_tokens
    if tokens is not None and usual is not None and tokens >= _MORE * max(usual, 1):
        more.append(f"{tokens:,.0f} tokens per row instead of {usual:,.0f}")
    elif (item.row_queries or 0) >= _MORE * max(default.row_queries or 0, 1):
        asked = f"{item.row_queries:.3g} queries per row instead of {default.row_queries or 0:.3g}"
        more.append(asked)
    took, least = item.seconds or item.fit_seconds, default.seconds or default.fit_seconds
    if took >= max(_MORE * least, _SECONDS):
        more.append(f"{seconds(took)} of fitting instead of {seconds(least)}")
    return f", for {' and '.join(more)}" if more else ""


def _some(names: Sequence[str], most: int = 3) -> str:
    """Name a few of many."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} others"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
