"""5 LABELLING, people: queries out, answers in; one file a format. Needs neither torch nor Lightning.

queries.py  which samples wait, and what an annotator is shown of them
answers.py  what annotators said: from rows to opinions, or a refusal that names every row
csv.py      both as a table; files.py the tables of the state directory
progress.py a bar over many rows
"""

from lightning_al.exchange.answers import Given, collect
from lightning_al.exchange.csv import read_csv, write_csv
from lightning_al.exchange.files import place_of_answers, query_files, query_path
from lightning_al.exchange.queries import Query, waiting_queries

__all__ = [
    "Given",
    "Query",
    "collect",
    "place_of_answers",
    "query_files",
    "query_path",
    "read_csv",
    "waiting_queries",
    "write_csv",
]
