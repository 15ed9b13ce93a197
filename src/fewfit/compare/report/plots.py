"""Plots, for people who look before they read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fewfit.compare.report.styles import COLOURS, styles
from fewfit.compare.schema import Summary
from fewfit.errors import MissingExtraError


def plot_accuracy(summaries: Sequence[Summary], path: Path, *, title: str) -> None:
    """Write accuracy against shots, one line per method with +- one sd, as a PNG.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError('plots need matplotlib: pip install "fewfit[plot]"') from error
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawn = styles(dict.fromkeys(item.method for item in summaries))
    for method, style in drawn.items():
        points = [item for item in summaries if item.method == method]
        axes.errorbar(
            [item.shots for item in points],
            [item.accuracy for item in points],
            yerr=[item.sd or 0.0 for item in points],
            fmt=f"{_MARKERS[style.mark]}-",
            color=COLOURS[style.colour],
            capsize=3,
            label=method,
        )
    shots = sorted({item.shots for item in summaries})
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [str(n) for n in shots])
    axes.minorticks_off()
    axes.set_xlabel("labelled examples per class")
    axes.set_ylabel("accuracy (mean ± sd over seeds)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


_MARKERS = "os^Dv_|<"
"""Of matplotlib, in the order of :data:`fewfit.compare.report.styles.MARKS`."""
