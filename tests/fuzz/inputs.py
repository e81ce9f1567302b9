"""Hostile files of answers: valid ones, changed by a seed. The same number gives the same file everywhere."""

import base64
import csv
import io
import json
import random
from dataclasses import dataclass

KINDS = ("class", "number", "text", "json", None)
FORMATS = ("csv", "jsonl", "label-studio")
CLASSES = ["cat", "dog", "10", "007", "true", "=sum", "Grüße"]
SIZE, ASKED = 12, (7, 5, 9, 1)
IDS = ["=1", "007", "7", "a b", "'x", "-1.5", "日本", "7.0x", "scan-8", "\u202ex", "null", "id,id"]

#: Values in JSON, as they stand in a file.
RAW = [
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "-0", "-0.0", "1e-400", "1" + "0" * 400,
    "1" * 5000, "2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775809",
    "true", "false", "null", "[]", "{}", "[[]]", '""', '" "', r'"\ud800"', r'"\udc00x"', r'"\u0000"',
    r'"\ud83d\ude00"', '"\\', "[" * 50 + "]" * 50, "[" * 3000, '{"a":' * 40 + "1" + "}" * 40,
    '{"a": 1, "a": 2}', '{"__array__": "AAAA", "dtype": "|O", "shape": [1]}',
    '{"__array__": "AAAAAA==", "dtype": "<i4", "shape": [1]}',
    '{"__array__": "", "dtype": "<f8", "shape": [0, 9]}',
    '{"__array__": "AAAAAA==", "dtype": "<i4", "shape": [-1]}', '{"__array__": null}', '[NaN]',
    '{"": 1e999}', "0x10", "1_000", "01", "+1", ".5", "5.", "'cat'", "undefined", "[1,]", "// x",
    '{"$ref": "#"}',
]  # fmt: skip
#: Values as text.
TEXTS = [
    "", " ", "cat", "dog", "CAT", " cat ", "7", "7.0", "-1", "1e3", "٣", "²", "½", "1_000", "0x7", "nan",
    "inf", "True", "NULL", "=1+1", "'=1", "@x", "\t", "\r", "\n", "\r\n", "\x00", "\x1b[2J", "\u2028",
    "\u202e", "\ufeff", "a" * 5000, '"', '""', "'", ",", ";", "\\", "dataset", "oracle", "resolve",
    "../../etc/passwd", "/dev/zero", "file:///etc/passwd", "2026-01-01", "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00+14:00", "2026-02-30", "2026-01-01T25:00", "now", "cos\nsystem\n(S'x'\ntR.",
    "!!python/object/apply:os.system", "${x}", "{{x}}", "%s%n", "DROP TABLE events;--", "' OR 1=1", "?",
    "unsure", "skip", "run-f0c4", "False", "-", * CLASSES, * IDS,
]  # fmt: skip
VALUES = [
    None, True, False, 0, 1, 7, - 1, 12, 7.0, 7.5, - 0.0, 2 ** 31, 2 ** 63, 10 ** 400, [], [7], {},
    {"a": 1}, [[[1]]], * TEXTS, {"id": 1, "email": "ada@example.org"}, {"email":["x"]}, {"id": None},
    {"choices":["cat"]}, {"text": "x"}, {"number": True},
    {"__array__": "AAAAAA==", "dtype": "<i4", "shape":[1]},
]  # fmt: skip
BYTES = [
    b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80", b"\r", b"\n", b'"',
    b",", b";", b"\t", b"\\", b"{", b"}", b"[", b"]", b"\x80\x04.", b"\x1a", b"PK\x03\x04",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A file, and the run that it is given to."""

    number: int
    format: str
    kind: str | None
    ids: bool
    content: bytes


def case(number: int, run_id: str) -> Case:
    """The file of a number."""
    rng = random.Random(number)
    format_, kind = FORMATS[number % 3], rng.choice(KINDS)
    ids = rng.random() < 0.4
    content = bytes(_valid(rng, format_, kind, run_id, ids=ids))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        change = rng.choice(_CHANGES)
        content = change(rng, content, format_, kind, run_id, ids)
    return Case(number, format_, kind, ids, content)


# ---------------------------------------------------------------------- files that could be somebody's


def _label(rng: random.Random, kind: str | None) -> object:
    if rng.random() < 0.1:
        return rng.choice(VALUES)
    if kind == "class":
        return rng.choice([*CLASSES, *range(len(CLASSES))])
    if kind == "number":
        return rng.choice([0, -1.5, 3, 1e300, "-2", "7.0"])
    if kind == "json":
        return rng.choice([[1, 2], {"boxes": [[0.5, 1]], "name": "cat"}, "text", 5, None])
    return rng.choice([text for text in TEXTS if text.strip()])


def _rows(rng: random.Random, kind: str | None, *, ids: bool) -> list[dict[str, object]]:
    rows = []
    for index in rng.sample(range(SIZE), rng.randint(1, 8)):
        row: dict[str, object] = {"index": index, "round": 0, "label": _label(rng, kind)}
        if ids:
            row["id"] = IDS[index]
        if rng.random() < 0.3:
            row |= {"label": None, rng.choice(("skip", "unsure")): True}
        if rng.random() < 0.5:
            row["who"] = rng.choice(("Ada", "Bob", "ada@example.org", rng.choice(TEXTS)))
        if rng.random() < 0.3:
            row["at"] = rng.choice(
                (rng.choice(TEXTS), "2026-01-02T03:04:05Z", "2026-05-01 10:00:00+02:00", "2026-05-01")
            )
        rows.append(row)
    return rows


def _valid(rng: random.Random, format_: str, kind: str | None, run_id: str, *, ids: bool) -> bytes:
    rows = [row | {"run": run_id} for row in _rows(rng, kind, ids=ids)]
    if format_ == "jsonl":
        return "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    if format_ == "csv":
        return _table(rng, rows)
    return json.dumps([_task(rng, n, row, kind, run_id, ids=ids) for n, row in enumerate(rows)]).encode()


def _table(rng: random.Random, rows: list[dict[str, object]]) -> bytes:
    columns = ["index", *(["id"] if "id" in rows[0] else []), "run", "round", "label"]
    columns += ["skip", "unsure", "who", "at", "shown"]
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=rng.choice(",;\t"), lineterminator=rng.choice(("\n", "\r\n")))
    writer.writerow(columns)
    for row in rows:
        skip = "?" if row.get("unsure") else "x" if row.get("skip") else ""
        row = row | {"skip": skip, "shown": rng.choice(TEXTS)}
        writer.writerow([_cell(row.get(column)) for column in columns])
    return file.getvalue().encode("utf-8", "surrogatepass")


def _cell(value: object) -> object:
    if isinstance(value, list | dict):
        return json.dumps(value)
    return "" if value is None else value


def _task(
    rng: random.Random, number: int, row: dict[str, object], kind: str | None, run_id: str, *, ids: bool
) -> object:
    sample = IDS[int(str(row["index"]))] if ids else str(row["index"])
    tag = {"class": "choices", "number": "number"}.get(str(kind), "textarea")
    word = {"textarea": "text"}.get(tag, tag)
    label = row["label"]
    value = {word: label if tag == "number" else [label]}
    result = [] if label is None else [{"from_name": "label", "to_name": "text", "type": tag, "value": value}]
    bob = {"id": 3, "email": "bob@example.org"}
    annotations = [
        {"id": 10 * number + n,
         "completed_by": rng.choice((1, bob, {"email": rng.choice(TEXTS)}, None)),
         "created_at": "2026-03-01T10:00:00.5Z", "updated_at": f"2026-03-0{n + 1}T10:00:00Z",
         "result": result, "was_cancelled": label is None}
        for n in range(rng.choice((0, 1, 1, 2)))
    ]  # fmt: skip
    data = {
        "text": "t",
        "image": "/etc/passwd",
        "lal_run": run_id,
        "lal_round": 0,
        "lal_sample": sample,
        "lal_rank": 0,
    }
    return {"id": number + 1, "data": data, "annotations": annotations, "predictions": []}


# ---------------------------------------------------------------------- changes


def _place(rng: random.Random, content: bytes) -> int:
    return rng.randrange(len(content) + 1)


def _flip(rng, content, *about):
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 20))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _insert(rng, content, *about):
    place = _place(rng, content)
    new = rng.choice(
        (rng.choice(BYTES), rng.choice(TEXTS).encode("utf-8", "surrogatepass"), rng.choice(RAW).encode())
    )
    return content[:place] + new * rng.choice((1, 1, 1, 50)) + content[place:]


def _cut(rng, content, *about):
    return content[: _place(rng, content)]


def _remove(rng, content, *about):
    start = _place(rng, content)
    return content[:start] + content[start + rng.choice((1, 2, 10, 100)) :]


def _repeat(rng, content, *about):
    start = _place(rng, content)
    part = content[start : start + rng.choice((1, 20, 200))]
    return content[:start] + part * rng.choice((2, 2, 9)) + content[start:]


def _splice(rng, content, format_, kind, run_id, ids):
    other = _valid(rng, rng.choice(FORMATS), rng.choice(KINDS), run_id, ids=rng.random() < 0.5)
    return content[: _place(rng, content)] + other[_place(rng, other) :]


def _recode(rng, content, *about):
    try:
        return content.decode().encode(
            rng.choice(("utf-16", "utf-32-be", "utf-8-sig", "utf-7", "cp037")), "replace"
        )
    except UnicodeDecodeError:
        return base64.b64encode(content)


def _swap_raw(rng, content, *about):
    """A value of JSON or a cell for another that no library would write."""
    parts = content.split(rng.choice((b": ", b",", b";", b"\t")))
    if len(parts) > 1:
        place = rng.randrange(1, len(parts))
        rest = parts[place]
        end = min(
            (i for i in (rest.find(b","), rest.find(b"}"), rest.find(b"\n")) if i >= 0), default=len(rest)
        )
        parts[place] = rng.choice(RAW).encode() + rest[end:]
        separator = b": " if b": " in content else b","
        return separator.join(parts)
    return content


def _swap_value(rng, content, format_, kind, run_id, ids):
    """Any value in the structure for another of any type."""
    try:
        if format_ == "label-studio":
            tree = json.loads(content)
            return json.dumps(_changed(rng, tree)).encode()
        if format_ == "jsonl":
            lines = content.split(b"\n")
            place = rng.randrange(len(lines))
            lines[place] = json.dumps(_changed(rng, json.loads(lines[place]))).encode()
            return b"\n".join(lines)
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = str(_cell(rng.choice(VALUES)))
    except (ValueError, IndexError, RecursionError, csv.Error):
        return content
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    return file.getvalue().encode("utf-8", "surrogatepass")


def _changed(rng, tree, depth=0):
    """The same structure but for one place."""
    inner = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    if not inner or (depth > 0 and rng.random() < 0.15):
        return rng.choice(VALUES)
    key = rng.choice(list(inner))
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    how = rng.random()
    if how < 0.08:
        del copy[key]
    elif how < 0.16 and isinstance(copy, dict):
        copy[rng.choice(TEXTS)] = copy.pop(key)
    else:
        copy[key] = _changed(rng, copy[key], depth + 1)
    return copy


_CHANGES = (
    _flip, _insert, _cut, _remove, _repeat, _splice, _recode, _swap_raw, _swap_raw, *[_swap_value] * 4
)  # fmt: skip
