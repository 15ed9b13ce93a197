"""An HTTP server with a toy language model in all dialects, and faults by script."""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

VOCABULARY = [" good", " bad", " great", " It", " was", " New", " York", " Delhi", "good", "bad"]
LETTERS = [chr(code) for code in range(32, 127)]
TOKENS = [*VOCABULARY, *LETTERS]
SPECIAL = {"<|user|>": 1000, "<|end|>": 1001}
H = 12


@dataclass(frozen=True)
class Reply:
    """What goes over the wire: `cut` closes after so many bytes of the body, `drip` slows it."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: int | None = None
    drip: float = 0.0
    delay: float = 0.0

    def data(self) -> bytes:
        return json.dumps(self.body).encode() if self.raw is None else self.raw


@dataclass(frozen=True)
class Request:
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    honest: Reply

    @property
    def text(self) -> str:
        """The prompt, wherever the dialect puts it."""
        for name in ("prompt", "text", "input", "inputs", "content", "state"):
            if isinstance(self.body.get(name), str):
                return self.body[name]
            if isinstance(self.body.get(name), list):
                return " ".join(map(str, self.body[name]))
        messages = self.body.get("messages")
        return messages[-1]["content"] if messages else ""


Script = Callable[[Request, int], Reply | None]
"""From a request, and how often its prompt came before, to another reply than the honest one."""


def tokenize(text: str) -> list[int]:
    ids: list[int] = []
    for piece in re.findall(r" ?[A-Za-z]+|.", text):
        ids += [TOKENS.index(piece)] if piece in TOKENS else [TOKENS.index(c) for c in piece]
    return ids


def log_probabilities(text: str) -> np.ndarray:
    """The toy model: the next token's log-probability for each of TOKENS, fixed by the prompt.

    It likes to say " good", which is therefore listed by whoever lists a few tokens.
    """
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    logits = np.random.default_rng(seed).normal(size=len(TOKENS)) * 2
    logits[TOKENS.index(" good")] = np.sort(logits)[-3] + 1e-3
    return logits - np.logaddexp.reduce(logits)


def continued(text: str, length: int, stop: Any = ()) -> tuple[str, str]:
    """What the toy model writes behind a text, fixed by it, and why it ends there."""
    said = f" So {digest(text)[:6]} it is.\n\n# Query: and on"
    for end in stop:
        said = said.partition(end)[0]
    words = re.findall(r"\s*\S+", said)
    return "".join(words[:length]), "length" if len(words) > length else "stop"


def said_label(text: str, words: list[str], sample: int = 0) -> str:
    """The label that the toy model says in words, fixed by the prompt."""
    question = text.rpartition("\n\n")[2]
    seed = hashlib.sha256(f"{sample}\0{question}".encode()).digest()[0]
    return sorted(words)[seed % len(words)]


def probabilities(text: str, words: list[str]) -> dict[str, float]:
    """What the toy model gives each allowed answer, fixed by the prompt."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    p = np.random.default_rng(seed).dirichlet(np.ones(len(words)))
    return dict(zip(sorted(words), p.tolist(), strict=True))


