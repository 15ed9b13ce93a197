"""Which texts to label: labels needed to reach what random choice reaches with 16 per class.

    python -m benchmarks suggest [--model SPEC] [--seeds 5] [--store default] [--rules A,B]

From no label on, a rule chooses texts of a pool of `POOL` training rows, which are then labelled;
the default decoder is fitted on them, with the pool as texts without labels and without, and judged
on rows of the test split. What a rule sees of the classifier is the fit with the pool. Writes
``results/suggest.json``, in which what was run before with as many seeds stays.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.cluster import KMeans

from benchmarks import RESULTS
from benchmarks.tasks import TASKS, data_folder, read_split
from benchmarks.unlabelled import rows_of_training
from fewfit.calibration import ContextualCalibration
from fewfit.decoders import OffsetLogisticRegression, ZeroShot
from fewfit.errors import FewfitWarning
from fewfit.estimators.examples import fit_decoder
from fewfit.estimators.opening import open_model
from fewfit.estimators.suggesting import choose
from fewfit.prompts import Verbalizer, make_views
from fewfit.task import Task

SETS = (*("agnews", "subj", "sst2", "mpqa", "trec", "tweet_irony", "tweet_offensive", "dbpedia"),)
PER_CLASS = (1, 2, 4, 8, 16)
POOL, TEST = 1000, 1000
Floats = NDArray[Any]


@dataclass
class Pool:
    """What a rule sees: the pool, what is labelled in it, and the classifier's log-odds of it."""

    hidden: Floats
    z: Floats
    f: Floats
    known: NDArray[np.intp]
    y: NDArray[np.intp]
    rng: np.random.RandomState

    @property
    def free(self) -> NDArray[np.intp]:
        """What has no label."""
        return np.setdiff1d(np.arange(len(self.z)), self.known)

    def apart(self, some: Sequence[int] | NDArray[np.intp]) -> Floats:
        """Squared distance to the nearest of some texts; infinite without any."""
        if not len(some):
            return np.full(len(self.z), np.inf)
        return (2 - 2 * self.z @ self.z[np.asarray(some)].T).min(axis=1)


def by_chance(pool: Pool, n: int) -> list[int]:
    """Random choice."""
    return pool.rng.permutation(pool.free)[:n].tolist()


def clusters(z: Floats, n: int) -> tuple[NDArray[np.intp], Floats]:
    """k-means."""
    found = KMeans(n, n_init=1, random_state=0, max_iter=20).fit(z)
    return found.labels_, found.cluster_centers_


def medoids(pool: Pool, n: int) -> list[int]:
    """The text nearest to the centre of each of n clusters of what has no label."""
    free = pool.free
    label, centre = clusters(pool.z[free], n)
    far = ((pool.z[free] - centre[label]) ** 2).sum(axis=1)
    return [int(free[label == k][far[label == k].argmin()]) for k in np.unique(label)]


def typiclust(pool: Pool, n: int) -> list[int]:
    """Of the largest cluster without a label, the text in the densest place (Hacohen 2022)."""
    label, _ = clusters(pool.z, len(pool.known) + n)
    size = np.bincount(label)
    covered = np.bincount(label[pool.known], minlength=len(size))
    left, found = np.isin(np.arange(len(label)), pool.free), []
    while len(found) < n:
        for k in np.lexsort((-size, covered)):
            rows = np.flatnonzero(left & (label == k))
            if len(rows):
                near = np.sort(pool.z[rows] @ pool.z[rows].T, axis=1)[:, -21:-1]
                found.append(int(rows[near.mean(axis=1).argmax()] if len(rows) > 1 else rows[0]))
                left[found[-1]] = False
                covered[k] += 1
                break
    return found


