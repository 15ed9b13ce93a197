"""Label words of several tokens as a trie: in this process, on servers, from the command line."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from fewfit import load_model
from fewfit.cli.app import app
from fewfit.errors import CapabilityError, InputError, ModelWarning
from fewfit.observations import Status
from fewfit.prompts import Template
from fewfit.prompts.trie import NONE, REST, Trie
from tests.fake_server import TOKENS, FakeServer, hidden_state, log_probabilities, tokenize

TEMPLATE = Template("{text} It was {mask}.")
WORDS = ("New York", "New Delhi", "New", "good", "bad", "New Delhi bad")
TEXTS = ("one", "another text", "a third")


def prompts(template=TEMPLATE, texts=TEXTS):
    return [template.render({"text": text}) for text in texts]


def by_hand(next_log_probs, labels):
    """The definition: at each step the probability among the tokens that labels go on with."""
    found = []
    for label in labels:
        total = 0.0
        for n in range(len(label) + 1):
            going = [other for other in labels if other[:n] == label[:n]]
            tokens = sorted({other[n] for other in going if len(other) > n})
            ends = any(len(other) == n for other in going)
            if len(tokens) + ends < 2:
                continue
            p = np.exp(next_log_probs(label[:n]))
            rest = 1 - sum(p[t] for t in tokens)
            mass = sum(p[t] for t in tokens) + (rest if ends else 0)
            total += np.log((p[label[n]] if len(label) > n else rest) / mass)
        found.append(total)
    return np.array(found)


def test_a_label_ends_where_it_does_not_go_on():
    trie = Trie([[1, 2], [1], [3], [1, 2, 4]], separator=NONE, end=REST)
    rng = np.random.default_rng(0)
    log_p = {p: np.log(rng.dirichlet(np.ones(6))) for p in [(), (1,), (1, 2)]}
    found = trie.label_log_probs(log_p.__getitem__)
    assert_allclose(found, by_hand(log_p.__getitem__, trie.labels))
    assert np.exp(found).sum() == pytest.approx(1)
    assert set(trie.branchings) == set(log_p)
    many = {
        p: np.stack([values, np.roll(values, 1)])[:, [t for t in trie.branchings[p] if t != REST]]
        for p, values in log_p.items()
    }
    assert_allclose(trie.combine(many)[0], found)
    assert_allclose(np.exp(trie.combine(many)).sum(axis=1), 1)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("space", ["logit", "logprob"])
def test_a_model_of_this_process_scores_them_so(tmp_path, kind, space):
    torch = pytest.importorskip("torch")
    from tests.hf_checkpoints import build

    folder = build(kind, tmp_path / kind)
    words = ("New York", "New Delhi", "great", "bad", "great movie")
    template = Template("{text} It was {mask}")
    rows = prompts(template, ["the movie was fun", "bad"])
    answers = load_model(f"hf:{folder}?multi_token=trie&space={space}").observe(rows, words)
    plain = load_model(f"hf:{folder}?space=logprob").observe(rows, words)
    assert_allclose(np.exp(answers.scores).sum(axis=1), 1, atol=1e-5)
    assert_allclose(answers.hidden, plain.hidden, atol=1e-5)
    if kind == "t5":  # read elsewhere; the tokens are those of a causal model below
        assert not np.allclose(answers.scores, plain.scores)
        return
    model = load_model(f"hf:{folder}")
    own = model._encoder
    frame = next(iter(model._groups(rows)))
    labels = own.word_ids(frame, words)
    network = model._network.model
    for row, found in zip(rows, answers.scores, strict=True):
        [item] = own.encode([row], 64)

        def after(prefix, ids=item.ids):
            with torch.inference_mode():
                return network(torch.tensor([[*ids, *prefix]])).logits[0, -1].log_softmax(-1)

        assert_allclose(found, by_hand(lambda p: after(p).numpy(), labels), atol=1e-4)
    assert load_model(f"hf:{folder}?multi_token=trie").identity != model.identity


def test_what_has_no_tokens_in_a_row_is_refused(tmp_path):
    pytest.importorskip("torch")
    from tests.hf_checkpoints import build

    folder = build("bert", tmp_path / "bert")
    with pytest.raises(InputError, match="no token after the other"):
        load_model(f"hf:{folder}?multi_token=trie").observe(prompts(), ("great", "bad"))
    for spec in ("openai:http://127.0.0.1:1?model=toy&multi_token=trie", "embedded:trie"):
        with pytest.raises(InputError):
            load_model(spec)


@pytest.mark.parametrize("scheme", ["vllm", "sglang", "llamacpp", "llamacpp:hidden", "vllm:hidden"])
def test_a_server_scores_them_so(scheme):
    """The toy server's next token depends on the text, or on the tokens, that it is sent."""
    kind, _, second = scheme.partition(":")
    with FakeServer() as server:
        more = f"&hidden={server.url}" * bool(second) + "&top_k=500" * (kind == "llamacpp")
        model = load_model(f"{kind}:{server.url}?model=toy&multi_token=trie{more}")
        answers = model.observe(prompts(), WORDS)
        paths = [request.path for request in server.requests]
    labels = [tuple(tokenize(f" {word}")) for word in WORDS]
    trie = Trie(labels, separator=NONE, end=REST)
    for text, found in zip(TEXTS, answers.scores, strict=True):
        before = f"{text} It was"

        def after(prefix, before=before):
            ids = [*tokenize(before), *prefix]
            in_tokens = kind == "llamacpp" or prefix
            return log_probabilities(str(ids) if in_tokens else before)

        assert_allclose(found, by_hand(after, labels), atol=1e-5)
    asked = [p for p in paths if p in ("/v1/completions", "/generate", "/completion")]
    assert len(asked) == len(TEXTS) * len(trie.branchings)
    assert answers.queries == len(TEXTS)
    if kind == "sglang":
        assert_allclose(answers.hidden[0], hidden_state("one It was"))
    elif second:
        assert answers.hidden.shape == (3, 12)


