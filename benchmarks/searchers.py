"""DecT's claim, measured: what searching for a prompt costs, and what reading an answer costs.

    python -m benchmarks searchers [--model SPEC] [--sets sst2,agnews] [--seeds 3] [--trials 100]

Every method is fitted on the same 16 examples per class and judged on the same 500 test rows (drawn
with seed 0). A query is one row asked with one prompt. The three searchers get the same budget:
`--trials` times the number of examples, so that as many prompts can be asked about all of them; the
papers of BBT and RLPrompt take 8,000 and 12,000. Seconds are those of the fit, asking included,
weights loaded before, nothing stored.

Nothing is tuned. BBT has 10 vectors in 50 dimensions, since the model is small and the generations
are few; words come from the 200 most frequent of the training texts, 5 per prompt; the rest is each
method's default. The searchers' scores are not calibrated, as in their papers. PromptBoosting has
the template of the set and those of ``VIEWS``. The result is written after each seed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import RESULTS
from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit.calibration import ContextualCalibration, NoCalibration
from fewfit.compare import sample_shots
from fewfit.compare.searchers import frequent_words
from fewfit.decoders import Decoder, DecT, OffsetLogisticRegression, PromptBoosting
from fewfit.errors import FewfitError
from fewfit.estimators.classifier import FewShotClassifier
from fewfit.estimators.opening import load_model
from fewfit.models import FrozenModel
from fewfit.prompts import Row, Template, Verbalizer
from fewfit.searchers.bbt import black_box_tune
from fewfit.searchers.policy_network import reinforce_prompt
from fewfit.searchers.prompt_search import search_prompt
from fewfit.store import StoredModel
from fewfit.task import Task

SHOTS, TEST_ROWS, WORDS = 16, 500, 200
LENGTH, DIMENSION = 10, 50
VIEWS = {
    "sst2": ["It was {mask}. {text}", "A {mask} piece of work: {text}"],
    "agnews": ["{text} This is about {mask}.", "{mask} news: {text}"],
    "trec": ["[ Question about a {mask} ] {text}", "{text} The answer is a {mask}."],
}
"""Beside the template of ``tasks.toml``; written before any result was seen."""

RESULT = RESULTS / "searchers.json"
Predict = Callable[[Sequence[Row]], Any]


class Fitted(NamedTuple):
    """What a fit paid, and how to predict: texts to positions of classes."""

    queries: int
    predict: Predict


class Problem(NamedTuple):
    """One sample of one set, as every method gets it."""

    model: FrozenModel
    template: str
    searched: str
    labels: dict[str, str]
    views: list[str]
    words: list[str]
    rows: list[Row]
    y: Any
    max_queries: int
    seed: int
    tested: Path

    @property
    def search(self) -> dict[str, Any]:
        """What all searchers are given."""
        return {
            "rows": self.rows,
            "y": np.searchsorted(sorted(self.labels), self.y),
            "verbalizer": Verbalizer(self.labels),
            "calibration": NoCalibration(),
            "max_queries": self.max_queries,
            "seed": self.seed,
        }


def reader(problem: Problem, model: FrozenModel, template: str, calibration: Any) -> Predict:
    """Believe the model's calibrated scores."""

    def predict(rows: Sequence[Row]) -> Any:
        answers = StoredModel(model, problem.tested)
        task = Task(answers, Template(template), Verbalizer(problem.labels), calibration)
        task, answers, _ = task.begin(rows)
        scores = task.features(answers)[1]
        assert scores is not None
        return scores.argmax(axis=1)

    return predict


def zero_shot(problem: Problem) -> Fitted:
    """The model's scores as they are."""
    return Fitted(0, reader(problem, problem.model, problem.template, NoCalibration()))


def calibrated(problem: Problem) -> Fitted:
    """The model's scores less those of the empty text."""
    return Fitted(1, reader(problem, problem.model, problem.template, ContextualCalibration()))


def decoded(decoder: Decoder, problem: Problem, views: Sequence[str]) -> Fitted:
    """A decoder in the text classifier."""
    clf = FewShotClassifier(
        problem.model, template=views, labels=problem.labels, decoder=decoder, store=None
    ).fit(problem.rows, problem.y)

    def predict(rows: Sequence[Row]) -> Any:
        clf.task_ = replace(clf.task_, model=StoredModel(clf.task_.model, problem.tested))
        blocks = [clf.predict_proba(rows[i : i + 100]) for i in range(0, len(rows), 100)]
        return np.concatenate(blocks).argmax(axis=1)

    return Fitted(clf.n_queries_, predict)


def bbt(problem: Problem) -> Fitted:
    """BBT."""
    found = black_box_tune(
        problem.model,
        Template(problem.template),
        **problem.search,
        length=LENGTH,
        dimension=DIMENSION,
    )
    return Fitted(found.queries, reader(problem, found.model, problem.template, NoCalibration()))


