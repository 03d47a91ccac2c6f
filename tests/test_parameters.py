"""The first cell of a notebook refuses, in one line, what its parameters cannot be."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from dpes.errors import DpesError, SettingsError
from dpes.study import finished, parameters

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(p for p in (ROOT / "notebooks").rglob("*.ipynb"))


def first_cells(path):
    """The source of the cell of parameters and of the one after it."""
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert "parameters" in cells[0]["metadata"]["tags"]
    return ["".join(c["source"]) for c in cells[:2]]


def executed(path, **given):
    """The names after both cells, with these parameters in place of the notebook's own."""
    own, check = first_cells(path)
    text = "# Parameters\n" + "".join(f"{k} = {v!r}\n" for k, v in given.items())
    names = {"In": ["", own, text, check]}
    exec(own, names)
    exec(text, names)
    exec(check, names)
    return names


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """From any directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DPES_RUNS", raising=False)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_notebook_takes_its_own_parameters_and_no_others(path):
    executed(path)
    with pytest.raises(SettingsError, match="unknown parameter 'sead': .*choose from"):
        executed(path, sead=1)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_parameter_is_checked(path):
    """No notebook takes a value that has no sense anywhere."""
    own, _ = first_cells(path)
    names = [line.target.id for line in ast.parse(own).body]
    assert names
    for name in names:
        with pytest.raises(SettingsError, match=f"^{name} = ") as caught:
            executed(path, **{name: [[3.5]]})
        assert "\n" not in str(caught.value)


BAD = [
    ("network", {"masks": -2}, "masks = -2: must be a whole number from 0 to 999"),
    ("network", {"masks": "three"}, "masks = 'three': must be a whole number"),
    ("network", {"beside": {"error_cieling": 0.5}}, "did you mean 'error_ceiling'"),
    ("network", {"beside": {"error_ceiling": 5}}, "beside: error_ceiling = 5.0: must be above 0"),
    ("network", {"beside": {"model": "vgg16"}}, "beside names 'model'"),
    ("network", {"overrides": {"popultion": 5}}, "did you mean 'population'"),
    ("network", {"overrides": {"population": 3}}, "population = 3: must be at least 4"),
    ("network", {"overrides": {"weights": "akamaster", "model": "x"}}, "overrides names 'model'"),
    ("network", {"overrides": {"weights": "akamster"}}, "did you mean 'akamaster'"),
    ("network", {"profile": "quik"}, "did you mean 'quick'"),
    ("network", {"model": "resnet21"}, "did you mean 'resnet20'"),
    ("network", {"dataset": "cifar"}, "did you mean 'cifar10"),
    ("network", {"seed": -1}, "seed = -1: must be a whole number from 0"),
    ("network", {"seed": True}, "seed = True: must be a whole number"),
    ("network", {"device": "gpu"}, "device 'gpu' cannot be used here"),
    ("network", {"threads": 0}, "threads = 0: must be a whole number from 1"),
    ("network", {"widths": 1}, "widths = 1: must be true or false"),
    ("network", {"widths": True, "overrides": {"encoding": "widths"}}, "searches widths itself"),
    ("criteria", {"seeds": []}, "must be a list of one value or more"),
    ("criteria", {"seeds": [0, -1]}, "-1 must be a whole number from 0"),
    ("cut", {"victim": 16}, "must be a whole number from 0 to 15"),
    ("knees", {"moved": 1.5}, "must be a number from 0 to 1"),
    ("results", {"names": ["nothing"]}, "not a run directory"),
    ("explore", {"names": "resnet56-cifar10-cpu-s0-b1c306d3"}, "must be a list"),
    ("arena", {"folder": "nowhere"}, "no such folder"),
    ("own", {"images": "nowhere"}, "must be a folder, or empty"),
    ("own", {"network": "resnet19"}, "did you mean 'resnet"),
]  # fmt: skip


@pytest.mark.parametrize(("notebook", "given", "words"), BAD)
def test_bad_values_are_refused(notebook, given, words):
    path = ROOT / "notebooks" / f"{notebook}.ipynb"
    with pytest.raises(DpesError) as caught:
        executed(path, **given)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_names_of_a_session_are_no_parameters():
    """A cell that is executed once more finds all that the notebook has made since."""
    names = {"In": ["", "seed: int = 0", "x = 1"], "seed": 0, "x": 1}
    parameters.check(names, seed=parameters.SEED)


def test_runs_are_found_from_any_directory(tmp_path, monkeypatch):
    assert finished.runs_folder() == ROOT / "data" / "runs"
    (tmp_path / "data" / "runs").mkdir(parents=True)
    assert finished.runs_folder().resolve() == (tmp_path / "data" / "runs").resolve()
    monkeypatch.setenv("DPES_RUNS", "~/runs")
    assert finished.runs_folder() == Path.home() / "runs"


@pytest.mark.slow
def test_papermill_alone_refuses_what_no_notebook_knows(tmp_path):
    import papermill

    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter 'maskes'"):
        papermill.execute_notebook(
            ROOT / "notebooks" / "network.ipynb",
            tmp_path / "out.ipynb",
            {"maskes": 3},
            kernel_name="python3",
            progress_bar=False,
        )
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_notebook_leaves_files_in_a_temporary_folder(path):
    """``mkdtemp`` leaves its folder; a page that is executed at each build fills the disk."""
    assert "mkdtemp" not in path.read_text()
