"""Prompts: pure text, no model."""

from fewfit.prompts.rows import Row, read_labels, read_rows
from fewfit.prompts.template import Part, Prompt, Template
from fewfit.prompts.verbalizer import Verbalizer

__all__ = ["Part", "Prompt", "Row", "Template", "Verbalizer", "read_labels", "read_rows"]
