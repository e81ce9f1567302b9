"""Record what a real server answers: `python -m tests.label_studio.record` writes what the fake replays."""

import json
import re
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote, urlencode

from tests.label_studio.pictures import multipart, png
from tests.label_studio.server import Server, make_template

RECORDED = Path(__file__).parents[1] / "unit" / "exchange" / "recorded" / "label_studio.json"
COMMAND = "python -m tests.label_studio.record"
CONFIG = (
    '<View><Text name="text" value="$text"/>'
    '<Choices name="label" toName="text" choice="single-radio">'
    '<Choice value="neg"/><Choice value="pos"/></Choices></View>'
)
RESULT = [{"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": ["pos"]}}]


def listing(project, include=None, run="4f0c", **more):
    query = {
        "ordering": ["tasks:id"],
        "filters": {
            "conjunction": "and",
            "items": [
                {
                    "filter": "filter:tasks:data.lal_run",
                    "operator": "equal",
                    "type": "String",
                    "value": run,
                },
                {"filter": "filter:tasks:data.lal_round", "operator": "equal", "type": "Number", "value": 3},
                {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": 0},
            ],
        },
    }
    asked = {
        "project": project,
        "fields": "all",
        "page": 1,
        "page_size": 2,
        "query": json.dumps(query),
    } | more
    return "/api/tasks?" + urlencode(asked if include is None else asked | {"include": include})


def record(server):
    """Name -> what was asked and answered, in an order in which each is possible."""
    said = {}

    def ask(name, method, path, body=None, **options):
        status, answer = server.call(method, path, body, **options)
        said[name] = {
            "asked": f"{method} {path.partition('?')[0]}",
            "status": status,
            "answer": plain(answer),
        }
        return answer

    made = {"title": "recorded", "label_config": CONFIG, "sampling": "Sequential sampling"}
    project = ask("project made", "POST", "/api/projects/", made)["id"]
    path = f"/api/projects/{project}"
    ask("title too short", "POST", "/api/projects/", made | {"title": "a"})
    data = [{"text": f"text {i}", "lal_run": "4f0c", "lal_round": 3, "lal_sample": str(i), "lal_rank": i}
            for i in range(3)]  # fmt: skip
    scores = [{"model_version": "m 3", "score": 1 - i / 10, "result": []} for i in range(3)]
    tasks = [{"data": d, "predictions": [score]} for d, score in zip(data, scores, strict=True)]
    ids = ask("import", "POST", f"{path}/import?return_task_ids=true", tasks)["task_ids"]
    ask("import of nothing", "POST", f"{path}/import", [])
    ask("import without the data key", "POST", f"{path}/import", [{"data": {"other": 1}}])
    ask("project", "GET", f"{path}/")
    ask("next", "GET", f"{path}/next")
    predictions = [{"task": ids[0], "model_version": "m 4", "score": 0.5, "result": []}]
    ask("import predictions", "POST", f"{path}/import/predictions", predictions)
    ask("model version changed", "PATCH", f"{path}/", {"model_version": "m 4"})
    ask("model version unknown", "PATCH", f"{path}/", {"model_version": "m 9"})
    annotate = f"/api/tasks/{ids[0]}/annotations/"
    number = ask("annotation", "POST", annotate, {"result": RESULT})["id"]
    ask("annotation skipped", "POST", annotate, {"result": RESULT, "was_cancelled": True})
    ask("annotation empty", "POST", annotate, {"result": []})
    ask("annotation without result", "POST", annotate, {})
    changed = [RESULT[0] | {"value": {"choices": ["neg"]}}]
    ask("annotation changed", "PATCH", f"/api/annotations/{number}/", {"result": changed})
    ask("list", "GET", listing(project))
    ask("list for push", "GET", listing(project, "id,data,predictions,model_version"))
    fields = "id,data,annotations,result,was_cancelled,completed_by,created_at,updated_at"
    ask("list for pull", "GET", listing(project, fields))
    ask("list past the end", "GET", listing(project, page=9))
    ask("list of nothing", "GET", listing(project, run="none"))
    ask("export", "GET", f"{path}/export?exportType=JSON&download_all_tasks=true")
    ask("annotation deleted", "DELETE", f"/api/annotations/{number}/")
    ask("users", "GET", "/api/users/")
    content, kind = multipart({"lal-a.png": png(1)})
    upload = ask("upload", "POST", f"{path}/import?commit_to_project=false", data=content,
                 headers={"Content-Type": kind})  # fmt: skip
    wanted = quote(json.dumps(upload["file_upload_ids"]))
    ask("uploads", "GET", f"{path}/file-uploads?ids={wanted}")
    content, kind = multipart({"lal-a.tif": png(1)})
    ask("upload refused", "POST", f"{path}/import?commit_to_project=false", data=content,
        headers={"Content-Type": kind})  # fmt: skip
    ask("task deleted", "DELETE", f"/api/tasks/{ids[2]}/")
    ask("no project", "GET", "/api/projects/999999/")
    ask("no page", "GET", "/api/nothing")
    ask("wrong token", "GET", f"{path}/", token="f" * 40)
    ask("no token", "GET", f"{path}/", token=None)
    token = ask("personal token made", "POST", "/api/token/")["token"]
    ask(
        "personal token as bearer",
        "GET",
        f"{path}/",
        token=None,
        headers={"Authorization": f"Bearer {token}"},
    )
    ask("access", "POST", "/api/token/refresh/", {"refresh": token}, token=None)
    ask("access refused", "POST", "/api/token/refresh/", {"refresh": "a.b.c"}, token=None)
    ask("annotation broken", "POST", annotate, {"result": "text"})
    version = server.call("GET", "/api/version")[1]["label-studio-os-package"]["version"]
    return {"server": f"Label Studio {version}", "command": COMMAND, "said": said}


def plain(answer):
    """Without tokens, and of a page only the beginning and the title."""
    if isinstance(answer, bytes):
        text = answer.decode()
        return text[:120] + re.search(r"<title>.*?</title>", text)[0]
    if isinstance(answer, dict):
        return {k: "eyJ.recorded.token" if k in ("token", "access") else v for k, v in answer.items()}
    return answer


def shape(value):
    """Names and types; of a list, the shapes in it."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list):
        shapes = [shape(part) for part in value]
        return [each for place, each in enumerate(shapes) if each not in shapes[:place]]
    return type(value).__name__


def main():
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "server", make_template(Path(folder) / "template")).start()
        try:
            recorded = record(server)
        finally:
            server.stop()
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{RECORDED}: {len(recorded['said'])} answers of {recorded['server']}")


if __name__ == "__main__":
    sys.exit(main())
