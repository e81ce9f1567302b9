"""A real server that is killed, or busy: nothing is lost, nothing is there twice."""

import contextlib
import threading
import time
from signal import SIGKILL

import pytest

from lightning_al.exchange.label_studio import Key, LabelStudio, LabelStudioError, Task
from tests.label_studio.scenarios import FORM, NAMES, chosen, keys
from tests.label_studio.server import TOKEN

pytestmark = pytest.mark.label_studio


def many(count):
    return [
        Task(Key("4f0c", 3, str(i)), {"text": f"text {i}"}, rank=i, score=1 - i / count) for i in range(count)
    ]


def there(server, project):
    """Sample and number of scores of every task."""
    _, page = server.call("GET", f"/api/tasks?project={project}&fields=all&page_size=5000")
    return sorted((task["data"]["lal_sample"], len(task["predictions"])) for task in page["tasks"])


def all_once(asked):
    return sorted((task.key.sample, 1) for task in asked)


@pytest.mark.parametrize("seconds", [0.1, 0.4, 0.8, 1.2])
def test_a_server_that_is_killed_during_a_push_has_everything_once_after_the_next(
    mortal, seconds, monkeypatch
):
    monkeypatch.setattr("lightning_al.exchange.label_studio.sending._BATCH", 400)
    monkeypatch.setattr("lightning_al.exchange.label_studio.sending._PAUSE", 0)
    studio = LabelStudio(mortal.url, TOKEN)
    studio.create_project("killed", FORM)
    asked = many(800)
    killer = threading.Timer(seconds, mortal.stop, [SIGKILL])
    killer.start()
    with contextlib.suppress(LabelStudioError):
        studio.push(asked, NAMES)
    killer.join()
    mortal.start()
    landed = len(there(mortal, studio.project))
    pushed = studio.push(asked, NAMES)
    assert len(pushed.there) == landed
    assert there(mortal, studio.project) == all_once(asked)


def test_a_server_that_is_killed_during_a_pull_loses_no_answer(mortal, monkeypatch):
    monkeypatch.setattr("lightning_al.exchange.label_studio.project._PAGE", 20)
    studio = LabelStudio(mortal.url, TOKEN)
    studio.create_project("killed", FORM)
    asked = many(200)
    studio.push(asked, NAMES)
    _, page = mortal.call("GET", f"/api/tasks?project={studio.project}&page_size=200")
    for task in page["tasks"][:20]:
        mortal.call("POST", f"/api/tasks/{task['id']}/annotations/", {"result": chosen("pos")})
    pages = []

    def kill_at_the_third(what, done, of):
        pages.append(done)
        if len(pages) == 3:
            mortal.stop(SIGKILL)

    studio._progress = kill_at_the_third
    with pytest.raises(LabelStudioError, match="See whether it runs"):
        studio.pull(keys(asked))
    mortal.start()
    pulled = studio.pull(keys(asked))
    assert len(pulled.said) == 200
    assert sum(len(said) for said in pulled.said.values()) == 20


def test_a_push_while_people_annotate_keeps_every_score_and_every_answer(mortal):
    """A locked database makes the server drop the scores of an import, and say 201."""
    studio = LabelStudio(mortal.url, TOKEN)
    studio.create_project("busy", FORM)
    first = many(60)
    studio.push(first, NAMES)
    _, page = mortal.call("GET", f"/api/tasks?project={studio.project}&page_size=200")
    ids, ended, given = [task["id"] for task in page["tasks"]], threading.Event(), []

    def annotate(numbers):
        for number in numbers:
            if ended.is_set():
                return
            status, _ = mortal.call("POST", f"/api/tasks/{number}/annotations/", {"result": chosen("pos")})
            given.append(status)
            time.sleep(0.3)

    people = [threading.Thread(target=annotate, args=(ids[start::2] * 20,)) for start in range(2)]
    for person in people:
        person.start()
    rounds = [
        [Task(Key("4f0c", number, str(i)), {"text": "t"}, i, 0.5) for i in range(400)] for number in (4, 5)
    ]
    try:
        for asked in rounds:
            studio.push(asked, NAMES)
    finally:
        ended.set()
        for person in people:
            person.join()
    everything = first + rounds[0] + rounds[1]
    assert there(mortal, studio.project) == all_once(everything)
    pulled = studio.pull(keys(first))
    _, page = mortal.call("GET", f"/api/tasks?project={studio.project}&fields=all&page_size=1000")
    assert sum(len(task["annotations"]) for task in page["tasks"]) == given.count(201)
    assert {each.value for said in pulled.said.values() for each in said} == {"pos"}
