"""Conjugate prompting: Kotha, Springer, Raghunathan, ICLR 2024, arXiv 2309.10105."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from fewfit.errors import InputError
from fewfit.prompts.prompt import Prompt
from fewfit.prompts.template import Template
from fewfit.prompts.views import View

Text = Callable[[str], str]


class Conjugate(View):
    """Ask in another language, and read the answer back.

    ``answer = s^-1(model(s(prompt)))``: the transform s keeps the task and takes the prompt away
    from what the model was fine-tuned on. The template, the fields and the label words are all
    transformed; since the classes keep their order, reading back a choice among label words needs
    no inverse. The inverse serves to check, before every query, that the text survives the way
    there and back.

    Parameters
    ----------
    template : str
        As for :class:`fewfit.Template`.
    transform, inverse : callable of str to str
        s and its inverse, for example a cipher or a translation. With the identity it is the
        template itself.

    Raises
    ------
    InputError
        From `render` and `spell`: if the inverse does not give the text back.

    Notes
    -----
    The transform costs accuracy of its own; what the paper claims is about the difference of two
    drops, see :func:`fewfit.compare.recovered`. An artifact cannot hold it, since it is code.

    Examples
    --------
    >>> import codecs
    >>> view = Conjugate("{text} It was {mask}.", lambda s: codecs.encode(s, "rot13"),
    ...                  lambda s: codecs.decode(s, "rot13"))
    >>> view.render({"text": "Fun."}).text(view.spell("good"))
    'Sha. Vg jnf tbbq.'
    """

    reference: ClassVar[str] = "Kotha et al. 2024, arXiv 2309.10105"

    def __init__(self, template: str, transform: Text, inverse: Text) -> None:
        self.template = template
        self.transform = transform
        self.inverse = inverse
        self._template = Template(template)
        self.fields = self._template.fields

    def render(self, row: Mapping[str, str]) -> Prompt:
        parts = self._template.render(row).parts
        return Prompt(
            tuple(
                part if part.kind == "mask" else part._replace(text=self.spell(part.text))
                for part in parts
            )
        )

    def spell(self, word: str) -> str:
        there = self.transform(word)
        back = self.inverse(there)
        if back != word:
            raise InputError(
                f"transform: {word!r} comes back as {back!r}; take a transform that can be undone, "
                "or leave such texts out"
            )
        return there

    def __repr__(self) -> str:
        return f"Conjugate({self.template!r})"
