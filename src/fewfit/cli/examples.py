"""Files of labelled examples as a tuning method reads them: rows in the wordings of templates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fewfit.cli.labels import check_names, find_labels, label_sets, one_label
from fewfit.cli.output import note
from fewfit.errors import InputError
from fewfit.tables import Table, open_table
from fewfit.tables.columns import (
    Examples,
    Places,
    column_names,
    find_texts,
    read_examples,
    split_labelled,
)

if TYPE_CHECKING:
    from fewfit.artifacts.schema import ColumnsEntry
    from fewfit.prompts import Template, Verbalizer
    from fewfit.tuning import ChoiceExample


def unlabelled_texts(
    path: str, templates: list[Template], text_column: list[str] | None, **file: Any
) -> Examples:
    """Read a file of texts, whose labels, if it has any, are not looked at."""
    fields = fields_of(templates)
    table = open_table(path, wanted=_flat(fields, text_column), say=note, **file)
    return read_examples(table, find_texts(table, fields, text_column))


def answers_of(y: list[str], given: Verbalizer | None) -> Verbalizer:
    """Return the answer of each class, its own name where none is given."""
    from fewfit.prompts import Verbalizer

    verbalizer = given or Verbalizer.from_classes(y)
    if len(verbalizer.words) != len(verbalizer.classes) or verbalizer.weights:
        raise InputError("--label: tuning trains one answer per class; give one each, no weights")
    unknown = sorted(set(y) - {str(name) for name in verbalizer.classes})
    if unknown:
        raise InputError(
            f"class {unknown[0]!r} has no answer; --label gives {list(verbalizer.classes)}"
        )
    return verbalizer


def fields_of(templates: list[Template]) -> tuple[str, ...]:
    """Return the fields of all templates."""
    return tuple(dict.fromkeys(field for item in templates for field in item.fields))


def labelled(
    path: str,
    templates: list[Template],
    text_column: list[str] | None,
    label_column: str,
    words: dict[str, Any] | None,
    *,
    use: bool,
    **file: Any,
) -> tuple[Examples, Examples, list[str], ColumnsEntry]:
    """Read a file: its rows with a label, those without, the labels, and where what stands."""
    fields = fields_of(templates)
    wanted = [*_flat(fields, text_column), label_column]
    table = open_table(path, wanted=wanted, say=note, **file)
    places, place = find_texts(table, fields, text_column), find_labels(table, label_column)
    examples, rest = split_labelled(table, read_examples(table, places, place), use=use)
    y = one_label(table, examples, table.columns[place], words)
    check_names(table, examples, y, table.columns[place], words)
    return examples, rest, y, columns_of(table, places, place)


def labelled_sets(
    path: str,
    templates: list[Template],
    text_column: list[str] | None,
    label_column: str,
    separator: str,
    **file: Any,
) -> tuple[Examples, list[list[str]], ColumnsEntry]:
    """Read a file whose rows have none, one or several labels, and say where what stands."""
    fields = fields_of(templates)
    wanted = [*_flat(fields, text_column), label_column]
    table = open_table(path, wanted=wanted, say=note, **file)
    places, place = find_texts(table, fields, text_column), find_labels(table, label_column)
    examples = read_examples(table, places, place)
    columns = columns_of(table, places, place, separator)
    return examples, label_sets(table, examples, separator, columns.label), columns


def columns_of(
    table: Table, places: Places, label: int, separator: str | None = None
) -> ColumnsEntry:
    """Return the columns that an artifact remembers."""
    from fewfit.artifacts.schema import ColumnsEntry

    return ColumnsEntry(
        fields={f: [table.columns[i] for i in own] for f, own in places.items()},
        label=table.columns[label],
        separator=separator,
    )


def names_of(sets: list[list[str]]) -> Verbalizer:
    """Return the names of labels of which a row may have several, sorted, as words."""
    from fewfit.prompts import Verbalizer

    names = sorted({name for own in sets for name in own})
    if len(names) < 2:
        raise InputError(f"labels: at least two are needed, and there is {names}")
    return Verbalizer({name: name.replace("_", " ") for name in names}, classes=names)


def wordings(
    examples: Examples, y: list[str], templates: list[Template], verbalizer: Verbalizer
) -> list[list[ChoiceExample]]:
    """Return each row in every template."""
    from fewfit.tuning import ChoiceExample

    texts = examples.texts
    answer = {str(name): k for k, name in enumerate(verbalizer.classes)}
    rows = [dict(zip(texts, values, strict=True)) for values in zip(*texts.values(), strict=True)]
    return [
        [ChoiceExample(item.render(row), verbalizer.words, answer[name]) for item in templates]
        for row, name in zip(rows, y, strict=True)
    ]


def _flat(fields: tuple[str, ...], text_column: list[str] | None) -> list[str]:
    return [name for own in column_names(fields, text_column).values() for name in own]
