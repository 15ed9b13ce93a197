"""From a file of examples to tuned vectors, and everything that then reads them."""

from __future__ import annotations

import csv
import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch
from safetensors import SafetensorError
from typer.testing import CliRunner

from fewfit import DecT, FewShotClassifier, MultiLabelClassifier, load_model
from fewfit.artifacts.files import CARD, dump
from fewfit.cli import app
from fewfit.compare import TuningRow, compare, sample_shots
from fewfit.compare.report.tables import report
from fewfit.errors import (
    ArtifactError,
    InputError,
    MissingExtraError,
    ModelError,
    ModelMismatchError,
)
from fewfit.estimators.expected import expectation
from fewfit.models.costs import Size
from fewfit.observations import Status
from fewfit.prompts import Template
from fewfit.tuning import (
    IA3,
    ChoiceExample,
    Objective,
    Recipe,
    Run,
    Trunk,
    TunedModel,
    add_lora,
    load_start,
    load_vectors,
    ranked,
    save_vectors,
    site_map,
    t_few,
)
from fewfit.tuning.artifact import MANIFEST, TENSORS, TaskEntry, read_manifest
from fewfit.tuning.training import make_accelerator
from tests.cli.helpers import csv_bytes
from tests.tuning_models import EXAMPLES, checkpoint, example
from tests.tuning_models import network as tuning_network

runner = CliRunner()
TEXTS = ["the movie was great", "really fun", "so dull", "awful in all", "not bad", "a bad film"]
Y = ["pos", "pos", "neg", "neg", "pos", "neg"]
ANSWERS = ["--label", "neg=really awful", "--label", "pos=good"]


def run(*args, code: int = 0):
    result = runner.invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *zip(TEXTS, Y, strict=True)])
    return path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, base, train):
    folder = tmp_path_factory.mktemp("out") / "tuned"
    templates = ["--template", "{text} it was {mask}.", "--template", "answer: {text} {mask}"]
    arguments = ["-o", folder, "--model", f"hf:{base}", "--steps", 60, *templates, *ANSWERS]
    result = run("tune", train, *arguments, "--json")
    folder_report.update(json.loads(result.stdout.splitlines()[-1]))
    return folder


folder_report: dict = {}


def save(folder, base, vectors, task=None) -> None:
    trunk = Trunk.load(f"hf:{base}")
    save_vectors(
        folder,
        vectors,
        base_spec=trunk.spec,
        base_identity=trunk.identity,
        recipe=Recipe(),
        n_examples=6,
        task=task,
    )


def test_tune_reports_what_it_made_and_what_it_cost(tuned):
    report = folder_report
    # two blocks each, inner 12, hidden 24
    assert report["values"] == 2 * (2 * 12 + 24) + 2 * (4 * 12 + 24)
    assert sorted(path.name for path in tuned.iterdir()) == [CARD, TENSORS, MANIFEST]
    size = sum(path.stat().st_size for path in tuned.iterdir())
    assert report["artifact_bytes"] == size
    overhead = (tuned / TENSORS).stat().st_size - 4 * report["values"]
    assert 0 < overhead < 3000  # the header names 16 tensors
    # 6 rows are fewer than a batch of 8; a step of frozen weights is two passes, not three
    passes = report["training_flops"] / (60 * 6 * report["query_flops"])
    assert 1.5 < passes < 2.6
    costs = json.loads((tuned / MANIFEST).read_text())["costs"]
    assert costs["steps"] == 60
    assert costs["saved_bytes"] == report["saved_bytes"] > 0
    assert costs["seconds"] > 0
    assert (costs["training_flops"], costs["query_flops"]) == (
        report["training_flops"],
        report["query_flops"],
    )


