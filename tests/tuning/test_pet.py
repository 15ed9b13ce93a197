"""PET and iPET with trained vectors."""

from __future__ import annotations

import csv
import importlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch
from typer.testing import CliRunner

from fewfit.cli import app
from fewfit.errors import InputError
from fewfit.prompts import Template
from fewfit.tuning import (
    IA3,
    ChoiceExample,
    Data,
    Meter,
    Recipe,
    Run,
    TokenLogProbs,
    Trunk,
    TunedModel,
    distillation_loss,
    length_normalised_loss,
    load_vectors,
    make_method,
    pet,
    ranked,
    site_map,
    train,
    tune,
)
from fewfit.tuning.reading import encode_rows, scored
from tests import warm
from tests.tuning_models import checkpoint, trunk

TEXTS = ["the movie was great", "really fun", "so dull", "awful in all", "not bad", "a bad film"]
Y = [1, 1, 0, 0, 1, 0]
POOL = ["a great film", "so so", "fun movie", "really awful", "not so dull", "is it good", "bad"]
PATTERNS = ["{text} it was {mask}", "answer: is it good? {text} {mask}"]
WORDS = [("really awful", "great"), ("no", "yes maybe")]  # a pattern may have its own
SHORT = Recipe(steps=4, batch_size=4, learning_rate=0.05)


def wordings(texts: list[str], y: list[int] | None = None) -> list[list[ChoiceExample]]:
    return [
        [
            ChoiceExample(Template(pattern).render({"text": text}), words, k)
            for pattern, words in zip(PATTERNS, WORDS, strict=True)
        ]
        for text, k in zip(texts, y or [0] * len(texts), strict=True)
    ]


ROWS, UNLABELLED = wordings(TEXTS, Y), wordings(POOL)


def values(vectors: IA3) -> torch.Tensor:
    return torch.cat([v.detach() for v in vectors.of().values()])


def first(rows: list[list[ChoiceExample]]) -> list[list[ChoiceExample]]:
    return [row[:1] for row in rows]


class CrossEntropy:
    """Of the softmax over the choices."""

    needs_wrong = True

    def __call__(self, tokens: TokenLogProbs) -> torch.Tensor:
        return length_normalised_loss(tokens)


@pytest.mark.parametrize(
    ("name", "weights"),
    [("t5-gated", "accuracy"), ("gpt2", "accuracy"), ("bert", "accuracy"), ("bert", "uniform")],
)
def test_pet_is_its_three_steps_one_after_the_other(name, weights):
    seeds = np.random.RandomState(3)
    z, right = [], []
    for model in range(4):
        p, trunk_ = model % 2, trunk(name)
        pool = [trunk_.encoder.encode(row[p]) for row in UNLABELLED]
        before = ranked(trunk_, [row[p] for row in ROWS])
        right.append(np.mean(np.array(before) == Y))
        vectors = IA3(site_map(trunk_.network)).attach(trunk_.network)
        rows = [[row[p]] for row in ROWS]
        options: Any = {"recipe": SHORT, "seed": int(seeds.randint(2**31))}
        tune(trunk_, rows, vectors.of(), objective=CrossEntropy(), **options)  # pyright: ignore[reportArgumentType]
        z.append(scored(trunk_, pool))
    w = np.array(right) if weights == "accuracy" and any(right) else np.ones(4)
    teacher = torch.tensor(sum(w[i] * z[i] for i in range(4)) / w.sum(), dtype=torch.float32)
    trunk_ = trunk(name)
    pool = [trunk_.encoder.encode(row[0]) for row in UNLABELLED]
    student = IA3(site_map(trunk_.network)).attach(trunk_.network)

    def loss_of(batch, step):
        tokens, _ = trunk_.read(trunk_.pack([pool[i] for i in batch]))
        return distillation_loss(tokens, teacher[batch], temperature=2.0)

    seed = int(seeds.randint(2**31))
    train(trunk_.network, student.of(), loss_of, len(pool), SHORT, seed=seed)
    options = {"recipe": SHORT, "repetitions": 2, "weights": weights, "seed": 3}
    found = pet(trunk(name), ROWS, UNLABELLED, **options)
    assert torch.allclose(values(found), values(student), atol=2e-5)
    assert (values(found) - 1).abs().max() > 0.01


