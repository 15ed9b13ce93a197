"""Conjugate prompting: Kotha, Springer, Raghunathan, ICLR 2024, arXiv 2309.10105."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from fewfit.errors import InputError
from fewfit.prompts.prompt import Prompt
from fewfit.prompts.template import Template
from fewfit.prompts.transforms import Transform, make_transform
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
    transform : str, mapping, Transform, or callable of str to str
        s: what :func:`fewfit.prompts.transforms.make_transform` knows, which an artifact can hold;
        or code of yours, which it cannot. With the identity it is the template itself.
    inverse : callable of str to str, optional
        Of a transform that is code.

    Raises
    ------
    InputError
        From `render` and `spell`: if the inverse does not give the text back (a translation
        need not).

    Notes
    -----
    The transform costs accuracy of its own; what the paper claims is about the difference of two
    drops, see :func:`fewfit.analysis.token_shift.recovered`.

    Examples
    --------
    >>> view = Conjugate("{text} It was {mask}.", "rot13")
    >>> view.render({"text": "Fun."}).text(view.spell("good"))
    'Sha. Vg jnf tbbq.'
    """

    reference: ClassVar[str] = "Kotha et al. 2024, arXiv 2309.10105"

    def __init__(
        self,
        template: str,
        transform: str | Mapping[str, Any] | Transform | Text,
        inverse: Text | None = None,
    ) -> None:
        self.template = template
        if isinstance(transform, Transform):
            self.transform = transform
        elif not callable(transform):
            self.transform = make_transform(transform)
        elif inverse is None:
            raise InputError("inverse: a transform that is code needs the way back")
        else:
            self.transform = Transform("", transform, inverse)
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
        there = self.transform.there(word)
        if not self.transform.is_exact:
            return there
        back = self.transform.back(there)
        if back != word:
            raise InputError(
                f"transform: {word!r} comes back as {back!r}; take a transform that can be undone, "
                "or leave such texts out"
            )
        return there

    def read(self, written: str) -> str:
        return self.transform.back(written.strip())

    def prepare(self, rows: Sequence[Mapping[str, str]]) -> None:
        self.transform.prepare([row[name] for row in rows for name in self.fields if name in row])

    def __repr__(self) -> str:
        named = f", {self.transform.data!r}" if self.transform.data else ""
        return f"Conjugate({self.template!r}{named})"
