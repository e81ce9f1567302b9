"""What holds against any Label Studio: run against the fake in `tests/unit`, against a real one here.

`peer` is a server: `peer.url`, and `peer.call` for what annotators do.
"""

import copy
import json
import pickle
import re

import pytest

from lightning_al.exchange.label_studio import (
    Form,
    Key,
    LabelStudio,
    LabelStudioError,
    Task,
    read,
    read_export,
)
from lightning_al.exchange.label_studio import project as project_module
from lightning_al.exchange.label_studio.token import Token
from tests.label_studio.pictures import png
from tests.label_studio.server import EMAIL, SECOND_EMAIL, TOKEN

NAMES = ("neg", "pos")
FORM = Form("choices", labels=NAMES)


def chosen(*values, name="label"):
    return [{"from_name": name, "to_name": "text", "type": "choices", "value": {"choices": list(values)}}]


def tasks(count, run="4f0c", number=3, scored=True, **more):
    return [
        Task(
            Key(run, number, f"s{i}"),
            {"text": f"text {i}"},
            rank=i,
            score=0.9 - i / 10 if scored else None,
            **more,
        )
        for i in range(count)
    ]


def keys(asked):
    return [task.key for task in asked]


class Scenarios:
    @pytest.fixture
    def studio(self, peer):
        studio = LabelStudio(peer.url, TOKEN)
        studio.create_project("scenario", FORM)
        return studio

    # ------------------------------------------------------------------ annotators

    def ids(self, peer, studio):
        """The server's number of the task of every sample; of several the last."""
        _, page = peer.call("GET", f"/api/tasks?project={studio.project}&fields=all&page_size=1000")
        return {task["data"].get("lal_sample"): task["id"] for task in page["tasks"]}

    def annotate(self, peer, studio, sample, result=None, **more):
        number = self.ids(peer, studio)[sample]
        options = {"token": more.pop("token")} if "token" in more else {}
        body = more if result is None else {"result": result} | more
        status, made = peer.call("POST", f"/api/tasks/{number}/annotations/", body, **options)
        assert status == 201
        return made["id"]

    def said(self, studio, sample="s0"):
        return studio.pull([Key("4f0c", 3, sample)]).said[Key("4f0c", 3, sample)]

    # ------------------------------------------------------------------ projects

    @pytest.mark.parametrize(
        "form",
        [
            FORM,
            Form("choices", "image", ("0", "1", "10")),
            Form("choices", labels=('a & "b" <c>', "déjà vu", "one, two", "it's", "ü" * 100)),
            Form("number"),
            Form("text"),
            Form("number", "image"),
        ],
        ids=["classes", "numbers as classes", "odd names", "number", "text", "number of an image"],
    )
    def test_a_project_that_was_made_asks_what_it_was_made_for(self, peer, form):
        studio = LabelStudio(peer.url, TOKEN)
        number = studio.create_project("made", form)
        assert studio.form() == form
        assert LabelStudio(peer.url, TOKEN, project=number).form() == form

    def test_a_project_of_others_is_read_as_it_is(self, peer):
        config = (
            '<View><Header value="Which?"/><Text name="words" value="$comment"/>'
            '<Choices name="feel" toName="words"><Choice value="pos"/><Choice value="neg"/></Choices>'
            '<TextArea name="why" toName="words"/></View>'
        )
        made = {"title": "theirs", "label_config": config, "sampling": "Sequential sampling"}
        number = peer.call("POST", "/api/projects/", made)[1]["id"]
        with pytest.raises(ValueError, match=r"asks 2 questions.*'feel', 'why'.*control="):
            LabelStudio(peer.url, TOKEN, project=number).form()
        studio = LabelStudio(peer.url, TOKEN, project=number, control="feel")
        assert studio.form() == Form("choices", "text", ("pos", "neg"), "comment", "feel", "words")
        studio.push(tasks(1), NAMES)
        both = [
            {"from_name": "why", "to_name": "words", "type": "textarea", "value": {"text": ["so"]}},
            {"from_name": "feel", "to_name": "words", "type": "choices", "value": {"choices": ["pos"]}},
        ]
        self.annotate(peer, studio, "s0", both)
        assert [each.value for each in self.said(studio)] == ["pos"]

    def test_a_project_with_other_classes_is_refused_before_anything_is_sent(self, peer, studio):
        with pytest.raises(ValueError, match=r"\['mixed'\] are missing there, \['pos'\] are no classes"):
            studio.push(tasks(2), ["neg", "mixed"])
        assert self.ids(peer, studio) == {}

    def test_a_project_that_serves_the_lowest_score_first_is_refused(self, peer, studio):
        peer.call("PATCH", f"/api/projects/{studio.project}/", {"sampling": "Uncertainty sampling"})
        with pytest.raises(
            ValueError, match="hands out tasks by 'Uncertainty sampling'; needed is 'Sequential"
        ):
            studio.push(tasks(2), NAMES)
        assert self.ids(peer, studio) == {}

    # ------------------------------------------------------------------ out

    def test_what_was_pushed_is_there_once_however_often_it_is_pushed(self, peer, studio):
        asked = tasks(5)
        first = studio.push(asked[:3], NAMES)
        assert (first.sent, first.there) == (keys(asked[:3]), [])
        second = studio.push(asked, NAMES)
        assert (second.sent, second.there) == (keys(asked[3:]), keys(asked[:3]))
        third = LabelStudio(peer.url, TOKEN, project=studio.project).push(asked, NAMES)
        assert (third.sent, third.there, third.doubled) == ([], keys(asked), {})
        _, page = peer.call("GET", f"/api/tasks?project={studio.project}&fields=all")
        assert sorted(task["data"]["lal_sample"] for task in page["tasks"]) == [f"s{i}" for i in range(5)]
        assert all(len(task["predictions"]) == 1 for task in page["tasks"])

    def test_annotators_get_the_most_wanted_first_which_has_the_highest_score(self, peer, studio):
        asked = tasks(4)
        studio.push(reversed(asked), NAMES)
        studio.push(tasks(2, number=4), NAMES)
        _, page = peer.call("GET", f"/api/tasks?project={studio.project}&fields=all")
        scores = {task["id"]: task["predictions"][0]["score"] for task in page["tasks"]}
        given = []
        while (answer := peer.call("GET", f"/api/projects/{studio.project}/next"))[0] == 200:
            task = answer[1]
            given.append((task["data"]["lal_round"], scores[task["id"]]))
            peer.call("POST", f"/api/tasks/{task['id']}/annotations/", {"result": chosen("pos")})
        assert given == [(3, pytest.approx(0.9 - i / 10)) for i in range(4)] + [
            (4, 0.9),
            (4, pytest.approx(0.8)),
        ]

    def test_the_scores_of_the_newest_round_are_those_that_are_listed(self, peer, studio):
        studio.push(tasks(2), NAMES)
        studio.push(tasks(2, number=4), NAMES)
        _, project = peer.call("GET", f"/api/projects/{studio.project}/")
        assert project["model_version"] == "4f0c round 4"

    def test_without_scores_there_are_no_predictions(self, peer, studio):
        studio.push(tasks(2, scored=False), NAMES)
        _, page = peer.call("GET", f"/api/tasks?project={studio.project}&fields=all")
        assert [task["predictions"] for task in page["tasks"]] == [[], []]

    def test_a_predicted_class_is_filled_in(self, peer, studio):
        studio.push(tasks(1, predicted="pos"), NAMES)
        _, page = peer.call("GET", f"/api/tasks?project={studio.project}&fields=all")
        assert page["tasks"][0]["predictions"][0]["result"][0]["value"] == {"choices": ["pos"]}

    def test_scores_that_the_server_lost_are_sent_again(self, peer, studio):
        asked = tasks(3)
        studio.push(asked, NAMES)
        _, page = peer.call("GET", f"/api/tasks?project={studio.project}&fields=all")
        for task in page["tasks"][:2]:
            peer.call("DELETE", f"/api/predictions/{task['predictions'][0]['id']}/")
        assert studio.push(asked, NAMES).sent == []
        _, page = peer.call("GET", f"/api/tasks?project={studio.project}&fields=all")
        scores = sorted(prediction["score"] for task in page["tasks"] for prediction in task["predictions"])
        assert scores == [pytest.approx(0.7), pytest.approx(0.8), pytest.approx(0.9)]

    @pytest.mark.parametrize(
        "sample", ["ä/ö ü", "a\"b'c", "two\nlines", "x" * 300, "007", " padded ", "{}", "😀"]
    )
    def test_any_name_of_a_sample_comes_back_as_it_was(self, peer, studio, sample):
        task = Task(
            Key("4f0c", 0, sample), {"text": sample, "width": 3, "nothing": None, "odd": float("nan")}
        )
        studio.push([task], NAMES)
        assert studio.push([task], NAMES).there == [task.key]
        self.annotate(peer, studio, sample, chosen("neg"))
        assert [each.value for each in studio.pull([task.key]).said[task.key]] == ["neg"]

    def test_pictures_are_taken_there_once_and_can_be_seen(self, peer, tmp_path):
        studio = LabelStudio(peer.url, TOKEN)
        studio.create_project("pictures", Form("choices", "image", NAMES))
        for name, shade in {"one": 1, "same as one": 1, "two": 2}.items():
            (tmp_path / f"{name}.PNG").write_bytes(png(shade))
        asked = [
            Task(Key("4f0c", 3, f.stem), {"scan": str(f), "age": 3}, rank=r)
            for r, f in enumerate(sorted(tmp_path.iterdir()))
        ]
        asked.append(Task(Key("4f0c", 3, "far"), {"image": "https://example.org/a b.png?x=1"}, rank=9))
        asked.append(Task(Key("4f0c", 3, "near"), {"image": "https://example.org/scan?number=1"}, rank=10))
        studio.push(asked[:1], NAMES)
        studio.push(asked, NAMES)
        _, page = peer.call("GET", f"/api/tasks?project={studio.project}&fields=all&resolve_uri=false")
        at = {task["data"]["lal_sample"]: task["data"] for task in page["tasks"]}
        assert at["one"]["image"] == at["same as one"]["image"] != at["two"]["image"]
        assert peer.call("GET", at["one"]["image"]) == (200, png(1))
        assert peer.call("GET", at["two"]["image"]) == (200, png(2))
        assert at["near"]["image"] == "https://example.org/scan?number=1"
        assert at["one"]["age"] == 3
        assert len(peer.call("GET", f"/api/projects/{studio.project}/file-uploads?all=true")[1]) == 2

    def test_more_pictures_than_one_request_takes(self, peer, tmp_path, monkeypatch):
        monkeypatch.setattr("lightning_al.exchange.label_studio.images._FILES", 2)
        studio = LabelStudio(peer.url, TOKEN)
        studio.create_project("pictures", Form("choices", "image", NAMES))
        for shade in range(5):
            (tmp_path / f"{shade}.png").write_bytes(png(shade))
        asked = [
            Task(Key("r", 0, str(shade)), {"image": str(tmp_path / f"{shade}.png")}, shade)
            for shade in range(5)
        ]
        studio.push(asked)
        _, page = peer.call("GET", f"/api/tasks?project={studio.project}&fields=all&resolve_uri=false")
        seen = {
            task["data"]["lal_sample"]: peer.call("GET", task["data"]["image"])[1] for task in page["tasks"]
        }
        assert seen == {str(shade): png(shade) for shade in range(5)}

    # ------------------------------------------------------------------ in

    def test_an_answer_comes_back_with_who_gave_it_and_when(self, peer, studio):
        asked = tasks(3)
        studio.push(asked, NAMES)
        number = self.annotate(peer, studio, "s1", chosen("pos"))
        pulled = studio.pull(keys(asked))
        (answer,) = pulled.said[asked[1].key]
        assert (answer.value, answer.who, answer.id, answer.skipped) == ("pos", EMAIL, number, False)
        assert answer.at.utcoffset().total_seconds() == 0
        assert pulled.said[asked[0].key] == pulled.said[asked[2].key] == []
        assert pulled.missing == []
        assert studio.pull(keys(asked)) == pulled

    @pytest.mark.parametrize(
        ("form", "value", "result"),
        [
            (Form("number"), 3.5, {"type": "number", "value": {"number": 3.5}}),
            (Form("number"), 0, {"type": "number", "value": {"number": 0}}),
            (Form("text"), "fünf\nZeilen", {"type": "textarea", "value": {"text": ["fünf\nZeilen"]}}),
        ],
    )
    def test_numbers_and_text_are_answers_too(self, peer, form, value, result):
        studio = LabelStudio(peer.url, TOKEN)
        studio.create_project("other kinds", form)
        studio.push(tasks(1))
        self.annotate(peer, studio, "s0", [{"from_name": "label", "to_name": "text"} | result])
        assert [each.value for each in self.said(studio)] == [value]

    def test_an_annotation_that_is_changed_and_then_deleted(self, peer, studio):
        studio.push(tasks(1), NAMES)
        number = self.annotate(peer, studio, "s0", chosen("pos"))
        (before,) = self.said(studio)
        peer.call("PATCH", f"/api/annotations/{number}/", {"result": chosen("neg")})
        (after,) = self.said(studio)
        assert (after.value, after.id) == ("neg", number)
        assert after.at > before.at
        peer.call("DELETE", f"/api/annotations/{number}/")
        assert self.said(studio) == []

    def test_of_one_person_the_latest_counts(self, peer, studio):
        studio.push(tasks(1), NAMES)
        first = self.annotate(peer, studio, "s0", chosen("pos"))
        self.annotate(peer, studio, "s0", chosen("neg"))
        assert [each.value for each in self.said(studio)] == ["neg"]
        peer.call("PATCH", f"/api/annotations/{first}/", {"result": chosen("pos")})
        assert [each.value for each in self.said(studio)] == ["pos"]

    def test_of_several_people_each_is_heard_in_the_order_of_what_they_said_last(self, peer, studio, second):
        studio.push(tasks(1), NAMES)
        mine = self.annotate(peer, studio, "s0", chosen("pos"))
        self.annotate(peer, studio, "s0", chosen("neg"), token=second)
        assert [(each.who, each.value) for each in self.said(studio)] == [
            (EMAIL, "pos"),
            (SECOND_EMAIL, "neg"),
        ]
        peer.call("PATCH", f"/api/annotations/{mine}/", {"result": chosen("neg")})
        assert [(each.who, each.value) for each in self.said(studio)] == [
            (SECOND_EMAIL, "neg"),
            (EMAIL, "neg"),
        ]

    def test_what_was_skipped_is_no_answer_though_it_may_have_one(self, peer, studio, second):
        studio.push(tasks(1), NAMES)
        self.annotate(peer, studio, "s0", chosen("neg"), was_cancelled=True)
        assert [(each.skipped, each.value, each.problem) for each in self.said(studio)] == [
            (True, None, None)
        ]
        self.annotate(peer, studio, "s0", chosen("pos"), token=second)
        assert [(each.skipped, each.value) for each in self.said(studio)] == [(True, None), (False, "pos")]

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ({"result": []}, "submitted without an answer"),
            ({}, "submitted without an answer"),
            ({"result": chosen("pos", "neg")}, r"2 answers where one is needed: \['pos', 'neg'\]"),
            ({"result": chosen("pos", name="other")}, r"answers \['other'\], and not 'label'"),
        ],
        ids=["empty", "null", "two choices", "another question"],
    )
    def test_what_is_no_answer_is_named_and_hides_no_other(self, peer, studio, body, said):
        asked = tasks(2)
        studio.push(asked, NAMES)
        number = self.annotate(peer, studio, "s0", **body)
        self.annotate(peer, studio, "s1", chosen("pos"))
        (wrong,) = self.said(studio)
        assert (wrong.value, wrong.skipped) == (None, False)
        assert re.search(said, wrong.problem)
        assert wrong.place == f"task {self.ids(peer, studio)['s0']}, annotation {number} by {EMAIL}"
        assert [each.value for each in self.said(studio, "s1")] == ["pos"]

    def test_an_unknown_class_is_handed_on_for_the_ledger_to_judge(self, peer, studio):
        studio.push(tasks(1), NAMES)
        self.annotate(peer, studio, "s0", chosen("other"))
        assert [each.value for each in self.said(studio)] == ["other"]

    def test_a_task_that_was_deleted_is_missing_and_can_be_pushed_again(self, peer, studio):
        asked = tasks(2)
        studio.push(asked, NAMES)
        peer.call("DELETE", f"/api/tasks/{self.ids(peer, studio)['s0']}/")
        assert studio.pull(keys(asked)).missing == [asked[0].key]
        assert studio.push(asked, NAMES).sent == [asked[0].key]
        assert studio.pull(keys(asked)).missing == []

    def test_a_number_that_is_given_again_moves_no_answer(self, peer, studio):
        asked = tasks(2)
        studio.push(asked, NAMES)
        before = self.ids(peer, studio)["s1"]
        self.annotate(peer, studio, "s1", chosen("pos"))
        peer.call("DELETE", f"/api/tasks/{before}/")
        other = tasks(1, number=4)
        studio.push(other, NAMES)
        assert self.ids(peer, studio)["s0"] == before
        self.annotate(peer, studio, "s0", chosen("neg"))
        pulled = studio.pull([*keys(asked), other[0].key])
        assert pulled.missing == [asked[1].key]
        assert pulled.said[asked[0].key] == []
        assert [each.value for each in pulled.said[other[0].key]] == ["neg"]

    def test_tasks_of_others_and_of_other_runs_are_left_alone(self, peer, studio):
        foreign = [
            {"data": {"text": "theirs"}},
            {"data": {"text": "odd", "lal_run": "4f0c", "lal_sample": "s0"}},
        ]
        peer.call("POST", f"/api/projects/{studio.project}/import", foreign)
        studio.push(tasks(2, run="other"), NAMES)
        asked = tasks(2)
        assert studio.push(asked, NAMES).sent == keys(asked)
        pulled = studio.pull(keys(asked))
        assert sorted(pulled.said) == keys(asked)

    def test_a_sample_that_is_there_twice_is_named_and_loses_no_answer(self, peer, studio):
        asked = tasks(2)
        studio.push(asked, NAMES)
        twin = asked[0].as_json(FORM)
        peer.call("POST", f"/api/projects/{studio.project}/import", [twin])
        pushed = studio.push(asked, NAMES)
        assert list(pushed.doubled) == [asked[0].key]
        self.annotate(peer, studio, "s0", chosen("pos"))  # the later of the two
        pulled = studio.pull(keys(asked))
        assert [each.value for each in pulled.said[asked[0].key]] == ["pos"]
        assert tuple(pulled.tasks[asked[0].key]) == pushed.doubled[asked[0].key]

    def test_many_pages_are_one_answer(self, peer, studio, monkeypatch):
        monkeypatch.setattr(project_module, "_PAGE", 3)
        told = []
        studio._progress = lambda *what: told.append(what)
        asked = tasks(9)
        studio.push(asked, NAMES)
        for sample in ("s0", "s4", "s8"):
            self.annotate(peer, studio, sample, chosen("pos"))
        pulled = studio.pull(keys(asked))
        assert list(pulled.said) == keys(asked)
        assert [key.sample for key, said in pulled.said.items() if said] == ["s0", "s4", "s8"]
        assert ("tasks listed", 3, 9) in told
        assert ("tasks sent", 9, 9) in told

    def test_an_exported_file_says_the_same(self, peer, studio, tmp_path):
        asked = tasks(3)
        studio.push(asked, NAMES)
        self.annotate(peer, studio, "s0", chosen("pos"))
        self.annotate(peer, studio, "s1", chosen("pos"), was_cancelled=True)
        path = f"/api/projects/{studio.project}/export?exportType=JSON&download_all_tasks=true"
        (tmp_path / "export.json").write_text(json.dumps(peer.call("GET", path)[1]))
        said = read(read_export(tmp_path / "export.json"), studio.form(), {1: EMAIL})
        assert said == studio.pull(keys(asked)).said
        assert [[each.value for each in said[key]] for key in keys(asked)] == [["pos"], [None], []]

    # ------------------------------------------------------------------ tokens

    @pytest.mark.parametrize("token", ["f" * 40, "aaaaaaaa.bbbbbbbb.cccccccc"], ids=["legacy", "personal"])
    def test_a_wrong_token_is_said_and_never_shown(self, peer, studio, token, caplog):
        wrong = LabelStudio(peer.url, token, project=studio.project)
        for act in (wrong.form, lambda: wrong.push(tasks(1)), lambda: wrong.pull([Key("r", 0, "s")])):
            with pytest.raises(LabelStudioError, match=r"status 401.*[Tt]oken.*Needed is a token") as caught:
                act()
            assert caught.value.status == 401
            error = caught.value
            while error is not None:
                assert token not in repr(error) + str(error) + str(vars(error))
                error = error.__cause__ or error.__context__
        assert (
            token
            not in repr(wrong) + str(wrong) + str(vars(wrong)) + str(vars(wrong.connection)) + caplog.text
        )
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(wrong)
        assert copy.deepcopy(wrong).__repr__() == repr(wrong)

    def test_a_personal_token_works_and_is_renewed(self, peer, studio):
        mine = LabelStudio(peer.url, self.personal(peer), project=studio.project)
        assert len(mine.push(tasks(2), NAMES).sent) == 2
        mine.connection._access = Token("an.old.one")
        assert len(mine.push(tasks(3), NAMES).sent) == 1
        assert mine.pull(keys(tasks(3))).missing == []

    def personal(self, peer):
        if not hasattr(peer, "personal"):
            peer.personal = peer.personal_token()
        return peer.personal

    def test_another_number_or_address_is_said(self, peer):
        with pytest.raises(LabelStudioError, match=r"status 404: No Project matches.*number of the project"):
            LabelStudio(peer.url, TOKEN, project=987654).form()
        with pytest.raises(LabelStudioError, match=r"status 404: a page titled '404.*Check the address"):
            LabelStudio(f"{peer.url}/elsewhere", TOKEN, project=1).form()
