"""5 LABELLING, people: queries out, answers in; one file a format. Needs neither torch nor Lightning.

queries.py which samples wait, and what an annotator is shown of them
answers.py what annotators said: from rows of text to labels, or a refusal that names every line
csv.py     both as a table; files.py the tables of the state directory
"""

from lightning_al.exchange.answers import Answers, collect
from lightning_al.exchange.csv import read_rows, write_query
from lightning_al.exchange.files import place_of_answers, query_files, query_path

__all__ = ["Answers", "collect", "place_of_answers", "query_files", "query_path", "read_rows", "write_query"]
