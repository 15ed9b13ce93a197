"""Every tuning method through the command line and through a comparison."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

from typer.testing import CliRunner

from fewfit import load_model
from fewfit.cli import app
from fewfit.compare import TuningRow, compare
from fewfit.compare.names import METHODS as COMPARED
from fewfit.compare.names import make_methods
from fewfit.errors import CapabilityError, InputError, ModelError
from fewfit.prompts import Template
from fewfit.tuning import ENTRIES, make_method
from tests.matrix.test_tuning import SMALL
from tests.tuning_models import checkpoint, tokenizer, trunk

TEXTS = ["the movie was great", "really fun", "so dull", "awful in all", "not bad", "a bad film"]
Y = ["pos", "pos", "neg", "neg", "pos", "neg"]
BASES = {"base": "bert", "causal": "gpt2"}
TEMPLATE, LABELS = "{text} it was {mask}", {"neg": "awful", "pos": "good"}


def run(*args, code: int = 0):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ways")
    for name, architecture in BASES.items():
        checkpoint(folder / name, architecture, dropout=0.0)
    with (folder / "train.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *zip(TEXTS, Y, strict=True)])
    with (folder / "sets.csv").open("w", newline="") as stream:
        named = [(text, LABELS[y]) for text, y in zip(TEXTS, Y, strict=True)]
        csv.writer(stream).writerows([("text", "label"), *named])
    (folder / "pool.csv").write_text("text\na great film\nso so\nfun movie\nreally awful\n")
    return folder


def options(name: str) -> list[str]:
    found = []
    for option, value in SMALL.get(name, {}).items():
        inner = {option: value}
        if isinstance(value, dict):
            outer = option.removesuffix("_options")
            inner = {f"{outer}.{key}": v for key, v in value.items()}
        found += [item for key, v in inner.items() for item in ("--option", f"{key}={v}")]
    return found


def base_of(name: str) -> str:
    return "base" if "masked" in make_method(name).kinds else "causal"


@pytest.mark.parametrize("name", ENTRIES)
def test_from_a_file_to_a_model_like_any_other(name, folder):
    out = folder / name
    how = ["--method", name, *options(name), "--steps", 2, "--batch-size", 4]
    if make_method(name).unlabelled:
        how += ["--unlabelled", folder / "pool.csv"]
    several = make_method(name).several
    words = ["--multi-label"] if several else [f"--label={k}={v}" for k, v in LABELS.items()]
    asked = ["--template", TEMPLATE, *words]
    model = ["--model", f"hf:{folder / base_of(name)}"]
    file = folder / ("sets.csv" if several else "train.csv")
    said = run("tune", file, "-o", out, *model, *asked, *how, "--json")
    report = json.loads(said.stdout.splitlines()[-1])
    assert (report["method"], report["steps"], report["examples"]) == (name, 2, 6)
    kept = {"README.md", "adapter.safetensors", "tuning.json"}
    read = {"decoder.safetensors", "manifest.json"} if make_method(name).decoded else set()
    assert {path.name for path in out.iterdir()} == kept | read
    rows = csv.DictReader(
        run("predict", out, folder / "pool.csv", "--store", "none").stdout.splitlines()
    )
    given = {"", "awful", "awful;good", "good"} if several else {"neg", "pos"}
    assert {row["prediction"] for row in rows} <= given
    tuned = load_model(f"tuned:{out}")
    prompts = [Template(TEMPLATE).render({"text": text}) for text in TEXTS]
    answers = tuned.observe(prompts, ("awful", "good"))
    assert np.isfinite(answers.scores).all()
    built = make_method(name, SMALL.get(name)).build(trunk(BASES[base_of(name)]), 0)
    target = folder / f"{name}-merged"
    merged = run("merge", out, "-o", target, code=0 if built.mergeable else 2)
    if built.mergeable:
        other = load_model(f"hf:{target}?space=logprob")
        # A word of one token: its log-probability, whoever reads it.
        assert np.allclose(
            other.observe(prompts, ("awful", "good")).scores, answers.scores, atol=1e-4
        )
    else:
        assert "stays beside the network" in merged.output


def test_every_method_is_a_row_of_one_comparison(folder, tmp_path):
    steps = {"steps": 2, "batch_size": 4}
    names = [name for name in ENTRIES if base_of(name) == "base"]
    rows = {name: TuningRow(name, {**SMALL.get(name, {}), **steps}) for name in names}
    methods = {**make_methods(["zero-shot", "dect", "prompt-search"]), **rows}
    asked = {
        "template": TEMPLATE,
        "labels": LABELS,
        "models": [f"hf:{folder / 'base'}"],
        "shots": [1],
        "seeds": 2,
        "calibration": "none",
        "store": None,
        "search_trials": 10,
        "output": tmp_path,
    }
    data = (TEXTS, Y, ["a great film", "so so"], ["pos", "neg"])
    found = compare(*data, methods=methods, **asked)
    assert [cell.method for cell in found.cells if cell.seed == 0] == list(methods)
    ledgers = {cell.method: cell.ledger for cell in found.cells if cell.seed == 0}
    assert ledgers["t-few"].queries == 2
    assert ledgers["list"].queries == 2 + 4, "the rest of the pool is its texts without labels"
    assert ledgers["t-few"].predict_queries == ledgers["zero-shot"].predict_queries == 2
    assert ledgers["lt-sft"].fit_flops > 2 * ledgers["t-few"].fit_flops > 0, (
        "two, one of them dense"
    )
    assert all(ledgers[name].saved_bytes for name in names)
    assert ledgers["random-mask"].parameters == 50
    # A run that was stopped goes on: nothing is trained again.
    again = compare(*data, methods=methods, **asked)
    assert again.cells == found.cells
    far = {**methods, "too far": TuningRow("lora", {**steps, "learning_rate": 1e30})}
    with pytest.raises(
        ModelError, match=r"^too far, 1 shots, seed 0: training: .* goes on from the cells"
    ):
        compare(*data, methods=far, **asked)
    assert compare(*data, methods=methods, **asked).cells == found.cells
    others = {
        name: TuningRow(name, {**SMALL.get(name, {}), **steps}) for name in ENTRIES.keys() - names
    }
    causal = {**asked, "models": [f"hf:{folder / 'causal'}"], "seeds": 1, "output": None}
    assert len(compare(*data, methods=others, **causal).cells) == len(others) > 0


def test_methods_of_a_comparison_have_one_name_each():
    assert set(make_methods(COMPARED)) == set(COMPARED)
    made = make_methods(["pet", "tune:pet", "t-few", "tune:lora"])
    assert [type(method).__name__ for method in made.values()] == [
        "DecoderMethod",
        "TuningRow",
        "TuningRow",
        "TuningRow",
    ]
    for wrong in ("tune:nothing", "t-few+batch", "tune:dect"):
        with pytest.raises(InputError, match="methods:"):
            make_methods([wrong])
    with pytest.raises(InputError, match="did you mean 'rank'"):
        TuningRow("lora", {"rnk": 3})
    method, recipe, _ = TuningRow("lora", {"dropout": 0.1})._made()
    assert (method.dropout, recipe.dropout) == (0.1, method.recipe.dropout), "its own, as in tune"
    with pytest.raises(InputError, match="steps is at least 1"):
        TuningRow("lora", {"steps": 0})


def test_options_of_a_row_come_from_the_command_line_and_from_a_mapping(folder, tmp_path):
    how = ["--methods", "dect,lora,tune:pet", "--shots", 1, "--seeds", 1, "--store", "none"]
    options = ["lora.rank=2", "lora.steps=2", "tune:pet.steps=1", "tune:pet.repetitions=1"]
    options += ["tune:pet.adapter=lora", "tune:pet.adapter.rank=3", "dect.n_steps=2"]
    given = [item for option in options for item in ("--option", option)]
    asked = ["--template", TEMPLATE, *(f"--label={k}={v}" for k, v in LABELS.items())]
    (folder / "test.csv").write_text("text,label\na great film,pos\nso so,neg\n")
    files = [folder / "train.csv", folder / "test.csv"]
    model = ["--models", f"hf:{folder / 'base'}"]
    said = run("compare", *files, *model, *how, *asked, *given, "--json")
    cells = {cell["method"]: cell for cell in json.loads(said.stdout)["cells"]}
    pair = 2 * 2 * (16 + 16)  # q and v of two blocks
    assert cells["lora"]["ledger"]["parameters"] == 2 * pair
    assert cells["tune:pet"]["ledger"]["parameters"] == 3 * pair
    wrong = run("compare", *files, *model, *how, *asked, "--option", "lora.rnk=2", code=2)
    assert "did you mean 'rank'" in wrong.output
    wrong = run("compare", *files, *model, *how, *asked, "--option", "rank=2", code=2)
    assert "is not METHOD.NAME=VALUE" in wrong.output
    made = make_methods({"mine": {"tuner": "lora", "rank": 2, "steps": 5}, "t-few": {"steps": 3}})
    assert made["mine"] == TuningRow("lora", {"rank": 2, "steps": 5})
    assert made["t-few"] == TuningRow("t-few", {"steps": 3})


def test_a_model_without_weights_is_refused_before_anything_is_asked():
    data = (TEXTS, Y, ["a great film", "so so"], ["pos", "neg"])
    with pytest.raises(CapabilityError, match="trains beside the weights"):
        compare(
            *data,
            template=TEMPLATE,
            labels=LABELS,
            methods=["t-few"],
            models=["fake"],
            shots=[1],
            store=None,
        )


def test_two_runs_of_a_comparison_agree_whatever_ran_before(folder):
    def accuracy(methods):
        rows = {name: TuningRow(name, {"steps": 3, "batch_size": 2}) for name in methods}
        found = compare(
            *(TEXTS, Y, ["a great film", "so so"], ["pos", "neg"]),
            template=TEMPLATE,
            labels=LABELS,
            methods=rows,
            models=[f"hf:{folder / 'base'}"],
            shots=[2],
            seeds=1,
            store=folder / "store.sqlite",
        )
        return found.cells[-1].log_loss

    assert accuracy(["t-few"]) == accuracy(["bitfit", "lora", "t-few"])


def test_an_architecture_of_a_file_is_known_to_its_artifact(folder, tmp_path):
    import transformers

    size = {"n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4, "n_positions": 64}
    words = tokenizer("causal")
    config = transformers.GPTJConfig(**size, vocab_size=len(words), bos_token_id=3, eos_token_id=1)
    transformers.GPTJForCausalLM(config).save_pretrained(tmp_path / "base")
    words.save_pretrained(tmp_path / "base")
    (tmp_path / "gptj.toml").write_text(
        '[[stack]]\nname = "decoder"\nblocks = "transformer.h"\nself = { q = "attn.q_proj", '
        'k = "attn.k_proj", v = "attn.v_proj", o = "attn.out_proj" }\n'
        'ffn_in = ["mlp.fc_in"]\nffn_out = "mlp.fc_out"\n'
    )
    asked = ["--template", TEMPLATE, *(f"--label={k}={v}" for k, v in LABELS.items())]
    how = ["--model", f"hf:{tmp_path / 'base'}", "--steps", 2]
    command = ["tune", folder / "train.csv", *how, *asked]
    refused = run(*command, "-o", tmp_path / "x", code=2)
    assert "'gptj' is not known" in refused.output
    run(*command, "-o", tmp_path / "task", "--sites", tmp_path / "gptj.toml")
    (tmp_path / "gptj.toml").unlink()
    told = run("predict", tmp_path / "task", folder / "pool.csv", "--store", "none")
    assert len(told.stdout.splitlines()) == 5
