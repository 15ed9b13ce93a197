"""Prompts: pure text, no model."""

from typing import Any

from fewfit.prompts.conjugate import Conjugate
from fewfit.prompts.in_context import InContext
from fewfit.prompts.label_sets import LabelSets, read_label_sets
from fewfit.prompts.labels import read_labels
from fewfit.prompts.paraphrase import Paraphrase, paraphrased
from fewfit.prompts.prompt import Part, Prompt
from fewfit.prompts.rows import Row, read_rows
from fewfit.prompts.template import Template, make_views
from fewfit.prompts.transforms import Transform
from fewfit.prompts.trie import Trie
from fewfit.prompts.urial import Urial
from fewfit.prompts.verbalizer import Verbalizer
from fewfit.prompts.views import View, Views
from fewfit.prompts.word_lists import drop_improbable, expand_words, retrieve_words

__all__ = [
    "VERBALIZERS",
    "VIEWS",
    "Conjugate",
    "InContext",
    "LabelSets",
    "Paraphrase",
    "Part",
    "Prompt",
    "Row",
    "Template",
    "Transform",
    "Trie",
    "Urial",
    "Verbalizer",
    "View",
    "Views",
    "drop_improbable",
    "expand_words",
    "make_views",
    "paraphrased",
    "read_label_sets",
    "read_labels",
    "read_rows",
    "retrieve_words",
]

VIEWS: dict[str, type[View] | type[Urial]] = {
    "template": Template,
    "in-context": InContext,
    "conjugate": Conjugate,
    "paraphrase": Paraphrase,
    "urial-prefix": Urial,
}
"""Name -> way to turn a row into a prompt."""

VERBALIZERS: dict[str, Any] = {
    "label-words": Verbalizer,
    "retrieved-words": retrieve_words,
    "neighbour-words": expand_words,
    "probable-words": drop_improbable,
    "trie": Trie,
}
"""Name -> way to find label words, or to read a class from words or tokens."""
