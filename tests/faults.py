"""Faults of servers, tried one by one: what the server does, and what has to become of it.

``python -m tests.faults`` writes the table of docs/reliability.md from this list.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Literal

from tests.fake_server import Reply, Request, edited

DOCUMENT = Path(__file__).parent.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


@dataclass(frozen=True)
class Fault:
    """A fault of the reply to one prompt out of six.

    `times` is how often in a row it happens (None: always). `outcome` is "answered" (all six, after
    exactly `times` retries), "row" (this row fails, five are answered) or "stops" (the run ends
    with ModelError). `says` is in the warning or the error.
    """

    code: str
    what: str
    reply: Callable[[Request], Reply]
    outcome: Literal["answered", "row", "stops"]
    says: str = ""
    times: int | None = None
    retries: int = 0
    dialect: str = "openai"
    options: str = ""

    @property
    def happens(self) -> str:
        if self.outcome == "answered":
            return "retried, answered" if self.retries else "answered"
        return {"row": "this row fails", "stops": "the run stops"}[self.outcome]


def again(code: str, what: str, reply: Callable[[Request], Reply]) -> Fault:
    """A fault that passes after one retry."""
    return Fault(code, what, reply, "answered", times=1, retries=1)


def row(code: str, what: str, reply: Callable[[Request], Reply], says: str, **more: str) -> Fault:
    return Fault(code, what, reply, "row", says, **more)  # pyright: ignore[reportArgumentType]


def stops(code: str, what: str, reply: Callable[[Request], Reply], says: str, **more: str) -> Fault:
    return Fault(code, what, reply, "stops", says, **more)  # pyright: ignore[reportArgumentType]


def busy(**headers: str) -> Callable[[Request], Reply]:
    return lambda request: Reply({"error": {"message": "slow down"}}, 429, headers)


def status(code: int, body: object = None, **headers: str) -> Callable[[Request], Reply]:
    return lambda request: Reply(body or {"error": {"message": "no"}}, code, headers)


def raw(data: bytes, **headers: str) -> Callable[[Request], Reply]:
    return lambda request: Reply(raw=data, headers=headers)


def edit(*path: object, to: object) -> Callable[[Request], Reply]:
    return lambda request: edited(request.honest, *path, to=to)


def number(text: bytes) -> Callable[[Request], Reply]:
    """Replace the first log-probability by `text`, which JSON may not allow."""

    def replied(request: Request) -> Reply:
        marked = edited(request.honest, *TOP, to={" good": "MARK"})
        return Reply(raw=marked.data().replace(b'"MARK"', text))

    return replied


def whole(**changes: object) -> Callable[[Request], Reply]:
    def replied(request: Request) -> Reply:
        return Reply(**{"body": request.honest.body, **changes})  # pyright: ignore

    return replied


def twice(request: Request) -> Reply:
    choice = request.honest.body["choices"][0]
    return edited(request.honest, "choices", to=[choice, choice])


def doubled_key(request: Request) -> Reply:
    return Reply(raw=b'{"model": "other", ' + request.honest.data()[1:])


def bom(request: Request) -> Reply:
    return Reply(raw=b"\xef\xbb\xbf" + request.honest.data())


def chunked(request: Request) -> Reply:
    size = 2**20
    data = b"%x\r\n%s\r\n0\r\n\r\n" % (size, b" " * size)
    return Reply(raw=data, headers={"Transfer-Encoding": "chunked", "Content-Length": ""})


def date(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


HTML = b"<html><body>Please sign in to the hotel's network</body></html>"
TOP = ("choices", 0, "logprobs", "top_logprobs", 0)
LOGPROBS = ("choices", 0, "logprobs")
TWICE = [{"id": i, "token": "good", "logprob": -v} for i, v in ((0, 1.0), (0, 2.0), (1, 1.5))]
QUOTA = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}

FAULTS = [
    again("A1", "429, Retry-After in seconds", busy(**{"Retry-After": "0"})),
    again("A1", "429, Retry-After in milliseconds", busy(**{"Retry-After-Ms": "5"})),
    again("A1", "429, Retry-After as a date in the past", busy(**{"Retry-After": date(-9)})),
    row(
        "A1", "429, Retry-After 9999 s: beyond the deadline", busy(**{"Retry-After": "9999"}), "429"
    ),
    again("A1", "429, Retry-After negative", busy(**{"Retry-After": "-5"})),
    again("A1", "429, Retry-After garbage", busy(**{"Retry-After": "soon"})),
    again("A1", "429 without Retry-After", busy()),
    row("A1", "429 for ever", busy(), "429"),
    again("A2", "500", status(500)),
    again("A2", "502 with HTML", lambda request: Reply(raw=HTML, status=502)),
    again("A2", "503 while the model loads", status(503, {"error": {"message": "Loading model"}})),
    again("A2", "504", status(504)),
    again("A2", "529", status(529)),
    row("A2", "500 for ever", status(500), "HTTP 500"),
    again("A3", "connection closed without a reply", whole(cut=0)),
    again("A3", "connection closed in the middle of the body", whole(cut=20)),
    again("A3", "body of one byte per 20 ms, for longer than the timeout", whole(drip=0.02)),
    again("A3", "reply after the timeout", whole(delay=0.6)),
    again("A3", "a proxy's HTML with 200, once", raw(HTML)),
    row("A3", "a proxy's HTML with 200, always", raw(HTML), "not whole JSON"),
    again("A4", "truncated JSON", raw(b'{"choices": [')),
    row("A4", "gzip, not asked for", whole(headers={"Content-Encoding": "gzip"}), "compressed"),
    row(
        "A4",
        "100 MB announced",
        lambda request: Reply(raw=b" ", headers={"Content-Length": str(10**8)}, cut=1),
        "bytes",
    ),
    row("A4", "an endless chunked body", chunked, "bytes allowed"),
    Fault("A4", "wrong content type", whole(headers={"Content-Type": "text/plain"}), "answered"),
    Fault("A4", "byte order mark", bom, "answered"),
    row("A4", "the same key twice", doubled_key, "key occurs twice"),
    row("A4", "NaN", number(b"NaN"), "NaN"),
    row("A4", "Infinity", number(b"-Infinity"), "-Infinity"),
    row("A4", "1e400", number(b"-1e400"), "log-probability"),
    row("A4", "200 with an error", raw(b'{"error": {"message": "overloaded"}}'), "overloaded"),
    row("A4", "200 with a list", raw(b"[]"), "lacks choices"),
    row("A5", "choices: []", edit("choices", to=[]), "expected 1"),
    row("A5", "choices: null", edit("choices", to=None), "choices is null"),
    row("A5", "the only choice has index 1", edit("choices", 0, "index", to=1), "indices"),
    row("A5", "two choices of the same index", twice, "expected 1"),
    row(
        "A5",
        "two embeddings for one text",
        lambda r: edited(r.honest, "data", to=r.honest.body["data"] * 2),
        "expected 1",
        dialect="embeddings",
    ),
    row("A5", "choices: ['text']", edit("choices", to=["good"]), "not objects"),
    row(
        "A5",
        "two embeddings of the same index",
        lambda r: edited(
            r.honest, "data", to=[{**v, "index": 0} for v in r.honest.body["data"]] * 2
        ),
        "expected 1",
        dialect="embeddings",
    ),
    row("A6", "logprobs: null", edit(*LOGPROBS, to=None), "no logprobs"),
    row("A6", "top_logprobs: []", edit(*LOGPROBS, "top_logprobs", to=[]), "top_logprobs"),
    row("A6", "top_logprobs: [{}]", edit(*TOP, to={}), "lists no token"),
    row("A6", "text for a number", edit(*TOP, to={" good": "-0.5"}), "not a number"),
    row("A6", "a positive log-probability", edit(*TOP, to={" good": 0.5}), "log-probability"),
    row("A6", "all tokens at -9999", edit(*TOP, to={" good": -9999.0}), "lists no token"),
    row(
        "A6",
        "probabilities that sum to 1.2",
        edit(*TOP, to={" good": -0.5108, " bad": -0.5108}),
        "sum to 1.2",
    ),
    Fault("A6", "a token of broken UTF-8", edit(*TOP, to={"�": -1, " good": -1}), "answered"),
    Fault("A6", "ties", edit(*TOP, to={" bad": -1.5, " good": -1.5}), "answered"),
    Fault("A6", "fewer tokens than asked for", edit(*TOP, to={" good": -0.1}), "answered"),
    row(
        "A6",
        "listed tokens that are no list",
        edit("choices", 0, "logprobs", "content", 0, "top_logprobs", to=5),
        "not a list",
        dialect="openai-chat",
    ),
    row(
        "A6",
        "a listed token that is no text",
        edit("choices", 0, "logprobs", "content", 0, "top_logprobs", 0, "token", to=["good"]),
        "not text",
        dialect="openai-chat",
    ),
    row(
        "A6",
        "an id listed twice, with two probabilities",
        edit("completion_probabilities", 0, "top_logprobs", to=TWICE),
        "listed twice",
        dialect="llamacpp",
    ),
    row(
        "A6",
        "an id listed twice, with two probabilities",
        edit("meta_info", "output_token_ids_logprobs", to=[[[-1.0, 0], [-1.0, 1], [-2.0, 1]]]),
        "listed twice",
        dialect="sglang",
    ),
    stops(
        "A7",
        "logprob_token_ids ignored (an older vLLM)",
        edit(*TOP, to={"token_id:3": -0.5}),
        "logprob_token_ids",
        dialect="vllm",
    ),
    stops(
        "A7",
        "return_hidden_states ignored",
        edit("meta_info", "hidden_states", to=None),
        "return-hidden-states",
        dialect="sglang",
    ),
    row("A7", "logprobs ignored", edit("logprobs", to=None), "logprobs", dialect="ollama"),
    stops(
        "A7", "logprobs rejected", status(422, {"detail": "Unsupported: logprobs"}), "embeddings:"
    ),
    row(
        "A8",
        "finish_reason: content_filter",
        edit("choices", 0, "finish_reason", to="content_filter"),
        "content filter",
    ),
    row(
        "A8",
        "a refusal",
        edit("choices", 0, "message", "refusal", to="I can't"),
        "refused",
        dialect="openai-chat",
    ),
    row(
        "A8",
        "a content filter's 400",
        status(
            400, {"error": {"message": "filtered", "code": "content_filter", "param": "prompt"}}
        ),
        "filtered",
    ),
    row(
        "A8",
        "a message that is no object",
        edit("choices", 0, "message", to="good"),
        "message is not an object",
        dialect="openai-chat",
    ),
    row(
        "A8",
        "a call of a tool in place of an answer",
        edit("choices", 0, "message", "tool_calls", to=[{"type": "function"}]),
        "tool",
        dialect="openai-chat",
    ),
    row(
        "A8",
        "reasoning, and no answer",
        lambda r: edited(
            edited(r.honest, "choices", 0, "message", "reasoning_content", to="Let me think"),
            *("choices", 0, "logprobs", "content"),
            to=[],
        ),
        "reasoning_effort=none",
        dialect="openai-chat",
    ),
    row(
        "A8",
        "a token that opens a thought",
        edit(*TOP, to={"<think>": -0.01, "\n": -5.0}),
        "'<think>'.*reasoning model",
    ),
    row("A8", "tokens that are no label word", edit(*TOP, to={"Okay": -0.1, ",": -3}), "'Okay'"),
    row(
        "A8",
        "a request that the server gave up",
        edit("meta_info", "finish_reason", to={"type": "abort", "message": "out of memory"}),
        "out of memory",
        dialect="sglang",
    ),
    stops("A9", "another model's name in the reply", edit("model", to="toy-2"), "served_as=toy-2"),
    stops(
        "A9",
        "system_fingerprint changes",
        edit("system_fingerprint", to="fp2"),
        "system_fingerprint was",
    ),
    stops(
        "A9",
        "weight_version changes",
        edit("meta_info", "weight_version", to="2"),
        "weight_version was",
        dialect="sglang",
    ),
    stops(
        "A10",
        "the vector's length changes",
        edit("data", 0, "embedding", to=[0.5, 1.0]),
        "length",
        dialect="embeddings",
    ),
    row(
        "A10",
        "a number that overflows float32",
        edit("data", 0, "embedding", 0, to=1e39),
        "too large",
        dialect="embeddings",
    ),
    row(
        "A10",
        "a constant vector",
        edit("data", 0, "embedding", to=[0.0] * 12),
        "constant",
        dialect="embeddings",
    ),
    row(
        "A10",
        "base64 in place of numbers",
        edit("data", 0, "embedding", to="AACAPwAAAEA="),
        "base64",
        dialect="embeddings",
    ),
    row("A10", "a null in the vector", edit(0, 3, to=None), "not a list", dialect="tei"),
    row("A10", "a prompt that was cut", edit("truncated", to=True), "cut", dialect="llamacpp"),
    stops(
        "A13",
        "a redirect to another host",
        lambda request: Reply({}, 307, {"Location": "http://elsewhere.example/v1/completions"}),
        "redirects to http://elsewhere.example",
    ),
    stops(
        "A13",
        "a redirect to an address that is none",
        lambda request: Reply({}, 307, {"Location": "http://["}),
        "redirects to elsewhere",
    ),
    row(
        "A4",
        "a chunk of negative size",
        lambda request: Reply(
            raw=b"-1\r\n" + request.honest.data(),
            headers={"Transfer-Encoding": "chunked", "Content-Length": ""},
        ),
        "no usable size",
    ),
    row("A6", "a number of 400 digits", number(b"-" + b"7" * 400), "log-probability"),
    row("A6", "a list for a number", number(b"[-0.5]"), "not a number"),
    row(
        "A10",
        "numbers of 1e20",
        edit("data", 0, "embedding", to=[1e20, -1e20] * 6),
        "too large",
        dialect="embeddings",
    ),
    stops("A14", "401: the key expires in mid-run", status(401), "refuses"),
    stops("A14", "402: payment required", status(402), "refuses"),
    stops("A14", "429 with insufficient_quota", status(429, QUOTA), "quota"),
    stops("A14", "404: the model was unloaded", status(404), "refuses"),
]

CHAT = {"dialect": "openai-chat", "options": "&answers=text&output=plain"}
FORM = {"dialect": "openai-chat", "options": "&answers=text"}
CLAUDE = {"dialect": "anthropic"}
ONE = {"dialect": "systemone"}
TWO = {"dialect": "decisions"}
SAID = ("choices", 0, "message", "content")


def said(text: object) -> Callable[[Request], Reply]:
    return edit(*SAID, to=text)


IN_WORDS = [
    Fault(
        "A8",
        "the label in another case, in bold, with a stop",
        said("**GOOD.**"),
        "answered",
        **CHAT,
    ),  # type: ignore[arg-type]
    Fault("A8", "the end of the template, and the label", said("It was good."), "answered", **CHAT),  # type: ignore[arg-type]
    Fault(
        "A8", "reasoning before the label", said("<think>bad? no</think>\ngood"), "answered", **CHAT
    ),  # type: ignore[arg-type]
    Fault("A8", "JSON in a fence", said('```json\n{"label": "good"}\n```'), "answered", **FORM),  # type: ignore[arg-type]
    Fault("A7", "response_format ignored: plain text", said("good"), "answered", **FORM),  # type: ignore[arg-type]
    row(
        "A8", "the label in a sentence", said("I would say good"), "none of the label words", **CHAT
    ),
    row("A8", "the label in a longer word", said("goodness"), "none of the label words", **CHAT),
    row("A8", "two labels", said("good, bad"), "none of the label words", **CHAT),
    row("A8", "the label denied", said("not good"), "none of the label words", **CHAT),
    row("A8", "another language", said("gut"), "'gut'", **CHAT),
    row("A8", "an empty answer", said(""), "empty", **CHAT),
    row("A8", "content: null", said(None), "empty", **CHAT),
    row("A8", "content of another type", said(5), "not text", **CHAT),
    row("A8", "reasoning that does not end", said("<think>good or bad?"), "reasoning", **CHAT),
    row(
        "A8",
        "reasoning in a field of its own, and no answer",
        edit("choices", 0, "message", to={"content": "", "reasoning_content": "good?"}),
        "reasoning_effort=none",
        **CHAT,
    ),
    row("A8", "a refusal", edit("choices", 0, "message", "refusal", to="No."), "refused", **FORM),
    row(
        "A8",
        "finish_reason: content_filter",
        edit("choices", 0, "finish_reason", to="content_filter"),
        "content filter",
        **CHAT,
    ),
    row(
        "A8",
        "finish_reason: length, after a label",
        edit("choices", 0, "finish_reason", to="length"),
        "max_tokens",
        **CHAT,
    ),
    row(
        "A8",
        "the call of another tool",
        edit("choices", 0, "message", "tool_calls", to=[{"function": {"name": "search"}}]),
        "tool",
        **FORM,
    ),
    row("A8", "half-written JSON", said('{"label": "good'), "half-written", **FORM),
    row("A8", "JSON with a field more", said('{"label": "good", "not": 1}'), "object", **FORM),
    row("A8", "JSON with its field twice", said('{"label":"good","label":"bad"}'), "twice", **FORM),
    row("A8", "JSON of a label that is none", said('{"label": "fine"}'), "'{\"label", **FORM),
    row("A8", "a list of labels in JSON", said('{"label": ["good"]}'), "object", **FORM),
    row("A5", "choices: []", edit("choices", to=[]), "expected 1", **FORM),
    row("A5", "more choices than asked for", twice, "expected 1", **FORM),
    stops(
        "A7",
        "response_format refused",
        status(400, {"error": {"message": "Unsupported", "param": "response_format"}}),
        "output=plain",
        **FORM,
    ),
    stops(
        "A7",
        "max_tokens refused",
        status(400, {"error": {"message": "Unsupported", "param": "max_tokens"}}),
        "max_completion_tokens=64",
        **FORM,
    ),
    stops("A9", "another model's name", edit("model", to="toy-2"), "served_as=toy-2", **FORM),
    row("A8", "stop_reason: refusal", edit("stop_reason", to="refusal"), "refused", **CLAUDE),
    row(
        "A8",
        "stop_reason: max_tokens",
        edit("stop_reason", to="max_tokens"),
        "reasoning|cut",
        **CLAUDE,
    ),
    row(
        "A8",
        "thought, and no answer",
        edit("content", to=[{"type": "thinking", "thinking": "good"}]),
        "empty",
        **CLAUDE,
    ),
    row(
        "A8", "the call of another tool", edit("content", 0, "name", to="search"), "tool", **CLAUDE
    ),
    row(
        "A8",
        "a tool called without the label",
        edit("content", 0, "input", to={}),
        "object",
        **CLAUDE,
    ),
    row(
        "A4",
        "200 with an error",
        raw(b'{"type": "error", "error": {"type": "overloaded"}}'),
        "overloaded",
        **CLAUDE,
    ),
    row("A4", "content that is no list", edit("content", to="good"), "list of blocks", **CLAUDE),
    Fault(
        "A7",
        "tool_choice ignored: plain text",
        edit("content", to=[{"type": "text", "text": "Good."}]),
        "answered",
        **CLAUDE,
    ),  # type: ignore[arg-type]
    stops("A9", "another model's name", edit("model", to="toy-2"), "served_as=toy-2", **CLAUDE),
    row(
        "A6",
        "a probability that is text",
        edit("answers", "label", "probabilities", "good", to="1"),
        "no number",
        **ONE,
    ),
    row(
        "A6",
        "probabilities that sum to more",
        edit("answers", "label", "probabilities", to={"good": 0.9, "bad": 0.9}),
        "sum to 1.8",
        **ONE,
    ),
    row(
        "A6",
        "an answer more than was allowed",
        edit("answers", "label", "probabilities", "fine", to=0.0),
        "not those",
        **ONE,
    ),
    row(
        "A6",
        "probabilities: null",
        edit("answers", "label", "probabilities", to=None),
        "null",
        **ONE,
    ),
    row("A5", "no answers", edit("answers", to={}), "lacks answers.label", **ONE),
    stops("A9", "another model's name", edit("model", to="toy-2"), "served_as=toy-2", **ONE),
    row(
        "A8",
        "a refusal",
        edit("answers", 0, to={"type": "refusal", "name": "label", "refusal": "no"}),
        "refused",
        **TWO,
    ),
    row(
        "A6",
        "a choice that is listed twice",
        edit("answers", 0, "probabilities", 0, "value", to="good"),
        "not those of the label words",
        **TWO,
    ),
    row(
        "A6",
        "probabilities that are no list",
        edit("answers", 0, "probabilities", to={"good": 1.0}),
        "not a list",
        **TWO,
    ),
    row("A5", "two answers to one question", edit("answers", to=[{}, {}]), "expected 1", **TWO),
    row("A8", "another question's answer", edit("answers", 0, "name", to="x"), "another", **TWO),
]
FAULTS += IN_WORDS
GENERIC = [
    fault
    for fault in FAULTS
    if fault.dialect == "openai"
    and fault.what
    in (
        "429, Retry-After in milliseconds",
        "500",
        "connection closed in the middle of the body",
        "truncated JSON",
        "gzip, not asked for",
        "the same key twice",
        "a redirect to another host",
        "401: the key expires in mid-run",
        "429 with insufficient_quota",
    )
]
"""Faults of any reply, whatever the dialect."""


def table() -> str:
    """Render the list as Markdown."""
    lines = ["| | what the server does | dialect | what happens |", "|---|---|---|---|"]
    for fault in FAULTS:
        dialect = fault.dialect + " in words" * ("answers=text" in fault.options)
        lines.append(f"| {fault.code} | {fault.what} | {dialect} | {fault.happens} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    DOCUMENT.write_text(f"{head}{BEGIN}\n{table()}{END}{tail}", encoding="utf-8")
    print(json.dumps({"faults": len(FAULTS), "document": str(DOCUMENT)}))  # noqa: T201
