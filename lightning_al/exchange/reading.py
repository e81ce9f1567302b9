"""READING: a file of answers from the disk, and its JSON, with every limit that a hostile one would pass.

path -> [read_text] -> text -> [parse_json] -> plain values that can be kept and read back
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import stat
from typing import Any

__all__ = ["LARGEST_FILE", "check_answer", "parse_json", "read_bytes", "read_text"]

#: Bytes of one file; its rows take some ten times as much in memory.
LARGEST_FILE = 512 << 20
#: Lists and objects in one another.
_DEEPEST = 32
#: Of a whole number in JSON; of a label there are far fewer.
_MOST_DIGITS = 1000
#: How files begin that are packed (.xlsx, .ods), and older ones of Excel (.xls).
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_DTYPE = re.compile(r"[<|](b1|[iu][1248]|f[248]|c8|c16)")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """A regular file as a whole, of which nothing is run or unpickled.

    What is asked about the file is asked of the open one: it cannot be exchanged in between.

    Raises:
        ValueError: If it cannot be read, is a device or a pipe, or too large.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise ValueError(f"{path} is no file; needed is one that was exported. Check the path.")
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}). Check the path.") from error
    if len(content) > LARGEST_FILE:
        raise ValueError(f"{path} has more than {LARGEST_FILE >> 20} MiB; needed is less. Take it apart.")
    return content


def read_text(path: str | os.PathLike[str], kind: str) -> str:
    """The same as text.

    Args:
        path: The file.
        kind: What a program that writes such files calls it.

    Raises:
        ValueError: If it is not UTF-8, or a workbook.
    """
    content = read_bytes(path)
    if content.startswith(_WORKBOOKS):
        raise ValueError(
            f"{path} is no text, but a workbook, as of Excel, or another packed file; needed is "
            f'"{kind}". Save it again as that, and give the new file.'
        )
    try:
        text = content.decode("utf-8-sig")
        why = "UTF-16, by its look" if _is_wide(text) else ""
    except UnicodeDecodeError as error:
        why = str(error)
    if why:
        raise ValueError(
            f'{path} is in another encoding than UTF-8 ({why}); needed is UTF-8. Save it again as "{kind}".'
        )
    return text


def _is_wide(text: str) -> bool:
    """Whether every other letter of the beginning is none: two bytes a letter, and no mark that says so."""
    head = text[:40]
    return len(head) > 1 and any(set(head[start::2]) == {"\0"} for start in (0, 1))


def parse_json(text: str, *, unique: bool = True) -> Any:
    """A value of JSON as the standard has it: no NaN, no infinite number, no name twice in an object.

    Args:
        text: JSON.
        unique: Look for names that are there twice, which takes half of the time.

    Raises:
        ValueError: If it is none, or nested too deeply.

    Example:
        >>> parse_json('{"index": 7, "label": "cat"}')
        {'index': 7, 'label': 'cat'}
    """
    try:
        return json.loads(
            text, parse_int=_integer, parse_float=_real, parse_constant=_real,
            object_pairs_hook=_object if unique else None,
        )  # fmt: skip
    except RecursionError:
        raise ValueError("lists or objects are nested too deeply") from None


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:  # Python itself gives up at some more, and advises to let it go on
        raise ValueError(
            f"{text[:20]}... is a number of {len(text):,} digits; needed are {_MOST_DIGITS:,} at most"
        )
    return int(text)


def _real(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no number")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:40]!r} is there twice")
    return found


def check_answer(value: Any, depth: int = 0) -> None:
    """Refuse a target that could be written down, and would then break whoever reads it.

    Args:
        value: As it was parsed.
        depth: Of the lists and objects around it.

    Raises:
        ValueError: If it has numbers that no tensor holds, halves of characters, or is nested too deeply.
    """
    if isinstance(value, str):
        _check_text(value, is_label=depth == 0)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("a whole number of more than 64 bits is no label")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no label; leave it empty, or skip the sample")
    elif isinstance(value, list | dict):
        if depth == _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} lists or objects are nested in one another")
        if isinstance(value, dict):
            _check_names(value)
        for part in value if isinstance(value, list) else (*value, *value.values()):
            check_answer(part, depth + 1)


def _check_text(text: str, *, is_label: bool) -> None:
    if is_label and not text.strip():
        raise ValueError(f"{text!r} is no label; leave it empty, or skip the sample")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text[:40]!r} holds half of a character (a surrogate)") from None
    if "\0" in text:
        raise ValueError(f"{text[:40]!r} holds a NUL")


def _check_names(value: dict[str, Any]) -> None:
    """Refuse what the ledger says otherwise by these names."""
    if "__no_label__" in value:
        raise ValueError("'__no_label__' is no name in a label: the ledger says by it that there is none")
    if "__array__" in value:
        _check_array(value)


def _check_array(value: dict[str, Any]) -> None:
    """An array as the ledger writes one: as many bytes as its shape says, and of a type of numbers."""
    data, dtype, shape = value.get("__array__"), value.get("dtype"), value.get("shape")
    sizes = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if not (len(value) == 3 and sizes and isinstance(data, str) and isinstance(dtype, str)):
        raise ValueError("an `__array__` needs its bytes, `dtype` and `shape`, and nothing else")
    if not _DTYPE.fullmatch(dtype):
        raise ValueError(f"an `__array__` of {dtype[:20]!r} is none of numbers")
    assert isinstance(shape, list)
    try:
        size = len(base64.b64decode(data, validate=True))
    except ValueError as error:
        raise ValueError(f"the bytes of an `__array__` cannot be read ({error})") from None
    if len(shape) > _DEEPEST or size != math.prod(shape) * int(dtype[2:]):
        raise ValueError(f"an `__array__` of shape {shape[:10]} has {size} bytes")
