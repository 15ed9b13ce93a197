"""Language models of transformers as frozen models: masked, causal and encoder-decoder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal
from urllib.parse import quote_plus, urlencode

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError, TruncationWarning
from fewfit.models.base import Capabilities, Check, FrozenModel
from fewfit.models.generation import Texts, Writing, Written
from fewfit.models.local.base import LocalModel
from fewfit.models.local.batching import read_in_batches
from fewfit.models.local.chat import ChatTemplate, read_template, template_digest
from fewfit.models.local.cutting import Frame, frame_of
from fewfit.models.local.encoding import PromptEncoder
from fewfit.models.local.files import Checkpoint
from fewfit.models.local.loading import load_network, load_tokenizer
from fewfit.models.local.network import Network, padding
from fewfit.models.local.plan import Plan, make_plan, slot_alone
from fewfit.models.local.scores import observe
from fewfit.models.local.soft import SoftPromptModel
from fewfit.models.local.specs import CHAT_OPTIONS, OPTIONS, parse_spec
from fewfit.models.local.texts import Encoded
from fewfit.models.local.writing import next_scores, write_batch, write_tokens
from fewfit.models.probe import LITTLE_MASS, check_mass
from fewfit.observations import Batch, Observations, ScoreSpace
from fewfit.prompts import Prompt

__all__ = ["TransformersModel"]

_READING = "1"  # a change of slot rules or word forms is another number, hence another identity


class TransformersModel(LocalModel):
    """A masked, causal or encoder-decoder language model, run in this process.

    Hidden state and scores come from one forward pass, read at the slot:

    masked
        The slot is the mask token; its last hidden state and the head's scores there.
    causal
        The model reads the prompt up to the slot; the state of the last token and the scores of
        the next. Nothing but punctuation may stand behind the slot: it is left out. With `chat`
        the prompt is the user's turn, and the slot is where the model begins to speak.
    encoder-decoder
        The slot is the sentinel ``<extra_id_0>`` of T5's family. The decoder is fed its start token
        and that sentinel, as when T5 learned to fill gaps, and is read there.

    The head is computed at the slot alone, and in the space ``logit`` only for the label words'
    tokens as long as each is a single one.

    Parameters
    ----------
    name : str
        A folder, or a name on the hub. Only safetensors are read, and no code of a checkpoint.
    revision : str, optional
        Branch, tag or commit on the hub; it is resolved to a commit, once.
    space : {"logit", "logprob"}, default="logit"
        Space of the scores. They differ by a constant per example, so that calibrated decisions are
        the same; "logprob" needs the whole vocabulary at the slot, and then also tells the label
        mass. In "logit" the label mass is NaN.
    multi_token : {"sum", "first", "trie"}, default="sum"
        The score of a word of several tokens. "sum": its log-probability, each token given the
        ones before (causal, encoder-decoder), or, for a masked model, the sum over as many masks as
        the word has tokens, all asked at once. In the space ``logit`` the log-normaliser of the
        slot is added to it, which makes it comparable to the others. "first": the first token
        alone, as in DecT's code. "trie": its probability among the label words, which share all
        of it wherever they go on in different ways (:class:`fewfit.prompts.Trie`); what a label
        shares with all others, and how long it is, then counts for nothing.
    dtype : {"float32", "bfloat16", "float16", "auto"}, optional
        Of the weights; left out, bfloat16 on a CUDA device that has it, else float32. "auto" is
        bfloat16 also on a processor that multiplies it. What it came to is part of the identity and
        of :attr:`spec`.
    max_tokens : int, optional
        Longer prompts are cut (the longest field first, from its end; never the template); left
        out, what config and tokenizer declare.
    chat : bool, default=False
        Whether prompts are put into the checkpoint's own chat template, as an instruct model was
        taught to read them (:class:`fewfit.models.local.chat.ChatTemplate`); causal models alone.
    system : str, optional
        The system's message of the chat; left out, what the template has for that.
    prefix : str, optional
        What the model has said already before the slot, for example "It is".
    device : str, optional
        Left out, "cuda" or "mps" where there is one, else "cpu". Not part of the identity.

    Raises
    ------
    InputError
        For arguments that are not as above; when asked, before any forward pass, for a template
        or label words that this model cannot read.
    MissingExtraError, ModelError
        When first asked: torch is missing, or the checkpoint cannot be had, read or understood.

    Notes
    -----
    A query is one prompt. Words of several tokens need more forward passes for it: causal and
    encoder-decoder models one for each distinct beginning (all tokens but the last) that is not
    the beginning of another, masked models one for each distinct number of tokens.

    A causal or encoder-decoder score is that of the word's tokens, whatever comes next: of "New"
    and "New York" the first is never the less probable.

    Without `chat` prompts are read as they are.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        space: Literal["logit", "logprob"] = "logit",
        multi_token: Literal["sum", "first", "trie"] = "sum",
        dtype: str | None = None,
        max_tokens: int | None = None,
        chat: bool = False,
        system: str | None = None,
        prefix: str | None = None,
        device: str | None = None,
    ) -> None:
        for option, value, allowed in (
            ("space", space, ("logit", "logprob")),
            ("multi_token", multi_token, ("sum", "first", "trie")),
        ):
            if value not in allowed:
                raise InputError(f"model: {option} is one of {allowed}, not {value!r}")
        point = Checkpoint(str(name), revision)
        super().__init__(point, dtype=dtype, max_tokens=max_tokens, device=device)
        self.space = ScoreSpace(space)
        self.multi_token = multi_token
        for option, value in (("system", system), ("prefix", prefix)):
            if value is not None and not chat:
                raise InputError(f"model: {option} is of a chat; add chat=true")
        self.chat, self.system, self.prefix = chat, system, prefix

    @classmethod
    def from_spec(cls, rest: str) -> TransformersModel:
        """Make the model of ``hf:NAME_OR_PATH[@REVISION][?option=value&...]``.

        Options are those of the constructor but `device`.
        """
        name, options = parse_spec(rest, (*OPTIONS, *CHAT_OPTIONS))
        return cls(name, **options)

    @cached_property
    def spec(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The string that makes this model again, pinned to the commit and the dtype."""
        at = "" if self.checkpoint.local else f"@{self.checkpoint.commit}"
        options: dict[str, str] = {"dtype": self.dtype}
        if self.space is not ScoreSpace.LOGIT:
            options["space"] = self.space.value
        if self.multi_token != "sum":
            options["multi_token"] = self.multi_token
        if self._max_tokens is not None:
            options["max_tokens"] = str(self._max_tokens)
        if self.chat:
            told = {"system": self.system, "prefix": self.prefix}
            options |= {"chat": "true", **{k: v for k, v in told.items() if v is not None}}
        return f"hf:{self.checkpoint.name}{at}?{urlencode(options)}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            scores=self.space,
            hidden=True,
            full_vocabulary=True,
            soft_prompts=self.checkpoint.kind == "masked",
        )

    @property
    def identity(self) -> Mapping[str, str]:
        return {
            "kind": f"transformers-{self.checkpoint.kind}",
            "architecture": self.checkpoint.architecture,
            **self.checkpoint.fingerprint,
            "dtype": self.dtype,
            "max_tokens": str(self.max_tokens),
            "space": self.space.value,
            "multi_token": self.multi_token,
            "reading": _READING,
            **self._chat_identity,
        }

    @cached_property
    def _chat_identity(self) -> dict[str, str]:
        if not self.chat:
            return {}
        told = {"system": self.system, "prefix": self.prefix}
        source = template_digest(self._chat_source)
        return {"chat": source, **{k: v for k, v in told.items() if v is not None}}

    @cached_property
    def _chat_source(self) -> str:
        point = self.checkpoint
        if point.kind != "causal":
            raise InputError(f"model: {point.name} is no causal model, which alone can chat")
        source = read_template(point.description, point.name)
        if source is None:
            raise InputError(f"model: {point.name} has no chat template; leave out chat=true")
        return source

    def input_embeddings(self) -> NDArray[np.float32]:
        return self._network.input_embeddings

    def with_soft_prompt(self, vectors: NDArray[np.floating]) -> FrozenModel:
        prompted = SoftPromptModel(self, vectors, self._answers)
        return prompted if len(vectors) else self

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        yield from self._answers(self._read(prompts), words, None)

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        """Return the prompt as it is read up to the slot, special tokens by their names."""
        if not self.chat:
            return prompt.text("{mask}")
        return self._template.wrap(prompt, {}).text("")

    def _read(self, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        """Return prompts as the network reads them."""
        if not self.chat:
            return prompts
        template, stand_ins = self._once(
            "chat", lambda: (self._template, self._encoder.stand_ins())
        )
        return [template.wrap(prompt, stand_ins) for prompt in prompts]

    @property
    def _template(self) -> ChatTemplate:
        point, source = self.checkpoint, self._chat_source
        tokenizer = load_tokenizer(point.description, point.name)
        told = {"system": self.system, "prefix": self.prefix}
        return ChatTemplate(tokenizer, source, point.name, **told)

    def _answers(
        self, prompts: Sequence[Prompt], words: Sequence[str], vectors: NDArray[np.float32] | None
    ) -> Iterator[Batch]:
        front = None if vectors is None else (self._encoder.front, vectors)
        n = 0 if vectors is None else len(vectors)
        groups = self._groups(prompts)
        plans = {
            frame: make_plan(
                self._encoder,
                frame,
                words,
                max_tokens=self.max_tokens - n,
                first_only=self.multi_token == "first",
                columns_suffice=self.space is ScoreSpace.LOGIT,
                as_trie=self.multi_token == "trie",
            )
            for frame in groups
        }
        for frame, positions in groups.items():
            plan = plans[frame]

            def answer(batch: Sequence[Encoded], plan: Plan = plan) -> Observations:
                return observe(self._network, batch, plan, tuple(words), self.space, front)

            yield from self._batches(prompts, positions, plan.limit, answer, n)

    def check_fields(self, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        """Say how much probability the words carry, which logits do not show, and as a chat."""
        mass = self._mass(prompt, words)
        checks = [check_mass(mass)] if self.space is ScoreSpace.LOGIT else []
        point = self.checkpoint
        if self.chat or point.kind != "causal":
            return checks
        if read_template(point.description, point.name) is None:
            return checks
        found = {"chat=true": self._as_chat(None)._mass(prompt, words)}
        if lead := prompt.lead.strip():
            name = f"chat=true&prefix={quote_plus(lead)}"
            found[name] = self._as_chat(lead)._mass(prompt, words)
        told = ", ".join(f"with {option} {other:.2%}" for option, other in found.items())
        detail = (
            f"the checkpoint has one, and prompts are read without: label mass {mass:.2%}; {told}"
        )
        best = max(found.values())
        outcome = "problem" if mass < LITTLE_MASS <= best else "note"
        return [*checks, Check("chat template", outcome, detail, best)]

    def _as_chat(self, prefix: str | None) -> TransformersModel:
        """Return the same model, on the same weights, asked through its chat template."""
        chat = TransformersModel(
            self.checkpoint.name,
            revision=self.checkpoint.revision,
            dtype=self.dtype,
            max_tokens=self._max_tokens,
            chat=True,
            prefix=prefix,
            device=self._device,
        )
        chat._made = {k: v for k, v in self._made.items() if k in ("network", "budget")}
        return chat

    def _mass(self, prompt: Prompt, words: Sequence[str]) -> float:
        normalised = type(self).__new__(type(self))
        vars(normalised).update(vars(self))  # on the same weights
        normalised.space = ScoreSpace.LOGPROB
        return float(normalised.observe([prompt], words).label_mass[0])

    def vocabulary_log_probs(
        self, prompts: Sequence[Prompt]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Return the log-probability of every token at the slot, batch by batch.

        Yields
        ------
        (positions, log_probs)
            Where in `prompts` the rows belong, and an array of shape (B, V), float32, in nats.
        """
        prompts = self._read(prompts)
        groups = self._groups(prompts)
        for frame in groups:
            self._encoder.check(frame, self.max_tokens)

        def answer(batch: Sequence[Encoded]) -> NDArray[np.float32]:
            [(_, logits)] = self._network.run(batch, [slot_alone(self._encoder)], None)
            return logits[:, 0].log_softmax(-1).cpu().numpy()

        for positions in groups.values():
            yield from self._batches(prompts, positions, self.max_tokens, answer)

    def write(self, prompts: Sequence[Prompt], how: Writing) -> Iterator[Texts]:
        """Write a text for each prompt, from the slot on; of a causal model alone.

        Raises
        ------
        InputError
            If the model is of another kind, or there is no room for what is to be written.
        """
        point = self.checkpoint
        if point.kind != "causal":
            raise InputError(f"model: {point.name} is no causal model, which alone writes texts")
        limit = self._beside(how)
        prompts = self._read(prompts)
        encoder, network = self._encoder, self._network
        for frame, positions in self._groups(prompts).items():
            encoder.check(frame, limit)

            def answer(batch: Sequence[Encoded]) -> list[Written]:
                if lost := sum(item.truncated for item in batch):
                    warnings.warn(
                        f"{lost} of {len(batch)} texts were cut to the {limit} tokens that are "
                        "left beside what is written",
                        TruncationWarning,
                        stacklevel=2,
                    )
                pad = padding(network.model, encoder.pad_id)
                with network.lock:
                    return write_batch(network.model, encoder.decode, batch, how, pad, point.name)

            yield from self._batches(prompts, positions, limit, answer)

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """The number of each token."""
        return self._encoder.backend.get_vocab(with_added_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, special ones left out."""
        return self._encoder.decode(ids)

    def write_tokens(self, prompt: Prompt, how: Writing) -> tuple[list[int], list[int]]:
        """Return a prompt's tokens, and those that this causal model writes behind them."""
        [read] = self._read([prompt])
        limit, encoder, network = self._beside(how), self._encoder, self._network
        for frame in self._groups([read]):
            encoder.check(frame, limit)
        [item] = encoder.encode([read], limit)
        pad, name = padding(network.model, encoder.pad_id), self.checkpoint.name
        with network.lock:
            [ids], _ = write_tokens(network.model, encoder.decode, [item.ids], how, pad, name)
        return item.ids, ids

    def _beside(self, how: Writing) -> int:
        """Return how many tokens are left for the prompt beside what is written (InputError)."""
        limit = self.max_tokens - how.max_tokens
        if limit < 1:
            raise InputError(
                f"max_tokens: {self.checkpoint.name} reads {self.max_tokens} tokens in all, and "
                f"{how.max_tokens} are to be written; write fewer"
            )
        return limit

    def next_scores(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the scores of the token after each of a text's tokens, (T, V), float32."""
        with self._network.lock:
            return next_scores(self._network.model, ids, self.checkpoint.name)

    def output_vectors(self) -> tuple[list[str], NDArray[np.float32]]:
        """Return words and their rows of the output matrix: :func:`expand_words` takes both.

        Returns
        -------
        (words, vectors)
            The W words of letters that are a single token after a space, sorted, and an array of
            shape (W, H), float32.
        """
        words = self._encoder.whole_words()
        return list(words), self._network.output_rows(list(words.values()))

    def _groups(self, prompts: Sequence[Prompt]) -> dict[Frame, list[int]]:
        groups: dict[Frame, list[int]] = {}
        for i, prompt in enumerate(prompts):
            groups.setdefault(frame_of(prompt), []).append(i)
        return groups

    def _batches(
        self,
        prompts: Sequence[Prompt],
        positions: Sequence[int],
        limit: int,
        answer: Any,
        n: int = 0,
    ) -> Iterator[Any]:
        chosen = np.array(positions, dtype=np.intp)

        def encode(window: Any) -> list[Encoded]:
            return self._encoder.encode([prompts[i] for i in chosen[window]], limit, room=n)

        sizes = [len(prompts[i].user_text) for i in chosen]
        network, budget = self._network, self._budget
        for rows, block in read_in_batches(sizes, encode, answer, budget, pads=network.pads):
            yield chosen[rows], block

    @property
    def _encoder(self) -> PromptEncoder:
        point = self.checkpoint

        def make() -> PromptEncoder:
            words = load_tokenizer(point.description, point.name)
            return PromptEncoder(words, point.kind, point.name, chat=self.chat)

        return self._once("encoder", make)

    @property
    def _network(self) -> Network:
        return self._once("network", self._load)

    def _load(self) -> Network:
        point = self.checkpoint
        return Network(
            load_network(point, point.kind, dtype=self.dtype, device=self.device),
            point.kind,
            point.name,
            pad_id=self._encoder.pad_id,
            slot_id=self._encoder.slot_id,
        )
