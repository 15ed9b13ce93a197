"""Frozen models behind HTTP: what they send, what they read, and every fault of a server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fewfit import FewShotClassifier, Template, ZeroShot, load_model
from fewfit.errors import (
    BudgetExceededError,
    CapabilityError,
    InputError,
    ModelError,
    ModelWarning,
)
from fewfit.estimators.opening import open_model
from fewfit.models.budget import BudgetedModel
from fewfit.models.remote import transport
from fewfit.models.remote.guard import GIVE_UP
from fewfit.observations import Status
from fewfit.store import StoredModel, tables
from tests import faults, warm
from tests.fake_server import (
    TOKENS,
    FakeServer,
    Reply,
    edited,
    hidden_state,
    log_probabilities,
    tokenize,
    top_bound,
)
from tests.warm import Program

WORDS = ("good", "bad")


TEMPLATE = Template("{text} It was {mask}.")


QUICK = "backoff=0.001&timeout=10&deadline=20&connections=4"  # a busy machine takes its time


SCHEMES = {
    "openai": "/v1",
    "openai-chat": "",
    "vllm": "/v1/",
    "sglang": "",
    "llamacpp": "/",
    "ollama": "",
    "embeddings": "/v1",
    "tei": "",
}


def prompts(*texts):
    return [TEMPLATE.render({"text": text}) for text in texts]


def model_of(scheme, server, options=""):
    return load_model(
        f"{scheme}:{server.url}{SCHEMES.get(scheme, '/v1')}?model=toy&{QUICK}{options}"
    )


def with_hidden(scheme, server):
    hidden = scheme in ("openai", "openai-chat", "vllm", "llamacpp", "ollama")
    return model_of(scheme, server, f"&hidden={server.url}" if hidden else "")


def ids(words=WORDS):
    return [TOKENS.index(" " + word) for word in words]


@pytest.mark.parametrize("scheme", ["vllm", "sglang", "llamacpp"])
def test_scores_and_hidden_states_are_those_of_the_server(scheme):
    texts = [f"text number {i}" for i in range(30)]
    with FakeServer() as server:
        model = with_hidden(scheme, server)
        answers = model.observe(prompts(*texts), WORDS)
        sent = server.queries()
    before = [f"{text} It was" for text in texts]
    assert sorted(sent) == sorted(before), "the text up to the slot, without the space before it"
    expected = np.array([log_probabilities(text)[ids()] for text in before])
    assert_allclose(answers.scores, expected, rtol=1e-6)
    assert_allclose(answers.label_mass, np.exp(expected).sum(axis=1), rtol=1e-5)
    assert_array_equal(answers.hidden, [hidden_state(text) for text in before])
    assert_array_equal(answers.n_tokens, [len(tokenize(text)) for text in before])
    assert answers.queries == 30
    assert model.capabilities.hidden


@pytest.mark.parametrize(
    ("scheme", "k"), [("openai", 5), ("openai-chat", 20), ("ollama", 20), ("llamacpp", 7)]
)
def test_words_outside_the_top_k_get_the_bound_and_are_counted(scheme, k):
    texts = [f"text number {i}" for i in range(40)]
    with FakeServer() as server:
        answers = model_of(scheme, server, f"&top_k={k}").observe(prompts(*texts), WORDS)
    assert answers.censored is not None
    assert answers.scores is not None
    seen = {True: 0, False: 0}
    for i, text in enumerate(texts):
        values = log_probabilities(f"{text} It was")
        listed = np.argsort(-values)[:k]
        spelled = [[TOKENS.index(" " + w), TOKENS.index(w)] for w in WORDS]
        if scheme == "llamacpp":
            spelled = [[TOKENS.index(" " + w)] for w in WORDS]
        for j, tokens in enumerate(spelled):
            found = [values[t] for t in tokens if t in listed]
            censored = bool(answers.censored[i, j])
            seen[censored] += 1
            assert censored == (not found)
            bound = top_bound(f"{text} It was", k)
            expected = np.logaddexp.reduce(found) if found else bound
            assert answers.scores[i, j] == pytest.approx(expected, rel=1e-5)
            assert not censored or max(values[tokens]) <= bound + 1e-9, "it is a bound"
    assert min(seen.values()) > 0, "the case has both kinds"


@pytest.mark.parametrize("scheme", ["embeddings", "tei"])
def test_embeddings_are_scored_against_label_sentences(scheme):
    with FakeServer() as server:
        answers = model_of(scheme, server).observe(prompts("one", "two", ""), WORDS)
        sent = server.queries()
    texts = ["one", "two", " "]
    assert sorted(sent) == sorted([*texts, "It was good. It was bad."]), "one request for labels"
    rows = np.array([hidden_state(text) for text in texts])
    labels = np.array([hidden_state(f"It was {word}.") for word in WORDS])
    cosine = (rows @ labels.T) / np.outer(
        np.linalg.norm(rows, axis=1), np.linalg.norm(labels, axis=1)
    )
    assert_allclose(answers.scores, cosine, rtol=1e-5)
    assert_array_equal(answers.hidden, rows)


@pytest.mark.parametrize("scheme", ["embeddings", "tei"])
def test_two_fields_are_two_texts_of_one_request_and_one_query(scheme):
    pair = Template("{a} ? {mask}, {b}")
    asked = [pair.render({"a": "one", "b": "two"}), pair.render({"a": "one", "b": ""})]
    with FakeServer() as server:
        answers = model_of(scheme, server).observe(asked, WORDS)
        sent = server.queries()
    assert sorted(sent) == sorted(["one two", "one  ", "? good, ? bad,"])
    assert answers.queries == 2
    u, v = (hidden_state(text) / np.linalg.norm(hidden_state(text)) for text in ("one", "two"))
    by_hand = np.concatenate([u, v, abs(u - v), u * v * len(u) ** 0.5])
    assert_allclose(answers.hidden[0], by_hand, rtol=1e-5, atol=1e-7)
    label = hidden_state("? good,")
    cosine = (u + v) @ label / np.linalg.norm(u + v) / np.linalg.norm(label)
    assert_allclose(answers.scores[0, 0], cosine, rtol=1e-5)


def test_embeddings_out_of_order_are_put_in_order():
    def shuffled(request, before):
        data = request.honest.body["data"]
        return edited(request.honest, "data", to=data[::-1])

    with FakeServer(shuffled) as server, FakeServer() as honest:
        answers = model_of("embeddings", server).observe(prompts("one"), WORDS)
        expected = model_of("embeddings", honest).observe(prompts("one"), WORDS)
    assert_array_equal(answers.scores, expected.scores)


def test_two_tokens_of_the_same_text_add_up():
    def doubled(request, before):
        top = [
            {"token": "good", "logprob": np.log(0.25)},
            {"token": "good", "logprob": np.log(0.5)},
        ]
        return edited(
            request.honest, "choices", 0, "logprobs", "content", 0, "top_logprobs", to=top
        )

    with FakeServer(doubled) as server:
        answers = model_of("openai-chat", server).observe(prompts("x"), WORDS)
    assert answers.scores is not None
    assert answers.scores[0, 0] == pytest.approx(np.log(0.75))


def test_a_word_of_several_tokens_is_scored_by_its_first_with_a_warning():
    with FakeServer() as server:
        model = model_of("vllm", server)
        with pytest.warns(ModelWarning, match="several tokens"):
            answers = model.observe(prompts("x"), ["New York", "bad"])
        expected = log_probabilities("x It was")[ids(["New", "bad"])]
        assert_allclose(answers.scores, expected[None], rtol=1e-6)
        asked = len(server.queries())
        with pytest.raises(InputError, match="same token"):
            model.observe(prompts("x"), ["New York", "New Delhi"])
        for scheme in ("vllm", "sglang", "llamacpp"):  # whose tokenizer takes digits one by one
            with pytest.raises(InputError, match="'1' and '12' begin with the same token"):
                model_of(scheme, server).observe(prompts("x"), ["1", "12"])
        assert len(server.queries()) == asked


def test_the_form_of_a_word_depends_on_what_is_before_the_slot():
    with FakeServer() as server:
        model = model_of("vllm", server)
        tight = [Template("{text} It was ({mask})").render({"text": "x"})]
        answers = model.observe(tight, WORDS)
        assert server.queries() == ["x It was ("]
    expected = log_probabilities("x It was (")[[TOKENS.index("good"), TOKENS.index("bad")]]
    assert_allclose(answers.scores, expected[None], rtol=1e-6)


@pytest.mark.parametrize("source", ["{mask}: {text}", "{text} was {mask}, said {who}"])
def test_text_after_the_slot_that_a_causal_model_would_not_read_is_refused(source):
    with FakeServer() as server:
        prompt = Template(source).render({"text": "x", "who": "y"})
        with pytest.raises(InputError, match="left to right"):
            model_of("openai", server).observe([prompt], WORDS)
        assert not server.requests


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: f"{fault.code}: {fault.what}")
def test_fault(fault, monkeypatch):
    monkeypatch.setattr(transport, "BODY_LIMIT", 2**19)
    texts = ["one", "two", "three FAULT", "four", "five", "six"]

    def script(request, before):
        hit = "FAULT" in request.text and (fault.times is None or before < fault.times)
        return fault.reply(request) if hit else None

    with FakeServer(script) as server, FakeServer() as honest:
        seconds = "timeout=0.4&deadline=2" if fault.code == "A3" else "timeout=10&deadline=20"
        patience = f"backoff=0.001&{seconds}&retries=3&connections=1"
        options = f"?model=toy&{patience}{fault.options}"
        model = load_model(f"{fault.dialect}:{server.url}{options}")
        expected = model_of(fault.dialect, honest, fault.options).observe(prompts(*texts), WORDS)
        if fault.outcome == "stops":
            with pytest.raises(ModelError, match=fault.says):
                model.observe(prompts(*texts), WORDS)
            assert model.retries == 0, "what is hopeless is not tried again"
            return
        if fault.outcome == "row":
            with pytest.warns(ModelWarning, match=fault.says):
                answers = model.observe(prompts(*texts), WORDS)
        else:
            answers = model.observe(prompts(*texts), WORDS)
        asked = [text for text in server.queries() if "FAULT" in text]
    good = np.arange(6) != 2
    assert (answers.status[good] == Status.OK).all()
    assert_array_equal(answers.scores[good], expected.scores[good])
    if fault.outcome == "row":
        assert answers.status[2] == Status.FAILED
        assert np.isnan(answers.scores[2]).all()
        assert answers.hidden is None or np.isnan(answers.hidden[2]).all()
    else:
        assert answers.status[2] == Status.OK
        assert model.retries == fault.retries
    assert len(asked) == 1 + model.retries, "every attempt is counted"
    assert answers.queries == 6, "a retry is not a query"


def test_the_document_lists_the_faults_that_are_tried():
    assert faults.table() in faults.DOCUMENT.read_text(encoding="utf-8"), (
        "python -m tests.faults writes it"
    )


LABELS = {"neg": "bad", "pos": "good"}


def failing(*marks):
    def script(request, before):
        hit = request.path == "/generate" and any(mark in request.text for mark in marks)
        return Reply({}, 400) if hit else None

    return script


def classifier_of(server, store=None, scheme="sglang", **options):
    spec = f"{scheme}:{server.url}?model=toy&{QUICK}"
    return FewShotClassifier(spec, template=TEMPLATE.source, labels=LABELS, store=store, **options)


def test_failed_rows_raise_by_default_and_are_all_that_is_asked_again(tmp_path):
    texts, y = ["a", "b", "c BAD", "d"], ["neg", "pos", "neg", "pos"]
    with FakeServer(failing("BAD")) as server:
        classifier = classifier_of(server, tmp_path / "s.sqlite")
        with (
            pytest.warns(ModelWarning, match="HTTP 400"),
            pytest.raises(ModelError, match="1 of 5"),
        ):
            classifier.fit(texts, y)
        server.script = None
        server.requests.clear()
        classifier.fit(texts, y)
        assert server.queries() == ["c BAD It was"]
        assert classifier.n_queries_ == 1


def test_failed_rows_are_left_out_of_fit_and_nan_in_predict_proba(tmp_path):
    texts, y = ["a", "b", "c BAD", "d"], ["neg", "pos", "neg", "pos"]
    with FakeServer(failing("BAD")) as server:
        classifier = classifier_of(server, tmp_path / "s.sqlite", errors="nan")
        with pytest.warns(ModelWarning) as caught:
            classifier.fit(texts, y)
        assert any("left out" in str(w.message) for w in caught)
        clean = classifier_of(server, tmp_path / "s.sqlite").fit(
            ["a", "b", "d"], ["neg", "pos", "pos"]
        )
        with pytest.warns(ModelWarning):
            probabilities = classifier.predict_proba(["e", "f BAD", "g"])
        assert_array_equal(probabilities[[0, 2]], clean.predict_proba(["e", "g"]))
        assert np.isnan(probabilities[1]).all()
        with pytest.warns(ModelWarning), pytest.raises(ModelError, match="no label"):
            classifier.predict(["e", "f BAD"])
        with pytest.warns(ModelWarning):
            assert np.isnan(classifier.predict_proba(["h BAD"])).all(), "all rows failed"
        assert classifier.n_examples_ == 3
        with pytest.warns(ModelWarning), pytest.raises(ModelError, match="class 'neg'"):
            classifier.fit(["a BAD", "b"], ["neg", "pos"])
        server.script = failing(" It was")
        blank = classifier_of(server, tmp_path / "new.sqlite", errors="nan")
        with pytest.warns(ModelWarning), pytest.raises(ModelError):
            blank.fit(["a", "b"], ["neg", "pos"])


def test_errors_is_checked_before_anything_is_asked():
    with FakeServer() as server:
        with pytest.raises(InputError, match="errors"):
            classifier_of(server, errors="ignore").fit(["a", "b"], ["neg", "pos"])
        assert not server.requests


def only_good(request, before):
    """Replies whose most probable tokens are " good" and no other label word."""
    top = {f"w{i}": float(np.log(0.15)) for i in range(4)}
    return edited(request.honest, *faults.TOP, to={**top, " good": np.log(0.2)})


def test_fitting_on_bounds_is_refused_above_the_rate_and_reported_below(tmp_path):
    texts, y = ["a", "b", "c"], ["neg", "pos", "odd"]
    with FakeServer(only_good) as server:
        options = {"store": tmp_path / "s.sqlite", "template": TEMPLATE.source}
        spec, three = f"openai:{server.url}?model=toy&{QUICK}", {**LABELS, "odd": "great"}
        with (
            pytest.warns(ModelWarning, match="upper bounds"),
            pytest.raises(CapabilityError, match="67%"),
        ):
            FewShotClassifier(spec, labels=three, **options).fit(texts, y)
        asked = len(server.requests)
        with pytest.warns(ModelWarning, match="upper bounds"):
            FewShotClassifier(
                spec, labels=three, max_censored=0.8, decoder=ZeroShot(), **options
            ).fit(texts, y)
        assert len(server.requests) == asked, "all answers, censored ones too, were stored"
        with pytest.warns(ModelWarning, match="50% .* upper bounds"):
            FewShotClassifier(spec, labels=LABELS, decoder=ZeroShot(), **options).fit(
                ["a", "b"], ["neg", "pos"]
            )


def test_more_classes_than_the_server_lists_are_refused_before_any_query():
    labels = {f"c{i}": f"word{i}" for i in range(30)}
    with FakeServer() as server:
        classifier = FewShotClassifier(
            f"openai:{server.url}?model=toy", labels=labels, decoder=ZeroShot(), store=None
        )
        with pytest.raises(CapabilityError, match="5 most probable"):
            classifier.fit([f"t{i}" for i in range(30)], list(labels))
        assert not server.requests


def test_the_store_keeps_what_is_censored(tmp_path):
    texts = [f"text {i}" for i in range(30)]
    words = ["good", "bad", "great", "It", "was", "New", "York", "Delhi", "7", "8"]
    with FakeServer() as server:
        model = StoredModel(model_of("openai", server), tmp_path / "s.sqlite")
        first = model.observe(prompts(*texts), words)
        second = model.observe(prompts(*texts), words)
    assert second.queries == 0
    assert first.censored is not None
    assert second.censored is not None
    assert 0 < first.censored.mean() < 1
    assert_array_equal(first.censored, second.censored)
    assert_array_equal(first.scores, second.scores)


def test_a_class_is_censored_if_all_its_words_are():
    with FakeServer() as server:
        answers = model_of("openai", server).observe(
            prompts(*[f"text {i}" for i in range(60)]), ["good", "bad", "great"]
        )
    assert answers.censored is not None
    reduced = answers.by_class(["a", "b"], [1, 0, 0])
    assert reduced.censored is not None
    assert_array_equal(reduced.censored[:, 0], answers.censored[:, 1] & answers.censored[:, 2])
    assert_array_equal(reduced.censored[:, 1], answers.censored[:, 0])
    assert 0 < reduced.censored[:, 0].mean() < 1


def test_the_budget_stops_before_it_is_exceeded_and_a_second_run_goes_on(tmp_path):
    texts = [f"text {i}" for i in range(50)]
    with FakeServer() as server:
        spec = f"sglang:{server.url}?model=toy&{QUICK}"
        path = tmp_path / "s.sqlite"
        for asked, left in ((20, 30), (20, 10)):
            before = len(server.queries())
            with pytest.raises(BudgetExceededError, match=rf"{asked} prompts .* {left} are left"):
                open_model(spec, path, 20).observe(prompts(*texts), WORDS)
            assert len(server.queries()) == before + 20
        model = open_model(spec, path, 20)
        assert model.observe(prompts(*texts), WORDS).queries == 10
        assert sorted(server.queries()) == sorted(f"{t} It was" for t in texts), "each once"
        more = [f"more {i}" for i in range(11)]
        with pytest.raises(BudgetExceededError, match="10 prompts"):
            model.observe(prompts(*more), WORDS)
        with pytest.raises(BudgetExceededError, match="Nothing was asked"):
            open_model(spec, None, 5).observe(prompts(*texts), WORDS)
        with pytest.raises(InputError, match="max_queries"):
            open_model(spec, path, -1)


def test_killed_and_run_again_nothing_answered_is_asked_again(tmp_path):
    texts = [f"text {i}" for i in range(150)]
    program = """
        import sys
        from fewfit import Template
        from fewfit.estimators.opening import open_model
        template = Template("{text} It was {mask}.")
        prompts = [template.render({"text": f"text {i}"}) for i in range(150)]
        answers = open_model(sys.argv[1], sys.argv[2]).observe(prompts, ["good", "bad"])
        print(answers.queries, answers.scores.sum())
        """
    with FakeServer(lambda request, n: replace(request.honest, delay=0.05)) as server:
        spec = f"sglang:{server.url}?model=toy&connections=4"
        for how in (signal.SIGKILL, signal.SIGINT):
            before = len(server.queries())
            process = Program(program, spec, tmp_path / "s.sqlite")
            while len(server.queries()) < before + 50 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(how)
            assert process.wait(20) != 0
        said = warm.run(program, spec, tmp_path / "s.sqlite")
        asked = server.queries()
    twice = len(asked) - len(set(asked))
    # In flight at a kill: 4 requests, and what 4 connections can do in the 50 ms of a group, or
    # while a busy disk takes some of those together.
    assert twice <= 2 * (4 + 4 * 4)
    assert len(set(asked)) == 150
    expected = sum(log_probabilities(f"{t} It was")[ids()].sum() for t in texts)
    assert float(said.split()[1]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_what_had_arrived(tmp_path):
    texts = [f"text {i}" for i in range(100)]
    struck, over = threading.Event(), threading.Event()

    def script(request, before):
        if struck.is_set():
            over.wait(2)  # on a busy machine it takes a while until the key is heard
        elif "text 50 " in request.text and before == 0:
            struck.set()
            os.kill(os.getpid(), signal.SIGINT)
        return replace(request.honest, delay=0.005)

    with FakeServer(script) as server:
        model = StoredModel(model_of("sglang", server), tmp_path / "s.sqlite")
        with pytest.raises(KeyboardInterrupt):
            model.observe(prompts(*texts), WORDS)
        over.set()
        first = set(server.queries())
        answers = model.observe(prompts(*texts), WORDS)
        again = server.queries()[len(first) :]
    assert len(first) < 100
    assert len(set(again) & first) <= 8, "no more than was under way"
    assert answers.queries == len(again)


@pytest.mark.parametrize("max_queries", [None, 1_000])
def test_ctrl_c_keeps_what_arrives_while_rows_are_written(tmp_path, monkeypatch, max_queries):
    """The disk is slow, the server is not: what came meanwhile was paid for, too."""
    texts, write, written = [f"text {i}" for i in range(100)], tables.write, []

    def interrupted(connection, kind, rows, **options):
        if rows and not written:
            written.append(len(rows))
            until = time.monotonic() + 20
            while len(server.queries()) < len(rows) + 30 and time.monotonic() < until:
                time.sleep(0.005)
            raise KeyboardInterrupt
        return write(connection, kind, rows, **options)

    monkeypatch.setattr(tables, "write", interrupted)
    with FakeServer(lambda request, n: replace(request.honest, delay=0.005)) as server:
        model = model_of("sglang", server)
        if max_queries is not None:
            model = BudgetedModel(model, max_queries, keeps=True)
        stored = StoredModel(model, tmp_path / "s.sqlite")
        with pytest.raises(KeyboardInterrupt):
            stored.observe(prompts(*texts), WORDS)
        first = len(server.queries())
        assert written[0] + 30 <= first < 100
        again = stored.observe(prompts(*texts), WORDS).queries
        if max_queries is not None:
            assert abs(first + again - (max_queries - model.left)) <= 4
    assert first + again - 100 <= 4, "no more than was under way"


def settled(server):
    """Return how many queries came, when no more do."""
    before = -1
    while before != (now := len(server.queries())):
        before = now
        time.sleep(0.2)
    return now


def test_a_caller_that_goes_away_stops_the_asking():
    with FakeServer(lambda request, n: replace(request.honest, delay=0.01)) as server:
        model = model_of("openai", server)
        stream = model.stream(prompts(*[f"text {i}" for i in range(500)]), WORDS)
        next(stream)
        stream.close()
        assert settled(server) < 500


def test_an_error_of_the_caller_stops_the_asking():
    def progress(n):
        raise ZeroDivisionError

    with FakeServer(lambda request, n: replace(request.honest, delay=0.01)) as server:
        with pytest.raises(ZeroDivisionError) as kept:  # with its traceback, and so all frames
            model_of("openai", server).observe(
                prompts(*[f"text {i}" for i in range(500)]), WORDS, progress=progress
            )
        assert settled(server) < 500
        assert kept.tb is not None


def test_it_works_inside_a_running_event_loop_and_in_threads():
    with FakeServer() as server:
        model = model_of("sglang", server)
        expected = model.observe(prompts(*map(str, range(40))), WORDS).scores

        async def notebook():
            return model.observe(prompts(*map(str, range(40))), WORDS).scores

        assert_array_equal(asyncio.run(notebook()), expected)
        found = {}

        def work(k):
            found[k] = model.observe(prompts(*map(str, range(40))), WORDS).scores

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(np.array_equal(found[k], expected) for k in range(4))


def test_connections_are_bounded_and_reused():
    now, most, lock = [0], [0], threading.Lock()

    def script(request, before):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1

    with FakeServer(script) as server:
        load_model(f"openai:{server.url}?model=toy&connections=3").observe(
            prompts(*map(str, range(60))), WORDS
        )
    assert most[0] == 3


def test_a_classifier_on_a_server_survives_saving_and_loading(tmp_path):
    texts, y = [f"t{i}" for i in range(12)], ["neg", "pos"] * 6
    with FakeServer() as server:
        classifier = classifier_of(server, tmp_path / "s.sqlite").fit(texts, y)
        classifier.save(tmp_path / "artifact")
        again = FewShotClassifier.load(tmp_path / "artifact", store=None, verify=True)
        assert_allclose(again.predict_proba(["new"]), classifier.predict_proba(["new"]))
        manifest = json.loads((tmp_path / "artifact" / "manifest.json").read_text())
    assert manifest["model_spec"].startswith("sglang:http://127.0.0.1")
    assert GIVE_UP == 16
