"""The whole story on the built-in data: few labels, a table, a plot, a saved classifier."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fewfit.artifacts.files import check_folder
from fewfit.artifacts.schema import MANIFEST, TENSORS
from fewfit.compare import Bar, Comparison, compare, sample_shots
from fewfit.compare.report.plots import plot_accuracy
from fewfit.compare.report.tables import accuracy_table
from fewfit.datasets import load_support_desk
from fewfit.decoders import DecT, LinearProbe, OffsetLogisticRegression, ZeroShot
from fewfit.errors import MissingExtraError
from fewfit.estimators.classifier import FewShotClassifier
from fewfit.markdown import Table

TEMPLATE = "{text} This is about {mask}."
LABELS = {
    "billing": "billing",
    "bug_report": "a software bug",
    "cancellation": "cancelling a subscription",
    "delivery": "delivery",
    "feedback": "feedback",
    "login": "logging in",
    "privacy": "privacy",
    "product_question": "a question before buying",
    "returns": "returning an item",
    "warranty_repair": "a warranty repair",
}
NEW_TEXTS = (
    "the parcel says handed over but there is nothing at my door",
    "Why was I debited twice this month?",
    "screen went black after a week, can somebody fix it or do I buy a new one",
    "How do I get you to erase everything you know about me?",
    "it crashes as soon as I open the camera tab",
)
SHOTS = (1, 4, 16)
TEST_PER_CLASS = 40

Say = Callable[[str | Table], object]


def run_demo(
    output: Path, *, seeds: int, model: str, store: str | None, say: Say, bar: Bar
) -> Comparison:
    """Run the demo; `say` gets the lines to print, `bar` makes a progress bar."""
    folder = output / "classifier"
    check_folder(output, None)
    check_folder(folder, (MANIFEST, TENSORS))
    texts, labels = load_support_desk()
    y = np.array(labels)
    test_rows = np.sort(sample_shots(y, TEST_PER_CLASS, seed=12345))
    pool_rows = np.setdiff1d(np.arange(len(y)), test_rows)
    say(
        f"Support desk: {len(LABELS)} classes, {len(pool_rows)} labelled messages to draw from, "
        f"{len(test_rows)} to test on. Frozen model: {model}."
    )
    start = time.perf_counter()
    found = compare(
        [texts[i] for i in pool_rows],
        y[pool_rows],
        [texts[i] for i in test_rows],
        y[test_rows],
        template=TEMPLATE,
        labels=LABELS,
        methods={
            "zero-shot": ZeroShot(),
            "linear probe": LinearProbe(),
            "DecT": DecT(),
            "offset regression, the default": OffsetLogisticRegression(),
        },
        models=[model],
        shots=SHOTS,
        seeds=seeds,
        store=store,
        bar=bar,
    )
    queries = sum(item.queries for item in found.asked)
    say(
        f"Asked {queries} queries (what the store already has costs none) and fitted "
        f"{len(found.cells)} decoders in {time.perf_counter() - start:.1f} s.\n"
    )
    say(accuracy_table(found.summaries))
    say(
        f"\nAccuracy on {len(test_rows)} messages, mean ± sd over {seeds} samples. Every decoder "
        "saw the same samples and the same answers. * the best, or not to be told apart from it.\n"
    )

    output.mkdir(parents=True, exist_ok=True)
    plot = output / "accuracy.png"
    try:
        plot_accuracy(found.summaries, plot, title="Support desk, 10 classes")
        drawn = f"Plot: {plot}"
    except MissingExtraError as error:  # all else of the story needs no extra
        drawn = f"No plot: {error}"

    sample = pool_rows[sample_shots(y[pool_rows], max(SHOTS), seed=0)]
    classifier = FewShotClassifier(model, template=TEMPLATE, labels=LABELS, store=store).fit(
        [texts[i] for i in sample], y[sample]
    )
    classifier.save(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    say(
        f"Saved the default, {max(SHOTS)} shots: {folder} ({size / 1024:.0f} KiB). "
        "Reloaded, it says:"
    )
    again = FewShotClassifier.load(folder, model=classifier.task_.model, verify=True)
    probabilities = again.predict_proba(NEW_TEXTS)
    for text, p in zip(NEW_TEXTS, probabilities, strict=True):
        say(f"  {again.classes_[p.argmax()]:<16} {p.max():.2f}  {text}")
    say(f"\n{drawn}")
    say(
        "Now your own file, with a column 'text' and a column 'label': "
        "fewfit fit YOUR.csv -o topics"
    )
    return found
