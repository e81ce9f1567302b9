"""What can go wrong between us and a server: nothing is lost, nothing is there twice, no token is shown."""

import http.client
import logging
import socket
import threading
import traceback

import pytest
from ports import free_port

from lightning_al.exchange.label_studio import Form, Key, LabelStudio, LabelStudioError, Task
from lightning_al.exchange.label_studio import connection as connection_module
from lightning_al.exchange.label_studio import sending as sending_module
from tests.label_studio.pictures import png
from tests.label_studio.scenarios import FORM, NAMES, chosen, keys, tasks
from tests.label_studio.server import TOKEN
from tests.unit.exchange.fake_label_studio import PERSONAL, FakeLabelStudio

IMPORT = r"/import$"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(connection_module, "_PAUSES", (0, 0))
    monkeypatch.setattr(sending_module, "_PAUSE", 0)
    monkeypatch.setattr(sending_module, "_PATIENCE", 0)


@pytest.fixture
def fake(peer):
    return peer


@pytest.fixture
def studio(fake):
    studio = LabelStudio(fake.url, TOKEN, timeout=5)
    studio.create_project("faults", FORM)
    return studio


def there(fake):
    """Samples that the server has, once for every task, with their number of scores."""
    return sorted((task["data"]["lal_sample"], len(task["predictions"])) for task in fake.tasks.values())


def all_once(asked):
    return sorted((task.key.sample, 1) for task in asked)


# ------------------------------------------------------------------ push


@pytest.mark.parametrize("how", ["break before", "break after"])
def test_an_import_whose_connection_breaks_is_there_once_whether_it_landed_or_not(fake, studio, how):
    fake.fail("POST", IMPORT, how)
    asked = tasks(5)
    assert studio.push(asked, NAMES).sent == keys(asked)
    assert there(fake) == all_once(asked)
    assert fake.count("POST", IMPORT) == (2 if how == "break before" else 1)


def test_of_several_imports_only_the_broken_one_is_sent_again(fake, studio, monkeypatch):
    monkeypatch.setattr(sending_module, "_BATCH", 2)
    fake.fail("POST", IMPORT, lambda handler: handler.connection.close())
    asked = tasks(7)
    studio.push(asked, NAMES)
    assert there(fake) == all_once(asked)
    assert fake.count("POST", IMPORT) == 4 + 1


def test_imports_are_cut_by_their_bytes_too(fake, studio, monkeypatch):
    monkeypatch.setattr(sending_module, "_BATCH_BYTES", 1000)
    asked = [Task(Key("4f0c", 3, str(i)), {"text": "x" * 900}, rank=i, score=0.5) for i in range(3)]
    studio.push(asked)
    assert there(fake) == all_once(asked)
    assert fake.count("POST", IMPORT) == 3


def test_a_server_that_stays_away_is_told_of_and_the_next_push_goes_on(fake, studio, monkeypatch):
    monkeypatch.setattr(sending_module, "_BATCH", 2)
    asked = tasks(6)
    port = fake.http.server_port
    fake.fail("POST", IMPORT, "pass")
    fake.fail("POST", IMPORT, fake.die)
    with pytest.raises(LabelStudioError, match="what is done is not done twice"):
        studio.push(asked, NAMES)
    assert there(fake) == all_once(asked[:2])
    fake.start(port)
    pushed = studio.push(asked, NAMES)
    assert (pushed.there, pushed.sent) == (keys(asked[:2]), keys(asked[2:]))
    assert there(fake) == all_once(asked)


def test_what_may_land_yet_is_not_sent_again(fake, studio):
    """A server that is late may still be at it: sent again, it would be there twice."""
    late = threading.Event()

    def be_late(handler):
        late.wait(20)
        handler.connection.close()

    studio.connection.timeout = 3
    fake.fail("POST", IMPORT, be_late)
    asked = tasks(3)
    with pytest.raises(LabelStudioError, match=r"no answer for 3 s.*after some minutes") as caught:
        studio.push(asked, NAMES)
    assert caught.value.late
    assert fake.count("POST", IMPORT) == 1
    late.set()
    studio.connection.timeout = 5
    studio.push(asked, NAMES)
    assert there(fake) == all_once(asked)


