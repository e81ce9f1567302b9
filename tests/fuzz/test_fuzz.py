"""Importers against hostile files; `make fuzz` tries fifty times as many."""

import tempfile
from pathlib import Path

import pytest

from tests.fuzz.inputs import FORMATS, case
from tests.fuzz.trying import Bench

COUNT = 2000
MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path):
    """In memory, where there is such: the disk is not what is tried."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as place:
        yield Path(place)


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_but_a_refusal_comes_out_and_what_is_accepted_is_a_label(folder, format):
    bench = Bench(folder)
    outcomes = [bench.try_number(n) for n in range(FORMATS.index(format), COUNT, len(FORMATS))]
    for outcome in ("refused", "accepted"):  # else nothing is tried of that
        assert outcomes.count(outcome) > len(outcomes) / 10, {o: outcomes.count(o) for o in set(outcomes)}


def test_the_same_number_is_the_same_file():
    assert [case(n, "x") for n in range(30)] == [case(n, "x") for n in range(30)]
    assert len({case(n, "x").content for n in range(300)}) > 280
