"""The book's exercises: a check refuses the starter and accepts the solution."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

import dpes
from dpes.teaching import check, exercises, lessons

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
CHAPTERS = (
    "why cut coupling watching masks filters criteria sensitivity knees strategy explore claims"
).split()
OWN = "own", "tasks"  # pages on a network of one's own, with an exercise each


def cells(name: str) -> list[dict]:
    """The cells of a notebook, each with its source as one text."""
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell | {"source": "".join(cell["source"])} for cell in notebook["cells"]]


def tagged(tag: str, *names: str) -> dict[str, str]:
    """The cells with this tag in these notebooks: name of the exercise -> code."""
    found = {}
    for name in names:
        for cell in cells(name):
            if tag in cell["metadata"].get("tags", []):
                exercise = cell["source"].rsplit('check("', 1)[1].split('"')[0]
                assert exercise not in found, f"{exercise} is asked twice"
                found[exercise] = cell["source"]
    return found


STARTERS = tagged("exercise", *CHAPTERS)
SOLUTIONS = tagged("solution", "solutions/part1", "solutions/part2")


def labels(directive: str, *names: str) -> list[str]:
    """The labels of the exercises or solutions in the text of these notebooks."""
    lines = [line for name in names for cell in cells(name) for line in cell["source"].splitlines()]
    if directive == "exercise":
        return [line.split(": ")[1] for line in lines if line.startswith(":label: exercise-")]
    return [line.split("} ")[1] for line in lines if line.startswith("```{solution} ")]


def test_every_check_has_a_starter_and_a_solution():
    assert set(STARTERS) == set(exercises.CHECKS) == set(SOLUTIONS)
    assert sum("def " in code or "class " in code for code in STARTERS.values()) >= 12


def test_every_exercise_of_the_chapters_is_answered_on_another_page():
    asked, answered = (
        labels("exercise", *CHAPTERS, *OWN),
        labels("solution", "solutions/part1", "solutions/part2"),
    )
    assert sorted(asked) == sorted(answered) and len(set(asked)) == len(asked) >= 20
    assert {f"exercise-{name}" for name in STARTERS} <= set(asked)
    for name in CHAPTERS:
        assert 1 <= len(labels("exercise", name)) <= 5
        assert "{solution}" not in json.dumps(cells(name))


@pytest.mark.parametrize("name", STARTERS)
def test_the_starter_is_not_accepted(name, capsys):
    exec(STARTERS[name], {})
    printed = " ".join(capsys.readouterr().out.split())
    last = printed.split(f"{name}: ")[-1]
    assert last.startswith(("not yet. ", "not answered yet. "))
    assert "raised" not in last  # a starter runs; it is only incomplete


@pytest.mark.parametrize("page", ["solutions/part1", "solutions/part2"])
def test_the_solutions_are_accepted(page, capsys):
    shared: dict = {}
    for name, code in tagged("solution", page).items():
        exec(code, shared)
        assert capsys.readouterr().out.startswith(f"{name}: right. ")


def no_columns(conv, norm, reader, i):
    """A cut that forgets the reader's columns."""
    small = torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.BatchNorm2d(5), reader
    return small


