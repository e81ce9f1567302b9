"""Labels that come from a function or from people, and sets that start empty."""

import csv

import pytest
import torch

from integration.small import Net, blobs, margin, pool, queries, quiet
from lightning_al import ActiveDataModule, AwaitingLabels, fit_rounds, query
from lightning_al import acquisition as acq


class Slow:
    """An oracle that knows by the next day what it was asked."""

    def __init__(self, targets):
        self.targets, self.asked, self.known = targets, set(), set()

    def __call__(self, indices):
        self.asked |= set(indices.tolist())
        return [int(self.targets[i]) if int(i) in self.known else None for i in indices]

    def sleep_on_it(self):
        self.known |= self.asked


class Half:
    """An oracle that knows the even samples only, until told the rest."""

    def __init__(self, targets):
        self.targets, self.knows_all = targets, False

    def __call__(self, indices):
        return [int(self.targets[i]) if self.knows_all or i % 2 == 0 else None for i in indices]


def test_drop_in_waits_for_an_oracle_and_goes_on(tmp_path):
    samples = blobs()
    oracle, module = Half(samples.tensors[1]), Net()
    data = ActiveDataModule(samples, initial=range(0, 24, 2), oracle=oracle, batch_size=4, state_dir=tmp_path)
    trainer = quiet(callbacks=[margin()])
    trainer.fit(module, datamodule=data)
    waiting = data.asked_indices
    assert all(index % 2 == 1 for index in waiting)
    assert 0 < len(waiting) < 8
    assert len(data.labeled_indices) == 20 - len(waiting)
    with pytest.raises(AwaitingLabels, match="wait for their labels") as ended:
        trainer.fit(module, datamodule=data)
    assert isinstance(ended.value, SystemExit)
    assert ended.value.code == 0
    oracle.knows_all = True
    quiet(callbacks=[margin()]).fit(module, datamodule=data)
    assert len(data.labeled_indices) == 28
    assert [data.state.target(i) for i in data.labeled_indices] == samples.tensors[1][
        data.labeled_indices
    ].tolist()


def test_fit_rounds_waits_for_an_oracle_and_ends_with_the_same_queries_as_without_waiting(tmp_path):
    samples = blobs()
    torch.manual_seed(0)
    module = Net()
    fit_rounds(module, lambda r: quiet(), pool(tmp_path / "now"), margin(), rounds=2)
    torch.manual_seed(0)
    module, calls, lengths = Net(), 0, []
    oracle = Slow(samples.tensors[1])
    initial = pool(tmp_path / "unused").labeled_indices.tolist()
    while calls < 4:
        calls += 1
        data = ActiveDataModule(
            samples, initial=initial, oracle=oracle, batch_size=4, state_dir=tmp_path / "slow"
        )
        history = fit_rounds(module, lambda r: quiet(), data, margin(), rounds=2)
        lengths.append(history.column("labeled"))
        oracle.sleep_on_it()
    # The initial set waits too; then every call trains one round, until nothing is left to ask.
    assert lengths == [[], [12], [12, 20], [12, 20, 28]]
    waited = queries(tmp_path / "slow")
    assert {r: q for r, q in waited.items() if r} == queries(tmp_path / "now")


def test_oracles_that_answer_wrongly_lose_nothing(tmp_path):
    data = ActiveDataModule(blobs(), initial=8, oracle=lambda indices: [0], batch_size=4, state_dir=tmp_path)
    with pytest.raises(ValueError, match="given 8 indices and returned 1 targets"):
        fit_rounds(Net(), lambda r: quiet(), data, margin(), rounds=1)
    assert len(data.asked_indices) == 8
    again = ActiveDataModule(
        blobs(), initial=8, oracle=lambda indices: [0] * len(indices), batch_size=4, state_dir=tmp_path
    )
    assert len(fit_rounds(Net(), lambda r: quiet(), again, margin(), rounds=1)) == 2


def fill_in(path, answer):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = answer(int(row["index"]))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return [int(row["index"]) for row in rows]


def people(state_dir):
    names = ["red", "green", "blue"]
    return ActiveDataModule(
        blobs(), initial=12, oracle="people", batch_size=4, state_dir=state_dir, class_names=names
    )


def named(index):
    return ["red", "green", "blue"][index % 3]


