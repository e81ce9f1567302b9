"""A ledger and a project: run against the fake in `tests/unit`, against a real server here."""

import json

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_al import ActiveDataModule
from lightning_al.exchange.label_studio import (
    Form,
    Key,
    LabelStudio,
    export_tasks,
    form_for,
    import_export,
    pull_answers,
    push_query,
    waiting_tasks,
)
from lightning_al.ledger import Book
from tests.label_studio.scenarios import chosen
from tests.label_studio.server import EMAIL, SECOND_EMAIL, TOKEN

NAMES = ["neg", "pos", "mixed"]


def events(book, index):
    return [
        (e.kind, e.value, e.who) for _, e in book.ledger.events() if e.sample == index and e.kind != "asked"
    ]


class Joined:
    @pytest.fixture
    def make(self, tmp_path):
        def make(**options):
            options = {
                "initial": [3, 0],
                "oracle": "people",
                "describe": lambda index: {"text": f"text {index}", "length": index},
                "class_names": NAMES,
                "state_dir": tmp_path / "run",
            } | options
            return ActiveDataModule(TensorDataset(torch.arange(12.0)[:, None]), **options)

        return make

    @pytest.fixture
    def data(self, make):
        """Samples 7, 5 and 9 wait."""
        data = make()
        data.label([3, 0], ["neg", "pos"], who="somebody")
        data.ask([7, 5, 9], scores=[0.9, 0.5, 0.1], strategy="Margin()")
        return data

    @pytest.fixture
    def studio(self, peer, data):
        studio = LabelStudio(peer.url, TOKEN)
        studio.create_project("joined", form_for(data.book))
        push_query(data.book, studio)
        return studio

    def number(self, peer, studio, index):
        _, page = peer.call("GET", f"/api/tasks?project={studio.project}&page_size=100")
        return next(task["id"] for task in page["tasks"] if task["data"]["lal_sample"] == str(index))

    def annotate(self, peer, studio, index, *values, result=None, token=TOKEN, **more):
        body = {"result": chosen(*values) if result is None else result} | more
        path = f"/api/tasks/{self.number(peer, studio, index)}/annotations/"
        status, made = peer.call("POST", path, body, token=token)
        assert status == 201
        return made["id"]

    # ------------------------------------------------------------------ out

    def test_what_waits_goes_out_in_its_order_with_what_is_shown(self, peer, data, studio):
        _, page = peer.call("GET", f"/api/tasks?project={studio.project}&fields=all")
        tasks = sorted(page["tasks"], key=lambda task: task["id"])
        assert [task["data"] for task in tasks] == [
            {"text": f"text {i}", "length": i, "lal_run": data.book.state.run_id, "lal_round": 1,
             "lal_sample": str(i), "lal_rank": rank, "lal_strategy": "Margin()"}
            for rank, i in enumerate([7, 5, 9])
        ]  # fmt: skip
        assert [task["predictions"][0]["score"] for task in tasks] == [0.9, 0.5, 0.1]
        assert len(push_query(data.book, studio).there) == 3

    def test_nobody_waits_for_what_is_answered(self, data, studio):
        data.label([5], ["pos"], who="somebody")
        assert [key.sample for key in push_query(data.book, studio).there] == ["7", "9"]

    def test_a_project_with_other_classes_is_refused(self, peer, data):
        studio = LabelStudio(peer.url, TOKEN)
        studio.create_project("others", Form("choices", labels=("neg", "pos", "unclear")))
        with pytest.raises(ValueError, match=r"\['mixed'\] are missing there, \['unclear'\] are no classes"):
            push_query(data.book, studio)

    def test_samples_with_names_are_known_by_them(self, peer, make, tmp_path):
        data = make(ids=[f"a/{i}.txt" for i in range(12)], state_dir=tmp_path / "named")
        data.book.attach()
        studio = LabelStudio(peer.url, TOKEN)
        studio.create_project("named", form_for(data.book))
        push_query(data.book, studio)
        self.annotate(peer, studio, "a/3.txt", "pos")
        self.annotate(peer, studio, "a/0.txt", "what")
        report = pull_answers(data.book, studio)
        assert report.taken == 1
        assert "sample 0 ('a/0.txt'): 'what' is none of the classes" in report.problems[0]
        assert data.labeled_indices.tolist() == [3]

    # ------------------------------------------------------------------ in

    def test_answers_are_taken_over_once_with_who_and_when(self, peer, data, studio):
        self.annotate(peer, studio, 5, "pos")
        self.annotate(peer, studio, 7, "mixed")
        report = pull_answers(data.book, studio)
        assert (report.taken, report.problems, report.missing, report.waiting) == (2, [], [], 1)
        assert events(data.book, 5) == [("labeled", "1", EMAIL)]
        assert data.labeled_indices.tolist() == [3, 0, 7, 5]
        said = [event.said for _, event in data.book.ledger.events() if event.said is not None]
        assert said == sorted(said)
        again = pull_answers(data.book, studio)
        assert (again.taken, again.problems) == (0, [])
        assert pull_answers(Book(data.state_dir), studio).taken == 0

    def test_a_wrong_answer_is_named_and_holds_up_no_other(self, peer, data, studio):
        number = self.annotate(peer, studio, 7, "other")
        self.annotate(peer, studio, 5, result=[])
        self.annotate(peer, studio, 9, "pos")
        report = pull_answers(data.book, studio)
        assert (report.taken, report.waiting) == (1, 2)
        place = f"task {self.number(peer, studio, 7)}, annotation {number} by {EMAIL}, sample 7"
        assert report.problems[1].startswith(
            f"{place}: 'other' is none of the classes ['neg', 'pos', 'mixed']"
        )
        assert "sample 5: submitted without an answer" in report.problems[0]
        assert "1 answers taken over, 2 samples wait. 2 were not taken over" in str(report)
        assert data.asked_indices.tolist() == [7, 5]
        peer.call("PATCH", f"/api/annotations/{number}/", {"result": chosen("neg")})
        assert pull_answers(data.book, studio).taken == 1

    def test_what_is_skipped_is_not_asked_again(self, peer, data, studio):
        self.annotate(peer, studio, 5, "pos", was_cancelled=True)
        assert pull_answers(data.book, studio).taken == 1
        assert data.ignored_indices.tolist() == [5]
        assert pull_answers(data.book, studio).taken == 0

    def test_an_account_whose_e_mail_changed_is_known_by_the_one_on_record(self, peer, data, studio):
        _, users = peer.call("GET", "/api/users/")
        (number,) = [user["id"] for user in users if user["email"] == EMAIL]
        data.book.name_annotators({f"user {number}": "before@example.org"})
        self.annotate(peer, studio, 5, "pos")
        report = pull_answers(data.book, studio)
        assert report.taken == 0
        assert f"{number} is 'before@example.org' on record and {EMAIL!r} here" in report.refused[0]
        with pytest.raises(ValueError, match="`users` cannot be used, for account"):
            pull_answers(data.book, studio, users={number: "dataset"})
        assert pull_answers(data.book, studio, users={number: "before@example.org"}).taken == 1
        assert events(data.book, 5) == [("labeled", "1", "before@example.org")]
        assert pull_answers(data.book, studio, users={number: "before@example.org"}).taken == 0

    def test_who_changes_an_answer_changes_the_label(self, peer, data, studio):
        number = self.annotate(peer, studio, 5, "pos")
        pull_answers(data.book, studio)
        peer.call("PATCH", f"/api/annotations/{number}/", {"result": chosen("neg")})
        assert pull_answers(data.book, studio).taken == 1
        assert pull_answers(data.book, studio).taken == 0
        assert events(data.book, 5) == [("labeled", "1", EMAIL), ("relabeled", "0", EMAIL)]
        (one, two) = [e.said for _, e in data.book.ledger.events() if e.sample == 5 and e.said]
        assert one < two

    def test_a_change_back_is_a_change_too(self, peer, data, studio):
        number = self.annotate(peer, studio, 5, "pos")
        for value in ("pos", "neg", "pos"):
            peer.call("PATCH", f"/api/annotations/{number}/", {"result": chosen(value)})
            pull_answers(data.book, studio)
        assert [value for _, value, _ in events(data.book, 5)] == ["1", "0", "1"]

    def test_an_annotation_that_is_deleted_is_told_of_and_the_label_stays(self, peer, data, studio):
        number = self.annotate(peer, studio, 5, "pos")
        pull_answers(data.book, studio)
        peer.call("DELETE", f"/api/annotations/{number}/")
        report = pull_answers(data.book, studio)
        assert report.taken == 0
        assert f"sample 5: the annotation by {EMAIL} that its label is from is deleted" in report.problems[0]
        assert 5 in data.labeled_indices
        assert len(report.problems) == 1

    def test_a_task_that_is_deleted_is_missing_only_while_it_waits(self, peer, data, studio):
        self.annotate(peer, studio, 5, "pos")
        pull_answers(data.book, studio)
        for index in (5, 9):
            peer.call("DELETE", f"/api/tasks/{self.number(peer, studio, index)}/")
        report = pull_answers(data.book, studio)
        assert (report.taken, report.problems, report.missing) == (0, [], [9])
        assert "1 of them are not in the project: push them" in str(report)
        assert [key.sample for key in push_query(data.book, studio).sent] == ["9"]

    def test_of_two_people_the_newest_counts_and_both_are_on_record(self, peer, data, studio, second):
        self.annotate(peer, studio, 5, "pos")
        self.annotate(peer, studio, 5, "neg", token=second)
        assert pull_answers(data.book, studio).taken == 2
        assert {(a.who, a.value) for a in data.book.answers(5)} == {(EMAIL, 1), (SECOND_EMAIL, 0)}
        assert data.book.state.target(5) == 0
        assert pull_answers(data.book, studio).taken == 0

    def test_what_was_put_back_does_not_come_again(self, peer, data, studio):
        self.annotate(peer, studio, 5, "pos")
        pull_answers(data.book, studio)
        data.unlabel([5])
        assert pull_answers(data.book, studio).taken == 0
        data.ask([5])
        assert pull_answers(data.book, studio).missing == [5]
        assert push_query(data.book, studio).sent == [Key(data.book.state.run_id, 2, "5")]
        assert pull_answers(data.book, studio).taken == 0
        assert data.asked_indices.tolist() == [7, 9, 5]

    def test_what_was_taken_back_does_not_come_again_unless_it_is_said_again(self, peer, data, studio):
        number = self.annotate(peer, studio, 5, "pos")
        pull_answers(data.book, studio)
        data.book.undo([5])
        assert pull_answers(data.book, studio).taken == 0
        assert 5 in data.asked_indices
        peer.call("PATCH", f"/api/annotations/{number}/", {"result": chosen("pos")})
        assert pull_answers(data.book, studio).taken == 1

    def test_a_correction_here_is_not_argued_with(self, peer, data, studio):
        self.annotate(peer, studio, 5, "pos")
        pull_answers(data.book, studio)
        data.label([5], ["neg"], who="second look", overwrite=True)
        report = pull_answers(data.book, studio)
        assert (report.taken, data.book.state.target(5)) == (0, 0)

    def test_answers_that_come_while_nothing_is_asked_are_none_of_ours(self, peer, data, studio):
        foreign = {"text": "x", "lal_run": data.book.state.run_id, "lal_round": 1, "lal_sample": "11"}
        peer.call("POST", f"/api/projects/{studio.project}/import", [{"data": foreign}])
        self.annotate(peer, studio, 11, "pos")
        assert pull_answers(data.book, studio).taken == 0

    @pytest.mark.parametrize(
        ("names", "form", "given", "value"),
        [
            (None, Form("number"), {"type": "number", "value": {"number": 2.5}}, 2.5),
            (None, Form("text"), {"type": "textarea", "value": {"text": ["1.5"]}}, "1.5"),
            (["0", "1"], Form("choices", labels=("0", "1")), chosen("1")[0], 1),
            (None, Form("choices", labels=("2", "3")), chosen("3")[0], 3),
        ],
        ids=["number", "text", "numbers as classes", "no class names"],
    )
    def test_all_kinds_of_labels(self, peer, make, tmp_path, names, form, given, value):
        data = make(class_names=names, state_dir=tmp_path / "kinds", initial=[4, 2])
        data.book.attach()
        studio = LabelStudio(peer.url, TOKEN)
        studio.create_project("kinds", form)
        push_query(data.book, studio)
        result = [{"from_name": "label", "to_name": "text"} | given]
        self.annotate(peer, studio, 4, result=result)
        report = pull_answers(data.book, studio)
        assert (report.taken, report.problems) == (1, [])
        assert data.book.state.target(4) == value
        assert pull_answers(data.book, studio).taken == 0

    # ------------------------------------------------------------------ as files

    def test_both_ways_by_a_file(self, peer, data, tmp_path):
        form = form_for(data.book)
        studio = LabelStudio(peer.url, TOKEN)
        studio.create_project("by file", form)
        tasks = json.loads(export_tasks(data.book, tmp_path / "tasks.json", form).read_text(encoding="utf-8"))
        peer.call("POST", f"/api/projects/{studio.project}/import", tasks)
        self.annotate(peer, studio, 5, "pos")
        self.annotate(peer, studio, 7, "other")
        exported = peer.call("GET", f"/api/projects/{studio.project}/export?exportType=JSON")[1]
        (tmp_path / "export.json").write_text(json.dumps(exported))
        report = import_export(data.book, tmp_path / "export.json", form, users={1: EMAIL})
        assert (report.taken, len(report.problems)) == (1, 1)
        assert pull_answers(data.book, studio).taken == 0
        assert len(push_query(data.book, studio).there) == len(waiting_tasks(data.book)) == 2
