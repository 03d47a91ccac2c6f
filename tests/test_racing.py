"""The page on races: true to its measurements, and those to the code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import racing  # noqa: E402

RESULTS = json.loads(racing.RESULTS.read_text())


def test_page_is_made_from_the_results():
    assert racing.PAGE.read_text() == racing.page(RESULTS)


def test_a_race_without_risk_never_changed_the_solutions():
    plain = {r["seed"]: r["solutions"] for r in RESULTS["measured"] if r["risk"] is None}
    assert len(plain) >= 5
    assert all(r["solutions"] == plain[r["seed"]] for r in RESULTS["measured"] if r["risk"] == 0)


def test_the_committed_search_is_played_again_alike():
    assert racing.replayed() == RESULTS["replayed"]
