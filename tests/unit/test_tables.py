import builtins

import pytest

from lightning_al import History
from lightning_al.comparing import Comparison
from lightning_al.ledger import Ledger
from lightning_al.tables import write_table

ROWS = [{"strategy": "Random", "seed": 0, "round": r, "labeled": 10 + r, "test_acc": 0.5} for r in range(2)]


def tables():
    comparison = Comparison.of_rows(ROWS)
    return {
        "history.rows": History([{"round": 0, "labeled": 20, "test_acc": 0.5}]),
        "comparison.rows": comparison,
        "summary.rows": comparison.summary("test_acc"),
    }


@pytest.mark.parametrize("instead", ["history.rows", "comparison.rows", "summary.rows"])
def test_without_pandas_a_frame_says_what_to_use(monkeypatch, instead):
    table, imported = tables()[instead], builtins.__import__

    def without(name, *given, **more):
        if name == "pandas":
            raise ModuleNotFoundError("no pandas")
        return imported(name, *given, **more)

    assert len(table.to_frame()) == len(table.rows)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=f"needs pandas.*or use `{instead}`"):
        table.to_frame()


@pytest.mark.parametrize("name", ["write_csv", "write_parquet"])
def test_a_comparison_writes_over_no_ledger(tmp_path, monkeypatch, name):
    path = tmp_path / "ledger.sqlite3"
    Ledger(path).create({"size": 3})
    before = path.read_bytes()
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", object())
    with pytest.raises(ValueError, match="the table of the comparison"):
        getattr(Comparison.of_rows(ROWS), name)(path)
    assert path.read_bytes() == before


def test_a_table_is_written_in_the_order_of_its_columns(tmp_path):
    path = tmp_path / "table.csv"
    for value in (1, 2):
        write_table(path, [{"b": value, "a": "x,y"}], ["a", "b"], "table", keep_old=True)
    assert path.read_bytes() == b'a,b\n"x,y",2\n'
    assert path.with_name("table.old1.csv").read_bytes() == b'a,b\n"x,y",1\n'
