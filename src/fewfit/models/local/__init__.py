"""Models of this process: one loader, one encoder of texts, one batcher, one hook.

``specs`` reads the name of a checkpoint, ``files`` says where it lies and what it is, ``loading``
loads it, ``texts`` turns whole texts into tokens and ``encoding`` prompts, by the one rule of
``cutting`` where they are too long, ``batching`` asks about rows of similar length together,
``narrowing`` lets the head see only what is read. ``plan``, ``network`` and ``scores`` read label
words at a slot; ``model`` is a masked, causal or encoder-decoder language model, ``sentences`` an
encoder of texts, whose ``vectors`` are made as the ``layout`` of its own files says;
``reading`` is what it shares with the embedded models.
"""

from fewfit.models.local.batching import Budget, in_batches, pad, read_in_batches, windows
from fewfit.models.local.encoding import Choices, PromptEncoder
from fewfit.models.local.files import Checkpoint
from fewfit.models.local.loading import (
    Loaded,
    default_dtype,
    import_torch,
    load,
    no_progress_bar,
)
from fewfit.models.local.model import TransformersModel
from fewfit.models.local.narrowing import Narrowed
from fewfit.models.local.network import padding
from fewfit.models.local.scores import finish
from fewfit.models.local.sentences import SentenceEncoder
from fewfit.models.local.specs import parse_spec, split_trained
from fewfit.models.local.texts import TextEncoder

__all__ = [
    "Budget",
    "Checkpoint",
    "Choices",
    "Loaded",
    "Narrowed",
    "PromptEncoder",
    "SentenceEncoder",
    "TextEncoder",
    "TransformersModel",
    "default_dtype",
    "finish",
    "import_torch",
    "in_batches",
    "load",
    "no_progress_bar",
    "pad",
    "padding",
    "parse_spec",
    "read_in_batches",
    "split_trained",
    "windows",
]
