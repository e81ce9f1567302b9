"""5 LABELLING, people: queries out, answers in; one file a format. Needs neither torch nor Lightning.

queries.py  which samples wait, and what an annotator is shown of them
answers.py  what annotators said: from rows to opinions, or a refusal (refusal.py) that names every row
            given.py: a row, and its sample and query; texts.py: from what it says to a target
csv.py      both as a table; files.py the tables of the state directory
jsonl.py    both as JSON, one object a line; label_studio/ both for Label Studio, by a server or files
formats.py  which of these a file is; reading.py, writing.py what holds for files of any format
progress.py a bar over many rows; collector.py what makes many rows slow
"""

from lightning_al.exchange.answers import collect
from lightning_al.exchange.csv import read_csv, write_csv
from lightning_al.exchange.files import place_of_answers, query_files, query_path
from lightning_al.exchange.formats import (
    Imported,
    format_of,
    import_answers,
    kept_beside,
    read_answers,
    write_query,
)
from lightning_al.exchange.given import Given
from lightning_al.exchange.jsonl import read_jsonl, write_jsonl
from lightning_al.exchange.queries import Query, waiting_queries

__all__ = [
    "Given",
    "Imported",
    "Query",
    "collect",
    "format_of",
    "import_answers",
    "kept_beside",
    "place_of_answers",
    "query_files",
    "query_path",
    "read_answers",
    "read_csv",
    "read_jsonl",
    "waiting_queries",
    "write_csv",
    "write_jsonl",
    "write_query",
]
