"""Views of paraphrases: Najafi & Fyshe (RIFF), Findings of ACL 2024, arXiv 2403.02271."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from fewfit.errors import InputError
from fewfit.prompts.prompt import Prompt
from fewfit.prompts.template import Template
from fewfit.prompts.views import View, Views

Generator = Callable[[str], Sequence[str]]


class Paraphrase(View):
    """A template about one paraphrase of the text.

    Parameters
    ----------
    template : str
        A template with one field.
    write : callable of str to sequence of str
        The paraphrases of a text; the same text always gives the same.
    index : int
        Which of them.
    """

    reference: ClassVar[str] = "Najafi & Fyshe 2024, arXiv 2403.02271"

    def __init__(self, template: str, write: Generator, index: int) -> None:
        self.template = template
        self.write = write
        self.index = index
        self._template = Template(template)
        self.fields = self._template.fields
        if len(self.fields) != 1:
            raise InputError(f"template: one field to paraphrase, got {list(self.fields)}")

    def render(self, row: Mapping[str, str]) -> Prompt:
        (name,) = self.fields
        question = self._template.render(row)  # checks the field
        if not row[name].strip():
            return question
        written = self.write(row[name])
        if len(written) <= self.index:
            raise InputError(
                f"paraphrases: {self.index + 1} are needed, {len(written)} were written for "
                f"{row[name]!r}"
            )
        return self._template.render({name: written[self.index]})

    def __repr__(self) -> str:
        return f"Paraphrase({self.template!r}, index={self.index})"


def paraphrased(template: str, generator: Generator, n: int = 8) -> View | Views:
    """Return the view of the text itself, and `n` views of its paraphrases.

    Each example then costs 1 + n queries; :class:`fewfit.decoders.ParaphraseMean` weighs them as
    RIFF does. A text without words is its own paraphrase, so that a content-free input stays one.

    Parameters
    ----------
    template : str
        A template with one field.
    generator : callable of str to sequence of str
        Writes at least `n` paraphrases of a text; it is called once per distinct text.
    n : int, default=8
        M. 0 is the template itself.

    Examples
    --------
    >>> views = paraphrased("{text} It was {mask}.", lambda text: [text.upper()], n=1)
    >>> [view.render({"text": "fun"}).text("_") for view in views.views]
    ['fun It was _.', 'FUN It was _.']
    """
    if n < 0:
        raise InputError(f"n: a number of paraphrases is not negative, got {n}")
    known: dict[str, Sequence[str]] = {}

    def write(text: str) -> Sequence[str]:
        if text not in known:
            written = generator(text)
            if isinstance(written, str):  # its letters would be asked about
                raise InputError(
                    f"paraphrases: expected a list of texts for {text[:60]!r}, got the one text "
                    f"{written[:60]!r}"
                )
            known[text] = tuple(written)
        return known[text]

    views = [Template(template), *(Paraphrase(template, write, j) for j in range(n))]
    return views[0] if n == 0 else Views(views)
