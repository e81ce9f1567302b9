"""A small Label Studio on loopback that answers as a real one was recorded to, and fails when told to.

What it says is made of the answers in `recorded/label_studio.json`, with other numbers and data in them.
"""

import copy
import itertools
import json
import re
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

from ports import free_port

from tests.label_studio.server import EMAIL, SECOND_EMAIL, TOKEN, call

RECORDED = json.loads((Path(__file__).parent / "recorded" / "label_studio.json").read_text())["said"]
SECOND = "1123456789abcdef0123456789abcdef01234567"
PERSONAL = "eyJpersonal.token.signature"
KINDS = {"Choices", "Number", "TextArea"}


def recorded(name, **changes):
    """Status and a copy of a recorded answer with other values in it."""
    said = copy.deepcopy(RECORDED[name])
    if changes:
        assert changes.keys() <= said["answer"].keys(), f"the server says no {changes.keys()} in {name!r}"
        said["answer"] |= changes
    return said["status"], said["answer"]


class FakeLabelStudio:
    """State and faults; `faults` are (method, pattern of the path, what happens), each used once."""

    def __init__(self):
        self.lock = threading.RLock()
        self.projects, self.tasks, self.uploads = {}, {}, {}
        self.numbers = {
            what: itertools.count(1) for what in ("project", "annotation", "prediction", "upload")
        }
        self.clock = datetime(2026, 11, 22, 9, tzinfo=UTC)
        self.faults, self.asked, self.access, self.drop = [], [], 0, 0
        self.http = None
        self.hold = threading.Event()

    # ------------------------------------------------------------------ being a server

    def start(self, port=None):
        self.hold.clear()
        self.http = ThreadingHTTPServer(
            ("127.0.0.1", port or free_port()), type("H", (Handler,), {"fake": self})
        )
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        return self

    def stop(self):
        self.hold.set()
        if self.http is not None:
            self.http.shutdown()
            self.http.server_close()
            self.http = None

    def die(self, handler):
        """Stop in the middle of an answer."""
        self.stop()
        handler.connection.close()

    def call(self, method, path, body=None, **options):
        return call(self.url, method, path, body, **options)

    def second_token(self):
        return SECOND

    def personal_token(self):
        return PERSONAL

    def fail(self, method, pattern, how, times=1):
        self.faults += [(method, pattern, how)] * times

    def fault(self, method, path):
        for each in self.faults:
            if each[0] == method and re.search(each[1], path):
                self.faults.remove(each)
                return each[2]
        return None

    def count(self, method, pattern):
        return sum(m == method and re.search(pattern, p) is not None for m, p in self.asked)

    # ------------------------------------------------------------------ answers

    def user(self, authorization):
        known = {f"Token {TOKEN}": 1, f"Token {SECOND}": 2, f"Bearer access.{self.access}.x": 1}
        return known.get(authorization)

    def answer(self, method, path, query, body, authorization):
        if (method, path) == ("POST", "/api/token/refresh/"):
            if body["refresh"] != PERSONAL:
                return recorded("access refused")
            self.access += 1
            return recorded("access", access=f"access.{self.access}.x")
        user = self.user(authorization)
        if user is None:
            return recorded("no token" if not (authorization or "").startswith("Token") else "wrong token")
        for (wanted, pattern), act in ROUTES.items():
            found = re.fullmatch(pattern, path)
            if wanted == method and found:
                return act(self, *map(int, found.groups()), query=query, body=body, user=user)
        return recorded("no page")

    def now(self):
        self.clock += timedelta(seconds=1)
        return self.clock.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def make_project(self, query, body, user):
        if len(body["title"]) < 3:
            return recorded("title too short")
        number = next(self.numbers["project"])
        changes = {name: body[name] for name in ("title", "label_config", "sampling") if name in body}
        changes["parsed_label_config"] = parsed(body["label_config"])
        self.projects[number] = recorded("project made", id=number, **changes)[1]
        return 201, self.projects[number]

    def get_project(self, number, query, body, user):
        if number not in self.projects:
            return recorded("no project")
        return 200, recorded("project")[1] | self.projects[number]

    def patch_project(self, number, query, body, user):
        versions = {p["model_version"] for t in self.of(number) for p in t["predictions"]}
        if not {body.get("model_version")} <= versions | {None}:
            return recorded("model version unknown")
        self.projects[number] |= body
        return 200, self.projects[number]

    def of(self, project):
        return [task for _, task in sorted(self.tasks.items()) if task["project"] == project]

    def task(self, number, query, body, user):
        return 200, self.tasks[number]

    def import_tasks(self, number, query, body, user):
        if isinstance(body, bytes):
            return self.upload(number, body)
        if not body:
            return recorded("import of nothing")
        fields = {
            i["value"] for t in self.projects[number]["parsed_label_config"].values() for i in t["inputs"]
        }
        if any(not fields <= task["data"].keys() for task in body):
            return recorded("import without the data key")
        first = max(self.tasks, default=0) + 1  # as SQLite does: the id of a deleted newest task comes again
        drops, self.drop = self.drop > 0, max(self.drop - 1, 0)
        for place, task in enumerate(body, first):
            self.tasks[place] = recorded_task(place, number, task["data"])
            for prediction in () if drops else task.get("predictions", ()):
                self.add_prediction(self.tasks[place], prediction)
        made = [self.tasks[place] for place in range(first, first + len(body))]
        versions = [p["model_version"] for task in made for p in task["predictions"]]
        self.projects[number]["model_version"] = self.projects[number]["model_version"] or "".join(
            versions[:1]
        )
        said = recorded("import", task_count=len(made), prediction_count=len(versions))
        if "return_task_ids" in query:
            said[1]["task_ids"] = [task["id"] for task in made]
        return said

    def add_prediction(self, task, prediction):
        made = copy.deepcopy(RECORDED["list"]["answer"]["tasks"][0]["predictions"][0])
        made |= {"id": next(self.numbers["prediction"]), "task": task["id"], "project": task["project"]}
        task["predictions"].append(made | {"score": None} | prediction)

    def import_predictions(self, number, query, body, user):
        for prediction in body:
            self.add_prediction(self.tasks[prediction["task"]], prediction)
        return recorded("import predictions", created=len(body))

    def upload(self, number, body):
        names = re.findall(rb'filename="([^"]+)"\r\n.*?\r\n\r\n(.*?)\r\n--', body, re.DOTALL)
        if any(name.endswith(b".tif") for name, _ in names):
            return recorded("upload refused")
        ids = []
        for name, content in names:
            ids.append(next(self.numbers["upload"]))
            file = f"upload/{number}/{ids[-1]:08x}-{name.decode()}"
            self.uploads[ids[-1]] = (number, {"id": ids[-1], "file": file, "size": len(content)}, content)
        return recorded("upload", task_count=len(ids), file_upload_ids=ids)

    def list_uploads(self, number, query, body, user):
        ids = json.loads(query["ids"]) if "ids" in query else self.uploads
        return 200, [self.uploads[i][1] for i in ids if self.uploads[i][0] == number]

    def annotate(self, number, query, body, user):
        if isinstance(body.get("result"), str):
            return recorded("annotation broken")
        at = self.now()
        made = recorded("annotation", id=next(self.numbers["annotation"]), task=number, completed_by=user,
                        result=body.get("result"), was_cancelled=body.get("was_cancelled", False),
                        created_at=at, updated_at=at)[1]  # fmt: skip
        self.tasks[number]["annotations"].append(made)
        return 201, made

    def annotation(self, number):
        return next((t, a) for t in self.tasks.values() for a in t["annotations"] if a["id"] == number)

    def patch_annotation(self, number, query, body, user):
        _, found = self.annotation(number)
        found |= body | {"updated_at": self.now()}
        return 200, found

    def delete_annotation(self, number, query, body, user):
        task, found = self.annotation(number)
        task["annotations"].remove(found)
        return 204, None

    def delete_task(self, number, query, body, user):
        del self.tasks[number]
        return 204, None

    def delete_prediction(self, number, query, body, user):
        for task in self.tasks.values():
            task["predictions"] = [p for p in task["predictions"] if p["id"] != number]
        return 204, None

    def next_task(self, number, query, body, user):
        asked = [t for t in self.of(number) if not any(not a["was_cancelled"] for a in t["annotations"])]
        asked = [t for t in asked if not any(a["completed_by"] == user for a in t["annotations"])]
        version = self.projects[number]["model_version"]
        for task in asked[:1]:
            shown = [p for p in task["predictions"] if p["model_version"] == version]
            return recorded("next", id=task["id"], data=task["data"], predictions=shown)
        return 404, {"detail": "There are no tasks remaining to be annotated"}

    def list_tasks(self, query, body, user):
        number, size = int(query["project"]), int(query.get("page_size", 100))
        asked = json.loads(query.get("query", "{}"))
        assert asked.get("ordering", ["tasks:id"]) == ["tasks:id"], "the fake knows no other order"
        items = asked.get("filters", {"items": []})["items"]
        found = [task for task in self.of(number) if all(fits(task, item) for item in items)]
        page = int(query.get("page", 1))
        if page > 1 and (page - 1) * size >= len(found):
            return recorded("list past the end")
        shown = [selected(task, query) for task in found[(page - 1) * size : page * size]]
        return recorded("list", tasks=shown, total=len(found))

    def export(self, number, query, body, user):
        return 200, [t for t in self.of(number) if t["annotations"] or "download_all_tasks" in query]

    def users(self, query, body, user):
        one = RECORDED["users"]["answer"][0]
        return 200, [one | {"id": 1, "email": EMAIL}, one | {"id": 2, "email": SECOND_EMAIL}]


