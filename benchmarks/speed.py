"""Measures what a search costs beside its forward passes.

    python benchmarks/speed.py                     # all rows; a quarter of an hour on two cores
    python benchmarks/speed.py build generation    # these anew
    python benchmarks/speed.py --page              # book/speed.md from speed.json

Needs CIFAR-10 and the published ResNet-56 weights (downloaded when missing); the other networks are
untrained, which time does not see.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import numpy as np
import torch
from harness import filled, keep, machine, page, stored, table
from speed_rows import ROWS

from dpes.strategy import workers


def run(name: str) -> dict:
    """One row, measured now."""
    load, started = round(os.getloadavg()[0], 1), time.perf_counter()
    measures = ROWS[name]()
    row = {"row": name, "measures": measures, "machine": machine(), "load": load}
    met = all(m.get("met", True) for m in measures)
    return row | {"seconds": round(time.perf_counter() - started), "met": met}


def replaced(rows: list[dict], row: dict) -> list[dict]:
    """The rows with one measured anew in place of that on the same processor."""
    known = {(processor(r), r["row"]): r for r in (*rows, row)}
    places = dict.fromkeys(p for p, _ in known)
    return [known[p, name] for p in places for name in ROWS if (p, name) in known]


def processor(row: dict) -> str:
    """On what a row was measured."""
    return f"{row['machine']['cpu']} with {row['machine']['instructions']}"


def by_processor(rows: list[dict]) -> dict[str, list[dict]]:
    return {p: [r for r in rows if processor(r) == p] for p in dict.fromkeys(map(processor, rows))}


def goal(m: dict) -> str:
    words = {"at_most": "at most", "at_least": "at least"}
    return "".join(f"{words[k]} {m[k]:g} {m['unit']}" for k in words if k in m)


def number(m: dict) -> str:
    """Median and quartiles, the same number of decimals for all three."""
    decimals = max(0, 2 - int(np.floor(np.log10(m["median"])))) if m["median"] < 100 else 0
    text = f"{m['median']:.{decimals}f} {m['unit']}"
    if m["rounds"] > 1:
        text += f" ({m['low']:.{decimals}f} to {m['high']:.{decimals}f})"
    return text


def verdict(m: dict) -> str:
    return {True: ", met", False: ", **not met**", None: ""}[m.get("met")]


def goals(rows: list[dict]) -> str:
    """The table of what has a goal, and beside it: a column for each processor."""
    columns = {
        p: {m["what"]: m for r in some for m in r["measures"]}
        for p, some in by_processor(rows).items()
    }
    lines: list[list[str]] = []
    for what in dict.fromkeys(what for measured in columns.values() for what in measured):
        found = [measured.get(what) for measured in columns.values()]
        cells = [number(m) + verdict(m) if m else "" for m in found]
        lines.append([what, goal(next(filter(None, found))), *cells])
    rule = "|---" * (2 + len(columns)) + "|"
    return f"{table([['what', 'goal', *columns]])}\n{rule}\n{table(lines)}"


def summary(rows: list[dict]) -> str:
    """How many goals are met on each processor, and which are not."""
    parts = []
    for p, some in by_processor(rows).items():
        judged = [m for r in some for m in r["measures"] if "met" in m]
        missed = [m["what"] for m in judged if not m["met"]]
        text = f"On {p}, {len(judged) - len(missed)} of {len(judged)} goals are met"
        parts.append(text + (f"; not met: {'; '.join(missed)}." if missed else "."))
    return " ".join(parts)


def circumstances(rows: list[dict]) -> str:
    """Machine, load and minutes of the rows of each processor."""
    parts = []
    for p, some in by_processor(rows).items():
        loads, m = [r["load"] for r in some], some[-1]["machine"]
        minutes = sum(r["seconds"] for r in some) / 60
        load = f"load average {min(loads):g} to {max(loads):g}, its own work included"
        facts = f"{m['cores']} cores, torch {m['torch']}, {load}"
        parts.append(f"{p}: {facts}; all rows took {minutes:.0f} minutes.")
    return " ".join(parts)


def tried_line(m: dict) -> list[str]:
    says = {True: "**pays**", False: "no", None: ""}[m["pays"]]
    macs = f"{m['macs']:.2f} x" if "macs" in m else ""
    changed = f"{m['changed']} of {m['images']:,}" if "changed" in m else ""
    difference = (
        "" if "difference" not in m else f"{m['difference']:.0e}" if m["difference"] else "0"
    )
    return [m["what"], number(m), says, macs, difference, changed]


def text(rows: list[dict], tried: list[dict]) -> str:
    """book/speed.md."""
    changes = [m for r in tried for m in r["measures"]]
    paying = "; ".join(m["what"] for m in changes if m["pays"])
    values = {
        "GOALS": goals(rows),
        "SUMMARY": summary(rows),
        "CIRCUMSTANCES": circumstances(rows),
        "TRIED": table(map(tried_line, changes)),
        "PAYING": f"A tenth or more is gained by: {paying}.",
        "ELSEWHERE": circumstances(tried),
    }
    return filled("speed", values)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what a search costs beside its passes.")
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--page", action="store_true", help="only write the page from speed.json")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - {*ROWS}:
        known = ", ".join(ROWS)
        print(f"speed: unknown row {min(unknown)!r}: choose from {known}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    workers.keep_freed_memory()  # as in every search
    for name in [] if arguments.page else arguments.rows or ROWS:
        row = run(name)
        keep("speed", replaced(stored("speed") or [], row))
        for m in row["measures"]:
            print(f"{name}: {m['what']}: {number(m)}; {goal(m)}{verdict(m)}", flush=True)
    page("speed").write_text(text(stored("speed"), stored("tried")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
