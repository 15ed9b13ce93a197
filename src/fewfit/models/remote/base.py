"""What all remote frozen models share: spec, identity, and the run over many prompts."""

from __future__ import annotations

import threading
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError, ModelError, ModelWarning
from fewfit.models.base import Check, FrozenModel
from fewfit.models.budget import unbilled
from fewfit.models.remote.answers import Answer, Tally
from fewfit.models.remote.fields import PROMPT_FIELDS, merged, refused
from fewfit.models.remote.guard import Guard, redact
from fewfit.models.remote.options import KEY_NAMES, check_url, options_of, spec_of
from fewfit.models.remote.pool import Arrived, answer_all
from fewfit.models.remote.secrets import Redactor
from fewfit.models.remote.transport import Session, Transport
from fewfit.models.remote.verdict import Refused, RowError
from fewfit.models.streams import mapped
from fewfit.observations import Batch, Observations, Status, unanswered
from fewfit.prompts import Prompt


class RemoteModel(FrozenModel):
    """Base of the server dialects: what they share is here, what differs is in four members.

    Parameters
    ----------
    url : str
        Address of the server, without a key; ``/v1`` at its end may be given or left out.
    **options
        See :class:`Options`; which of them a dialect has is in its own documentation.

    Notes
    -----
    One prompt is one query. A prompt without a usable answer becomes a row of NaN with
    ``Status.FAILED`` and a reason in a :class:`~fewfit.errors.ModelWarning`; it does not touch the
    others. What makes asking on pointless stops the run: a key that is refused, a used-up quota,
    another model's name in a reply, 16 prompts in a row without an answer. Retries are counted in
    :attr:`retries`, and do not count as queries.

    Raises
    ------
    InputError
        For an address or option that is not known, or that holds a key.
    ModelError
        When asked, if the run has to stop.
    """

    scheme: ClassVar[str]
    has: ClassVar[frozenset[str]] = frozenset()
    """Which of the options that only some dialects have this one has."""
    needs_model: ClassVar[bool] = True
    key_hosts: ClassVar[Mapping[str, str]] = {"api.openai.com": "OPENAI_API_KEY"}
    """Where a key is sent without ``key_env``: nowhere else, so that no key goes to a stranger."""

    key_header: ClassVar[str] = "Authorization: Bearer "
    headers: ClassVar[tuple[str, ...]] = ()
    """Further lines of a request's head."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = check_url(url, self.scheme).removesuffix("/v1")
        self.options = options_of(self.scheme, options, self.has)
        if self.needs_model and not self.options.model:
            raise InputError(f"{self.scheme}: which model? Add ?model=NAME to the address")
        self._transport = Transport(
            self.url,
            key_env=self._key_env(self.url),
            limits=self.options,
            key_header=self.key_header,
            headers=self.headers,
        )
        self._second: Transport | None = None
        if self.options.hidden is not None:
            address = check_url(self.options.hidden, f"{self.scheme}: hidden").removesuffix("/v1")
            own = self.options.hidden_key_env or self._key_env(address)
            self._second = Transport(address, key_env=own, limits=self.options)
        self._pinned: dict[str, Any] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_spec(cls, rest: str) -> Self:
        """Make the model from what follows ``scheme:`` in a spec."""
        url, _, query = rest.partition("?")
        if "#" in query:
            raise InputError(f"{cls.scheme}: the address has a part after # that is not known")
        pairs = parse_qsl(query, keep_blank_values=True)
        if len(dict(pairs)) != len(pairs):
            raise InputError(f"{cls.scheme}: an option is given twice")
        return cls(url, **dict(pairs))

    @property
    def spec(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Scheme, address and options without ``key_env`` and ``hidden_key_env``.

        An artifact that names an environment variable could have a stranger's server told what is
        in it; whoever loads the artifact says where the key is.
        """
        return spec_of(self.scheme, self.url, self.options.given(without=KEY_NAMES))

    @property
    def identity(self) -> Mapping[str, str]:
        """Scheme, model, which server (its address, or the user's ``fingerprint`` for it), options.

        Options that decide the answers are there where they are not at their default.
        """
        options, given = self.options, self.capabilities
        return {
            "kind": self.scheme,
            "model": options.model or "",
            "server": options.fingerprint or f"{self.url} {options.hidden or ''}".strip(),
            "top_k": str(given.top_k),
            "hidden": str(given.hidden),
            **options.deciding(),
        }

    @property
    def retries(self) -> int:
        return self._transport.retries + (self._second.retries if self._second else 0)

    @property
    def requests(self) -> int:
        """Requests sent so far, retries not counted: queries, and what goes with them."""
        return self._transport.requests + (self._second.requests if self._second else 0)

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        session = self.session()
        with self._spoken(session.redactor, "the server is no use: "):
            ask = self._asking(session, unbilled(prompts), words)
        tally, guarded = Tally(), Guard(ask, self.scheme, session.redactor)

        def batches(group: Arrived) -> Iterator[Batch]:
            if answered := tally.usable(group):
                yield (
                    np.array([i for i, _ in answered], dtype=np.intp),
                    self._observations(words, [answer for _, answer in answered]),
                )

        groups = answer_all(lambda i: guarded(prompts[i]), len(prompts), session)
        yield from mapped(groups, batches)
        if tally.failed:
            where, why = zip(*tally.failed, strict=True)
            yield np.array(where, dtype=np.intp), unanswered(words, len(where), why)
        for said in tally.messages(len(prompts)):
            warnings.warn(f"{self.scheme}: {said}", ModelWarning, stacklevel=2)

    def send(self, session: Session, path: str, body: Mapping[str, Any]) -> Any:
        """Send the request that answers a prompt, with the user's ``extra`` fields.

        Raises
        ------
        RowError
            If this prompt has no answer.
        FieldRefused
            If the server refuses a field, so that no prompt would have one.
        """
        whole = merged(body, self.options.extra)
        try:
            return session.post(path, whole)
        except Refused as error:
            field = error.names(set(whole) - PROMPT_FIELDS)
            if field is None:
                raise
            other = self.alternative(field, str(error)) if field in body else None
            raise refused(self.scheme, whole, field, error, other) from None

    def alternative(self, field: str, said: str) -> dict[str, Any] | None:
        """Return options to try where the server refuses a field of the request, if there are any.

        Parameters
        ----------
        field : str
        said : str
            How the server put it.
        """
        return None

    def session(self) -> Session:
        """Begin a run of requests."""
        secrets = self._transport.secrets()
        return Session(
            self._transport,
            Redactor([*secrets, *(self._second.secrets() if self._second else ())]),
        )

    @contextmanager
    def _spoken(self, redactor: Redactor, what: str = "") -> Iterator[None]:
        """Let errors leave as one line without a secret."""
        try:
            yield
        except RowError as error:
            raise ModelError(redactor(f"{self.scheme}: {what}{error}")) from None
        except ModelError as error:
            redact(error, redactor)
            raise

    def _second_session(self, session: Session) -> Session | None:
        """Begin requests to the server at ``hidden=``; they stop together with `session`."""
        return None if self._second is None else Session(self._second, beside=session)

    def _checked(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        self.same("the length of the hidden state", len(hidden))
        return hidden

    @abstractmethod
    def _asking(
        self, session: Session, prompts: Sequence[Prompt], words: Sequence[str]
    ) -> Callable[[Prompt], Answer]:
        """Prepare a run, and return the function from a prompt to its :class:`Answer`."""

    def check_fields(self, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        session = self.session()
        with self._spoken(session.redactor):
            checks = self._check_fields(session, prompt, words)
        said = session.redactor
        return [replace(c, outcome=said(c.outcome), detail=said(c.detail)) for c in checks]

    def _check_fields(self, session: Session, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        """Do the work of :meth:`check_fields`; dialects with nothing to try leave it."""
        return []

    def same(self, what: str, value: Any, *, mark: bool = False) -> None:
        """Stop the run if `value` is not what the server said before (ModelError).

        Parameters
        ----------
        mark : bool
            Whether it is a mark of the weights or the build, which the user may say are one model.
        """
        if value is None or (mark and self.options.replicas):
            return
        if type(value) not in (str, int):
            raise RowError(f"{what} is neither text nor a number in the reply")
        with self._lock:
            before = self._pinned.setdefault(what, value)
        if before != value:
            vouch = (
                "If they are replicas or builds of one model, add replicas=true to the model's "
                "address; else start"
                if mark
                else "If the change is meant, start"
            )
            raise ModelError(
                f"{self.scheme}: {what} was {before!r} and is now {value!r}: another model may "
                f"answer under the same name. {vouch} with another fingerprint=... and so without "
                "the old answers. What the store has is not asked again"
            )

    def check_name(self, reply: Any) -> None:
        """Stop the run if a reply names another model than was asked for (ModelError)."""
        name = reply.get("model") if isinstance(reply, dict) else None
        expected = self.options.served_as or self.options.model
        if isinstance(name, str) and expected is not None and name != expected:
            raise ModelError(
                f"{self.scheme}: asked for model {expected!r}, answered by {name!r}. Ask for the "
                "model by that name, or, if they are the same model, add served_as=" + name
            )
        self.same("the model's name", name)

    def _observations(self, words: Sequence[str], answers: Sequence[Answer]) -> Observations:
        space = self.capabilities.scores

        def stacked(name: str) -> Any:
            rows = [getattr(answer, name) for answer in answers]
            return None if rows[0] is None else np.stack(rows)

        return Observations(
            columns=tuple(words),
            scores=stacked("scores"),
            space=space,
            hidden=stacked("hidden"),
            label_mass=np.array([answer.label_mass for answer in answers]),
            n_tokens=np.array([answer.n_tokens for answer in answers]),
            status=np.full(len(answers), Status.OK),
            asked=np.ones(len(answers), dtype=bool),
            censored=stacked("censored"),
        )

    def _key_env(self, url: str) -> str | None:
        asked, own = urlsplit(url), urlsplit(self.url)
        if self.options.key_env and (asked.scheme, asked.netloc) == (own.scheme, own.netloc):
            return self.options.key_env
        return self.key_hosts.get(asked.netloc) if asked.scheme == "https" else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec!r})"

    def __reduce__(self) -> Any:
        return _restore, (type(self), self.url, self.options.given())


def _restore(kind: type[RemoteModel], url: str, options: dict[str, Any]) -> RemoteModel:
    return kind(url, **options)