def test_an_import_that_landed_late_is_found(fake, studio):
    studio.connection.timeout = 3
    fake.fail("POST", IMPORT, "hold after")
    asked = tasks(3)
    assert studio.push(asked, NAMES).sent == keys(asked)
    assert there(fake) == all_once(asked)
    assert fake.count("POST", IMPORT) == 1


@pytest.mark.parametrize("status", [502, 504])
def test_a_gateway_that_gives_up_is_not_asked_again(fake, studio, status):
    fake.fail("POST", IMPORT, lambda handler: handler.say(status, "<html><title>Bad gateway</title></html>"))
    with pytest.raises(LabelStudioError, match=f"status {status}: a page titled 'Bad gateway'"):
        studio.push(tasks(3), NAMES)
    assert fake.count("POST", IMPORT) == 1


def test_an_import_that_is_refused_is_not_tried_again(fake, studio):
    refusal = {"status_code": 400, "detail": "Validation error", "validation_errors": {"data": ["no"]}}
    fake.fail("POST", IMPORT, lambda handler: handler.say(400, refusal))
    with pytest.raises(LabelStudioError, match=r'status 400: Validation error \{"data": \["no"\]\}'):
        studio.push(tasks(3), NAMES)
    assert fake.count("POST", IMPORT) == 1


def test_scores_that_a_busy_server_drops_are_sent_again(fake, studio, monkeypatch):
    monkeypatch.setattr(sending_module, "_BATCH", 3)
    fake.drop = 1
    asked = tasks(5)
    studio.push(asked, NAMES)
    assert there(fake) == all_once(asked)


@pytest.mark.parametrize("how", ["break before", "break after"])
def test_scores_are_there_once_though_the_connection_breaks(fake, studio, how):
    fake.drop = 1
    fake.fail("POST", r"/import/predictions$", how)
    asked = tasks(5)
    studio.push(asked, NAMES)
    assert there(fake) == all_once(asked)


def test_scores_that_never_arrive_are_told_of(fake, studio):
    fake.drop = 1
    fake.fail("POST", r"/import/predictions$", lambda handler: handler.say(201, {"created": 0}), times=9)
    with pytest.raises(LabelStudioError, match=r"0 of 5 samples are not in project 1 .* 5 are there without"):
        studio.push(tasks(5), NAMES)


def test_tasks_that_vanish_at_once_are_told_of(fake, studio):
    said = {"task_count": 5, "prediction_count": 5}
    fake.fail("POST", IMPORT, lambda handler: handler.say(201, said))
    with pytest.raises(LabelStudioError, match="5 of 5 samples are not in project 1"):
        studio.push(tasks(5), NAMES)


@pytest.mark.parametrize("how", ["break before", "break after"])
def test_a_picture_is_there_once_though_the_connection_breaks(fake, tmp_path, how):
    studio = LabelStudio(fake.url, TOKEN, timeout=5)
    studio.create_project("pictures", Form("choices", "image", NAMES))
    (tmp_path / "a.png").write_bytes(png(1))
    fake.fail("POST", "commit_to_project=false", how)
    asked = [Task(Key("4f0c", 3, "a"), {"image": str(tmp_path / "a.png")})]
    if how == "break before":
        with pytest.raises(LabelStudioError, match="is not done twice"):
            studio.push(asked, NAMES)
    studio.push(asked, NAMES)
    assert len(fake.uploads) == len(fake.tasks) == 1


def test_pictures_that_cannot_be_shown_are_all_named_and_nothing_is_sent(fake, tmp_path):
    studio = LabelStudio(fake.url, TOKEN, timeout=5)
    studio.create_project("pictures", Form("choices", "image", NAMES))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "good.png").write_bytes(png(1))
    shown = ["good.png", "empty.png", "gone.png", "scan.tif"]
    asked = [
        Task(Key("r", 0, name), {"image": str(tmp_path / name)}, rank) for rank, name in enumerate(shown)
    ]
    with pytest.raises(ValueError, match="3 pictures cannot be shown, nothing was sent") as caught:
        studio.push(asked)
    for said in ("empty.png: has 0 bytes", "gone.png: No such file", "scan.tif: a browser shows no .tif"):
        assert said in str(caught.value)
    with pytest.raises(ValueError, match=r"Sample t shows \{'text': 'words'\}; needed is a picture"):
        studio.push([Task(Key("r", 0, "t"), {"text": "words"})])
    assert not fake.uploads
    assert not fake.tasks