def probcover(pool: Pool, n: int) -> list[int]:
    """Most uncovered texts within a radius at which balls hold one cluster (Yehuda 2022)."""
    square = 2 - 2 * pool.z @ pool.z.T
    label, _ = clusters(pool.z, pool.f.shape[1])
    ball = square < 0
    for radius in np.quantile(square, [0.1, 0.05, 0.02, 0.01, 0.005, 0.002]):
        ball = square <= radius
        pure = [(label[row] == own).all() for row, own in zip(ball, label, strict=True)]
        if np.mean(pure) >= 0.95:
            break
    covered, found = ball[pool.known].any(axis=0), []
    left = np.isin(np.arange(len(label)), pool.free)
    while len(found) < n:
        gain = np.where(left, (ball & ~covered).sum(axis=1), -1)
        found.append(int(gain.argmax()))
        left[found[-1]] = False
        covered |= ball[found[-1]]
    return found


def core_set(pool: Pool, n: int) -> list[int]:
    """The text farthest from all that are chosen (Sener 2018)."""
    found: list[int] = []
    far = pool.apart(pool.known)
    while len(found) < n:
        first = not len(pool.known) and not found
        found.append(int((pool.z @ pool.z.mean(axis=0)).argmax() if first else far.argmax()))
        far = np.minimum(far, pool.apart(found[-1:]))
    return found


def coverage(pool: Pool, n: int) -> list[int]:
    """Greedy facility location: what makes all texts most similar to one that is chosen."""
    similar = np.exp(6 * (pool.z @ pool.z.T - 1))
    best = similar[pool.known].max(axis=0) if len(pool.known) else np.zeros(len(similar))
    found: list[int] = []
    while len(found) < n:
        gain = np.maximum(similar - best, 0).sum(axis=1)
        gain[[*pool.known, *found]] = -1
        found.append(int(gain.argmax()))
        best = np.maximum(best, similar[found[-1]])
    return found


def margin(pool: Pool, n: int) -> list[int]:
    """The texts whose two best classes are closest."""
    top = np.sort(softmax(pool.f, axis=1), axis=1)
    gap = top[:, -1] - top[:, -2]
    gap[pool.known] = np.inf
    return np.argsort(gap, kind="stable")[:n].tolist()


def badge(pool: Pool, n: int) -> list[int]:
    """k-means++ on the gradient of the guessed label (Ash 2020)."""
    p = softmax(pool.f, axis=1)
    slope = np.eye(p.shape[1])[p.argmax(axis=1)] - p
    size = (slope**2).sum(axis=1)
    far, found = size.copy(), []
    while len(found) < n:
        far[[*pool.known, *found]] = 0
        i = int(far.argmax() if not found else pool.rng.choice(len(far), p=far / far.sum()))
        found.append(i)
        cross = (slope @ slope[i]) * (pool.z @ pool.z[i])
        far = np.minimum(far, np.maximum(size + size[i] - 2 * cross, 1e-12))
    return found


def suggest(pool: Pool, n: int) -> list[int]:
    """What ``fewfit suggest`` does."""
    free = pool.free
    labelled = (pool.hidden[pool.known], pool.y[pool.known])
    return [int(free[i]) for i, _ in choose(pool.hidden[free], pool.f[free], n, labelled)]


RULES: dict[str, Callable[[Pool, int], list[int]]] = {
    "random": by_chance,
    "suggest": suggest,
    "k-means medoids": medoids,
    "TypiClust": typiclust,
    "ProbCover": probcover,
    "Core-Set": core_set,
    "coverage": coverage,
    "margin": margin,
    "BADGE": badge,
}


def fitted(hidden: Floats, scores: Floats, y: Any, known: Any, K: int, *, pool: bool) -> Any:
    """Return the classifier of what is labelled; with one class at most, the model's scores."""
    more = {"pool": hidden, "pool_scores": scores} if pool else {}
    if len(np.unique(y[known])) < 2:
        zero = ZeroShot().restore({}, np.arange(K))
        return zero.adapt(hidden, scores=scores) if pool else zero
    decoder = OffsetLogisticRegression()
    return fit_decoder(decoder, y[known], hidden[known], scores[known], list(range(K)), more)


