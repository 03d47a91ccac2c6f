"""Commands that were struck at random moments ended in the bytes of those that were left alone."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "benchmarks" / "kills.json"


def test_what_was_struck_ended_alike():
    rows = json.loads(RESULTS.read_text())
    assert sum(row["kills"] for row in rows) >= 30 and sum(row["interrupts"] for row in rows) >= 10
    assert all(row["same"] == row["folders"] for row in rows)
