"""What a remote model is told beside its address, and what an address may not hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from fewfit.errors import InputError

_SECRETIVE = ("key", "api_key", "apikey", "token", "access_token", "password", "secret")


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
    key_env : str or None
        Name of the environment variable with the API key.
    hidden : str or None
        Address of a server that embeds the prompt; its vector is the hidden state.
    top_k : int or None
        How many of its most probable tokens the server is asked to list.
    """

    model: str | None = None
    served_as: str | None = None
    fingerprint: str | None = None
    key_env: str | None = None
    hidden: str | None = None
    top_k: int | None = None


def options_of(scheme: str, given: Mapping[str, Any]) -> Options:
    """Check options by name and type; text is converted, as it comes from a spec.

    Raises
    ------
    InputError
        The message repeats no value that could be a key.
    """
    types = {field.name: str(field.type) for field in fields(Options)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name.casefold() in _SECRETIVE:
            raise InputError(
                f"{scheme}: {name}= does not belong in a model's address, which is written to "
                "artifacts; put the key into an environment variable and add key_env=ITS_NAME"
            )
        if name not in types:
            raise InputError(f"{scheme}: there is no option {name!r}; there are {sorted(types)}")
        kind = int if "int" in types[name] else float if "float" in types[name] else str
        try:
            values[name] = value if value is None else kind(value)
        except (TypeError, ValueError):
            raise InputError(f"{scheme}: option {name!r} is a {kind.__name__}") from None
        least = {"top_k": 1, "connections": 1, "timeout": 1e-3, "deadline": 1e-3}.get(name, 0)
        if kind is not str and value is not None and not values[name] >= least:
            raise InputError(f"{scheme}: option {name!r} is at least {least}")
    return Options(**values)


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
    if split.query or split.fragment:
        raise InputError(f"{what}: the address has a part after ? or # that is not known")
    return url.rstrip("/")
