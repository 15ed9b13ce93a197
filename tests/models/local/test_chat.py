"""Chat templates: what an instruct model was taught to read, with the slot where it speaks."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose, assert_array_equal

from fewfit import FewShotClassifier, Template, load_model
from fewfit.errors import InputError, ModelError, ModelMismatchError
from fewfit.models.generation import Writing
from fewfit.models.local.chat import ChatTemplate
from fewfit.models.probe import probe
from fewfit.observations import Status
from fewfit.prompts import InContext
from tests.fake_server import SPECIAL, FakeServer, log_probabilities, tokenize
from tests.hf_checkpoints import build
from tests.models.remote.test_base import ids, model_of

# With a first token of its own, which the tokenizer would put there too, and a default system.
SOURCE = (
    "<s>{% if messages[0].role != 'system' %}<unk>system\nBe good.</s>\n{% endif %}"
    "{% for m in messages %}<unk>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<unk>assistant\n{% endif %}"
)
TEMPLATE = Template("{text} In summary, it was {mask}.")
WORDS = ("great", "bad")
TEXTS = ("the movie was fun", "", "odd </s> <unk>\n<s>", "the film was bad and sad " * 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = build("llama", tmp_path_factory.mktemp("chat") / "llama", positions=128)
    (path / "chat_template.jinja").write_text(SOURCE)
    return path


def prompts(*texts):
    return [TEMPLATE.render({"text": text}) for text in texts]


@pytest.mark.parametrize(
    ("options", "system", "prefix"),
    [("", None, ""), ("&prefix=It+was", None, "It was"), ("&system=Hush.", "Hush.", "")],
)
def test_scores_are_those_of_the_tokenizers_own_template(folder, options, system, prefix):
    model = load_model(f"hf:{folder}?chat=true&space=logprob{options}")
    answers = model.observe(prompts(*TEXTS[:2]), WORDS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for i, text in enumerate(TEXTS[:2]):
        said = [{"role": "user", "content": f"{text} In summary, it was"}]
        said = [{"role": "system", "content": system}] * (system is not None) + said
        whole = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        rows = []
        for word in WORDS:
            end = prefix + " " * bool(prefix) + word
            both = [
                tokenizer(whole + more, add_special_tokens=False)["input_ids"]
                for more in (prefix, end)
            ]
            assert both[1][: len(both[0])] == both[0]
            with torch.no_grad():
                logits = network(torch.tensor([both[1]])).logits[0].log_softmax(-1)
            steps = range(len(both[0]), len(both[1]))
            rows.append(sum(float(logits[t - 1, both[1][t]]) for t in steps))
        assert_allclose(answers.scores[i], rows, atol=1e-4)
        assert answers.n_tokens[i] == len(both[0])


def test_special_tokens_are_the_templates_alone(folder):
    model = load_model(f"hf:{folder}?chat=true")
    plain = model._read(prompts("odd"))
    odd = model._read(prompts(TEXTS[2]))
    found = [model._encoder.encode(rows, 128)[0].ids for rows in (plain, odd)]
    # 0 is also what is not in the vocabulary
    assert [[i for i in ids if i in (1, 2)] for ids in found] == [[1, 2, 2], [1, 2, 2]]


def test_a_long_text_is_cut_and_the_template_is_not(folder):
    model = load_model(f"hf:{folder}?chat=true")
    answers = model.observe(prompts(TEXTS[3]), WORDS)
    assert answers.status[0] == Status.TRUNCATED
    assert answers.n_tokens[0] <= 128
    cut = model._encoder.encode(model._read(prompts(TEXTS[3])), 100)[0].ids
    whole = model._encoder.encode(model._read(prompts("")), 128)[0].ids
    assert cut[-12:] == whole[-12:]
    with pytest.raises(InputError, match="tokens without any text"):
        load_model(f"hf:{folder}?chat=true&max_tokens=9").observe(prompts("x"), WORDS)


def test_turns_and_gaps(folder):
    view = InContext(TEMPLATE.source, n=1, turns=True, demonstrations=[({"text": "Fun"}, "great")])
    model = load_model(f"hf:{folder}?chat=true&prefix=It+is&system=Hush.")
    shown = model.show(view.render({"text": "Dull"}), WORDS)
    assert shown == (
        "<s><unk>system\nHush.</s>\n<unk>user\nFun In summary, it was</s>\n"
        "<unk>assistant\ngreat</s>\n<unk>user\nDull In summary, it was</s>\n<unk>assistant\nIt is "
    )
    gap = Template("{mask} news: {text}").render({"text": "x"})
    assert "<unk>user\n___ news: x</s>" in model.show(gap, WORDS)
    assert np.isfinite(model.observe([gap], WORDS).scores).all()
    assert load_model(f"hf:{folder}").show(gap, WORDS) == "{mask} news: x"


def test_identity_and_artifact_say_it(folder, tmp_path):
    specs = ("", "?chat=true", "?chat=true&prefix=It+is", "?chat=true&system=Hush.")
    models = [load_model(f"hf:{folder}{spec}") for spec in specs]
    identities = [tuple(sorted(model.identity.items())) for model in models]
    assert len(set(identities)) == 4
    for model in models:
        assert load_model(model.spec).identity == model.identity
        assert pickle.loads(pickle.dumps(model)).identity == model.identity
    options = {"template": TEMPLATE.source, "labels": {"n": "bad", "p": "great"}, "store": None}
    clf = FewShotClassifier(models[2], **options).fit(["it was fun", "so sad"] * 2, ["p", "n"] * 2)
    clf.save(tmp_path / "task")
    again = FewShotClassifier.load(tmp_path / "task", store=None, verify=True)
    assert_array_equal(again.predict_proba(["fun"]), clf.predict_proba(["fun"]))
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "chat_template.jinja").write_text(SOURCE.replace("Be good", "Be bad"))
    with pytest.raises(ModelMismatchError, match="chat was"):
        FewShotClassifier.load(
            tmp_path / "task", model=f"hf:{moved}?chat=true&prefix=It+is", store=None
        )


@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.json"])
def test_where_a_template_may_be(folder, tmp_path, file):
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        load_model(f"hf:{moved}?chat=true").observe(prompts("x"), WORDS)
    config = json.loads((moved / file).read_text()) if (moved / file).exists() else {}
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": SOURCE}]
    own = several if file == "tokenizer_config.json" else SOURCE
    (moved / file).write_text(json.dumps({**config, "chat_template": own}))
    found, right = (load_model(f"hf:{path}?chat=true") for path in (moved, folder))
    assert found.identity["chat"] == right.identity["chat"]


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("{{ raise_exception('no system') }}", InputError, "no system"),
        ("{% for m in", InputError, "does not take this"),
        ("hello", ModelError, "leaves out"),
    ],
)
def test_a_template_that_does_not_work_is_said(folder, source, error, says):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with pytest.raises(error, match=says):
        ChatTemplate(tokenizer, source, "it").wrap(prompts("x")[0], {})


def test_a_template_that_names_the_day_names_the_same_every_day(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    source = "{{ strftime_now('%d %b %Y') }} {{ messages[0].content }} {{ enable_thinking }}"
    shown = ChatTemplate(tokenizer, source, "it").wrap(prompts("x")[0], {}).text("")
    assert shown == "26 Jul 2024 x In summary, it was False"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("?system=Hi", "add chat=true"),
        ("?prefix=Hi", "add chat=true"),
        ("?chat=yes", "true or false"),
    ],
)
def test_options_without_a_chat_are_refused(folder, spec, says):
    with pytest.raises(InputError, match=says):
        load_model(f"hf:{folder}{spec}")


def test_a_masked_model_has_no_turns(tmp_path):
    path = build("bert", tmp_path / "bert")
    with pytest.raises(InputError, match="no causal model"):
        load_model(f"hf:{path}?chat=true").observe(prompts("x"), WORDS)


def test_doctor_shows_the_mass_with_the_template(folder):
    checks = {check.name: check for check in probe(load_model(f"hf:{folder}"), words=WORDS).checks}
    told = checks["chat template"]
    assert "with chat=true " in told.detail
    assert "with chat=true&prefix=It+was " in told.detail
    model = load_model(f"hf:{folder}?chat=true&space=logprob")
    prompt = Template("{text} It was {mask}.").render({"text": "x"})
    names = {check.name for check in model.check_fields(prompt, WORDS)}
    assert "chat template" not in names


# --- servers ----------------------------------------------------------------------------------


def test_a_servers_own_template():
    options = "&chat=true&system=Hush&prefix=It+is&top_k=200"
    texts = ("odd <|end|>", "two")
    with FakeServer() as server:
        model = model_of("llamacpp", server, options)
        answers = model.observe(prompts(*texts), WORDS)
        sent = [r.body["prompt"] for r in server.requests if r.path == "/completion"]
        assert sum(r.path == "/apply-template" for r in server.requests) == 1
        shown = model.show(prompts("two")[0], WORDS)
    user, end = SPECIAL["<|user|>"], SPECIAL["<|end|>"]
    start = [user, *tokenize("system Hush"), end, user, *tokenize("user ")]
    stop = [end, user, *tokenize("assistant It is")]
    asked = [tokenize(f"{text} In summary, it was") for text in texts]
    expected = [[*start, *own, *stop] for own in asked]
    assert sorted(sent) == sorted(expected)
    right = [log_probabilities(str(row))[ids(WORDS)] for row in expected]
    assert_allclose(answers.scores[:, 1], np.array(right)[:, 1], rtol=1e-6)
    assert shown == "Hush\n\ntwo In summary, it was"
    assert model.identity != model_of("llamacpp", server, "&top_k=200").identity
    with pytest.raises(InputError, match="add chat=true"):
        load_model("llamacpp:http://h?system=x")


@pytest.mark.parametrize("multi_token", ["first", "trie"])
def test_vllms_own_template(multi_token):
    """As above, but that the server reads special tokens in a text as such."""
    options = f"&chat=true&system=Hush&prefix=It+is&multi_token={multi_token}"
    words = ("good", "bad", "New York", "New Delhi") if multi_token == "trie" else WORDS
    with FakeServer() as server:
        model = model_of("vllm", server, options)
        answers = model.observe(prompts("one", "two"), words)
        sent = [r.body["prompt"] for r in server.requests if r.path == "/v1/completions"]
        assert sum(r.path == "/detokenize" for r in server.requests) == 1
        shown = model.show(prompts("two")[0], words)
        [(_, [written])] = model.write(prompts("two"), Writing(4))
        assert server.requests[-1].body["prompt"] in sent
    user, end = SPECIAL["<|user|>"], SPECIAL["<|end|>"]
    start = [user, *tokenize("system Hush"), end, user, *tokenize("user ")]
    stop = [end, user, *tokenize("assistant It is")]
    expected = [[*start, *tokenize(f"{text} In summary, it was"), *stop] for text in ("one", "two")]
    assert all(row in sent for row in expected)
    assert len(sent) == 2 * (1 + (multi_token == "trie"))
    if multi_token == "first":
        right = [
            log_probabilities(str(row))[[tokenize(f" {w}")[0] for w in words]] for row in expected
        ]
        assert_allclose(answers.scores, np.array(right), rtol=1e-6)
    else:
        assert_allclose(np.exp(answers.scores).sum(axis=1), 1, atol=1e-5)
    assert shown == "Hush\n\ntwo In summary, it was"
    assert written.text


def test_a_server_whose_template_leaves_out_what_is_said():
    from tests.fake_server import Reply

    def script(request, before):
        return Reply({"prompt": "hello"}) if request.path == "/apply-template" else None

    with FakeServer(script) as server, pytest.raises(ModelError, match="leaves out"):
        model_of("llamacpp", server, "&chat=true").observe(prompts("x"), WORDS)
