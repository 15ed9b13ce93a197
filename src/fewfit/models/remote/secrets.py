"""What must not be said: the keys in use, however a server or a library writes them."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from fewfit.errors import printable

PIECE = 8
"""Characters of a secret in a row that are not shown in a message."""

LONG_PIECE = 12
"""The same for what is read on: a label word is hardly ever as long a piece of a key."""

SHORTEST = 4
"""Shorter keys, such as ``x`` for a server that wants any, are in half of all words."""

MASK = "***"

_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_SECRETIVE = re.compile(
    r"(x?api|access|auth|bearer|client|secret|private|subscription)*(key|token|secret|auth|"
    r"authorization|bearer|headers?|password|passwd|passphrase|pwd|credentials?)"
)
_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-[\w-]{16,}|(?:hf|gsk|gh[oprsu]|github_pat|r8)_\w{20,}|"
    r"(?:xai|pplx|nvapi)-[\w-]{20,}|AIza[\w-]{30,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,})",
    re.ASCII,
)
_RUN = re.compile(r"[A-Za-z0-9]{12,}")
_CASES = 8
"""Changes between small and capital letters in a run: names made of words have fewer."""

_IN_PATH = re.compile(
    r"(?:^|/)([\w.-]*(?:key|token|secret|bearer|password))/(?=[^/\s]*\d)[^/\s]{8,}", re.IGNORECASE
)
_ASSIGNED = re.compile(r"([\w.-]+)\s*(?:=|:\s)")
_PLAIN = re.compile(r"[A-Z]{1,16}(_[A-Z]{1,16}|_[0-9]{1,3})*")


class Redactor:
    """Takes secrets out of what is said and read, in the forms in which they come back.

    These are the key itself, escaped as JSON, Python, HTML and addresses escape it, in base64 and
    in hexadecimal, in upper or lower case, whole or cut.

    Parameters
    ----------
    secrets : iterable of str
        Those shorter than 4 characters are left out.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._sizes: dict[int, set[str]] = {}
        self._long: dict[int, set[str]] = {}
        for secret in set(secrets):
            if len(secret) < SHORTEST:
                continue
            for form in forms(secret):
                _add(self._sizes, form, PIECE)
                if len(form) >= PIECE:
                    _add(self._long, form, LONG_PIECE)

    def __call__(self, text: str) -> str:
        """Return one printable line for people, without a secret or a piece of one."""
        return printable(_masked(text, self._sizes))

    def json(self, value: Any) -> Any:
        """Return what JSON holds, with secrets masked in its strings and names of fields."""
        if not self._long:
            return value
        if isinstance(value, str):
            return _masked(value, self._long)
        if isinstance(value, list):
            return [v if type(v) is float else self.json(v) for v in value]
        if isinstance(value, dict):
            return {self.json(name): self.json(inner) for name, inner in value.items()}
        return value

    def __repr__(self) -> str:
        return "Redactor()"

    def __reduce__(self) -> Any:
        raise TypeError("a redactor knows keys and is not written anywhere")


def forms(secret: str) -> set[str]:
    """Return how a secret may be written."""
    data = secret.encode("utf-8", "surrogatepass")
    found = {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        json.dumps(json.dumps(secret)[1:-1])[1:-1],
        repr(secret)[1:-1],
        html.escape(secret),
        quote(secret, safe=""),
        "".join(f"\\u{ord(c):04x}" for c in secret),
        "".join(f"\\x{byte:02x}" for byte in data),
        "".join(f"%{byte:02x}" for byte in data),
        "".join(f"&#{ord(c)};" for c in secret),
        "".join(f"&#x{ord(c):x};" for c in secret),
        data.hex(),
        secret[::-1],
    }
    for shift in range(3):  # where in a longer text in base64 the secret begins
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(b"\0" * shift + data).decode().rstrip("=")
            known = whole[(0, 2, 3)[shift] :]
            found.add(known[:-1] if (shift + len(data)) % 3 else known)
    return {form for form in found if len(form) >= SHORTEST}


def is_secretive(name: str) -> bool:
    """Whether an option or a field of this name would hold a key."""
    return _SECRETIVE.fullmatch(re.sub(r"[^a-z]", "", name.casefold())) is not None


def holds_key(value: str) -> bool:
    """Whether text holds what has the shape of a key, or an address with a password."""
    return (
        any(_is_random(shape) for shape in _KEYS.findall(value))
        or any(map(is_secretive, _IN_PATH.findall(value)))
        or re.search(r"://[^/?#\s]*@", value) is not None
        or re.search(r"\bbearer\s+(?=\S*\d)\S{8}", value, re.IGNORECASE) is not None
    )


def holds_secret(value: str) -> bool:
    """Whether text holds a key by its shape, or by the name that it is assigned to."""
    return (
        holds_key(value)
        or any(map(is_secretive, _ASSIGNED.findall(value)))
        or re.search(r"\bbearer\s+\S", value, re.IGNORECASE) is not None
    )


def _is_random(text: str) -> bool:
    """Whether some of it is of random letters and digits, as no name made of words is."""
    for run in _RUN.findall(text):
        digits, letters = re.sub(r"\D", "", run), re.sub(r"\d", "", run)
        mixed = letters != letters.lower() and letters != letters.upper()
        if letters and digits and (mixed or len(digits) >= 4):
            return True
        if len(re.findall("[a-z](?=[A-Z])|[A-Z](?=[a-z])", run)) >= _CASES:  # of letters alone
            return True
    return False


def is_plain_name(name: str) -> bool:
    """Whether the name of a variable looks like one, so that it may be said, and like no key."""
    return len(name) <= 40 and _PLAIN.fullmatch(name) is not None


def _add(sizes: dict[int, set[str]], form: str, piece: int) -> None:
    form = form.translate(_LOWER)
    size = min(piece, len(form))
    sizes.setdefault(size, set()).update(form[i : i + size] for i in range(len(form) - size + 1))


def _masked(text: str, sizes: dict[int, set[str]]) -> str:
    """Put a mask in the place of every stretch of `text` that pieces of a secret cover."""
    lower = text.translate(_LOWER)
    spans: list[list[int]] = []
    for size, pieces in sizes.items():
        for i in range(len(lower) - size + 1):
            if lower[i : i + size] in pieces:
                spans.append([i, i + size])
    if not spans:
        return text
    parts: list[str] = []
    end = 0
    for start, stop in sorted(spans):
        if start > end or not parts:
            parts += [text[end:start], MASK]
        end = max(end, stop)
    return "".join(parts) + text[end:]