def test_tasks_that_are_no_query_are_refused_before_anything_is_sent(fake, studio):
    one = tasks(1)[0]
    for wrong, said in [
        ([one, one], "sent twice"),
        ([Task(one.key, {"text": "t"}, score=float("nan"))], "score nan; needed is a finite number"),
        ([Task(one.key, {"text": "t"}, predicted="mixed")], "predicted to be 'mixed'"),
    ]:
        with pytest.raises(ValueError, match=said):
            studio.push(wrong)
    assert not fake.tasks
    with pytest.raises(ValueError, match=r"No project of http.* is given; needed is its number"):
        LabelStudio(fake.url, TOKEN).push([one])


# ------------------------------------------------------------------ pull


@pytest.mark.parametrize(
    "fault",
    [
        "break before",
        "break after",
        lambda handler: handler.say(503, "<html><title>Busy</title></html>"),
        lambda handler: handler.say(200, b"", [("X", "y")]),
        lambda handler: half(handler, b'{"tasks": [', 1000),
    ],
    ids=["before", "after", "busy", "nothing", "half"],
)
def test_a_page_that_does_not_come_is_asked_for_again(fake, studio, monkeypatch, fault):
    monkeypatch.setattr("lightning_al.exchange.label_studio.project._PAGE", 2)
    asked = tasks(5)
    studio.push(asked, NAMES)
    for number in fake.tasks:
        fake.call("POST", f"/api/tasks/{number}/annotations/", {"result": chosen("pos")})
    fake.fail("GET", r"/api/tasks\?", "pass")
    fake.fail("GET", r"/api/tasks\?", fault)
    pulled = studio.pull(keys(asked))
    assert [[each.value for each in pulled.said[key]] for key in keys(asked)] == [["pos"]] * 5


def half(handler, content, length):
    handler.send_response(200)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(content)
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def test_half_an_answer_is_none(fake, studio):
    fake.fail("GET", r"/api/tasks\?", lambda handler: half(handler, b'{"tasks": []}', 1000), times=3)
    with pytest.raises(LabelStudioError, match="IncompleteRead"):
        studio.pull(keys(tasks(1)))


def test_a_server_that_does_not_filter_is_not_asked_for_ever(fake, studio, monkeypatch):
    monkeypatch.setattr("lightning_al.exchange.label_studio.project._PAGE", 2)
    asked = tasks(5)
    studio.push(asked, NAMES)
    page = {"tasks": [{"id": n, "data": {}, "annotations": []} for n in (1, 2)], "total": 5}
    fake.fail("GET", r"/api/tasks\?", lambda handler: handler.say(200, page), times=9)
    with pytest.raises(LabelStudioError, match="lists the same tasks again"):
        studio.pull(keys(asked))


def test_a_pull_that_ends_half_way_gives_nothing_and_can_be_repeated(fake, studio, monkeypatch):
    monkeypatch.setattr("lightning_al.exchange.label_studio.project._PAGE", 2)
    asked = tasks(5)
    studio.push(asked, NAMES)
    fake.fail("GET", r"/api/tasks\?", "pass")
    fake.fail("GET", r"/api/tasks\?", "break before", times=3)
    with pytest.raises(LabelStudioError, match=r"GET .*/api/tasks: RemoteDisconnected"):
        studio.pull(keys(asked))
    assert list(studio.pull(keys(asked)).said) == keys(asked)