def curve(
    rule: Callable[[Pool, int], list[int]], rows: Any, test: Any, K: int, seed: int
) -> list[list[float]]:
    """Return the accuracy with the pool and without, at 0 labels and at each of `PER_CLASS`."""
    (hidden, scores, y), (hidden_new, scores_new, y_new) = rows, test
    unit = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    z = unit - unit.mean(axis=0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    rng, known, found = np.random.RandomState(seed), np.empty(0, np.intp), []
    decoder = fitted(hidden, scores, y, known, K, pool=True)
    for n in (0, *PER_CLASS):
        if n:
            f = np.log(decoder.predict_proba(hidden, scores=scores) + 1e-30)
            more = rule(Pool(hidden, z, f, known, y, rng), n * K - len(known))
            known = np.concatenate([known, np.array(more, np.intp)])
            decoder = fitted(hidden, scores, y, known, K, pool=True)
        both = (decoder, fitted(hidden, scores, y, known, K, pool=False))
        proba = [d.predict_proba(hidden_new, scores=scores_new) for d in both]
        found.append([float((p.argmax(axis=1) == y_new).mean()) for p in proba])
    return found


def needed(accuracy: Sequence[float], target: float) -> float | None:
    """Return the labels per class at which a curve first reaches a target; None if it does not."""
    at = (0, *PER_CLASS)
    for i, value in enumerate(accuracy):
        if value >= target:
            if not i:
                return 0.0
            share = (target - accuracy[i - 1]) / (value - accuracy[i - 1])
            return round(at[i - 1] + share * (at[i] - at[i - 1]), 1)
    return None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--store", default="default")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--rules", default=",".join(RULES))
    args = parser.parse_args(argv)

    warnings.simplefilter("ignore", FewfitWarning)
    path, rows_before = RESULTS / "suggest.json", []
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if (before["model"], before["seeds"]) == (args.model, args.seeds):
            rows_before = before["rows"]
    found = {(row["set"], row["rule"]): row for row in rows_before}
    model = open_model(args.model, args.store)
    for name in args.sets.split(","):
        rng = np.random.RandomState(0)
        K = len(TASKS[name]["labels"])
        train, test = (read_split(data_folder(), name, split) for split in ("train", "test"))
        train = [train[i] for i in rng.permutation(len(train))[: rows_of_training(K)]]
        test = [test[i] for i in rng.permutation(len(test))[:TEST]]
        task = Task(
            model,
            make_views(TASKS[name]["template"]),
            Verbalizer(TASKS[name]["labels"]),
            ContextualCalibration(),
        )
        task, answers, _ = task.begin([*train, *test])
        hidden, scores = task.features(answers)
        assert scores is not None
        codes = [str(c) for c in task.verbalizer.classes]
        y, n = np.array([codes.index(str(row["label"])) for row in [*train, *test]]), len(train)
        for rule in args.rules.split(","):
            curves = []
            for seed in range(args.seeds):
                rows = np.random.RandomState(seed).permutation(n)[: max(POOL, 24 * K)]
                pool, new = ((hidden[i], scores[i], y[i]) for i in (rows, slice(n, None)))
                curves.append(curve(RULES[rule], pool, new, K, seed))
            mean = np.mean(curves, axis=0).round(4)
            found[name, rule] = {
                "set": name,
                "rule": rule,
                "with": mean[:, 0].tolist(),
                "without": mean[:, 1].tolist(),
            }
            print(name, rule, *mean.tolist(), flush=True)
    for (name, _), row in found.items():
        start = found[name, "random"]
        for way in ("with", "without"):
            row[f"needed_{way}"] = needed(row[way], start["without"][-1])
        row["needed_alike"] = needed(row["with"], start["with"][-1])
    order = {rule: i for i, rule in enumerate(RULES)}
    rows = sorted(found.values(), key=lambda row: (SETS.index(row["set"]), order[row["rule"]]))
    content = {"model": args.model, "seeds": args.seeds, "per_class": PER_CLASS, "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
