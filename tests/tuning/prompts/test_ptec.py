"""PTEC: a prompt beside a head per label, and the classifier that reads it."""

from __future__ import annotations

import csv
import json
import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from fewfit import MultiLabelClassifier, load, load_model
from fewfit.cli import app
from fewfit.errors import InputError
from fewfit.tuning import Data, Recipe, Run, TokenLogProbs, fit_at_best_rate, make_method
from fewfit.tuning.prompts.prompt_tuning import Words
from fewfit.tuning.prompts.ptec import Headed, bce, indicator, states_only
from tests.tuning_models import checkpoint, example, trunk

TEXTS = ("the movie was fun", "not good", "so dull", "sport in new york")
NAMES = ("sport", "good movie", "dull")
SETS = [[1], [], [2], [0, 1]]
ROWS = [[example(text, 0, NAMES)] for text in TEXTS]
SHORT = Recipe(steps=4, batch_size=4, dropout=False, learning_rate=0.1, optimizer="adamw", warmup=0)


def seen(states: torch.Tensor) -> TokenLogProbs:
    none = torch.zeros(0, dtype=torch.int64)
    return TokenLogProbs(torch.zeros(0), none, none, none.bool(), True, states)


def head(K: int, n: int = 5) -> Headed:
    g = torch.Generator().manual_seed(0)
    return Headed(make_method("prompt-tuning", {"m": 0}).build(trunk("bert"), 0), *_two(n, g), K)


def _two(n: int, g: torch.Generator) -> tuple[torch.Tensor]:
    return (torch.randn(n, 16, generator=g),)


def test_at_zero_a_positive_costs_its_weight_times_the_logarithm_of_two():
    h, states = head(2, 4), torch.randn(4, 16)
    Y = torch.tensor([[1.0, 0], [0, 0], [0, 0], [0, 1]])  # three negatives to a positive
    loss = bce(h, Y)
    one, other = (loss(seen(states[i : i + 1]), [i], 0).item() for i in (0, 1))
    assert one == pytest.approx((3 + 1) * math.log(2) / 2, rel=1e-6)
    assert other == pytest.approx(math.log(2), rel=1e-6)
    whole = torch.tensor([[1.0, 0], [1, 0]])  # a label of all rows, and one of none
    assert bce(h, whole)(seen(states[:2]), [0, 1], 0).item() == pytest.approx(math.log(2))


def test_a_further_label_changes_nothing_of_the_others():
    g = torch.Generator().manual_seed(1)
    states, W = torch.randn(5, 16, generator=g), torch.randn(3, 16, generator=g)
    Y = (torch.rand(5, 3, generator=g) > 0.5).float()
    said, slopes = [], []
    for K in (2, 3):
        h = head(K)
        h.W.data = W[:K].clone()
        said.append(h.logits(states)[:, :2])
        (K * bce(h, Y[:, :K])(seen(states), list(range(5)), 0)).backward()
        slopes.append(h.W.grad[:2])
    assert torch.equal(*said)
    assert torch.allclose(*slopes)


def test_without_a_prompt_the_head_of_the_training_goes_where_the_multi_label_head_is():
    # Both are convex: without a penalty the training's loss is as low as a solver's.
    g = torch.Generator().manual_seed(2)
    states = torch.randn(40, 2, generator=g)
    Y = (states + torch.randn(40, 2, generator=g) > 0).float()
    prompt = make_method("prompt-tuning", {"m": 0}).build(trunk("bert"), 0)
    h = Headed(prompt, states, 2)
    loss, every = bce(h, Y), list(range(40))
    solver = torch.optim.LBFGS([h.W, h.b], max_iter=200, line_search_fn="strong_wolfe")

    def close() -> torch.Tensor:
        solver.zero_grad()
        value = loss(seen(states), every, 0)
        value.backward()
        return value

    solver.step(close)
    x = ((states - states.mean(0)) / states.std(0, correction=0)).numpy()
    for k in range(2):
        own = LogisticRegression(C=1e6, class_weight="balanced", tol=1e-8).fit(x, Y[:, k].numpy())
        assert np.allclose(own.coef_[0], h.W[k].detach().numpy(), atol=1e-3)


@pytest.mark.parametrize("name", ["bert", "llama", "t5-gated"])
def test_the_slot_of_a_row_does_not_tell_its_labels(name):
    base = trunk(name, dropout=0.0).reads("words")
    one, other = (
        states_only(base, [[example("so dull", k, NAMES)] for k in answers])
        for answers in ((0, 1), (2, 0))
    )
    assert one == other
    assert one[0] == one[1]