def test_a_tuned_model_is_named_like_any_other_and_says_what_it_costs(tuned, base, train):
    model = load_model(f"tuned:{tuned}")
    assert pickle.loads(pickle.dumps(model)).identity == model.identity
    assert isinstance(model, TunedModel)
    network = Trunk.load(f"hf:{base}").network
    n = sum(p.numel() for p in network.parameters())
    assert load_model(f"hf:{base}").size == Size(n, encoder_decoder=True)
    kept = (tuned / TENSORS).stat().st_size
    assert model.size == Size(n, True, folder_report["training_flops"], kept)

    template = "{text} it was {mask}."
    labels = {"neg": "really awful", "pos": "good"}
    held = ["a great film", "so so"]
    found = compare(
        *(TEXTS, Y, held, ["pos", "neg"]),
        template=template,
        labels=labels,
        methods=["zero-shot", "nearest-mean"],
        models=[f"tuned:{tuned}"],
        shots=[2],
        seeds=1,
        calibration="none",
        store=None,
    )
    # two choices are two words and one, each with its end; a prompt ends with its end, less "."
    tokens = {text: len(text.split()) + 2 + 1 + 5 for text in [*TEXTS, *held]}
    query = sum(tokens[text] for text in held) / 2
    sample = [TEXTS[i] for i in sample_shots(Y, 2, seed=0)]
    shown = sum(tokens[text] for text in sample)
    zero, mean = (cell.ledger for cell in found.cells)
    assert zero.predict_flops == mean.predict_flops == n * query
    assert zero.fit_flops == folder_report["training_flops"]
    assert mean.fit_flops == folder_report["training_flops"] + n * shown
    assert mean.in_context_flops == n * (shown + query)
    assert mean.in_context_bytes == 4 * shown
    assert zero.in_context_flops is None
    assert kept < zero.artifact_bytes < kept + 100
    assert "in context, per row" in report(found)


def test_predict_and_evaluate_read_the_artifact(tuned, train):
    result = run("predict", tuned, train, "--store", "none")
    rows = list(csv.DictReader(result.stdout.splitlines()))
    right = [row["prediction"] == name for row, name in zip(rows, Y, strict=True)]
    measured = json.loads(run("evaluate", tuned, train, "--json").stdout)
    assert measured["accuracy"] == pytest.approx(np.mean(right))
    assert sum(right) >= 5  # of the six that it was tuned on


def test_predictions_are_rank_classification_with_the_vectors(tuned, base):
    clf = FewShotClassifier.load(tuned, store=None)
    trunk = Trunk.load(str(base))
    vectors = IA3(site_map(trunk.network))
    vectors.set(load_vectors(tuned)[1])
    vectors.attach(trunk.network)
    template = Template("{text} it was {mask}.")
    words = clf.task_.verbalizer.words
    texts = [*TEXTS, "maybe", "city not good", "the politics of new york", "so so"]
    examples = [type(EXAMPLES[0])(template.render({"text": text}), words, 0) for text in texts]
    expected = [clf.classes_[k] for k in ranked(trunk, examples)]
    assert clf.predict(texts).tolist() == expected
    clf.save(tuned.parent / "again")
    again = FewShotClassifier.load(tuned.parent / "again", store=None)
    assert again.predict(texts).tolist() == expected
    card = (tuned / CARD).read_text()
    assert (tuned.parent / "again" / CARD).read_text() == card
    assert "| labelled examples | 6 |" in card
    assert "    {text} it was {mask}." in card


