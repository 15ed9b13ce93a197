"""A task as a file: TOML whose keys are the options of the commands, one mechanism for all of them.

What the file says takes the place of what the options say when they are left out, so that an option
that is given has the last word. Keys stand at the top, for every command that has them, or in a
table with the name of a command, for that command alone.
"""

from __future__ import annotations

import functools
import inspect
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from fewfit.choices import did_you_mean
from fewfit.cli.output import note, say
from fewfit.errors import FewfitError, InputError

F = TypeVar("F", bound=Callable[..., Any])

COMMANDS = ("fit", "predict", "evaluate", "compare", "tune")

_OWN = ("option", "output", "shots")
"""What each command means something else by, so that no file says it for all of them."""

_LIMIT = 2**20


def takes_task(command: F) -> F:
    """Give a command the options ``--task FILE`` and ``--show-task``."""
    signature = inspect.signature(command, eval_str=True)
    more = {
        "task": Annotated[
            Path | None,
            typer.Option(
                help="TOML file of these options; one that is given has the last word.",
            ),
        ],
        "show_task": Annotated[
            bool, typer.Option("--show-task", help="Print the task in force as TOML, and stop.")
        ],
    }
    word = inspect.Parameter.POSITIONAL_OR_KEYWORD
    added = [
        inspect.Parameter("task", word, default=None, annotation=more["task"]),
        inspect.Parameter("show_task", word, default=False, annotation=more["show_task"]),
    ]
    context = inspect.Parameter("context", word, annotation=typer.Context)

    @functools.wraps(command)
    def wrapped(
        *args: Any, context: typer.Context, task: Path | None, show_task: bool, **kwargs: Any
    ) -> Any:
        if show_task:
            say(_shown(context))
            return None
        return command(*args, **kwargs)

    first = [context] if "context" not in signature.parameters else []
    parameters = [*first, *signature.parameters.values(), *added]
    wrapped.__signature__ = signature.replace(  # pyright: ignore[reportAttributeAccessIssue]
        parameters=sorted(parameters, key=lambda p: p.default is not inspect.Parameter.empty)
    )
    return wrapped  # pyright: ignore[reportReturnType]


class TaskCommand(TyperCommand):
    """A command whose leading arguments a task file may give, so that only the others are typed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the arguments that the file gives before those that are typed."""
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        if typed.get("task"):
            ctx.default_map = given = _read_task(ctx, Path(typed["task"]))
            places = [p.name for p in self.params if p.param_type_name == "argument"]
            n_typed = sum(isinstance(typed.get(name), str) for name in places)
            leading = places[: len(places) - n_typed]
            if n_typed and all(name in given for name in leading):
                args = [*(given[name] for name in leading), *args]
        return super().parse_args(ctx, args)


def _read_task(context: typer.Context, path: Path) -> dict[str, Any]:
    try:
        return _values(context, path)
    except FewfitError as error:
        note(f"error: {error}")
        raise typer.Exit(error.exit_code) from None


def _values(context: typer.Context, path: Path) -> dict[str, Any]:
    """Return what the file says to this command, by the names of its parameters (InputError)."""
    entries = _parsed(path)
    assert context.parent is not None
    commands: Any = context.parent.command
    own = _keys(context.command)
    known = {key for name in COMMANDS for key in _keys(commands.commands[name])}
    tables = {name: entries.pop(name) for name in COMMANDS if name in entries}
    found: dict[str, Any] = {}
    for key, value in entries.items():
        name = _key(path, key, known, [*COMMANDS])
        if name in _OWN:
            raise InputError(
                f"{path}: {key!r} is another thing to each command; put it into a table, [fit] "
                "for instance"
            )
        if name in own:
            found[name] = value
    for command, table in tables.items():
        if not isinstance(table, dict):
            raise InputError(f"{path}: {command!r} is a table, [{command}], of its own options")
        theirs = _keys(commands.commands[command])
        for key, value in table.items():
            name = _key(path, key, theirs, [], f"[{command}] ")
            if command == context.info_name:
                found[name] = value
    return {own[name].name: _as_given(path, name, own[name], v) for name, v in found.items()}


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LIMIT + 1)
        if len(data) > _LIMIT:
            raise InputError(f"{path}: more than {_LIMIT} bytes are no task file")
        return tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"--task: {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not TOML: {error}") from None


def _key(path: Path, key: str, known: Any, more: list[str], where: str = "") -> str:
    name = key.replace("_", "-")
    if name not in known:
        hint = did_you_mean(key, [*known, *more])
        raise InputError(f"{path}: {where}{key!r} is no option{hint or '; see --help'}")
    return name


def _keys(command: Any) -> dict[str, Any]:
    """Return the parameters of a command by the names that a file has for them."""
    found: dict[str, Any] = {}
    for parameter in command.params:
        long = [name for name in parameter.opts if name.startswith("--")]
        key = long[0].removeprefix("--") if long else parameter.name
        if not getattr(parameter, "hidden", False) and key not in ("task", "show-task", "help"):
            found[key] = parameter
    return found


def _as_given(path: Path, key: str, parameter: Any, value: Any) -> Any:
    """Return a value of the file as the command line would have it (InputError)."""
    where = f"{path}: {key!r}"
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise InputError(f"{where} is true or false, not {value!r}")
        return value
    if isinstance(value, dict):
        if key == "label":
            return [_label(where, name, words) for name, words in value.items()]
        if key == "option":
            return _options(value)
        raise InputError(f"{where} is a value, not a table; the words of classes are [label]")
    if getattr(parameter, "multiple", False):
        return [_text(item) for item in (value if isinstance(value, list) else [value])]
    return ",".join(map(_text, value)) if isinstance(value, list) else _text(value)


def _label(where: str, name: str, words: Any) -> str:
    given = [words] if isinstance(words, str) else words
    plain = isinstance(given, list) and all(isinstance(word, str) for word in given)
    if not plain or any("," in word for word in given) or "=" in name:
        raise InputError(
            f"{where}: class {name!r} has a word or a list of words, without commas and with no = "
            "in the class; a file with any words is labels = 'FILE.json'"
        )
    return f"{name}={','.join(given)}"


def _options(table: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, value in table.items():
        if isinstance(value, dict):
            found += _options(value, f"{prefix}{name}.")
        else:
            given = value if isinstance(value, list) else [value]
            found.append(f"{prefix}{name}={','.join(map(_text, given))}")
    return found


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _shown(context: typer.Context) -> str:
    """Return the values in force as a file that says the same."""
    top: list[str] = []
    own: list[str] = []
    for key, parameter in _keys(context.command).items():
        value = context.params.get(parameter.name)
        if value is None or value == [] or value == ():
            continue
        listed = list(value) if isinstance(value, list | tuple) else value
        plain = listed if isinstance(listed, list | bool | int | float) else str(listed)
        (own if key in _OWN else top).append(f"{key} = {json.dumps(plain, ensure_ascii=False)}")
    return "\n".join([*top, *(["", f"[{context.info_name}]", *own] if own else [])])
