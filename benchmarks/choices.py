"""The rows of a set as examples to choose an answer for, with the prompt the benchmarks have."""

from __future__ import annotations

from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit.prompts import make_views
from fewfit.tuning import ChoiceExample


def examples(name: str, split: str) -> list[ChoiceExample]:
    """Return all rows of a set."""
    task = TASKS[name]
    (view,) = make_views(task["template"]).views
    classes, words = list(task["labels"]), tuple(task["labels"].values())
    return [
        ChoiceExample(
            view.render({k: v for k, v in row.items() if k != "label"}),
            words,
            classes.index(row["label"]),
        )
        for row in read_split(data_folder(), name, split)
    ]
