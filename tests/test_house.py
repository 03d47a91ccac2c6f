"""The house: a street imports only from those before it, and within a street a file only from those
listed before it.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "dpes"
ORDER = [  # of all files; models/ is one
    *("errors", "fields", "disk"),
    *("coupling.layout", "coupling.genome", "coupling.operations", "coupling.rules", "coupling.layers", "coupling.moves", "coupling.reading", "coupling.uniting", "coupling.evaluating"),
    *("coupling.watching", "coupling.cloning", "coupling.network", "coupling.cutting", "coupling.cost", "coupling.importance"),
    *("coupling.proposing", "coupling.subject", "coupling.lockstep"),
    *("coupling.proof", "coupling.tracing", "coupling.zeroing"),
    *("coupling.slimfile", "coupling.__init__"),
    *("strategy.settings", "strategy.pareto", "strategy.es", "strategy.judging", "strategy.history", "strategy.folder"),
    *("strategy.space", "strategy.starts", "strategy.parents", "strategy.surrogate"),
    *("strategy.learned", "strategy.variants", "strategy.loop"),
    *("strategy.workers", "strategy.cluster", "strategy.samples", "strategy.classifier", "strategy.candidates", "strategy.pruning", "strategy.__init__"),
    *("study.settings", "study.profiles", "study.data", "study.devices", "study.models", "study.train", "study.fitness"),
    *("study.environment", "study.baseline", "study.finetune", "study.finished", "study.runs"),
    *("study.budgets", "study.rivals", "study.parameters", "study.exporting", "study.criteria", "study.families"),
    *("study.nsga2", "study.methods", "study.arena", "study.rows", "study.tuning", "study.fidelity"),
    *("study.tournament", "study.__init__"),
    *("report.judgement", "report.tables", "report.verdicts", "report.figures", "report.arena"),
    *("report.contest", "report.parts", "report.truth", "report.__init__"),
    *("teaching.exercises", "teaching.lessons", "teaching.explore"),
    *("teaching.checks_cut", "teaching.checks_coupled", "teaching.checks_choose"),
    *("teaching.checks_search", "teaching.__init__"),
    *("__init__", "flags", "__main__"),
]  # fmt: skip


def files():
    """Module name -> its file; those of models/ under one name."""
    found = {}
    for file in sorted(HOUSE.rglob("*.py")):
        parts = file.relative_to(HOUSE).with_suffix("").parts
        name = "study.models" if parts[:2] == ("study", "models") else ".".join(parts)
        found.setdefault(name, []).append(file)
    return found


def imports(file):
    """The modules of the package that a file imports, at its top or inside a function."""
    package = file.relative_to(HOUSE.parent).parent.parts
    tree = ast.parse(file.read_text())
    tree.body = [n for n in tree.body if "TYPE_CHECKING" not in ast.unparse(n).split("\n")[0]]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join(
                [*package[1 : len(package) - node.level + 1], *(node.module or "").split(".")]
            ).strip(".")
            for alias in node.names:
                names = (f"{base}.{alias.name}".strip("."), base, f"{base}.__init__".strip("."))
                yield next(
                    "study.models" if m.startswith("study.models") else m
                    for m in names
                    if m.startswith("study.models") or m in ORDER
                )


@pytest.mark.parametrize("name", files())
def test_a_file_imports_only_from_those_before_it(name):
    place = ORDER.index(name)
    for file in files()[name]:
        for imported in imports(file):
            assert ORDER.index(imported) < place or imported == name == "study.models", (
                f"{name} imports {imported}"
            )


def test_the_order_names_every_file():
    assert sorted(files()) == sorted(ORDER)