def test_nothing_but_the_vectors_changes_and_the_seed_decides_them():
    trunk_ = trunk()
    before = {n: p.clone() for n, p in trunk_.network.state_dict().items()}
    np.random.seed(0)
    state = torch.get_rng_state()
    options = {"recipe": SHORT, "repetitions": 2, "generations": 1, "factor": 2.0}
    made: list[int] = []
    one = pet(trunk_, ROWS, UNLABELLED, **options, progress=made.append)
    assert sum(made) == 4 * (4 * 2 + 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.random_sample() == np.random.RandomState(0).random_sample()
    assert all(torch.equal(p, before[n]) for n, p in trunk_.network.state_dict().items())
    assert not any(module._forward_hooks for module in trunk_.network.encoder.block.modules())
    answered = wordings(POOL, [1] * len(POOL))  # nobody looks at the answers
    assert torch.equal(values(pet(trunk_, ROWS, answered, **options)), values(one))
    assert not torch.equal(values(pet(trunk_, ROWS, UNLABELLED, seed=1, **options)), values(one))


def test_with_one_pattern_the_weights_do_not_matter():
    one, two = (
        pet(trunk(), first(ROWS), first(UNLABELLED), recipe=SHORT, repetitions=2, weights=weights)
        for weights in ("accuracy", "uniform")
    )
    assert torch.allclose(values(one), values(two), atol=1e-5)


def test_the_student_says_what_its_teacher_said():
    recipe = Recipe(steps=50, batch_size=7, learning_rate=0.1, dropout=False)
    labelled, pool = first(ROWS), first(UNLABELLED)
    # one model is its own ensemble: the vectors trained on the labels alone are the teacher
    trunk_ = trunk()
    teacher = IA3(site_map(trunk_.network)).attach(trunk_.network)
    seed = int(np.random.RandomState(0).randint(2**31))
    options: Any = {"recipe": recipe, "seed": seed, "objective": CrossEntropy()}
    tune(trunk_, labelled, teacher.of(), **options)
    told = ranked(trunk_, [row[0] for row in [*labelled, *pool]])
    assert told[: len(Y)] == Y
    teacher.detach()
    student = pet(trunk_, labelled, pool, recipe=recipe, repetitions=1, weights="uniform")
    student.attach(trunk_.network)
    assert ranked(trunk_, [row[0] for row in pool]) == told[len(Y) :]


@pytest.fixture
def trained_on(monkeypatch):
    """The numbers of rows of all trainings."""
    sizes: list[int] = []

    def noted(network, parameters, loss_of, n_rows, *args, **kwargs):
        sizes.append(n_rows)
        return train(network, parameters, loss_of, n_rows, *args, **kwargs)

    monkeypatch.setattr(importlib.import_module("fewfit.tuning.method"), "train", noted)
    return sizes


def test_generations_grow_the_training_sets_and_end_in_the_same_student(trained_on):
    unlabelled = wordings([f"{a} {b}" for a in POOL for b in TEXTS])
    options = {"recipe": SHORT, "repetitions": 2, "generations": 2, "factor": 2.0}
    pet(trunk(), ROWS, unlabelled, **options)
    grown, last = trained_on[4:8], trained_on[8:12]
    assert trained_on[:4] == [6] * 4
    assert all(6 <= size <= 12 for size in grown)  # at most; a class may be short of texts
    assert all(6 <= size <= 24 for size in last)
    assert max(last) > max(grown) > 6
    assert trained_on[12:] == [len(unlabelled)]


def test_without_labels_the_patterns_alone_are_distilled(trained_on):
    pet(trunk(), [], UNLABELLED, recipe=SHORT, weights="uniform")
    assert trained_on == [len(UNLABELLED)]


def test_each_training_starts_from_the_vectors_that_are_given():
    start = {name: v.detach() * 1.1 for name, v in IA3(site_map(trunk().network)).of().items()}
    still = Recipe(steps=1, warmup=1.0)  # the rate of step 0 is zero
    found = pet(trunk(), ROWS, UNLABELLED, start=start, recipe=still)
    assert torch.equal(values(found), torch.cat(list(start.values())))


@pytest.mark.parametrize(
    ("rows", "unlabelled", "options", "message"),
    [
        (ROWS, [], {}, "unlabelled: no texts.*t_few needs none"),
        ([], UNLABELLED, {}, "take weights='uniform'"),
        ([], UNLABELLED, {"weights": "uniform", "generations": 1}, "no set can grow"),
        (ROWS, UNLABELLED, {"weights": "wmean"}, "'accuracy' or 'uniform', not 'wmean'"),
        (ROWS, UNLABELLED, {"repetitions": 0}, "repetitions: at least 1, not 0"),
        (
            ROWS,
            UNLABELLED,
            {"temperature": 0.0},
            "temperature: Input should be greater than 0, not 0.0",
        ),
        (ROWS, UNLABELLED, {"generations": -1}, "generations: -1 is at least 0"),
        (ROWS, UNLABELLED, {"factor": 0.5}, "factor: 0.5 is at least 1"),
        (ROWS, UNLABELLED, {"share": 1.5}, "share: 1.5 is above 0 and at most 1"),
        (first(ROWS), first(UNLABELLED), {"generations": 1, "repetitions": 1}, "no others"),
        (ROWS, first(UNLABELLED), {}, r"rows: row 0 has wordings with \[2, 2\].*row \[2\]"),
        (ROWS, [*UNLABELLED, UNLABELLED[0][:1]], {}, "unlabelled: row 7"),
        ([[ROWS[0][0], replace(ROWS[0][1], answer=0)]], UNLABELLED, {}, "different answers"),
        ([row[0] for row in ROWS], UNLABELLED, {}, "row 0 is not a sequence"),
        (ROWS, [[]], {}, "row 0 is not a sequence"),
    ],
)
def test_what_cannot_be_taught_is_refused_before_the_first_step(
    rows, unlabelled, options, message, trained_on
):
    with pytest.raises(InputError, match=message):
        pet(trunk(), rows, unlabelled, recipe=SHORT, **options)
    assert not trained_on


# ---- from a file to an artifact ---------------------------------------------------------------

ASKED = ["--template", PATTERNS[0], "--template", "is it good? {text} {mask}"]
ASKED += ["--label", "neg=really awful", "--label", "pos=good"]


def run(*args: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint, labelled rows, and texts that need no column of labels."""
    folder = tmp_path_factory.mktemp("pet")
    checkpoint(folder / "base")
    lines = [f"{text},{('neg', 'pos')[k]}" for text, k in zip(TEXTS, Y, strict=True)]
    (folder / "train.csv").write_text("\n".join(["text,label", *lines]))
    (folder / "more.csv").write_text("\n".join(["text", *POOL]))
    return folder


def test_from_files_to_a_tuned_model_that_another_process_reads(files):
    model = ["--model", f"hf:{files / 'base'}"]
    how = ["--method", "pet", "--unlabelled", files / "more.csv", "--steps", 3, "--repetitions", 2]
    how += ["--generations", 1]
    said = run("tune", files / "train.csv", "-o", files / "tuned", *model, *ASKED, *how, "--json")
    report = json.loads(said.stdout.splitlines()[-1])
    assert (report["method"], report["unlabelled"], report["trainings"]) == ("pet", 7, 9)
    manifest, found = load_vectors(files / "tuned")
    assert manifest.method == TunedModel(files / "tuned").identity["kind"] == "pet"

    # the same through the library
    loaded = Trunk.load(f"hf:{files / 'base'}")
    templates = [Template(source) for source in ASKED[1:4:2]]

    def asked(texts, y):
        return [
            [ChoiceExample(t.render({"text": x}), ("really awful", "good"), k) for t in templates]
            for x, k in zip(texts, y, strict=True)
        ]

    rows, pool = asked(TEXTS, Y), asked(POOL, [0] * len(POOL))
    mine = pet(loaded, rows, pool, repetitions=2, generations=1, recipe=Recipe(steps=3))
    for name, vector in mine.of().items():
        assert torch.equal(found[name], vector), name
    method, measured = make_method("pet", {"repetitions": 2, "generations": 1}), Meter()
    method.fit(loaded, Data(rows, pool), Run(Recipe(steps=3), meter=measured))

    mine.attach(loaded.network)
    best = ranked(loaded, [row[0] for row in pool])
    command = ["predict", files / "tuned", files / "more.csv", "--store", "none"]
    told = warm.run("from fewfit.cli import main; main()", *command)
    lines = list(csv.DictReader(told.splitlines()))
    assert [line["prediction"] for line in lines] == [("neg", "pos")[k] for k in best]

    # all trainings and all that is scored between them, counted as they run
    assert report["training_flops"] == measured.flops
    assert measured.steps == [3] * 9
    rows_scored = 2 * 6 + 8 * 7  # by each pattern before any training; by each model
    passed = Meter()
    with mine.on(loaded.network):
        scored(loaded, [row[0] for row in encode_rows(loaded, pool)], adapter=mine, meter=passed)
    scoring = rows_scored * passed.flops / 7
    assert scoring < measured.flops < 30 * scoring  # 168 rows trained three passes each
    assert report["saved_bytes"] == measured.saved_bytes > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "pet"], "name them: --unlabelled"),
        (["--unlabelled", "{more}"], "has no use for --unlabelled"),
        (["--generations", 3], "t-few has no 'generations'"),
        (["--method", "pet", "--option", "adapter=lt-sft"], "trainings of its own"),
        (["--method", "pet", "--unlabelled", "{none}"], "cannot be read"),
        (["--method", "pet", "--unlabelled", "{more}", "--text-column", "labels"], "no column"),
    ],
)
def test_options_of_another_method_are_refused(arguments, message, files, tmp_path):
    named = {"more": files / "more.csv", "none": files / "none.csv"}
    given = [str(argument).format(**named) for argument in arguments]
    model = ["--model", f"hf:{files / 'base'}"]
    said = run("tune", files / "train.csv", "-o", tmp_path / "x", *model, *ASKED, *given, code=2)
    assert message in " ".join(said.output.split())
    assert not (tmp_path / "x").exists()