def test_the_prompt_begins_as_the_labels_words_and_learns_with_a_rate_of_its_own():
    base = trunk("bert", dropout=0.0).reads("words")
    E, ids = Words.of(base).E, base.tokenizer(" ".join(NAMES), add_special_tokens=False).input_ids
    still = Run(Recipe(steps=1, dropout=False, learning_rate=1e-9, optimizer="adamw", warmup=0))
    P = make_method("ptec", {"m": 6}).fit(base, Data(ROWS, sets=SETS), still).P.detach()
    assert len(ids) == 4
    assert sorted(int((E - p).abs().sum(1).argmin()) for p in P[:4]) == sorted(ids)
    method = make_method("ptec", {"m": 3})
    a, b = (method.fit(base, Data(ROWS, sets=sets), Run(SHORT)).P for sets in (SETS, [[0]] * 4))
    assert not torch.equal(a, b), "what is learnt is the sets, and not the answers"


def test_what_has_no_sense_is_refused():
    base = trunk("bert").reads("words")
    with pytest.raises(InputError, match="LoRA learns one label"):
        make_method("lora").fit(base, Data(ROWS, sets=SETS), Run(SHORT))
    with pytest.raises(InputError, match="3 sets for 4 rows"):
        make_method("ptec").fit(base, Data(ROWS, sets=SETS[:3]), Run(SHORT))
    with pytest.raises(InputError, match="row 1 has label 3, and there are 3"):
        indicator([[0], [3]], 3)
    mixed = [*ROWS, [example("so", 0)]]
    for rows in ([], mixed):
        with pytest.raises(InputError, match="those of all rows"):
            make_method("ptec").fit(base, Data(rows), Run(SHORT))
    with pytest.raises(InputError, match="several labels; name the rate"):
        fit_at_best_rate(make_method("ptec"), base, Data(ROWS, sets=SETS), Run(SHORT))


def run(*args, code: int = 0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def test_the_whole_system_from_a_file_and_back(tmp_path):
    checkpoint(tmp_path / "base", "bert", dropout=0.0)
    file = tmp_path / "train.csv"
    with file.open("w", newline="") as stream:
        labels = ["/".join(NAMES[k] for k in own) for own in SETS]
        csv.writer(stream).writerows([("text", "label"), *zip(TEXTS, labels, strict=True)])
    model = ["--model", f"hf:{tmp_path / 'base'}", "--template", "{text} it was {mask}"]
    command = ["tune", file, "-o", tmp_path / "task", *model, "--method", "ptec"]
    several = ["--multi-label", "--label-separator", "/"]
    assert "add --multi-label" in run(*command, code=2).output
    told = run("tune", file, "-o", tmp_path / "x", *model, *several, code=2).output
    assert "take --method ptec" in told
    assert "--label: has no use" in run(*command, *several, "--label=dull=bad", code=2).output
    assert not (tmp_path / "task").exists()
    run(*command, *several, "--steps", 3, "--option", "m=2")
    task = load(tmp_path / "task", store=None)
    assert isinstance(task, MultiLabelClassifier)
    assert task.classes_.tolist() == sorted(NAMES)
    given = run("predict", tmp_path / "task", file, "--store", "none").stdout.splitlines()
    own = [row["prediction"] for row in csv.DictReader(given)]
    assert own == ["/".join(one) for one in task.predict(list(TEXTS))]
    said = run("evaluate", tmp_path / "task", file, "--json", "--store", "none").stdout
    assert json.loads(said)["n"] == 4
    # Without a prompt it is the multi-label head on the frozen model.
    run(*command[:3], tmp_path / "frozen", *model, "--method", "ptec", *several, "--option", "m=0")
    frozen = load(tmp_path / "frozen", store=None)
    plain = MultiLabelClassifier(
        load_model(f"hf:{tmp_path / 'base'}"), template="{text} it was {mask}", store=None
    ).fit(list(TEXTS), [[NAMES[k] for k in own] for own in SETS])
    assert np.allclose(frozen.predict_proba(TEXTS), plain.predict_proba(TEXTS), atol=1e-4)
    only_one = tmp_path / "one.csv"
    only_one.write_text("text,label\na,b\nc,b\n")
    refused = run("tune", only_one, "-o", tmp_path / "y", *command[4:], "--multi-label", code=2)
    assert "at least two are needed" in refused.output