def hidden_state(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(b"h" + text.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=H).astype(np.float32)


class FakeServer:
    """Use as a context manager; `requests` holds (path, body) of everything that was asked."""

    def __init__(self, script: Script | None = None, *, model: str = "toy") -> None:
        self.script = script
        self.model = model
        self.requests: list[Request] = []
        self.seen: dict[str, int] = {}
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                outer.answer(self, body)

            do_GET = do_POST

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that went away is what these tests are about

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def queries(self) -> list[str]:
        """The prompts that were asked, with every attempt, tokenising and the like left out."""
        side = (
            "/tokenize",
            "/detokenize",
            "/apply-template",
            "/v1/models",
            "/info",
            "/pooling",
            "/embedding",
            "/api/embed",
        )
        return [r.text for r in self.requests if r.path not in side]

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        honest = Reply(self.reply(handler.path, body))
        if honest.body is None:
            honest = Reply({"error": {"message": "no such route"}}, status=404)
        request = Request(handler.path, body, dict(handler.headers), honest)
        with self.lock:
            self.requests.append(request)
            key = handler.path + request.text
            before = self.seen.get(key, 0)
            self.seen[key] = before + 1
        reply = (self.script(request, before) if self.script else None) or honest
        time.sleep(reply.delay)
        data = reply.data()
        handler.send_response(reply.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for name, value in {**headers, **reply.headers}.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        if reply.cut is not None:
            data = data[: reply.cut]
            handler.close_connection = True
        if reply.drip:
            for i in range(len(data)):
                handler.wfile.write(data[i : i + 1])
                time.sleep(reply.drip)
        else:
            handler.wfile.write(data)

    def reply(self, path: str, body: dict[str, Any]) -> Any:
        route = getattr(self, "_" + path.strip("/").replace("/", "_").replace("-", "_"), None)
        return None if route is None else route(body)

    def _top(self, text: str, k: int) -> list[tuple[int, float]]:
        values = log_probabilities(text)
        return [(int(i), float(values[i])) for i in np.argsort(-values)[:k]]

    def _usage(self, text: str) -> dict[str, int]:
        return {"prompt_tokens": len(tokenize(text)), "completion_tokens": 1}

    def _v1_models(self, body: Any) -> Any:
        return {"data": [{"id": self.model}]}

    def _v1_completions(self, body: Any) -> Any:
        text = body["prompt"]
        if "logprobs" not in body:
            said, reason = continued(str(text), body["max_tokens"], body.get("stop", ()))
            choice = {"index": 0, "text": said, "finish_reason": reason}
            usage = {"prompt_tokens": len(text), "completion_tokens": len(said.split())}
            return {
                "id": digest(str(text)),
                "model": self.model,
                "choices": [choice],
                "usage": usage,
            }
        if "logprob_token_ids" in body:
            values = log_probabilities(str(text))
            top = {f"token_id:{i}": float(values[i]) for i in body["logprob_token_ids"]}
        else:
            top = {TOKENS[i]: value for i, value in self._top(text, body["logprobs"])}
        choice = {"index": 0, "text": next(iter(top)), "finish_reason": "length"}
        tops: list[Any] = [top]
        if body.get("echo"):
            choice["text"] = text + choice["text"]
            tops = [None, top]
        choice["logprobs"] = {"top_logprobs": tops}
        return {
            "model": self.model,
            "system_fingerprint": "fp1",
            "choices": [choice],
            "usage": {"prompt_tokens": len(text if isinstance(text, list) else tokenize(text))},
        }

    def _v1_chat_completions(self, body: Any) -> Any:
        if "logprobs" not in body:
            return self._chat_in_words(body)
        text = body["messages"][-1]["content"]
        top = [
            {"token": TOKENS[i], "logprob": value, "bytes": None}
            for i, value in self._top(text, body["top_logprobs"])
        ]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": top[0]["token"]},
            "logprobs": {"content": [{**top[0], "top_logprobs": top}]},
            "finish_reason": "length",
        }
        return {"model": self.model, "choices": [choice], "usage": self._usage(text)}

    def _chat_in_words(self, body: Any) -> Any:
        text, words = body["messages"][-1]["content"], listed_words(body["messages"])
        usage = {"prompt_tokens": len(text.split()), "completion_tokens": 3}
        if not words:
            said, reason = continued(
                text, body.get("max_tokens") or body["max_completion_tokens"], body.get("stop", ())
            )
            message = {"role": "assistant", "content": said}
            choice = {"index": 0, "message": message, "finish_reason": reason}
            return {"id": digest(text), "model": self.model, "choices": [choice], "usage": usage}
        choices = []
        for i in range(body.get("n", 1)):
            said = said_label(text, words, i)
            message = {"role": "assistant", "content": said}
            if "response_format" in body:
                message["content"] = json.dumps({"label": said})
            if "tools" in body:
                call = {"name": "label", "arguments": json.dumps({"label": said})}
                tool = {"id": "call_1", "type": "function", "function": call}
                message |= {"content": None, "tool_calls": [tool]}
            choices.append({"index": i, "message": message, "finish_reason": "stop"})
        usage = {"prompt_tokens": len(text.split()), "completion_tokens": 3 * len(choices)}
        return {"id": digest(text), "model": self.model, "choices": choices, "usage": usage}

    def _v1_messages(self, body: Any) -> Any:
        text, words = body["messages"][-1]["content"], listed_words(body["messages"])
        reason = "end_turn"
        if words:
            said = said_label(text, words)
        else:
            said, reason = continued(text, body["max_tokens"], body.get("stop_sequences", ()))
            reason = {"stop": "end_turn", "length": "max_tokens"}[reason]
        block: dict[str, Any] = {"type": "text", "text": said}
        if "tools" in body:
            block = {"type": "tool_use", "id": "t", "name": "label", "input": {"label": said}}
        return {
            "id": digest(text),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [block],
            "stop_reason": "tool_use"
            if "tools" in body
            else reason.replace("length", "max_tokens"),
            "usage": {"input_tokens": len(text.split()), "output_tokens": 3},
        }

    def _v1_systemone(self, body: Any) -> Any:
        answers = {}
        for name, question in body["questions"].items():
            p = probabilities(body["state"], list(question["criteria"]))
            best = max(p, key=lambda word: p[word])
            answers[name] = {"type": "choice", "choice": best, "probabilities": p}
        usage = {"input_tokens": len(body["state"].split()), "output_tokens": 0}
        return {"model": self.model, "answers": answers, "usage": usage}

    def _v1_decisions(self, body: Any) -> Any:
        answers = []
        for question in body["questions"]:
            p = probabilities(body["input"], [choice["value"] for choice in question["choices"]])
            listed = [{"value": word, "probability": value} for word, value in p.items()]
            best = max(p, key=lambda word: p[word])
            answers.append(
                {
                    "type": "choice",
                    "name": question["name"],
                    "choice": best,
                    "probabilities": listed,
                    "confidence": p[best],
                }
            )
        usage = {"input_tokens": len(body["input"].split()), "output_tokens": 0}
        return {"model": self.model, "answers": answers, "usage": usage}

    def _v1_embeddings(self, body: Any) -> Any:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [
            {"index": i, "embedding": hidden_state(text).tolist()} for i, text in enumerate(texts)
        ]
        return {"model": self.model, "data": data}

    def _pooling(self, body: Any) -> Any:
        state = hidden_state(body["input"])
        if body["use_activation"]:
            state /= np.linalg.norm(state)
        return {"model": self.model, "data": [{"index": 0, "data": state.tolist()}]}

    def _detokenize(self, body: Any) -> Any:
        names = {i: name for name, i in SPECIAL.items()}
        return {"prompt": "".join(names.get(i) or TOKENS[i] for i in body["tokens"])}

    def _tokenize(self, body: Any) -> Any:
        if "messages" in body:
            text = self._apply_template(body)["prompt"]
            return self._tokenize({"content": text, "parse_special": True})
        text = body.get("prompt", body.get("content"))
        if not body.get("parse_special") and "prompt" not in body:
            return {"tokens": tokenize(text)}
        found: list[int] = []
        for piece in re.split(r"(<\|\w+\|>)", text):
            found += [SPECIAL[piece]] if piece in SPECIAL else tokenize(piece)
        return {"tokens": found}

    def _apply_template(self, body: Any) -> Any:
        said = [f"<|user|>{m['role']} {m['content']}<|end|>" for m in body["messages"]]
        return {"prompt": "".join(said) + "<|user|>assistant "}

    def _generate(self, body: Any) -> Any:
        if "token_ids_logprob" not in body:
            own = body["sampling_params"]
            said, reason = continued(body["text"], own["max_new_tokens"], own.get("stop", ()))
            meta = {"prompt_tokens": len(tokenize(body["text"])), "completion_tokens": 3}
            return {"text": said, "meta_info": {**meta, "finish_reason": {"type": reason}}}
        text = str(body.get("text", body.get("input_ids")))
        values = log_probabilities(text)
        meta = {
            "prompt_tokens": len(tokenize(text)),
            "weight_version": "default",
            "output_token_ids_logprobs": [
                [[float(values[i]), i, None] for i in body["token_ids_logprob"]]
            ],
            "hidden_states": [hidden_state(text).tolist()],
        }
        return {"text": "", "meta_info": meta}

    def _completion(self, body: Any) -> Any:
        text = str(body["prompt"])
        if "n_probs" not in body:
            said, reason = continued(text, body["n_predict"], body["stop"])
            return {
                "model": self.model,
                "content": said,
                "stop_type": {"stop": "eos", "length": "limit"}[reason],
                "tokens_evaluated": len(tokenize(text)),
                "tokens_predicted": 3,
            }
        top = [
            {"id": i, "token": TOKENS[i], "logprob": value}
            for i, value in self._top(text, body["n_probs"])
        ]
        return {
            "model": self.model,
            "completion_probabilities": [{**top[0], "top_logprobs": top}],
            "tokens_evaluated": len(tokenize(text)),
            "truncated": False,
        }

    def _embedding(self, body: Any) -> Any:
        return [{"index": 0, "embedding": [hidden_state(body["content"]).tolist()]}]

    def _api_generate(self, body: Any) -> Any:
        if "logprobs" not in body:
            own = body["options"]
            said, reason = continued(body["prompt"], own["num_predict"], own["stop"])
            return {
                "model": body["model"],
                "response": said,
                "done_reason": reason,
                "prompt_eval_count": len(tokenize(body["prompt"])),
                "eval_count": 3,
            }
        top = [
            {"token": TOKENS[i], "logprob": value}
            for i, value in self._top(body["prompt"], body["top_logprobs"])
        ]
        return {
            "model": body["model"],
            "logprobs": [{**top[0], "top_logprobs": top}],
            "prompt_eval_count": len(tokenize(body["prompt"])),
        }

    def _api_embed(self, body: Any) -> Any:
        state = hidden_state(body["input"])
        return {"model": body["model"], "embeddings": [(state / np.linalg.norm(state)).tolist()]}

    def _info(self, body: Any) -> Any:
        return {"model_id": self.model, "model_sha": "abc"}

    def _embed(self, body: Any) -> Any:
        return [hidden_state(text).tolist() for text in body["inputs"]]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def listed_words(messages: list[dict[str, str]]) -> list[str]:
    """The label list that the first of the user's messages holds."""
    first = next(m["content"] for m in messages if m["role"] == "user")
    return [line[2:] for line in first.splitlines() if line.startswith("- ")]


def edited(reply: Reply, *path: Any, to: Any) -> Reply:
    """The reply with one place of its JSON changed."""
    body = json.loads(json.dumps(reply.body))
    *parents, last = path
    place = body
    for step in parents:
        place = place[step]
    place[last] = to
    return replace(reply, body=body)


def top_bound(text: str, k: int) -> float:
    """The bound of a label word outside the k most probable tokens, from its definition."""
    values = sorted(log_probabilities(text), reverse=True)[:k]
    return min(values[-1], math.log(1 - sum(math.exp(value) for value in values)))