def test_a_decoder_works_on_top_of_a_tuned_model(tuned, tmp_path):
    spec = f"tuned:{tuned}"
    labels = {"neg": "really awful", "pos": "good"}
    clf = FewShotClassifier(
        spec, template="{text} it was {mask}.", labels=labels, decoder=DecT(), calibration="none"
    ).fit(TEXTS, Y)
    assert clf.n_queries_ == len(TEXTS) + 1
    assert clf.predict(TEXTS).tolist() == Y
    expected = clf.expected_accuracy()
    assert expected.accuracy is not None
    assert "was tuned on 6 labelled rows" in expected.reason
    assert "That may be too high: the model was tuned on 6" in "".join(expectation(expected))
    clf.save(tmp_path / "task")
    assert "may be too high" in (tmp_path / "task" / CARD).read_text()
    several = MultiLabelClassifier(spec, template="{text} it was {mask}.")
    several.fit(TEXTS, [["good"] if label == "pos" else ["bad"] for label in Y])
    assert several.expected_accuracy().reason == expected.reason
    back = FewShotClassifier.load(tmp_path / "task", verify=True)
    assert np.allclose(back.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    assert back.task_.model.spec == spec


def test_answers_do_not_depend_on_the_batch_and_cut_texts_say_so(tuned):
    model = TunedModel(tuned)
    template = Template("{text} it was {mask}.")
    prompts = [template.render({"text": text}) for text in [*TEXTS, "movie " * 400]]
    words = ("good", "really awful", "bad")
    together = model.observe(prompts, words)
    assert together.status.tolist() == [Status.OK] * 6 + [Status.TRUNCATED]
    assert together.n_tokens[-1] == 256 + 7  # the choices and their end tokens
    for i in (0, 5):
        alone = model.observe(prompts[i : i + 1], words)
        assert alone.scores is not None
        assert together.scores is not None
        assert np.allclose(alone.scores[0], together.scores[i], atol=1e-5)
        assert np.allclose(alone.hidden[0], together.hidden[i], atol=1e-5)
    other = model.observe(prompts, words[::-1])
    assert np.allclose(other.scores[:, ::-1], together.scores, atol=1e-5)
    assert np.allclose(other.hidden, together.hidden, atol=1e-5)
    with pytest.raises(InputError, match="at least two label words"):
        model.observe(prompts, ("good",))


def test_merged_weights_are_a_checkpoint_that_answers_alike(tuned, train, tmp_path):
    run("merge", tuned, "-o", tmp_path / "merged")
    merged = Trunk.load(f"hf:{tmp_path / 'merged'}")
    words = ("good", "really awful")
    examples = [example(text, 0, words) for text in TEXTS]
    with torch.inference_mode():
        tokens, _ = merged.read(merged.pack([merged.encoder.encode(e) for e in examples]))
    model = TunedModel(tuned)
    expected = model.observe([e.prompt for e in examples], words).scores
    assert np.allclose(tokens.beta.view(6, 2).numpy(), expected, atol=1e-5)
    assert merged.identity["weights_sha256"] != model.identity["base_weights_sha256"]
    run("merge", tuned, "-o", tmp_path / "merged", code=2)  # not empty
    said = run("predict", tmp_path / "merged", train, code=4).stderr
    assert f"a checkpoint, which is a model, hf:{tmp_path / 'merged'}" in said


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tuned, tmp_path, monkeypatch):
    made = TunedModel(tuned)
    (tmp_path / "there").mkdir()
    made.export(tmp_path / "there")
    kept = {path.name for path in (tmp_path / "there").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= kept
    assert not [name for name in kept if name.startswith(".")]

    def full(*_, **__) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(type(made._loaded[0].tokenizer), "save_pretrained", full)
    with pytest.raises(ArtifactError, match=r"merged cannot be written: .* No space left"):
        made.export(tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_vectors_of_another_checkpoint_are_refused(tuned, tmp_path):
    other = checkpoint(tmp_path / "other", seed=1)
    model = TunedModel(tuned, base=f"hf:{other}")
    with pytest.raises(ModelMismatchError, match="weights_sha256"):
        model.observe([Template("{text} {mask}").render({"text": "a"})], ("good", "bad"))
    with pytest.raises(ModelMismatchError, match="weights_sha256"):
        load_start(tuned, Trunk.load(str(other)).identity)


def test_identity_follows_the_vectors_and_the_base(tuned, base, tmp_path):
    vectors = IA3(site_map(Trunk.load(str(base)).network))
    save(tmp_path / "ones", base, vectors)
    a, b = TunedModel(tuned).identity, TunedModel(tmp_path / "ones").identity
    assert a["vectors_sha256"] != b["vectors_sha256"]
    assert a["base_weights_sha256"] == b["base_weights_sha256"]
    assert not any(str(base) in value for value in a.values())


def test_damaged_and_foreign_vectors_are_refused(tuned, base, tmp_path):
    for name, damage, message in (
        (TENSORS, lambda data: data[:-1] + b"\xff", "checksum"),
        (MANIFEST, lambda data: data.replace(b"t-few", b"t-fat"), "checksum"),
        (MANIFEST, lambda data: b"{}", "not the manifest"),
    ):
        folder = tmp_path / "damaged"
        shutil.copytree(tuned, folder)
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
        with pytest.raises(ArtifactError, match=message):
            load_vectors(folder)
        shutil.rmtree(folder)
    vectors = IA3(site_map(Trunk.load(str(base)).network))
    with torch.no_grad():
        vectors.vectors[0][0] = float("nan")
    with pytest.raises(ArtifactError, match="not finite"):
        save(tmp_path / "nan", base, vectors)
    assert not (tmp_path / "nan").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(ArtifactError, match="holds other files"):
        save(tmp_path / "full", base, IA3(site_map(Trunk.load(str(base)).network)))


def test_an_artifact_without_an_option_that_its_method_needs_is_refused(tuned):
    files = {TENSORS: (tuned / TENSORS).read_bytes()}
    manifest = read_manifest(tuned).model_copy(update={"method": "composed", "options": {}})
    made = TunedModel.of({**files, MANIFEST: dump(manifest)})
    with pytest.raises(ArtifactError, match="composed needs 'of'"):
        made.observe([Template("{text} {mask}").render({"text": "so dull"})], ["good", "bad"])


def test_what_was_tuned_to_another_reading_says_which(base, tmp_path):
    trunk = Trunk.load(f"hf:{checkpoint(tmp_path / 'gpt2', 'gpt2')}")
    known = {"base_spec": trunk.spec, "recipe": Recipe(), "n_examples": 6}
    save_vectors(tmp_path / "start", IA3(trunk.sites), base_identity=trunk.identity, **known)
    with pytest.raises(ModelMismatchError, match="read as words; --reading answers reads them so"):
        load_start(tmp_path / "start", trunk.reads("words").identity)
    with pytest.raises(ModelMismatchError, match="tuned on another model: config_sha256"):
        load_start(tmp_path / "start", Trunk.load(f"hf:{base}").reads("words").identity)


def test_a_row_that_starts_from_a_folder_is_known_by_its_files(tuned, tmp_path):
    start = shutil.copytree(tuned, tmp_path / "start")
    row = TuningRow("t-few", {"start": str(start)})
    key = row.key()
    (start / "of the system").mkdir()
    assert row.key() == key
    (start / MANIFEST).write_bytes(b"another")
    assert row.key() != key


@pytest.mark.parametrize("name", ["x", "x/run.pt"])
def test_a_checkpoint_where_the_artifact_is_to_be_is_refused(name, base, train, tmp_path):
    how = ["-o", tmp_path / "x", "--model", f"hf:{base}", "--checkpoint", tmp_path / name]
    (tmp_path / "facts.csv").write_text("prompt,target\nso dull,bad\n")
    (tmp_path / "mixture.toml").write_text("task = []")
    for command in (
        ["tune", train, *ANSWERS],
        ["edit", tmp_path / "facts.csv"],
        ["pretrain", tmp_path / "mixture.toml"],
    ):
        assert "name a file beside it" in run(*command, *how, code=2).output
    assert not (tmp_path / "x").exists()


def test_a_seed_is_one_that_all_that_draws_can_take():
    for seed in (-1, 2**32):
        with pytest.raises(InputError, match="seed: from 0 and below"):
            Run(seed=seed)
    last = Run(seed=2**32 - 1)
    assert (last.part("1").seed, last.part("1", seed=last.seed + 1).seed) == (2**32 - 1, 0)


def test_vectors_without_a_task_are_for_starting_only(base, tmp_path):
    vectors = IA3(site_map(Trunk.load(str(base)).network))
    save(tmp_path / "start", base, vectors)
    with pytest.raises(ArtifactError, match="no task"):
        FewShotClassifier.load(tmp_path / "start")
    entry = TaskEntry(templates=["{text} {mask}"], labels=[("a", ["good"]), ("b", ["bad"])])
    save(tmp_path / "task", base, vectors, entry)
    assert FewShotClassifier.load(tmp_path / "task", store=None).classes_.tolist() == ["a", "b"]
    for name, changed in {
        "slot": {"templates": ["{text} and nothing"]},
        "word": {"labels": [("a", []), ("b", ["bad"])]},
    }.items():
        save(tmp_path / name, base, vectors, entry.model_copy(update=changed))
        with pytest.raises(ArtifactError, match=f"{name}: the task does not hold together"):
            FewShotClassifier.load(tmp_path / name, store=None)


def test_what_was_tuned_remembers_its_columns(base, tmp_path):
    rows = [("Message", "Topic"), *zip(TEXTS, Y, strict=True)]
    (tmp_path / "mails.csv").write_bytes(csv_bytes(rows=rows))
    columns = ["--text-column", "message", "--label-column", "topic"]
    how = ["--model", f"hf:{base}", "--steps", 1, *ANSWERS]
    run("tune", tmp_path / "mails.csv", "-o", tmp_path / "task", *columns, *how)
    found = run("evaluate", tmp_path / "task", tmp_path / "mails.csv", "--json").stdout
    assert json.loads(found)["n"] == len(Y)
    told = run("predict", tmp_path / "task", tmp_path / "mails.csv").stdout
    assert told.startswith("Message,Topic,prediction")
    FewShotClassifier.load(tmp_path / "task", store=None).save(tmp_path / "copy")
    assert run("predict", tmp_path / "copy", tmp_path / "mails.csv").stdout == told


def test_two_processes_of_accelerate_launch_end_where_one_does(train, tmp_path):
    base = checkpoint(tmp_path / "base", dropout=0.0)
    arguments = ["tune", train, "--model", f"hf:{base}", "--steps", 8, "--batch-size", 6, *ANSWERS]
    run(*arguments, "--output", tmp_path / "one")
    # With --cpu and without MPI, accelerate would start one process whatever the number asked for.
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 -m tests.tuning_process"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1"}
    said = subprocess.run(
        [sys.executable, *launch.split(), *map(str, arguments), "--output", tmp_path / "two"],
        capture_output=True,
        text=True,
        cwd=root,
        env=environment,
        timeout=300,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("process of 2, gloo") == 2
    assert said.stdout.count("6 examples, 2 classes, 8 steps") == 1  # the main one alone reports
    one, two = load_vectors(tmp_path / "one")[1], load_vectors(tmp_path / "two")[1]
    for name, vector in one.items():
        assert torch.allclose(two[name], vector, atol=1e-4), name
    assert max(float((vector - 1).abs().max()) for vector in one.values()) > 0.01


def test_vectors_of_several_tasks_are_where_a_tuning_starts(base, train, tmp_path):
    (tmp_path / "other.csv").write_text("review,stars\nso dull,1\ngreat fun,2\n")
    (tmp_path / "copy.csv").write_bytes(train.read_bytes())
    (tmp_path / "mixture.toml").write_text(
        """
        [[task]]
        train = "copy.csv"
        templates = ["{text} it was {mask}", "answer: {text} {mask}"]
        labels = { pos = "good", neg = "really awful" }

        [[task]]
        train = "other.csv"
        templates = ["{text} is it bad? {mask}"]
        text_column = "review"
        label_column = "stars"
        labels = { 1 = "yes", 2 = "no" }
        """
    )
    arguments = ["--model", f"hf:{base}", "--steps", 4, "--learning-rate", 0.01]
    said = run("pretrain", tmp_path / "mixture.toml", "-o", tmp_path / "start", *arguments)
    assert "8 examples, 4 steps" in said.stdout
    # the same through the library, without a command line
    trunk = Trunk.load(f"hf:{base}")
    first = ["{text} it was {mask}", "answer: {text} {mask}"]
    mixture = [
        [_asked(source, text, ("good", "really awful"), Y[i] == "neg") for source in first]
        for i, text in enumerate(TEXTS)
    ]
    asked = [("so dull", False), ("great fun", True)]
    mixture += [[_asked("{text} is it bad? {mask}", t, ("yes", "no"), no)] for t, no in asked]
    recipe = Recipe(steps=4, batch_size=16, learning_rate=0.01)
    mine = t_few(trunk, mixture, recipe=recipe, objective=Objective(False, False))
    manifest, found = load_vectors(tmp_path / "start")
    assert manifest.task is None
    for name, vector in mine.of().items():
        assert torch.equal(found[name], vector), name
    tuning = ["--model", f"hf:{base}", *ANSWERS, "--steps", 1, "--start", tmp_path / "start"]
    run("tune", train, "-o", tmp_path / "tuned", *tuning)
    manifest, after = load_vectors(tmp_path / "tuned")
    assert all(float((after[n] - found[n]).abs().max()) < 0.004 for n in found)


def _asked(source, text, choices, second) -> ChoiceExample:
    return ChoiceExample(Template(source).render({"text": text}), choices, int(second))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("task = 3", "mixture.toml cannot be read as TOML"),
        ("", "mixture.toml cannot be read as TOML"),
        ("[[task]]\ntrain = 'x.csv'\ntemplates = []", "has no template"),
        ("[[task]]\ntrain = 'x.csv'\ntemplates = ['{text} {mask}']", "task 1 of"),
        ("[[task]]\ntrain = 'x.csv'\ntemplate = '{text} {mask}'", "template"),
    ],
)
def test_a_mixture_that_cannot_be_read_is_refused(content, message, base, tmp_path):
    (tmp_path / "mixture.toml").write_text(content)
    arguments = ["-o", tmp_path / "x", "--model", f"hf:{base}"]
    assert message in run("pretrain", tmp_path / "mixture.toml", *arguments, code=2).output