def in_words(search: Callable[..., Any], problem: Problem) -> Fitted:
    """A search for words of the prompt."""
    found = search(problem.model, problem.searched, problem.words, **problem.search)
    return Fitted(found.queries, reader(problem, problem.model, found.template, NoCalibration()))


METHODS: dict[str, Callable[[Problem], Fitted]] = {
    "zero-shot, not calibrated": zero_shot,
    "zero-shot": calibrated,
    "DecT": lambda p: decoded(DecT(), p, [p.template]),
    "the default decoder": lambda p: decoded(OffsetLogisticRegression(), p, [p.template]),
    "PromptBoosting, 3 templates": lambda p: decoded(PromptBoosting(), p, [p.template, *p.views]),
    "BBT": bbt,
    "RLPrompt-like": lambda p: in_words(reinforce_prompt, p),
    "BDPL": lambda p: in_words(search_prompt, p),
}


def problems(
    model: FrozenModel, name: str, seeds: int, trials: int, tested: Path
) -> Iterator[tuple[Problem, list[Row], Any]]:
    """Yield the samples of a set with its test rows and their labels."""
    train, test = read_split(data_folder(), name, "train"), read_split(data_folder(), name, "test")
    chosen = np.sort(np.random.RandomState(0).permutation(len(test))[:TEST_ROWS])
    labels = TASKS[name]["labels"]
    y = np.array([str(row["label"]) for row in train])
    template = TASKS[name]["template"]
    fields = Template(template).fields
    words = frequent_words([row[field] for row in train for field in fields], WORDS)
    for seed in range(seeds):
        drawn = sample_shots(y, SHOTS, seed=seed)
        problem = Problem(
            model,
            template,
            f"{{prompt}} {template}",
            labels,
            VIEWS[name],
            words,
            [train[i] for i in drawn],
            y[drawn],
            trials * len(drawn),
            seed,
            tested,
        )
        yield problem, [test[i] for i in chosen], np.array([str(test[i]["label"]) for i in chosen])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    shared = os.environ.get("FEWFIT_SHARED", Path(__file__).parents[2] / "shared")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", default=f"hf:{shared}/models/minilm-mlm?dtype=bfloat16", metavar="SPEC"
    )
    parser.add_argument("--sets", default="sst2,agnews")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument(
        "--methods", help="these only, separated by ';'; what the result has of others stays"
    )
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args(argv)
    model = load_model(args.model)
    results: dict[str, Any] = {
        "sets": {},
        "model": args.model.rsplit("/", 1)[-1].removeprefix("hf:"),
        "shots": SHOTS,
        "seeds": args.seeds,
        "trials": args.trials,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "options": argv_of(args),
    }
    if args.methods and args.output.exists():
        results = json.loads(args.output.read_text(encoding="utf-8"))
    chosen = args.methods.split(";") if args.methods else METHODS
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(model, args, {name: METHODS[name] for name in chosen}, results, Path(folder) / "t")
        except FewfitError as error:
            print(f"searchers: stopped, {error}")


def argv_of(args: argparse.Namespace) -> str:
    """Return the options that differ from a plain run, as they are typed."""
    given = {"sets": args.sets, "seeds": args.seeds, "trials": args.trials}
    plain = {"sets": "sst2,agnews", "seeds": 3, "trials": 100}
    return "".join(f" --{k} '{v}'" for k, v in given.items() if v != plain[k])


def run(
    model: FrozenModel,
    args: argparse.Namespace,
    methods: Mapping[str, Callable[[Problem], Fitted]],
    results: dict[str, Any],
    tested: Path,
) -> None:
    """Fit and test every method on every sample; answers to test rows are shared in `tested`."""
    for name in args.sets.split(","):
        if not (data_folder() / name).is_dir():
            print(f"searchers: {name} skipped, no folder {data_folder() / name}")
            continue
        kept = results["sets"].get(name, {}).get("methods", {})
        cells: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
        for problem, test, truth in problems(model, name, args.seeds, args.trials, tested):
            reader(problem, model, problem.template, NoCalibration())(test[:1])  # loads the weights
            for method, fit in methods.items():
                start = time.perf_counter()
                fitted = fit(problem)
                seconds = time.perf_counter() - start
                right = np.array(sorted(problem.labels))[fitted.predict(test)] == truth
                cell = {
                    "queries": fitted.queries,
                    "seconds": round(seconds, 4),
                    "accuracy": round(float(right.mean()), 4),
                }
                cells[method].append(cell)
                print(f"{name:8} {problem.seed} {method:28} {cell}", flush=True)
            merged = {method: cells.get(method) or kept.get(method) for method in METHODS}
            found = {method: cell for method, cell in merged.items() if cell}
            results["sets"][name] = {"test_rows": len(test), "methods": found}
            args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
