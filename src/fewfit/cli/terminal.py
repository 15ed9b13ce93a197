"""What commands print: paragraphs and tables, laid out for a terminal, else as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fewfit.cli.output import say, visible
from fewfit.markdown import Table

if TYPE_CHECKING:
    from rich.console import Console

_SHORT = 14
"""A column of text up to this width is not wrapped."""

_ANY = 100_000


def show(*blocks: str | Table) -> None:
    """Print blocks on standard output, an empty line between them.

    A terminal gets them in its width and with its colours, everything else Markdown, in which a
    paragraph is one line.
    """
    if not is_terminal():
        say("\n\n".join(map(str, blocks)))
        return
    from rich.console import Console

    print_blocks(Console(highlight=False, soft_wrap=False), blocks)


def is_terminal() -> bool:
    """Whether somebody looks at standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def print_blocks(console: Console, blocks: Sequence[str | Table]) -> None:
    """Print blocks on a console of rich, in its width; nothing in them is markup."""
    from rich.text import Text

    for i, block in enumerate(blocks):
        if i:
            console.print()
        if isinstance(block, str):
            console.print(Text(visible(block)))
            continue
        for j, part in enumerate(_parts(console, block)):
            if j:
                console.print()
            console.print(part)


def _parts(console: Console, table: Table) -> Iterator[Any]:
    """Lay a table out; columns of numbers that do not fit go on below, beside the first again."""
    if not table.numbers:
        yield _laid_out(table, range(len(table.header)))
        return
    columns: list[int] = []
    unbounded = console.options.update(max_width=_ANY)
    for i in range(1, len(table.header)):
        wider = console.measure(_laid_out(table, [0, *columns, i]), options=unbounded)
        if columns and wider.maximum > console.width:
            yield _laid_out(table, [0, *columns])
            columns = []
        columns.append(i)
    yield _laid_out(table, [0, *columns])


def _laid_out(table: Table, columns: Sequence[int]) -> Any:
    """Return some columns as a table of rich; what is marked with a star is bold."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    laid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for place, i in enumerate(columns):
        texts = [table.header[i], *(row[i] for row in table.rows)]
        fixed = bool(place) if table.numbers else max(map(len, texts)) <= _SHORT
        side = "right" if table.numbers and place else "left"
        laid.add_column(
            Text(visible(table.header[i])), justify=side, no_wrap=fixed, overflow="fold"
        )
    for row in table.rows:
        laid.add_row(*(_cell(visible(row[i])) for i in columns))
    return laid


def _cell(text: str) -> Any:
    """Bold what is marked, and keep the room of the mark where there is none."""
    from rich.text import Text

    shown = text.rstrip(" ")
    filled = shown + "\N{NO-BREAK SPACE}" * (len(text) - len(shown))
    return Text(filled, style="bold" if shown.endswith(" *") else "")