MISTAKES = {
    "chain-macs": [
        (lambda w: 2 * dpes.macs(lessons.plain(w), lessons.EXAMPLE), "one multiply-add is one MAC")
    ],
    "share-for-half": [
        (0.5, "leave a quarter"),
        (0.9, "0.810 of the MACs"),
        ("half", "A number is wanted"),
    ],
    "cut-a-filter": [
        (no_columns, "weight of the reader has shape [4, 6, 3, 3]"),
        (lambda *_: 3, "Return three layers"),
    ],
    "cut-a-block": [
        ({"0.weight": 1}, "0.weight is [8, 1, 3, 3]"),
        ({"x": 0}, "'x' is no tensor"),
        ([], "A dictionary is wanted"),
    ],
    "bits-of-a-resnet": [(lambda d: 2 * (d - 2) // 6 * 112, "share one")],
    "who-leaves": [({"producers": {"7"}, "readers": set()}, "7 is none of the producers")],
    "build-coupled": [
        (
            torch.nn.Sequential(
                torch.nn.Conv2d(3, 5, 3), torch.nn.Flatten(), torch.nn.Linear(180, 2)
            ),
            "[5] bits",
        )
    ],
    "watch-flip": [
        (lambda watch, op: {1: watch.numbers(op.args[0])[1]}, "The values have moved"),
        (lambda watch, op: watch.numbers(op.args[0])[1], "Return a dictionary"),
    ],
    "silent-value": [(lambda g, b, m, s: b - g * m / s, "ReLU comes after")],
    "chance-overlap": [(lambda k: k**2, "Divide by")],
    "keep-by-l1": [
        (
            lambda w, n: np.isin(range(len(w)), np.argsort(-w.sum((1, 2, 3)).numpy())[:n]),
            "absolute values",
        )
    ],
    "taylor": [(lambda a, g: (a * g).abs().sum((2, 3)).mean(0), "Add over the pixels first")],
    "rank-p": [(lambda n, k: k / n, "one of the draws")],
    "how-many-masks": [(19, "equal to it"), (25, "The least number"), (3, "p is 0.2500")],
    "dominates": [(lambda a, b: bool((a <= b).all()), "(1, 1) does not dominate (1, 1)")],
    "front": [(lambda F: [0], "is missing")],
    "move-the-knee": [
        ((0.2, 60), "is dominated"),
        ((0.11, 85), "C is still the knee"),
        (3, "Two numbers"),
    ],
    "largest-p": [(0.2, "too few"), (0.01, "a larger one")],
    "flaws": [({2, 8}, "Sentence 8 is as it should be"), ({2, 3}, "3 more of them")],
    "sign-test": [
        (lambda a, b: binomtest(a, a + b, alternative="less").pvalue, "That is one side")
    ],
    "best-of-n": [
        (lambda errors, n: min(errors), "nothing is chosen"),
        (lambda errors, n: errors.mean(), "best of 3 "),
    ],
    "tolerance": [
        (lambda s, e, limit: [s[0]] * 3, "limit 0.12, layer 0: a share below 1 is within it"),
        (lambda s, e, limit: [s[-1]] * 3, "limit 0.12, layer 0: at 0.2 the error is above it"),
        (lambda s, e, limit: s[0], "one share for each"),
    ],
    "mutate": [(lambda P, n, p, r: np.zeros((n, P.shape[1]), bool), "of a child's bits differ")],
}


@pytest.mark.parametrize(
    ("name", "answer", "hint"), [(n, *m) for n, cases in MISTAKES.items() for m in cases]
)
def test_a_mistake_gets_its_hint(name, answer, hint, capsys):
    assert check(name, answer) is False
    assert hint in " ".join(capsys.readouterr().out.split())


def test_an_error_in_the_readers_code_is_told_and_not_raised(capsys):
    assert check("drift", lambda p, generations: 1 / 0) is False
    assert "ZeroDivisionError: division by zero" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_exercise_is_refused():
    with pytest.raises(
        exercises.UnknownExercise,
        match="unknown exercise 'drfit': choose from best-of-n, bits-of-a-resnet, ",
    ):
        check("drfit", 1)


@pytest.mark.parametrize("name", [*CHAPTERS, "solutions/part1", "solutions/part2"])
def test_a_teaching_notebook_fits_a_page(name):
    first = next(cell for cell in cells(name) if cell["cell_type"] == "code")
    assert first["metadata"]["tags"] == ["parameters"]
    for cell in cells(name):
        if cell["cell_type"] == "code":
            assert max(map(len, cell["source"].splitlines())) <= 80
            assert not cell["outputs"]
            if "plt." in cell["source"] and "figure," in cell["source"]:
                shown = cell["metadata"]["mystnb"]
                assert len(shown["image"]["alt"]) > 60 and len(shown["figure"]["caption"]) > 60
    if not name.startswith("solutions/"):
        opening = cells(name)[0]["source"]
        assert all(
            words in opening for words in ("**You will learn**", "**You need**", "**It takes**")
        )
