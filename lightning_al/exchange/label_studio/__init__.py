"""Label Studio: a query out to a running server and its answers in. Standard library only.

    Task -> [push] -> the server -> [pull] -> Annotation -> the ledger

tasks.py       one sample of a query, its key, and what is looked at
form.py        what a project asks: a class, a number, text
annotations.py what annotators said, from a server or an exported file; no network here
file.py        an exported file, checked from end to end before anything looks at it
people.py      one person is one annotator, under whichever name
asking.py      what waits in a ledger goes out
taking.py      what was said comes into it; `Report`
server.py      `LabelStudio`: push and pull; images.py local pictures
connection.py  HTTP, with a token.py that is never shown
"""

from lightning_al.exchange.label_studio.annotations import Annotation, newest_of_each, read
from lightning_al.exchange.label_studio.asking import export_tasks, form_for, push_query, waiting_tasks
from lightning_al.exchange.label_studio.connection import LabelStudioError
from lightning_al.exchange.label_studio.file import read_export
from lightning_al.exchange.label_studio.form import Form
from lightning_al.exchange.label_studio.sending import Pushed
from lightning_al.exchange.label_studio.server import LabelStudio, Pulled
from lightning_al.exchange.label_studio.taking import Report, import_export, pull_answers
from lightning_al.exchange.label_studio.tasks import Key, Task

__all__ = [
    "Annotation",
    "Form",
    "Key",
    "LabelStudio",
    "LabelStudioError",
    "Pulled",
    "Pushed",
    "Report",
    "Task",
    "export_tasks",
    "form_for",
    "import_export",
    "newest_of_each",
    "pull_answers",
    "push_query",
    "read",
    "read_export",
    "waiting_tasks",
]