def test_start_and_checkpoint_from_the_command_line(tuned, base, train, tmp_path):
    arguments = ["--model", f"hf:{base}", *ANSWERS, "--template", "{text} it was {mask}."]
    out, file = tmp_path / "more", tmp_path / "training.pt"
    more = ["--steps", 3, "--start", tuned, "--checkpoint", file]
    said = run("tune", train, "-o", out, *arguments, *more).stdout
    assert "2 classes, 3 steps" in said
    assert file.exists()
    one, two = load_vectors(tuned)[1], load_vectors(out)[1]
    gap = max(float((one[n] - two[n]).abs().max()) for n in one)
    assert 0 < gap < 0.1  # three steps away from where it started


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--method", "lorra"], 2, "did you mean 'lora'?"),
        (["--option", "unlikelyhood=no"], 2, "did you mean 'unlikelihood'?"),
        (["--option", "unlikelihood=perhaps"], 2, "option: unlikelihood: Input should be a valid"),
        (["--option", "unlikelihood"], 2, "is not NAME=VALUE"),
        (["--model", "ollama:llama3"], 2, "weights, hf:FOLDER or encoder:FOLDER, none of"),
        (["--model", "tuned:folder"], 2, "name what it was tuned on"),
        (["--model", "hf:/nowhere"], 3, "there is no folder '/nowhere'"),
        (["--label", "neg=bad"], 2, "class 'pos' (line 2) has no label words"),
        (["--label", "neg=bad", "--label", "other=good"], 2, "class 'pos' (line 2)"),
        (["--label", "neg=bad,awful", "--label", "pos=good"], 2, "one answer per class"),
        (["--template", "{mask} is {text}", *ANSWERS], 2, "move {mask} to the end"),
        (["--start", "/nowhere"], 2, "nothing at /nowhere"),
        (["--method", "contrastive", "--rate", "auto"], 2, "name the rate"),
        (["--reading", "words", *ANSWERS], 2, "there are answers only"),
        (["--no-unlikelihood", "--option", "unlikelihood=yes"], 2, "by its own option too"),
        (["--seed", 2**32], 2, str(2**32 - 1)),
        (
            ["--method", "contrastive", "--option", "adapter=composed"],
            2,
            "composed needs 'of', which has no default",
        ),
        (
            ["--dtype", "float64"],
            2,
            "--dtype: 'float64' is not one of ['float32', 'bfloat16', 'float16']",
        ),
    ],
)
def test_bad_input_is_refused_with_its_exit_code(arguments, code, message, base, train, tmp_path):
    model = [] if "--model" in arguments else ["--model", f"hf:{base}"]
    result = run("tune", train, "-o", tmp_path / "x", *model, *arguments, code=code)
    assert message in result.output
    assert not (tmp_path / "x").exists()