def test_unlisted_tokens_are_bounds_and_a_row_of_them_has_no_answer():
    with FakeServer() as server:
        spec = f"llamacpp:{server.url}?multi_token=trie"
        whole = load_model(f"{spec}&top_k=500").observe(prompts(), WORDS)
        some = load_model(f"{spec}&top_k=40").observe(prompts(), WORDS)
        assert some.censored.any()
        assert not some.censored.all(axis=1).any()
        bound = some.scores[some.censored] - whole.scores[some.censored]
        assert (bound > -1e-6).all(), "never below what it is"
        with pytest.warns(ModelWarning, match="none of the label words"):
            none = load_model(f"{spec}&top_k=1").observe(
                prompts(), ("New York", "New Delhi", "bad")
            )
        assert (none.status == Status.FAILED).any()
        twins = load_model(spec)
        assert "multi_token" in twins.identity


def test_many_labels_at_one_branching():
    words = [TOKENS[i] for i in range(len(TOKENS)) if TOKENS[i].isalpha() and len(TOKENS[i]) == 1]
    words = [f"{a}{b}{c}" for a in words[:6] for b in words[:6] for c in words[:4]]
    with FakeServer() as server:
        template = Template("{text}:{mask}")
        first = load_model(f"vllm:{server.url}?model=toy")
        with pytest.raises(CapabilityError, match="144 label words"):
            first.capabilities.check(frozenset(), who="it", n_words=len(words))
        model = load_model(f"vllm:{server.url}?model=toy&multi_token=trie")
        model.capabilities.check(frozenset(), who="it", n_words=len(words))
        answers = model.observe(prompts(template, ["one"]), words)
    assert_allclose(np.exp(answers.scores).sum(), 1, atol=1e-5)


def test_a_taxonomy_from_the_command_line(tmp_path):
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["text", "label"])
        rows.writerows([[f"text {i}", WORDS[i % 3]] for i in range(12)])
    (tmp_path / "x.csv").write_text("text,label\nnew,New York\nnewer,New\nnewest,New Delhi\n")
    (tmp_path / "tax.txt").write_text("New York\nNew Delhi\n\nNew\tgood\nThe bad\tbad\n")

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    table, taxonomy = tmp_path / "t.csv", ("--taxonomy", tmp_path / "tax.txt")
    ask = ("--template", "{text} It was {mask}.")
    with FakeServer() as server:
        model = ("--model", f"vllm:{server.url}?model=toy")
        fit = ("fit", table, "-o", tmp_path / "a", *model, *ask, "--json", *taxonomy)
        done = run(*fit)
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout.splitlines()[-1])
        assert told["classes"] == sorted(["New", "New Delhi", "New York", "The bad"])
        manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
        assert "multi_token=trie" in manifest["model_spec"]
        assert run("predict", tmp_path / "a", tmp_path / "x.csv").exit_code == 0
        methods = ("--methods", "zero-shot", "--shots", "2", "--seeds", 1)
        compared = run("compare", table, tmp_path / "x.csv", *model, *ask, *taxonomy, *methods)
        assert compared.exit_code == 0, compared.output
        assert "1 labels of the taxonomy have no training row" in compared.output
        for wrong, said in (
            (("--label", "a=b"), "leave out --label"),
            (("--model", "embedded"), "no probabilities of tokens"),
            (
                ("--model", f"vllm:{server.url}?model=toy&multi_token=first"),
                "leave multi_token out",
            ),
        ):
            refused = run(*fit, *wrong)
            assert refused.exit_code == 2, refused.output
            assert said in " ".join(refused.output.split())
    for content, said in (("a\n", "two are the least"), ("a\nb\na\n", "stands there twice")):
        (tmp_path / "tax.txt").write_text(content)
        assert said in " ".join(run(*fit).output.split())
    (tmp_path / "tax.txt").unlink()
    assert "cannot be read" in " ".join(run(*fit).output.split())


def test_the_head_for_several_labels_beside_the_others(tmp_path):
    from fewfit.compare import compare
    from fewfit.decoders import MultiLabel
    from fewfit.models import FakeModel

    train = [f"{word} {i}" for i in range(6) for word in ("good", "bad", "so so")]
    y = ["good", "bad", "mixed"] * 6
    test = [f"{word} {i}" for i in range(6, 12) for word in ("good", "bad", "so so")]
    model = FakeModel()
    found = compare(
        *(train, y, test, y),
        template=TEMPLATE,
        labels={"good": "good", "bad": "bad", "mixed": "so"},
        methods=["multi-label", "linear-probe"],
        models=[model],
        shots=[6],
        seeds=1,
        store=None,
    )
    hidden = model.observe(prompts(texts=train), ("a",)).hidden
    held = model.observe(prompts(texts=test), ("a",)).hidden
    expected = (MultiLabel().fit(hidden, y).predict(held) == np.array(y)).mean()
    [head] = [row for row in found.summaries if row.method == "multi-label"]
    assert head.accuracy == pytest.approx(expected)
    assert head.parameters == 3 * (hidden.shape[1] + 1)
    with pytest.raises(InputError, match="not one of"):
        compare(train, y, test, y, methods=["multi-label+batch"], models=[model])
