"""Which encoding a text file has."""

from __future__ import annotations

import codecs
import difflib
from encodings.aliases import aliases

from fewfit.errors import InputError
from fewfit.tables.source import Source

_CHUNK = 2**20
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FOREIGN = 0.25
"""Western European texts have fewer letters outside ASCII; Cyrillic, Greek or Chinese have more."""


def find_encoding(source: Source, given: str | None) -> str:
    """Return the encoding of a text file, after reading all of it.

    It is the one that the user gave, that of a byte order mark, UTF-16 where every other byte is
    zero, UTF-8 where that can be read, else cp1252.

    Raises
    ------
    InputError
        If the file does not have the encoding given; or, of what is not UTF-8, if it is UTF-8 but
        for single bytes, or looks like another alphabet than cp1252 has.
    """
    if given is not None:
        encoding = _known(given)
        with source.open() as stream:
            marked = _by_mark(stream.read(4))
        if marked is not None and encoding.startswith(marked):
            encoding = marked  # utf-16-le would take the mark for a character
        bad = _first_bad(source, encoding)
        if bad is not None:
            raise InputError(
                f"{source.name}: not {given} at byte {bad[0]}; name another --encoding, or leave "
                "it out"
            )
        return encoding
    with source.open() as stream:
        start = stream.read(4096)
    encoding = _marked(start) or "utf-8"
    bad = _first_bad(source, encoding)
    if bad is None:
        return encoding
    where, near = bad
    if encoding != "utf-8":
        raise InputError(
            f"{source.name}: begins as {encoding} and is not at byte {where}; is it cut short? "
            "Copy it again, or name the encoding with --encoding"
        )
    read = near.decode("utf-8", "replace")
    broken = read.count("\ufffd")
    if sum(c > "\x7f" for c in read) - broken > broken:
        raise InputError(
            f"{source.name}: not UTF-8 at byte {where}, though it is UTF-8 elsewhere; mend that "
            "place, or name the encoding with --encoding"
        )
    letters = sum(byte > 0x7F or chr(byte).isalpha() for byte in near)
    foreign = sum(byte > 0x7F for byte in near) > _FOREIGN * letters
    if foreign or (bad := _first_bad(source, "cp1252")) is not None:
        raise InputError(
            f"{source.name}: not UTF-8 at byte {bad[0]}, and it does not look like cp1252; name "
            "the encoding with --encoding, for example cp1251, shift_jis or gb18030"
        )
    return "cp1252"


def _known(name: str) -> str:
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        found = None
    if found is not None and not found._is_text_encoding:
        raise InputError(f"--encoding: {name!r} is no encoding of text; for example utf-8, cp1252")
    if found is None:
        near = difflib.get_close_matches(name, [*aliases, *aliases.values()], 1)
        hint = f"; did you mean {near[0]!r}?" if near else "; for example utf-8, utf-16, cp1252"
        raise InputError(f"--encoding: {name!r} is not known{hint}")
    return "utf-8-sig" if found.name == "utf-8" else found.name


def _by_mark(start: bytes) -> str | None:
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), None)


def _marked(start: bytes) -> str | None:
    marked = _by_mark(start)
    if marked is not None:
        return marked
    if len(start) >= 4:
        even, odd = start[::2].count(0), start[1::2].count(0)
        if odd > 0.7 * (len(start) // 2) and not even:
            return "utf-16-le"
        if even > 0.7 * (len(start) // 2) and not odd:
            return "utf-16-be"
    return None


def _first_bad(source: Source, encoding: str) -> tuple[int, bytes] | None:
    """Return where the file is not of an encoding, and the bytes around; None if it is."""
    decoder = codecs.getincrementaldecoder(encoding)()
    done, before = 0, b""
    with source.open() as stream:
        while True:
            chunk = stream.read(_CHUNK)
            kept = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeError as error:
                start = error.start if isinstance(error, UnicodeDecodeError) else 0
                return done - kept + start, before[-kept:] * bool(kept) + chunk
            done += len(chunk)
            before = chunk
            if not chunk:
                return None