def test_people_label_the_initial_set_and_every_query_by_csv(tmp_path):
    fits = []

    class Fitted(Net):
        def on_train_start(self):
            fits.append(self.trainer.datamodule.round)

    def run():
        data = people(tmp_path)
        return data, fit_rounds(Fitted(), lambda number: quiet(), data, margin(), rounds=2)

    data, history = run()
    assert (len(history), fits) == (0, [])
    assert len(data.asked_indices) == 12
    first = fill_in(tmp_path / "query_0.csv", named)
    assert first == data.asked_indices.tolist()

    data, history = run()
    assert fits == [0]
    assert history.column("labeled") == [12]
    assert len(data.asked_indices) == 8
    data, history = run()  # nothing was filled in: nothing happens
    assert fits == [0]

    fill_in(tmp_path / "query_1.csv", lambda index: named(index) if index % 2 else "")
    data, history = run()  # half of it: it still waits
    assert fits == [0]
    assert all(index % 2 == 0 for index in data.asked_indices)
    fill_in(tmp_path / "query_1.csv", named)
    data, history = run()
    assert fits == [0, 1]
    fill_in(tmp_path / "query_2.csv", named)
    data, history = run()
    assert fits == [0, 1, 2]
    assert history.column("labeled") == [12, 20, 28]
    assert history.column("asked") == [8, 8, 0]
    assert [data.state.target(i) for i in data.labeled_indices] == [i % 3 for i in data.labeled_indices]
    run()
    assert fits == [0, 1, 2]
    assert {r: len(q) for r, q in queries(tmp_path).items()} == {0: 12, 1: 8, 2: 8}


def test_people_and_a_plain_fit_end_with_status_0_where_labels_are_awaited(tmp_path):
    with pytest.raises(AwaitingLabels, match=r"query_0\.csv") as ended:
        quiet(callbacks=[margin()]).fit(Net(), datamodule=people(tmp_path))
    assert ended.value.code == 0
    fill_in(tmp_path / "query_0.csv", named)
    quiet(callbacks=[margin()]).fit(Net(), datamodule=people(tmp_path))
    with pytest.raises(AwaitingLabels, match=r"8 samples wait .*query_1\.csv"):
        quiet(callbacks=[margin()]).fit(Net(), datamodule=people(tmp_path))
    fill_in(tmp_path / "query_1.csv", named)
    data = people(tmp_path)
    quiet(callbacks=[margin()]).fit(Net(), datamodule=data)
    assert len(data.labeled_indices) == 20
    assert len(data.asked_indices) == 8


def test_a_csv_with_a_wrong_row_trains_nothing_and_names_it(tmp_path):
    fit_rounds(Net(), lambda r: quiet(), people(tmp_path), margin(), rounds=1)
    fill_in(tmp_path / "query_0.csv", lambda index: "purple" if index % 2 else named(index))
    with pytest.raises(ValueError, match="'purple' is none of the classes"):
        fit_rounds(Net(), lambda r: quiet(), people(tmp_path), margin(), rounds=1)
    assert len(people(tmp_path).labeled_indices) == 0


def test_no_label_at_all_is_an_error_that_names_the_ways_to_a_first_set(tmp_path):
    data = pool(tmp_path, initial=0)
    ways = r"`initial=20`.*`data\.label\(indices, targets\)`.*`query\(.*commit=True\)`"
    with pytest.raises(RuntimeError, match=ways):
        quiet(callbacks=[margin()]).fit(Net(), datamodule=data)
    with pytest.raises(RuntimeError, match=ways):
        fit_rounds(Net(), lambda r: quiet(), data, margin(), rounds=1)
    assert len(data.labeled_indices) == 0


def test_a_first_set_by_query(tmp_path):
    data, module = pool(tmp_path, initial=0), Net()
    picked = query(module, data, acq.Margin(), 12)
    assert len(data.labeled_indices) == 0
    assert not (tmp_path / "ledger.sqlite3").exists()
    committed = query(module, data, acq.Margin(), 12, commit=True)
    assert committed.indices.tolist() == picked.indices.tolist() == data.labeled_indices.tolist()
    history = fit_rounds(module, lambda r: quiet(), data, margin(), rounds=2)
    assert history.column("round") == [0, 1, 2]
    assert history.column("labeled") == [12, 20, 28]


def test_a_first_set_by_labels(tmp_path):
    data = pool(tmp_path, initial=0)
    data.label(range(12))
    trainer = quiet(callbacks=[margin()])
    for _ in range(2):
        trainer.fit(Net(), datamodule=data)
    assert len(data.labeled_indices) == 28
