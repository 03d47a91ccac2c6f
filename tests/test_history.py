"""Histories: every line is checked, the first damaged one is named, and nothing is written to a
file that is refused.
"""

from __future__ import annotations

import dataclasses
import json

import pytest

from dpes.disk import read_json
from dpes.errors import RunError
from dpes.strategy.history import CHECKS, Candidate, read_history

ENTRIES = {
    "generation": 1,
    "index": 0,
    "parent": "knee",
    "genome": "f0a1",
    "error": 0.25,
    "macs": 10,
    "params": 5,
}


def line(**changes):
    """A line of a history; an entry changed to ... is left out."""
    return json.dumps({k: v for k, v in (ENTRIES | changes).items() if v is not ...})


WHOLE = [
    line(generation=0, parent=""),
    line(),
    line(index=1, error=float("inf")),
    line(generation=2, cost=0.5),
]


@pytest.fixture
def write(tmp_path):
    def written(*lines, end="\n"):
        path = tmp_path / "history.jsonl"
        path.write_text("\n".join(lines) + end)
        return path

    return written


def test_whole_lines_are_read(write, tmp_path):
    read = read_history(write(*WHOLE))
    assert [json.loads(c.line()) for c in read] == [json.loads(text) for text in WHOLE]
    assert read_history(tmp_path / "none.jsonl") == [] and read_history(write(end="")) == []


@pytest.mark.parametrize("text, words", [
    (line(genome="f0g1"), "genome is 'f0g1', not pairs of hexadecimal digits"),
    (line(genome="F0A1"), "genome is 'F0A1', not pairs"),
    (line(genome="f0a"), "genome is 'f0a', not pairs"),
    (line(genome=""), "genome is '', not pairs"),
    (line(genome=7), "genome is 7, not pairs"),
    (line(index=7, genome="f0"), "its genome has 2 hexadecimal digits, that of the first line 4"),
    (line(error="0.25"), "error is '0.25', not a number from 0 to 1, or Infinity"),
    (line(error=None), "error is None, not a number"),
    (line(error=float("nan")), "error is nan, not a number"),
    (line(error=-0.1), "error is -0.1, not a number"),
    (line(error=25.0), "error is 25.0, not a number"),
    (line(error=True), "error is True, not a number"),
    (line(error=...), "no error"),
    (line(macs=...), "no macs"),
    (line(seconds=1.5), "unknown entry 'seconds'"),
    (line(**{"a\nb": 1}), r"unknown entry 'a\nb'"),
    (line(generation=-1), "generation is -1, not a whole number of at least 0"),
    (line(generation=1.0), "generation is 1.0, not a whole number"),
    (line(index=True), "index is True, not a whole number"),
    (line(macs=-1), "macs is -1, not a whole number"),
    (line(params="5"), "params is '5', not a whole number"),
    (line(cost="5"), "cost is '5', not a number"),
    (line(parent="father"), "parent is 'father', not empty or one of heavy, knee, light"),
    (line(parent=["knee"]), "parent is ['knee'], not empty"),
    (line(parent=""), "parent is '' in generation 1"),
    (line(generation=0, index=1), "parent is 'knee' in generation 0"),
    (line(generation=2), "generation 2, index 0 stands in an earlier line, too"),
    ("[1, 2]", "not a JSON object"),
    ("", "not JSON"),
    ("{" + line(), "not JSON"),
    ("[" * 100_000, "not JSON"),
    ('{"generation": ' + 5000 * "9" + "}", "not JSON"),
], ids=lambda value: value[:60])  # fmt: skip
def test_a_wrong_line_is_refused_by_number_and_nothing_is_written(text, words, write):
    path = write(*WHOLE, text, end="\n" + WHOLE[1][:20])  # behind it, what a kill cut short
    before = path.read_bytes()
    with pytest.raises(RunError) as caught:
        read_history(path)
    message = str(caught.value)
    assert f"{path}: damaged (line 5: {words}" in message and message.endswith(
        f"; restore it, or delete {path.parent} and run again"
    )
    assert "\n" not in message and len(message) < 500
    assert path.read_bytes() == before


def test_every_entry_of_a_candidate_is_checked():
    assert list(CHECKS) == [f.name for f in dataclasses.fields(Candidate)]


def test_a_last_line_cut_short_is_left_out_and_cut_off(write):
    for left in (WHOLE[3][:20], WHOLE[3], "\0"):
        path = write(*WHOLE[:3], end="\n" + left)
        before = path.read_bytes()
        assert len(read_history(path, mend=False)) == 3 and path.read_bytes() == before
        assert len(read_history(path)) == 3 and path.read_bytes() == before[: -len(left)]


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"{", b"[" * 100_000, b"9" * 5000],
    ids=["no text", "cut short", "too deep", "too long"],
)
def test_json_that_cannot_be_read_is_refused(content, tmp_path):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(RunError, match="file.json: cannot be read .*delete"):
        read_json(tmp_path / "file.json")