def test_a_checkpoint_without_a_language_model_is_refused(tmp_path):
    import transformers

    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**size, intermediate_size=8, vocab_size=30)
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="BertModel is not a masked, causal or"):
        Trunk.load(str(tmp_path))


def test_a_decoder_that_cannot_be_told_positions_is_refused(tmp_path):
    import transformers

    size = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 30}
    config = transformers.BartConfig(**size, encoder_attention_heads=2, decoder_attention_heads=2)
    folder = checkpoint(tmp_path)
    transformers.BartForConditionalGeneration(config).save_pretrained(folder)
    with pytest.raises(ModelError, match="counts positions from its start"):
        Trunk.load(str(folder))


def test_damaged_weights_are_reported_as_the_model_s(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "base")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        Trunk.load(str(folder))


@pytest.mark.parametrize("package", ["torch", "transformers", "accelerate", "peft"])
def test_a_missing_package_is_said_with_the_command_that_installs_it(package, monkeypatch):
    def use() -> None:
        if package == "accelerate":
            make_accelerator()
        elif package == "peft":
            network = tuning_network("t5-gated")
            add_lora(network, site_map(network))
        else:
            tuning = importlib.import_module("fewfit.tuning")
            assert "t-few" in tuning.METHODS, "the table needs no torch"
            tuning.make_method("t-few")

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r'pip install "fewfit\[tune\]"'):
        use()
