"""The same splits, prompts and observations for every method, and the cost of each."""

from fewfit.compare.grid import (
    Cell,
    Features,
    Sample,
    Summary,
    draw_samples,
    few_shot_grid,
    summarise,
)
from fewfit.compare.metrics import Metrics, expected_calibration_error, measure
from fewfit.compare.splits import sample_shots

__all__ = [
    "Cell",
    "Features",
    "Metrics",
    "Sample",
    "Summary",
    "draw_samples",
    "expected_calibration_error",
    "few_shot_grid",
    "measure",
    "sample_shots",
    "summarise",
]
