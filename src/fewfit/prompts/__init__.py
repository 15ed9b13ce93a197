"""Prompts: pure text, no model."""

from fewfit.prompts.conjugate import Conjugate
from fewfit.prompts.in_context import InContext
from fewfit.prompts.paraphrase import Paraphrase, paraphrased
from fewfit.prompts.rows import Row, read_labels, read_rows
from fewfit.prompts.template import Part, Prompt, Template
from fewfit.prompts.verbalizer import Verbalizer
from fewfit.prompts.views import View, Views

__all__ = [
    "VIEWS",
    "Conjugate",
    "InContext",
    "Paraphrase",
    "Part",
    "Prompt",
    "Row",
    "Template",
    "Verbalizer",
    "View",
    "Views",
    "paraphrased",
    "read_labels",
    "read_rows",
]

VIEWS: dict[str, type[View]] = {
    "template": Template,
    "in-context": InContext,
    "conjugate": Conjugate,
    "paraphrase": Paraphrase,
}
"""Name -> way to turn a row into a prompt."""