def test_a_task_that_is_deleted_between_two_pages_hides_no_other(fake, studio, monkeypatch):
    monkeypatch.setattr("lightning_al.exchange.label_studio.project._PAGE", 2)
    asked = tasks(6)
    studio.push(asked, NAMES)

    def delete_the_first(handler):
        del fake.tasks[1]
        query = dict(part.split("=", 1) for part in handler.path.partition("?")[2].split("&"))
        assert query["page"] == "1"
        handler.connection.close()  # and it is asked for again

    fake.fail("GET", r"/api/tasks\?", "pass")
    fake.fail("GET", r"/api/tasks\?", delete_the_first)
    pulled = studio.pull(keys(asked))
    assert set(keys(asked[1:])) <= set(pulled.said)


def test_a_refusal_is_not_asked_for_again(fake, studio):
    studio.form()
    before = len(fake.asked)
    fake.fail(
        "GET", r"/api/tasks\?", lambda handler: handler.say(404, {"id": "x", "detail": "Invalid page."})
    )
    with pytest.raises(LabelStudioError, match="status 404: Invalid page"):
        studio.pull(keys(tasks(1)))
    assert len(fake.asked) == before + 1


def test_annotators_whose_names_we_may_not_see_have_numbers(fake, studio):
    asked = tasks(1)
    studio.push(asked, NAMES)
    fake.call("POST", "/api/tasks/1/annotations/", {"result": chosen("pos")})
    fake.fail("GET", "/api/users/", lambda handler: handler.say(403, {"detail": "no"}))
    assert studio.pull(keys(asked)).said[asked[0].key][0].who == "user 1"


def test_an_answer_without_end_is_given_up(fake, studio, monkeypatch):
    monkeypatch.setattr(connection_module, "_LARGEST", 1 << 20)

    def pour(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * (1 << 16))
        except OSError:
            pass

    fake.fail("GET", "/api/projects/", pour)
    with pytest.raises(LabelStudioError, match="answers with more than 1 MiB"):
        LabelStudio(fake.url, TOKEN, project=1, timeout=5).form()


def test_an_answer_that_drips_is_given_up(fake):
    ended = threading.Event()

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while not ended.wait(0.02):
                handler.wfile.write(b" ")
        except OSError:
            pass

    fake.fail("GET", "/api/projects/", drip, times=3)
    with pytest.raises(LabelStudioError, match=r"no answer for 0\.05 s"):
        LabelStudio(fake.url, TOKEN, project=1, timeout=0.05).form()
    ended.set()


def test_a_large_answer_comes_whole(fake, studio):
    asked = [Task(Key("4f0c", 3, str(i)), {"text": str(i) * 400_000}, rank=i) for i in range(10)]
    studio.push(asked)
    assert list(studio.pull(keys(asked)).said) == keys(asked)


def test_nobody_there_is_told_of():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LabelStudioError, match=r"ConnectionRefusedError.*See whether it runs") as caught:
        LabelStudio(url, TOKEN, project=1).form()
    assert not caught.value.unsure


def test_something_else_there_is_told_of(fake):
    page = "<html><title>Sign in</title></html>"
    fake.fail("GET", "/api/projects/", lambda handler: handler.say(200, page), times=3)
    with pytest.raises(LabelStudioError, match=r"status 200 and no JSON: a page titled 'Sign in'.*log in"):
        LabelStudio(fake.url, TOKEN, project=1).form()
    fake.fail("GET", "/api/projects/", lambda handler: handler.say(200, {"hello": "world"}))
    with pytest.raises(
        LabelStudioError, match=r"answers with \{'hello': 'world'\}, without 'parsed_label_config'"
    ):
        LabelStudio(fake.url, TOKEN, project=1).form()
    fake.fail("GET", "/api/projects/", lambda handler: handler.wfile.write(b"SSH-2.0\r\n\r\n"), times=3)
    with pytest.raises(LabelStudioError, match="BadStatusLine"):
        LabelStudio(fake.url, TOKEN, project=1).form()


# ------------------------------------------------------------------ tokens


