"""What is advised, on constructed cells: never more than the intervals say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fewfit.compare.report.advice import advice
from fewfit.compare.report.statistics import summarise
from fewfit.compare.report.tables import report
from fewfit.compare.schema import Comparison, Setup
from tests.compare.report.test_statistics import finished

Y = np.zeros(200, dtype=np.intp)
DEFAULT = "offset-regression"


def runs(wrong: int, seeds: int = 5, *, start: int = 0) -> list[list[int]]:
    """Predictions of so many samples, wrong on as many rows: `start` says which."""
    return [
        [int((i - start - 3 * s) % 200 < wrong + s % 3) for i in range(200)] for s in range(seeds)
    ]


def comparison(methods, *, default=DEFAULT, same=(), ledger=None, drop=()) -> Comparison:
    """Return what `compare` would of these predictions: method to one list for each sample."""
    cells = [
        finished(name, seed, predicted, **(ledger or {}).get(name, {}))
        for name, samples in methods.items()
        for seed, predicted in enumerate(samples)
    ]
    summaries = summarise(cells, Y, default=default)
    fewer = [s.model_copy(update={"shots": 1}) for s in summaries]
    kept = [s for s in [*fewer, *summaries] if (s.method, s.shots) not in drop]
    setup = Setup(
        fewfit_version="1",
        template=["{text} {mask}"],
        labels=[("a", ["a"]), ("b", ["b"])],
        calibration="none",
        identities={},
        shots=[1, 4],
        seeds=list(range(len(next(iter(methods.values()))))),
        default=default,
        same_samples=list(same),
        train_rows=9,
        test_rows=len(Y),
        dropped_train_rows=0,
        price_per_token=None,
    )
    return Comparison(setup=setup, asked=[], summaries=kept, cells=[], diagnoses=[])


def test_a_clear_winner_is_named_with_its_lead_and_the_interval():
    said = advice(comparison({DEFAULT: runs(60), "dect": runs(20), "tfidf": runs(90)}))
    assert said.startswith("Use dect: at 4 labels per class its accuracy is 0.896, ahead of the ")
    assert "the default (offset-regression, 0.696) by 0.200 (95 % interval 0." in said
    assert said.endswith("over test rows and 5 samples).")
    low, high = map(float, re.findall(r"interval (\S+) to (\S+)", said)[0])
    assert 0.1 < low < 0.2 < high < 0.3


def test_a_tie_keeps_the_default():
    said = advice(comparison({DEFAULT: runs(40), "dect": runs(38, start=100), "tfidf": runs(80)}))
    assert said.startswith(
        "Keep the default (offset-regression, 0.796): at 4 labels per class no other method is "
        "better by more than chance; the nearest, dect, differs by +0.010 (95 % interval -"
    )
    ahead = advice(comparison({DEFAULT: runs(20), "tfidf": runs(80)}))
    assert ahead.startswith("Keep the default (offset-regression, 0.896)")
    assert "differs by -0.300 (95 % interval -0." in ahead


def test_one_sample_decides_nothing():
    methods = {DEFAULT: runs(60, 1), "dect": runs(20, 1)}
    said = advice(comparison(methods))
    assert said.startswith("Not decided: on the one sample of 4 labels per class dect is ahead")
    assert said.endswith("another sample may say otherwise; compare on several (--seeds).")
    alone = advice(comparison({k: v for k, v in methods.items() if k != DEFAULT}, default=None))
    assert alone.startswith("Nothing to choose from: on the one sample of 4 labels per class dect")
    three = {"a": runs(10, 1), "b": runs(90, 1)}
    assert "another sample may say otherwise" in advice(comparison(three, default=None))


def test_labels_that_are_all_there_are_can_be_decided_on():
    said = advice(comparison({DEFAULT: runs(60, 1), "dect": runs(20, 1)}, same=[4]))
    assert said.startswith("Use dect: with these very 4 labels per class its accuracy is")
    assert "over test rows)" in said


def test_the_default_may_be_missing_or_alone():
    methods = {"dect": runs(40), "tfidf": runs(90), "pet": runs(41)}
    said = advice(comparison(methods, default=None))
    assert said.startswith("Not decided: at 4 labels per class dect has 0.796 (95 % interval ")
    assert "pet is not to be told apart from it; the default, offset-reg" in said
    clear = advice(comparison({"dect": runs(20), "tfidf": runs(90)}, default=None))
    assert clear.startswith("Of these use dect")
    assert "ahead of all others by more than chance" in clear
    alone = advice(comparison({DEFAULT: runs(20)}))
    assert alone.startswith("Nothing to choose from: at 4 labels per class offset-regression, the")
    assert "was not compared" not in alone


def test_cells_that_are_missing_are_said():
    methods = {DEFAULT: runs(60), "dect": runs(20), "tfidf": runs(10)}
    said = advice(comparison(methods, drop={("tfidf", 4)}))
    assert said.startswith("Use dect")
    assert said.endswith("; not measured there: tfidf.")
    said = advice(comparison(methods, drop={(DEFAULT, 4)}))
    assert "not measured there: offset-regression." in said
    assert "ahead of the default" not in said


def test_a_better_method_says_its_price_and_an_equal_one_that_asks_less_goes_first():
    cost = {"search": {"queries": 900, "row_queries": 1.0, "fit_seconds": 60.0}}
    cost |= {"dect": {"row_queries": 1.0}, DEFAULT: {"row_queries": 1.0}}
    said = advice(comparison({DEFAULT: runs(60), "search": runs(20)}, ledger=cost))
    assert said.startswith("Use search")
    assert (
        ", for 900 queries of fitting instead of 9 and 60.0 s of fitting instead of 300.0 ms"
        in said
    )
    # 'search' is the more accurate, but not to be told apart from a method that asks 9 queries
    near = {DEFAULT: runs(60), "search": runs(20), "dect": runs(22, start=1)}
    assert advice(comparison(near, ledger=cost)).startswith("Use dect")
    shown = {"in-context": {"row_queries": 1.0, "predict_tokens": 800}, DEFAULT: {}}
    said = advice(comparison({DEFAULT: runs(60), "in-context": runs(20)}, ledger=shown))
    assert "for 200 tokens per row instead of 10" in said
    views = {"pet": {"row_queries": 4.0, "tokens": None}, DEFAULT: {"tokens": None}}
    said = advice(comparison({DEFAULT: runs(60), "pet": runs(20)}, ledger=views))
    assert "for 4 queries per row instead of 0" in said


@pytest.mark.parametrize("seed", range(3))
def test_no_method_is_preferred_by_chance(seed):
    """Twenty copies of the default that differ by luck alone: together they rarely win."""
    wins = 0
    for trial in range(10):
        rng = np.random.default_rng(100 * seed + trial)
        hard = 0.2 + 0.2 * rng.random(200)
        names = [DEFAULT, *(f"m{i}" for i in range(20))]
        luck = {n: (rng.random((5, 200)) < hard).astype(int).tolist() for n in names}
        wins += advice(comparison(luck)).startswith("Use")
    assert wins <= 1


def test_the_lead_is_the_difference_of_the_means_and_intervals_widen_with_rivals():
    two = comparison({DEFAULT: runs(60), "dect": runs(20)}).summaries
    many = comparison({DEFAULT: runs(60), "dect": runs(20), "a": runs(61), "b": runs(59)}).summaries
    default, dect = two[-2:]
    wider = many[-3]
    assert default.ahead is default.ahead_low is None
    assert dect.ahead == pytest.approx(dect.accuracy - default.accuracy)
    assert wider.method == "dect"
    assert wider.ahead_low < dect.ahead_low < dect.ahead_high < wider.ahead_high


def test_files_without_leads_are_still_advised_on():
    found = comparison({DEFAULT: runs(60), "dect": runs(20)})
    old = [
        s.model_copy(update=dict.fromkeys(("ahead", "ahead_low", "ahead_high")))
        for s in found.summaries
    ]
    setup = found.setup.model_copy(update={"default": None})
    said = advice(found.model_copy(update={"summaries": old, "setup": setup}))
    assert said.startswith("Of these use dect")
    assert "was not compared" not in said


def test_many_names_are_not_all_listed():
    methods = {f"m{i}": runs(40) for i in range(9)}
    assert "m1, m2 and 6 others are not to be told apart" in advice(
        comparison(methods, default=None)
    )
    two = advice(comparison({"a": runs(40), "b": runs(40), "c": runs(40)}, default=None))
    assert "b and c are not to be told apart" in two


def test_it_is_the_first_line_of_the_terminal_and_of_the_page():
    found = comparison({DEFAULT: runs(60), "dect": runs(20)})
    assert report(found).splitlines()[0] == advice(found)
