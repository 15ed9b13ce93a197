"""Language models of transformers as frozen models: masked, causal and encoder-decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError
from fewfit.models.base import Capabilities, Check, FrozenModel
from fewfit.models.local.base import LocalModel
from fewfit.models.local.batching import read_in_batches
from fewfit.models.local.cutting import Frame, frame_of
from fewfit.models.local.encoding import PromptEncoder
from fewfit.models.local.files import Checkpoint
from fewfit.models.local.loading import load_network, load_tokenizer
from fewfit.models.local.network import Network
from fewfit.models.local.plan import Plan, make_plan, slot_alone
from fewfit.models.local.scores import observe
from fewfit.models.local.soft import SoftPromptModel
from fewfit.models.local.specs import parse_spec
from fewfit.models.local.texts import Encoded
from fewfit.models.probe import check_mass
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
        the next. Nothing but punctuation may stand behind the slot: it is left out.
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
    multi_token : {"sum", "first"}, default="sum"
        The score of a word of several tokens. "sum": its log-probability, each token given the
        ones before (causal, encoder-decoder), or, for a masked model, the sum over as many masks as
        the word has tokens, all asked at once. In the space ``logit`` the log-normaliser of the
        slot is added to it, which makes it comparable to the others. "first": the first token
        alone, as in DecT's code.
    dtype : {"float32", "bfloat16", "float16", "auto"}, optional
        Of the weights; left out, bfloat16 on a CUDA device that has it, else float32. "auto" is
        bfloat16 also on a processor that multiplies it. What it came to is part of the identity and
        of :attr:`spec`.
    max_tokens : int, optional
        Longer prompts are cut (the longest field first, from its end; never the template); left
        out, what config and tokenizer declare.
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

    Prompts are sent as they are; the chat template of a chat model is not applied.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        space: Literal["logit", "logprob"] = "logit",
        multi_token: Literal["sum", "first"] = "sum",
        dtype: str | None = None,
        max_tokens: int | None = None,
        device: str | None = None,
    ) -> None:
        for option, value, allowed in (
            ("space", space, ("logit", "logprob")),
            ("multi_token", multi_token, ("sum", "first")),
        ):
            if value not in allowed:
                raise InputError(f"model: {option} is one of {allowed}, not {value!r}")
        point = Checkpoint(str(name), revision)
        super().__init__(point, dtype=dtype, max_tokens=max_tokens, device=device)
        self.space = ScoreSpace(space)
        self.multi_token = multi_token

    @classmethod
    def from_spec(cls, rest: str) -> TransformersModel:
        """Make the model of ``hf:NAME_OR_PATH[@REVISION][?option=value&...]``.

        Options are those of the constructor but `device`.
        """
        name, options = parse_spec(rest)
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
        }

    def input_embeddings(self) -> NDArray[np.float32]:
        return self._network.input_embeddings

    def with_soft_prompt(self, vectors: NDArray[np.floating]) -> FrozenModel:
        prompted = SoftPromptModel(self, vectors, self._answers)
        return prompted if len(vectors) else self

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        yield from self._answers(prompts, words, None)

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
            )
            for frame in groups
        }
        for frame, positions in groups.items():
            plan = plans[frame]

            def answer(batch: Sequence[Encoded], plan: Plan = plan) -> Observations:
                return observe(self._network, batch, plan, tuple(words), self.space, front)

            yield from self._batches(prompts, positions, plan.limit, answer, n)

    def check_fields(self, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        """Say how much probability the words carry, which logits do not show."""
        if self.space is not ScoreSpace.LOGIT:
            return []
        normalised = type(self).__new__(type(self))
        vars(normalised).update(vars(self))  # on the same weights
        normalised.space = ScoreSpace.LOGPROB
        return [check_mass(float(normalised.observe([prompt], words).label_mass[0]))]

    def vocabulary_log_probs(
        self, prompts: Sequence[Prompt]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Return the log-probability of every token at the slot, batch by batch.

        Yields
        ------
        (positions, log_probs)
            Where in `prompts` the rows belong, and an array of shape (B, V), float32, in nats.
        """
        groups = self._groups(prompts)
        for frame in groups:
            self._encoder.check(frame, self.max_tokens)

        def answer(batch: Sequence[Encoded]) -> NDArray[np.float32]:
            [(_, logits)] = self._network.run(batch, [slot_alone(self._encoder)], None)
            return logits[:, 0].log_softmax(-1).cpu().numpy()

        for positions in groups.values():
            yield from self._batches(prompts, positions, self.max_tokens, answer)

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
            return PromptEncoder(words, point.kind, point.name)

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