def test_no_token_goes_where_a_server_sends_us_on_to(fake, studio):
    other = FakeLabelStudio().start()
    try:
        for status in (301, 302, 303, 307, 308):
            to = [("Location", f"{other.url}/api/projects/1/?token={TOKEN}")]
            fake.fail("GET", "/api/projects/", lambda handler, s=status, to=to: handler.say(s, "", to))
            with pytest.raises(
                LabelStudioError, match=r"sends us on to http://127.0.0.1/api.*not taken"
            ) as caught:
                LabelStudio(fake.url, TOKEN, project=1).form()
            assert TOKEN not in str(caught.value)
        fake.fail("POST", IMPORT, lambda handler: handler.say(307, "", to))
        with pytest.raises(LabelStudioError, match="sends us on"):
            studio.push(tasks(1), NAMES)
        assert other.asked == []
    finally:
        other.stop()


@pytest.mark.parametrize("token", [TOKEN, PERSONAL], ids=["legacy", "personal"])
def test_a_server_that_repeats_the_token_does_not_bring_it_into_a_message(fake, studio, token, caplog):
    caplog.set_level(logging.DEBUG)

    def repeat(handler):
        handler.say(
            400,
            {"detail": f"what is {handler.headers['Authorization']}?", "validation_errors": {"t": [token]}},
        )

    mine = LabelStudio(fake.url, token, project=1)
    fake.fail("GET", "/api/projects/", repeat)
    with pytest.raises(LabelStudioError, match=r"what is (Token|Bearer) \*\*\*\?") as caught:
        mine.form()
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert token not in shown
    assert "access." not in shown


@pytest.mark.parametrize("text", ["", "  ", f"{TOKEN[:20]}\n{TOKEN[20:]}", f"{TOKEN} x", "tökén"])
def test_what_can_be_no_token_is_refused_without_showing_it(text, monkeypatch):
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    needed = "not shown here" if text else "LABEL_STUDIO_API_KEY is not set"
    with pytest.raises(ValueError, match=needed) as caught:
        LabelStudio("http://localhost", text or None)
    assert not text.strip() or text not in str(caught.value)


def test_a_token_with_the_line_end_of_its_file_is_taken(fake, studio):
    assert LabelStudio(fake.url, TOKEN + "\n", project=1).form() == FORM


def test_address_and_token_come_from_the_environment(fake, studio, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_URL", fake.url + "/")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    assert LabelStudio(project=1).form() == FORM


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080",
        "file:///etc/passwd",
        "ftp://host",
        "http://",
        "http://me:secret@host",
        "secret@host",
    ],
)
def test_what_is_no_address_is_refused_without_showing_a_password(url):
    with pytest.raises(ValueError, match="is no address of a server") as caught:
        LabelStudio(url, TOKEN)
    assert "secret" not in str(caught.value)


def test_a_personal_token_is_renewed_once_and_not_for_ever(fake, studio):
    mine = LabelStudio(fake.url, PERSONAL, project=1)
    fake.fail("GET", "/api/projects/", lambda handler: handler.say(401, {"detail": "expired"}))
    assert mine.form() == FORM
    assert fake.count("POST", "/token/refresh") == 2
    fake.fail("GET", r"/api/tasks\?", lambda handler: handler.say(401, {"detail": "expired"}), times=9)
    with pytest.raises(LabelStudioError, match="status 401: expired"):
        mine.pull(keys(tasks(1)))
    assert fake.count("GET", r"/api/tasks\?") == 2


def test_a_server_on_this_machine_is_not_asked_through_a_proxy(fake, studio, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert LabelStudio(fake.url, TOKEN, project=1).form() == FORM


def test_the_token_is_not_printed_with_the_traffic(fake, studio, monkeypatch, capsys):
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    LabelStudio(fake.url, TOKEN, project=1).form()
    assert TOKEN not in capsys.readouterr().out


def test_no_frame_of_an_error_holds_a_token(fake, studio):
    """Whoever prints the variables of a traceback does not print it."""
    fake.fail("GET", "/api/projects/", "break before", times=9)
    fake.fail("POST", "/token/refresh", "break before", times=9)
    for token in (TOKEN, PERSONAL):
        with pytest.raises(LabelStudioError) as caught:
            LabelStudio(fake.url, token, project=1, timeout=5).form()
        frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        ours = [f for f in frames.stack if "lightning_al/" in f.filename]
        assert ours
        assert not [text for frame in ours for text in frame.locals.values() if token in text]
        assert caught.value.__context__ is None
