"""What a remote model is told beside its address, and what an address may not hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from fewfit.errors import InputError
from fewfit.models.remote.secrets import holds_key, holds_secret, is_secretive

OWN_FIELDS = re.compile(
    r"model|prompt|messages|inputs?|text|content|stream|n|best_of|echo|raw|(top_)?logprobs|n_probs|"
    r"max_(completion_|new_)?tokens|n_predict|num_predict|post_sampling_probs|logprob_token_ids|"
    r"token_ids_logprob|return_(logprob|hidden_states|tokens_as_token_ids)|encoding_format|"
    r"response_format|tools|tool_choice|functions?|function_call|system|state|questions|stop"
)
"""Fields of a request that decide what is asked and how the reply is read: not for ``extra``."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How patient and how parallel; none of it changes an answer.

    Attributes
    ----------
    connections : int
        Requests under way at once.
    retries : int
        Further attempts after the first, for one request.
    timeout : float
        Seconds for one attempt, to the last byte of its reply.
    deadline : float
        Seconds for one request with all its attempts and the waits between them.
    backoff : float
        Longest wait before the second attempt, in seconds; it doubles from there to 8 times. The
        server's ``Retry-After`` comes first, up to 60 s.
    """

    connections: int = 16
    retries: int = 5
    timeout: float = 60.0
    deadline: float = 300.0
    backoff: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Options(Limits):
    """What may follow the ``?`` of a spec, or be passed by keyword; see also :class:`Limits`.

    Attributes
    ----------
    model : str or None
        The model's name on the server.
    served_as : str or None
        The name that replies carry, where a proxy answers under another one than was asked for.
    fingerprint : str or None
        Your word for which weights answer. It takes the address's place in the model's identity,
        so that stored answers and artifacts stay valid when the server moves.
    replicas : bool
        Your word that whatever answers under this name is one model, though the marks that servers
        give to their weights and builds (``system_fingerprint``, ``weight_version``,
        ``model_sha``) change from reply to reply.
    key_env : str or None
        Name of the environment variable with the API key.
    hidden : str or None
        Address of a server that embeds the prompt; its vector is the hidden state.
    hidden_key_env : str or None
        Name of the variable with that server's key. Without it, it is sent that of ``key_env`` only
        where it has the same scheme, host and port.
    top_k : int or None
        How many of its most probable tokens the server is asked to list.
    case : {"exact", "any"}
        Whether a listed token spells a label word only in the word's own case.
    answers : {"tokens", "text"}
        What is read of a chat's answer: the log-probabilities of its first token, or its text.
    samples : int
        How many answers in words a query has; the frequencies of the labels are the scores.
    output : {"schema", "tool", "plain"} or None
        How an answer in words is asked for: as JSON of a schema, as the call of a tool, or as plain
        text. None is the first of these that the dialect has.
    instruction : str or None
        What stands before the text in words' stead of a slot; ``{labels}`` is the list of labels.
    system : str or None
        The system's message.
    multi_token : {"first", "trie"}
        Where tokens are scored by id: whether a label word counts by its first token, or by all of
        them, among the label words, with one request wherever these go on in different ways.
    chat : bool
        Whether the prompt is put into the server's own chat template, with the slot where the model
        begins to speak.
    prefix : str or None
        What the model has said already, in such a chat, before the slot.
    max_tokens, max_completion_tokens : int or None
        Under which name, and with what value, the answer's length is limited. ``max_tokens`` where
        neither is given: 1 where the first token is scored, 64 for answers in words.
    temperature : float or None
        What is sent; None (``temperature=none``) leaves it out.
    reasoning_effort : str or None
        What is sent, if anything.
    truncate : bool
        Whether the server may cut a text that is too long for it, which nobody is then told.
    extra : str or None
        Further fields of the request, a JSON object. Objects in it are merged with those that are
        sent anyway.
    """

    model: str | None = None
    served_as: str | None = None
    fingerprint: str | None = None
    replicas: bool = False
    key_env: str | None = None
    hidden: str | None = None
    hidden_key_env: str | None = None
    top_k: int | None = None
    case: str = "exact"
    answers: str = "tokens"
    samples: int = 1
    output: str | None = None
    instruction: str | None = None
    system: str | None = None
    multi_token: str = "first"
    chat: bool = False
    prefix: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = 0.0
    reasoning_effort: str | None = None
    truncate: bool = False
    extra: str | None = None

    def given(self, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Return the options that are not at their default, as a spec has them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: _written(value)
            for name, value in values.items()
            if name not in without and value != getattr(_DEFAULTS, name)
        }

    def deciding(self) -> dict[str, str]:
        """Return the options, as text, that change what the server is asked or how it is read.

        ``top_k`` and ``hidden`` are not among them: a dialect has defaults of its own.
        """
        given = self.given()
        return {name: str(given[name]) for name in _DECIDING if name in given}


_DEFAULTS = Options()
_DECIDING = (
    "case",
    "answers",
    "samples",
    "output",
    "instruction",
    "system",
    "multi_token",
    "chat",
    "prefix",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "reasoning_effort",
    "truncate",
    "extra",
)
_OF_SOME = frozenset({"hidden", "hidden_key_env", "top_k", *_DECIDING}) - {"extra"}
"""Options that only some dialects have."""

KEY_NAMES = frozenset({"key_env", "hidden_key_env"})
"""Options that name an environment variable; no artifact has them."""

_PROSE = frozenset({"instruction", "system", "prefix", "extra"})
"""Options that say something to a model, and may speak of keys and tokens."""

_LEAST = {
    "top_k": 1,
    "samples": 1,
    "connections": 1,
    "timeout": 1e-3,
    "deadline": 1e-3,
    "max_tokens": 1,
    "max_completion_tokens": 1,
}
_MOST = {
    "top_k": 10**6,
    "samples": 128,
    "connections": 1024,
    "retries": 1000,
    "timeout": 86_400,
    "deadline": 86_400,
    "backoff": 3600,
    "max_tokens": 10**6,
    "max_completion_tokens": 10**6,
}
"""More is a slip, or an artifact that wants a thread for each of a million rows."""


_ALLOWED: dict[str, tuple[str | None, ...]] = {
    "case": ("exact", "any"),
    "answers": ("tokens", "text"),
    "output": ("schema", "tool", "plain", None),
    "multi_token": ("first", "trie"),
}


def options_of(scheme: str, given: Mapping[str, Any], has: frozenset[str] = _OF_SOME) -> Options:
    """Check options by name and type; text is converted, as it comes from a spec.

    Parameters
    ----------
    has : frozenset of str
        Which of the options that only some dialects have this one has.

    Raises
    ------
    InputError
        The message repeats no value that could be a key.
    """
    types = {field.name: str(field.type) for field in fields(Options)}
    has |= {"hidden_key_env"} if "hidden" in has else frozenset()
    known = [name for name in types if name not in _OF_SOME or name in has]
    values: dict[str, Any] = {}
    for name, value in given.items():
        if is_secretive(name):
            raise InputError(
                f"{scheme}: {name}= does not belong in a model's address, which is written to "
                "artifacts; put the key into an environment variable and add key_env=ITS_NAME"
            )
        if name not in known:
            if name in ("logprobs", "top_logprobs", "n_probs") and "top_k" in known:
                close = ["top_k"]
            else:
                close = get_close_matches(name.casefold(), known, n=1)
            meant = f"did you mean {close[0]!r}? " if close else ""
            raise InputError(
                f"{scheme}: there is no option{_named(name)}; {meant}There are "
                f"{', '.join(sorted(known))}; other fields of the request go into extra={{JSON}}"
            )
        values[name] = _converted(f"{scheme}: option {name!r}", value, types[name])
        least = _LEAST.get(name, 0)
        number = isinstance(values[name], int | float) and "bool" not in types[name]
        if number and not least <= values[name]:
            raise InputError(f"{scheme}: option {name!r} is at least {least}")
        if number and name in _MOST and values[name] > _MOST[name]:
            raise InputError(f"{scheme}: option {name!r} is at most {_MOST[name]}")
        secret = holds_key if name in _PROSE else holds_secret
        if isinstance(values[name], str) and secret(values[name]):
            raise InputError(
                f"{scheme}: option {name!r} holds what looks like a key or a password, which does "
                "not belong in a model's address; name the variable that holds it with key_env=NAME"
            )
    options = Options(**values)
    for name in sorted(KEY_NAMES):
        value = getattr(options, name)
        if value is not None and not re.fullmatch(r"[A-Za-z_]\w{0,255}", value):
            raise InputError(
                f"{scheme}: {name}= takes the name of an environment variable that holds the key, "
                "not the key itself"
            )
    for name, allowed in _ALLOWED.items():
        if getattr(options, name) not in allowed:
            said = [value for value in allowed if value is not None]
            either = f"{', '.join(said[:-1])} or {said[-1]}"
            raise InputError(f"{scheme}: option {name!r} is {either}")
    if options.samples > 1 and options.temperature == 0:
        raise InputError(
            f"{scheme}: {options.samples} samples at temperature 0 are one answer given "
            f"{options.samples} times; add temperature=1, or ask for one"
        )
    if options.temperature == float("inf"):
        raise InputError(f"{scheme}: option 'temperature' is finite, or none to leave it out")
    if options.max_tokens is not None and options.max_completion_tokens is not None:
        raise InputError(f"{scheme}: max_tokens or max_completion_tokens, not both")
    return options


def _converted(what: str, value: Any, kind: str) -> Any:
    if "None" in kind and (value is None or (str(value).casefold() == "none" and "float" in kind)):
        return None
    if what.endswith("'extra'"):
        return _extra(what, value)
    if "bool" in kind:
        answers = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if (said := answers.get(str(value).casefold())) is None:
            raise InputError(f"{what} is true or false")
        return said
    convert: Any = int if "int" in kind else float if "float" in kind else str
    name = {int: "whole number", float: "number", str: "text"}[convert]
    cut = isinstance(value, float) and not value.is_integer()
    if convert is int and (cut or isinstance(value, bool)):
        raise InputError(f"{what} is a {name}")
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{what} is a {name}") from None


def _extra(what: str, value: Any) -> str:
    """Return further fields of a request as one canonical text, or refuse them."""
    try:
        text = json.dumps(
            json.loads(value) if isinstance(value, str) else value,
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        )
        entries = json.loads(text)
        names, values = _held(entries)
    except (TypeError, ValueError, RecursionError):
        entries, text, names, values = None, "", [], []
    if not isinstance(entries, dict):
        raise InputError(
            f'{what} is a JSON object such as {{"seed": 1}}; in an address, %-encode & and +'
        )
    if any(map(holds_key, [*names, *values])):  # and not what texts and templates say of keys
        raise InputError(
            f"{what} holds what looks like a key or a password, and an address is written to "
            "artifacts; name the variable that holds it with key_env=NAME"
        )
    for name in names:
        if is_secretive(name):
            raise InputError(
                f"{what} holds {name!r}, and an address is written to artifacts; put the key into "
                "an environment variable and add key_env=ITS_NAME"
            )
    inner = {name for part in entries.values() if isinstance(part, dict) for name in part}
    taken = [name for name in sorted(set(entries) | inner) if OWN_FIELDS.fullmatch(name)]
    if taken:
        raise InputError(f"{what}: {taken[0]!r} is fewfit's own; it decides what is asked and read")
    return text


def _held(value: Any) -> tuple[list[str], list[str]]:
    """Return the names of fields and the texts in what JSON holds, at any depth."""
    names: list[str] = []
    texts: list[str] = []
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            names += part
            left += part.values()
        elif isinstance(part, list):
            left += part
        elif isinstance(part, str):
            texts.append(part)
    return names, texts


def _named(name: str) -> str:
    """What is not known by its name is said only where it cannot be a key."""
    return f" {name!r}" if re.fullmatch(r"[a-z_]{1,24}", name) else " of that name"


def _written(value: Any) -> Any:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else value


def spelled(given: Mapping[str, Any]) -> str:
    """Return options as a message has them, as they follow the ``?`` of an address."""
    return "&".join(f"{name}={_written(value)}" for name, value in given.items())


def spec_of(scheme: str, url: str, given: Mapping[str, Any]) -> str:
    """Return the string that makes a model again."""
    return f"{scheme}:{url}" + (f"?{urlencode(given)}" if given else "")


def check_url(url: str, what: str) -> str:
    """Return `url` without a trailing slash, or refuse it without repeating what it may hide."""
    try:
        split = urlsplit(url)
        odd = not url.isascii() or any(character <= " " for character in url)
        bad = odd or split.scheme not in ("http", "https") or not split.hostname or split.port == 0
    except ValueError:
        bad, split = True, urlsplit("")
    if split.username is not None or split.password is not None or "@" in split.netloc:
        raise InputError(
            f"{what}: a key or a password does not belong in the address, which is written to "
            "artifacts; put it into an environment variable and name that with key_env=NAME"
        )
    if bad:
        raise InputError(f"{what}: the address must be http://host[:port][/path] or https://...")
    if holds_secret(unquote(split.netloc + split.path)):
        raise InputError(f"{what}: a key does not belong in the address; use key_env=NAME")
    if split.query or split.fragment:
        raise InputError(f"{what}: the address has a part after ? or # that is not known")
    return url.rstrip("/")
