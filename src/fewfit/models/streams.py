"""Streams of answers whose reader may have to stop: what has arrived by then still comes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Enough(Exception):
    """Thrown into a stream by a reader that stops: what has arrived comes, and then its end."""


def mapped(stream: Generator[T, Any, Any], then: Callable[[T], Iterable[U]]) -> Iterator[U]:
    """Yield what is made of what a stream gives; :class:`Enough` goes on to it."""
    following: Callable[[], T] = partial(next, stream)
    with closing(stream):  # or one that asks ahead would go on until the traceback is gone
        while True:
            try:
                found = following()
            except StopIteration:
                return
            following = partial(next, stream)
            for one in then(found):
                try:
                    yield one
                except Enough as error:
                    following = partial(stream.throw, error)


def rest(stream: Generator[T, Any, Any]) -> Iterator[T]:
    """Yield what a stream has ready for a reader that stops; nothing is asked any more."""
    with suppress(Exception):  # the reader has a reason of its own to stop
        found = stream.throw(Enough())
        while True:
            yield found
            found = next(stream)
