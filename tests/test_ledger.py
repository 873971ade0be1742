"""The ledger: what was written stays, what was half written goes."""

import json
import math

import pytest

from metalgrad.ledger import Ledger

ABOUT = {"model": "gradient", "seed": "1"}


def begin(path, about=ABOUT):
    return Ledger(path, about, "replica")


def test_entries_come_back(tmp_path):
    path = tmp_path / "deep" / "ranks.jsonl"
    first = begin(path)
    for number in (0, 2):
        first.add({"replica": number, "rank": {"slope": 7 * number}})
    assert begin(path).entries == first.entries
    assert [*first.entries] == [0, 2]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [ABOUT, *first.entries.values()]


@pytest.mark.parametrize("lost", [1, 9, 20])
def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path, lost):
    path = tmp_path / "ranks.jsonl"
    ledger = begin(path)
    for number in range(3):
        ledger.add({"replica": number, "rank": {"slope": 50}})
    path.write_bytes(path.read_bytes()[:-lost])
    again = begin(path)
    assert [*again.entries] == [0, 1]
    again.add({"replica": 2, "rank": {"slope": 51}})
    assert begin(path).entries[2]["rank"] == {"slope": 51}


def test_a_kill_in_the_first_line_leaves_nothing(tmp_path):
    path = tmp_path / "ranks.jsonl"
    path.write_text('{"model": "grad')
    ledger = begin(path)
    ledger.add({"replica": 0})
    assert [*begin(path).entries] == [0]


def test_numbers_that_are_none_become_null(tmp_path):
    path = tmp_path / "ranks.jsonl"
    begin(path).add({"replica": 0, "r_hat": math.nan, "ess": {"slope": -math.inf}})
    assert begin(path).entries[0] == {
        "replica": 0, "r_hat": None, "ess": {"slope": None},
    }  # fmt: skip


def test_it_is_not_mixed_with_another(tmp_path):
    path = tmp_path / "ranks.jsonl"
    begin(path).add({"replica": 0})
    with pytest.raises(ValueError, match="begun with another seed; give another"):
        begin(path, ABOUT | {"seed": "2"})
    path.write_text("no ledger\nat all\n")
    with pytest.raises(ValueError, match="holds what is not JSON"):
        begin(path)