def recorded_task(number, project, data):
    made = copy.deepcopy(RECORDED["list"]["answer"]["tasks"][0])
    return made | {"id": number, "project": project, "data": data, "annotations": [], "predictions": []}


def selected(task, query):
    """With `include`, fields of the task and of its annotations, by the same names; predictions are whole."""
    if "include" not in query:
        return task
    names = query["include"].split(",")
    shown = {name: value for name, value in task.items() if name in names}
    if "annotations" in shown:
        shown["annotations"] = [
            {k: v for k, v in a.items() if k in ("id", *names)} for a in task["annotations"]
        ]
    return shown


def fits(task, item):
    column = item["filter"].removeprefix("filter:tasks:")
    value = task["data"].get(column[5:]) if column.startswith("data.") else task[column]
    return {"equal": value == item["value"], "greater": value is not None and value > item["value"]}[
        item["operator"]
    ]


def parsed(xml):
    view = ElementTree.fromstring(xml)
    shown = {tag.get("name"): tag for tag in view.iter() if (tag.get("value") or "").startswith("$")}
    return {
        tag.get("name"): {
            "type": tag.tag,
            "to_name": [tag.get("toName")],
            "inputs": [{"type": shown[tag.get("toName")].tag, "valueType": None,
                        "value": shown[tag.get("toName")].get("value")[1:]}],
            "labels": [choice.get("value") for choice in tag.iter("Choice")],
            "labels_attrs": {choice.get("value"): dict(choice.attrib) for choice in tag.iter("Choice")},
        }
        for tag in view.iter() if tag.tag in KINDS
    }  # fmt: skip


