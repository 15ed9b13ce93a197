"""Contrast between texts and label words, in encoders and language models."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch
from typer.testing import CliRunner

from fewfit import FewShotClassifier, Template, load, load_model
from fewfit.cli import app
from fewfit.compare import TuningRow, compare
from fewfit.errors import ArtifactError, InputError, ModelMismatchError
from fewfit.tuning import ChoiceExample, Data, Recipe, Run, Trunk, TunedModel, make_method
from fewfit.tuning.artifact import adapter_files, read_manifest
from fewfit.tuning.losses.contrastive import contrast
from tests import warm
from tests.models.local.test_sentences import save
from tests.tuning_models import trunk as language_model

TEMPLATE = Template("{text} it was {mask}")
TEXTS = ["the movie was fun", "really fun", "a great film", "so dull", "a bad movie", "sad and bad"]
Y = [0, 0, 0, 1, 1, 1]
WORDS = ("great", "bad")
FILES = ["README.md", "adapter.safetensors", "decoder.safetensors", "manifest.json"]
FILES += ["tuning.json"]
RECIPE = Recipe(steps=6, batch_size=4, learning_rate=0.03, optimizer="adamw", dropout=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("encoder") / "base")


@pytest.fixture
def encoder(folder):
    return Trunk.load(f"encoder:{folder}")


def rows(template=TEMPLATE):
    prompts = [template.render(dict.fromkeys(template.fields, text)) for text in TEXTS]
    return [[ChoiceExample(prompt, WORDS, k)] for prompt, k in zip(prompts, Y, strict=True)]


def fitted(base, run=None, **options):
    return make_method("contrastive", options).fit(base, Data(rows()), run or Run(RECIPE))


def test_the_loss_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    z, y, tau = rng.normal(size=(5, 3)), [0, 1, 0, 1, 2], 0.3
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    each = []
    for i in range(5):
        others = [j for j in range(5) if j != i]
        total = sum(np.exp(unit[i] @ unit[j] / tau) for j in others)
        own = [np.log(np.exp(unit[i] @ unit[j] / tau) / total) for j in others if y[j] == y[i]]
        each += [-np.mean(own)] if own else []  # the last has no other of its class
    given = torch.tensor(z, requires_grad=True)
    loss = contrast(given, torch.tensor(y), tau)
    assert float(loss.detach()) == pytest.approx(np.mean(each))
    alone = contrast(given[:1], torch.tensor([0]), tau)
    alone.backward()
    assert float(alone.detach()) == 0
    assert torch.isfinite(given.grad).all()


def test_texts_are_read_in_groups_of_similar_length(encoder):
    items = [encoder.encoder.encode(row[0]) for row in rows()] * 3
    order = np.random.default_rng(0).permutation(len(items))
    batch = encoder.pack([items[i] for i in order])
    found = encoder.read(batch)[1]
    with torch.inference_mode():
        together = encoder.model.network(batch.ids, batch.mask)
        seen = []
        handle = encoder.network.register_forward_hook(
            lambda _, args, kwargs, out: seen.append(kwargs["input_ids"].shape), with_kwargs=True
        )
        encoder.read(batch)
        handle.remove()
    assert torch.allclose(found, together, atol=1e-5)
    assert [n for n, _ in seen] == [8, 8, 2]
    lengths = np.sort([len(item.before) for item in items])
    assert [longest for _, longest in seen] == [lengths[7], lengths[15], lengths[17]]


def test_texts_of_a_class_come_together_and_the_encoder_stays(encoder):
    before = {name: t.clone() for name, t in encoder.network.state_dict().items()}

    def apart(adapter=None):
        items = [encoder.encoder.encode(row[0]) for row in rows()]
        with torch.inference_mode():
            if adapter is None:
                z = encoder.read(encoder.pack(items))[1]
            else:
                with adapter.on(encoder.network):
                    z = encoder.read(encoder.pack(items))[1]
        return float(contrast(z, torch.tensor(Y), 0.1))

    plain = apart()
    assert apart(make_method("contrastive").build(encoder, 0)) == plain, "fresh, it does nothing"
    assert apart(fitted(encoder)) < 0.8 * plain
    assert apart() == plain
    assert all(torch.equal(before[n], t) for n, t in encoder.network.state_dict().items())


def test_what_is_kept_lies_between_frozen_and_trained(encoder):
    whole, half = (fitted(encoder, alpha=alpha).tensors() for alpha in (1, 0.5))
    assert any((t - 1).abs().max() > 0.01 for t in whole.values())
    for name, tensor in whole.items():
        assert torch.allclose(half[name], (1 + tensor) / 2)


def test_label_words_are_texts_of_their_class(encoder):
    one = Data([rows()[0], rows()[-1]])  # no text has another of its class
    without = make_method("contrastive", {"names": False}).fit(encoder, one, Run(RECIPE))
    assert all((t == 1).all() for t in without.tensors().values()), "there is no pair"
    named = make_method("contrastive").fit(encoder, one, Run(RECIPE))
    assert any((t != 1).any() for t in named.tensors().values())
    method = make_method("contrastive")
    [(great, k), (_, m)] = method._named(encoder, rows())
    assert (k, m) == (0, 1)
    assert great.before == encoder.model.tokens(["it was great"])[0].ids
    masked = language_model("bert")
    [(said, _), _] = method._named(masked, rows())
    text = ChoiceExample(TEMPLATE.render({"text": "great"}), WORDS, 0)
    assert said == masked.encoder.encode(text, only_answer=True)
    other = [ChoiceExample(TEMPLATE.render({"text": "x"}), ("yes", "no"), 0)]
    with pytest.raises(InputError, match="the same for all rows"):
        method.fit(encoder, Data([*rows(), other]), Run(RECIPE))


def test_a_long_text_is_cut_while_it_is_trained_on(encoder):
    whole = [row[0].before for row in make_method("contrastive")._encoded(encoder, rows())]
    cut = make_method("contrastive", {"length": 4})._encoded(encoder, rows())
    for ids, [item] in zip(whole, cut, strict=True):
        assert item.before == ([*ids[:3], ids[-1]] if len(ids) > 4 else ids)


def test_a_text_that_is_longer_than_the_encoder_reads_is_trained_on(encoder):
    long = ChoiceExample(TEMPLATE.render({"text": "so dull " * 400}), WORDS, 1)
    adapter = make_method("contrastive").fit(encoder, Data([*rows(), [long]]), Run(RECIPE))
    assert adapter.count == 2 * (32 + 32 + 48)


def test_another_adapter_has_its_own_rate(encoder):
    quick = make_method("contrastive").recipe
    assert (quick.steps, quick.learning_rate) == (20, pytest.approx(0.06))
    low = make_method("contrastive", {"adapter": "lora", "adapter_options": {"rank": 2}})
    assert (low.recipe.steps, low.recipe.learning_rate) == (80, pytest.approx(0.003))
    assert low.fit(encoder, Data(rows()), Run(RECIPE)).count == 2 * 2 * 2 * (32 + 32)


@pytest.mark.parametrize("method", ["contrastive", "pet", "ipet"])
@pytest.mark.parametrize("adapter", ["t-few", "focal"])
def test_an_adapter_with_a_loss_of_its_own_is_refused(method, adapter):
    with pytest.raises(
        InputError, match=f"{adapter} has a loss of its own, which would not be used"
    ):
        make_method(method, {"adapter": adapter})
    make_method("promot", {"adapter": adapter})  # which trains with that loss


def test_what_has_no_meaning_is_refused_in_words(encoder):
    pairs = [
        [ChoiceExample(Template("{a} ? {mask} {b}").render({"a": "x", "b": "y"}), WORDS, k)]
        for k in Y
    ]
    with pytest.raises(InputError, match="one by one"):
        make_method("contrastive").fit(encoder, Data(pairs), Run(RECIPE))
    for name in ("prompt-tuning", "prefix-tuning", "mam", "dept", "ept"):
        with pytest.raises(InputError, match="changes what the network reads"):
            fitted(encoder, adapter=name)
    with pytest.raises(InputError, match="no stack below its head"):
        fitted(encoder, adapter="ladder")
    with pytest.raises(InputError, match="all rows of a batch"):
        fitted(encoder, Run(Recipe(steps=1, micro_batch=2)))
    with pytest.raises(InputError, match="this one is encoder: it scores no choices"):
        make_method("lora").fit(encoder, Data(rows()), Run(RECIPE))


def test_an_interrupted_training_ends_the_same(encoder, tmp_path):
    def stop(_):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt

    steps, run = [], Run(RECIPE, checkpoint=tmp_path / "run", every=2)
    with pytest.raises(KeyboardInterrupt):
        fitted(encoder, Run(RECIPE, checkpoint=tmp_path / "run", every=2, progress=stop))
    found, expected = fitted(encoder, run).tensors(), fitted(encoder).tensors()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(InputError, match="options"):
        fitted(encoder, run, temperature=0.2)


def test_a_tuned_encoder_is_an_encoder(encoder, folder):
    adapter = fitted(encoder)
    files = adapter_files(
        adapter,
        method=make_method("contrastive"),
        base_spec=encoder.spec,
        base_identity=encoder.identity,
        recipe=RECIPE,
        n_examples=6,
    )
    prompts = [TEMPLATE.render({"text": text}) for text in TEXTS]
    shared, own = TunedModel.of(files, trunk=encoder), TunedModel.of(files)
    frozen = load_model(f"encoder:{folder}")
    plain = frozen.observe(prompts, WORDS)
    said = shared.observe(prompts, WORDS)
    assert own.capabilities == frozen.capabilities
    assert np.allclose(own.observe(prompts, WORDS).hidden, said.hidden, atol=1e-5)
    assert np.abs(said.hidden - plain.hidden).max() > 1e-3
    assert np.array_equal(encoder.model.observe(prompts, WORDS).hidden, plain.hidden), "left in"
    with pytest.raises(InputError, match="more than its network"):
        own.export(folder.parent / "merged")
    with pytest.raises(ModelMismatchError, match="not the kind of model"):
        TunedModel.of(files, base="hf:nothing").observe(prompts, WORDS)


def run(*args, code=0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def test_one_artifact_from_the_command_line(folder, tmp_path):
    with (tmp_path / "train.csv").open("w", newline="") as stream:
        names = ["pos" if k == 0 else "neg" for k in Y]
        csv.writer(stream).writerows([("text", "label"), *zip(TEXTS, names, strict=True)])
    model = f"encoder:{folder}"
    how = ["--model", model, "--template", TEMPLATE.source, "--label=pos=great", "--label=neg=bad"]
    command = ["tune", tmp_path / "train.csv", "-o", tmp_path / "task", *how]
    refused = run(*command, "--method", "lora", code=2)
    assert "this one is encoder" in refused.output
    assert not (tmp_path / "task").exists()
    run(*command, "--method", "contrastive", "--steps", 6, "--json")
    kept = sorted(path.name for path in (tmp_path / "task").iterdir())
    assert kept == [
        "README.md",
        "adapter.safetensors",
        "decoder.safetensors",
        "manifest.json",
        "tuning.json",
    ]
    task = load(tmp_path / "task", store=None, verify=True)
    assert isinstance(task, FewShotClassifier)
    assert task.columns_ is not None
    assert (task.columns_.fields, task.columns_.label) == ({"text": ["text"]}, "label")
    told = task.predict_proba(TEXTS)
    script = (
        "import sys, json; from fewfit import load; "
        f"print(json.dumps(load({str(tmp_path / 'task')!r}, store=None)"
        f".predict_proba({TEXTS!r}).tolist()))"
    )
    assert np.allclose(json.loads(warm.run(script)), told, atol=1e-5)
    # What is loaded is saved whole; and what is fitted anew in its place leaves nothing behind.
    task.save(tmp_path / "copy")
    assert np.allclose(load(tmp_path / "copy", store=None).predict_proba(TEXTS), told, atol=1e-5)
    FewShotClassifier(model, store=None).fit(TEXTS, names).save(tmp_path / "copy")
    kept = sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert kept == ["README.md", "decoder.safetensors", "manifest.json"]
    (tmp_path / "task" / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(ArtifactError, match="damaged"):
        load(tmp_path / "task", store=None).predict(TEXTS)


def test_what_is_said_of_an_encoder_is_heeded_or_refused(folder, tmp_path):
    with (tmp_path / "train.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *zip(TEXTS, Y, strict=True)])
    said = ["tune", tmp_path / "train.csv", "-o", tmp_path / "task", "--method", "contrastive"]
    here = [*said, "--model", f"encoder:{folder}", "--steps", 1]
    run(*here, "--max-tokens", 9, "--dtype", "bfloat16")
    manifest = read_manifest(tmp_path / "task")
    known = manifest.base_identity
    assert (known["max_tokens"], known["dtype"]) == ("9", "bfloat16")
    load(tmp_path / "task", store=None).predict(TEXTS)
    assert "words only" in run(*here, "--reading", "answers", code=2).output
    for option in (["--max-tokens", 9], ["--dtype", "float16"]):
        refused = run(*said, "--model", "embedded", *option, code=2).output
        assert "name a checkpoint" in refused


def test_it_is_a_row_of_a_comparison(folder):
    names = ["pos" if k == 0 else "neg" for k in Y]
    row = {"contrastive": TuningRow("contrastive", {"steps": 3, "alpha": 0.5})}
    asked = {"labels": {"pos": "great", "neg": "bad"}, "models": [f"encoder:{folder}"]}
    asked |= {"shots": [2], "seeds": 1, "store": None}
    data = (TEXTS, names, ["really great", "so sad"], ["pos", "neg"])
    found = compare(*data, methods=row, template=TEMPLATE.source, **asked)
    [cell] = found.cells
    # Three vectors of 32, 32 and 48 in each of two blocks, and what the decoder learns.
    assert cell.ledger.parameters > 2 * (32 + 32 + 48)
    assert cell.ledger.predict_queries == 2
    pairs = ([{"a": x, "b": x} for x in TEXTS], names, [{"a": "x", "b": "y"}], ["pos"])
    with pytest.raises(InputError, match="one by one"):
        compare(*pairs, methods=row, template="{a} ? {mask} {b}", **asked)
