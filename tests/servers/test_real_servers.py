"""fit, predict and doctor against servers that nobody here wrote; see run.sh."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from fewfit import DecT, FewShotClassifier, Template, load_model
from fewfit.cli import app
from fewfit.errors import ModelWarning
from fewfit.store import StoredModel

SERVERS = os.environ.get("FEWFIT_SERVERS")
SHARED = Path(os.environ.get("FEWFIT_SHARED", "../shared"))
CHECKPOINT = SHARED / "models" / "stories260K"

pytestmark = [
    pytest.mark.skipif(not SERVERS, reason="real servers: make test-servers"),
    pytest.mark.filterwarnings("ignore::fewfit.errors.ModelWarning"),
]

TEMPLATE = "{text} She was very {mask}"
WORDS = ("happy", "sad")
TEXTS = [
    "Lily got a new ball and played all day.",
    "Her best friend went away and Lily cried.",
    "Mom gave Lily a big cake and a kiss.",
    "The toy was broken and Lily was alone.",
]
Y = ["good", "bad", "good", "bad"]
LABELS = {"good": "happy", "bad": "sad"}


def started(command, path, log):
    """Run a server until the test is over; wait until `path` answers."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=output, stderr=output, env=os.environ.copy()
        )
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                try:
                    urllib.request.urlopen(url + path, timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()[-2000:]
                    time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    gguf, python = folder / "stories260K.gguf", f"{SERVERS}/bin/python"
    script = Path(__file__).parent / "make_gguf.py"
    subprocess.run([python, str(script), str(CHECKPOINT), str(gguf)], check=True)
    command = [python, "-m", "llama_cpp.server", "--model", str(gguf)]
    command += ["--model_alias", "stories", "--n_ctx", "512", "--host", "127.0.0.1"]
    command += ["--logits_all", "true", "--embedding", "true"]
    yield from started(command, "/v1/models", folder / "log")


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    checkpoint = shutil.copytree(CHECKPOINT, folder / "stories")
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (checkpoint / "chat_template.jinja").write_text(template)
    run = "from transformers.cli.transformers import main; main()"
    command = [f"{SERVERS}/bin/python", "-c", run, "serve", str(checkpoint), "--device", "cpu"]
    for url in started(command, "/health", folder / "log"):
        yield url, checkpoint


def rendered():
    return [Template(TEMPLATE).render({"text": text}) for text in TEXTS]


def test_llama_scores_and_hidden_states_are_those_of_the_checkpoint(llama):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = load_model(f"openai:{llama}?model=stories&top_k=512&hidden={llama}&connections=2")
    answers = model.observe(rendered(), WORDS)

    tokenizer = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    network = transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    ids = [tokenizer(f"She was very {word}")["input_ids"] for word in WORDS]
    common = len(tokenizer("She was very")["input_ids"])
    assert answers.scores is not None
    assert answers.hidden is not None
    for i, text in enumerate(TEXTS):
        encoded = tokenizer(f"{text} She was very", return_tensors="pt")
        assert answers.n_tokens[i] == encoded["input_ids"].shape[1]
        with torch.inference_mode():
            out = network(**encoded, output_hidden_states=True)
        expected = out.logits[0, -1].log_softmax(-1).numpy()
        for j in range(2):
            token = ids[j][common]
            if len(ids[j]) == common + 1:
                assert_allclose(answers.scores[i, j], expected[token], atol=2e-2)
        assert_allclose(answers.hidden[i], out.hidden_states[-1][0, -1].numpy(), atol=0.1)


def test_llama_fit_predict_and_save_with_dect(llama, tmp_path):
    spec = f"openai:{llama}?model=stories&top_k=512&hidden={llama}&connections=2"
    classifier = FewShotClassifier(
        spec,
        template=TEMPLATE,
        labels=LABELS,
        decoder=DecT(),
        store=tmp_path / "s.sqlite",
        max_censored=1.0,
    ).fit(TEXTS, Y)
    assert classifier.n_queries_ == 5
    again = FewShotClassifier(
        spec,
        template=TEMPLATE,
        labels=LABELS,
        decoder=DecT(),
        store=tmp_path / "s.sqlite",
        max_censored=1.0,
    ).fit(TEXTS, Y)
    assert again.n_queries_ == 0
    classifier.save(tmp_path / "artifact")
    loaded = FewShotClassifier.load(tmp_path / "artifact", store=None, verify=True)
    probabilities = loaded.predict_proba(["Lily laughed with her mom."])
    assert probabilities.shape == (1, 2)
    assert probabilities.sum() == pytest.approx(1)


def test_llama_from_the_command_line(llama, tmp_path):
    rows = "\n".join(f'"{text}",{label}' for text, label in zip(TEXTS, Y, strict=True))
    (tmp_path / "train.csv").write_text(f"text,label\n{rows}\n")
    spec = f"openai:{llama}?model=stories&top_k=512&hidden={llama}"
    command = ["fit", str(tmp_path / "train.csv"), "-o", str(tmp_path / "a"), "--model", spec]
    command += ["--template", TEMPLATE, "--label", "good=happy", "--label", "bad=sad", "--doctor"]
    command += ["--store", str(tmp_path / "s.sqlite"), "--json"]
    run = CliRunner().invoke
    done = run(app, [*command, "--max-queries", "3"])
    assert done.exit_code in (0, 6), done.output
    done = run(app, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output.splitlines()[-1])["queries"] == 2
    done = run(app, ["predict", str(tmp_path / "a"), str(tmp_path / "train.csv")])
    assert done.exit_code == 0, done.output
    assert len(done.output.strip().splitlines()) >= 5


@pytest.mark.parametrize("scheme", ["openai", "openai-chat"])
def test_llama_doctor(llama, scheme):
    done = CliRunner().invoke(
        app, ["doctor", f"{scheme}:{llama}?model=stories&top_k=100", "--words", "very,a", "--json"]
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    checks = {check["name"]: check for check in report["checks"]}
    assert report["queries"] <= 5
    assert checks["asked again, words reversed"]["value"] < 0.05
    assert checks["another text"]["outcome"] == "ok"
    assert checks["label mass"]["value"] > 0


def test_llama_resumes(llama, tmp_path):
    spec = f"openai:{llama}?model=stories&top_k=512"
    model = StoredModel(load_model(spec), tmp_path / "s.sqlite")
    model.observe(rendered()[:2], WORDS)
    assert model.observe(rendered(), WORDS).queries == 2


@pytest.mark.parametrize("scheme", ["openai", "openai-chat"])
def test_transformers_serve_ignores_logprobs_and_that_is_said(transformers_serve, scheme):
    url, checkpoint = transformers_serve
    spec = f"{scheme}:{url}?model={checkpoint}&retries=0"
    done = CliRunner().invoke(app, ["doctor", spec])
    assert done.exit_code == 3, done.output
    assert f"served_as={checkpoint}@main" in done.output, "it answers under another name"
    spec = f"{spec}&served_as={checkpoint}@main"
    done = CliRunner().invoke(app, ["doctor", spec, "--json"])
    assert done.exit_code == 3, done.output
    said = " ".join(check["detail"] for check in json.loads(done.output)["checks"])
    assert "the reply has no logprobs" in said
    with pytest.warns(ModelWarning, match="no logprobs"):
        answers = load_model(spec).observe(rendered(), WORDS)
    assert np.isnan(answers.label_mass).all()