ROUTES = {
    ("POST", "/api/projects/"): FakeLabelStudio.make_project,
    ("GET", r"/api/projects/(\d+)/"): FakeLabelStudio.get_project,
    ("PATCH", r"/api/projects/(\d+)/"): FakeLabelStudio.patch_project,
    ("GET", r"/api/projects/(\d+)/next"): FakeLabelStudio.next_task,
    ("POST", r"/api/projects/(\d+)/import"): FakeLabelStudio.import_tasks,
    ("POST", r"/api/projects/(\d+)/import/predictions"): FakeLabelStudio.import_predictions,
    ("GET", r"/api/projects/(\d+)/file-uploads"): FakeLabelStudio.list_uploads,
    ("GET", r"/api/projects/(\d+)/export"): FakeLabelStudio.export,
    ("GET", "/api/tasks"): FakeLabelStudio.list_tasks,
    ("GET", r"/api/tasks/(\d+)/"): FakeLabelStudio.task,
    ("DELETE", r"/api/tasks/(\d+)/"): FakeLabelStudio.delete_task,
    ("POST", r"/api/tasks/(\d+)/annotations/"): FakeLabelStudio.annotate,
    ("PATCH", r"/api/annotations/(\d+)/"): FakeLabelStudio.patch_annotation,
    ("DELETE", r"/api/annotations/(\d+)/"): FakeLabelStudio.delete_annotation,
    ("DELETE", r"/api/predictions/(\d+)/"): FakeLabelStudio.delete_prediction,
    ("GET", "/api/users/"): FakeLabelStudio.users,
}


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP, or fails to."""

    def serve(self):
        fake, parts = self.fake, urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fake.asked.append((self.command, self.path))
        fault = fake.fault(self.command, self.path)
        if callable(fault):
            return fault(self)
        if fault == "break before":
            return self.connection.close()
        plain = self.headers.get_content_type() == "application/json"
        body = json.loads(content) if plain and content else content
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with fake.lock:
            status, answer = fake.answer(self.command, parts.path, query, body, self.headers["Authorization"])
            for _, upload, picture in fake.uploads.values():
                if parts.path == f"/data/{upload['file']}" and fake.user(self.headers["Authorization"]):
                    status, answer = 200, picture
        if fault == "break after":
            return self.connection.close()
        if fault == "hold after":
            return fake.hold.wait(20)
        return self.say(status, answer)

    do_GET = do_POST = do_PATCH = do_DELETE = serve

    def say(self, status, answer, headers=()):
        kind = "text/html" if isinstance(answer, str) else "application/json"
        content = answer if isinstance(answer, bytes) else b"" if answer is None else (
            answer.encode() if isinstance(answer, str) else json.dumps(answer).encode())  # fmt: skip
        self.send_response(status)
        for name, value in [("Content-Type", kind), ("Content-Length", str(len(content))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass
