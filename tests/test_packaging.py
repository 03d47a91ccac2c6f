"""What is declared in several places agrees: dependencies, lock, conda environment, README,
Makefile, chapters.
"""

from __future__ import annotations

import ast
import csv
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dpes
from dpes import macs as dpes_macs
from dpes.study import data, models
from dpes.study.profiles import make_settings

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
EXTRAS = [
    r
    for extra in PROJECT["optional-dependencies"].values()
    for r in map(Requirement, extra)
    if r.name != "dpes"
]
LOCK_TEXT = "\n".join(
    line.split("#")[0].rstrip() for line in (ROOT / "requirements.lock").read_text().splitlines()
)
LOCK_LINES = [line.split(" --hash=") for line in LOCK_TEXT.replace("\\\n   ", "").splitlines()]
LOCK = [Requirement(line[0]) for line in LOCK_LINES if line[0]]
README = (ROOT / "README.md").read_text()
IMPORT_NAMES = {
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "nbclient": "papermill",
    "distributed": "dask",
}


def locked(name: str) -> list[str]:
    return [
        next(iter(r.specifier)).version
        for r in LOCK
        if canonicalize_name(r.name) == canonicalize_name(name)
    ]


def test_the_engine_needs_little_and_the_extras_bring_the_rest():
    """Whoever prunes a network of their own gets no notebooks, no book and no tests."""
    extras = {
        extra: {Requirement(r).name for r in some}
        for extra, some in PROJECT["optional-dependencies"].items()
    }
    assert set(DIRECT) == {"torch", "numpy", "pandas", "safetensors", "filelock", "tqdm"}
    assert {"torchvision", "matplotlib", "seaborn", "onnx"} <= extras["study"] and {
        "jupyterlab",
        "jupyter-book",
        "papermill",
    } <= extras["book"]
    assert {"pytest", "nbval"} <= extras["test"] and extras["cluster"] == {"dask"}


@pytest.mark.parametrize("requirement", [*DIRECT.values(), *EXTRAS], ids=str)
def test_every_range_admits_the_locked_version(requirement):
    versions = locked(requirement.name)
    assert len(versions) == 1, f"{requirement.name} is locked {len(versions)} times: make lock"
    assert requirement.specifier.contains(versions[0], prereleases=True)


def test_the_lock_is_exact_has_hashes_and_names_no_address():
    for line, *hashes in filter(lambda parts: parts[0], LOCK_LINES):
        assert "://" not in line and " @ " not in line and not line.startswith("-")
        specifiers = list(Requirement(line).specifier)
        assert [s.operator for s in specifiers] == ["=="] and "*" not in specifiers[0].version
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", h.strip()) for h in hashes)


def test_another_build_of_torch_takes_its_place():
    """With an index of its own, the lock is installed without PyTorch and CUDA."""
    recipe = (ROOT / "Makefile").read_text()
    command = re.search(r"awk '(/\^\[a-z0-9\]/.*?)' requirements.lock", recipe)[1]
    for index, kept in (("", True), ("https://index", False)):
        program = command.replace("$(TORCH_INDEX)", index)
        done = subprocess.run(
            ["awk", program, ROOT / "requirements.lock"], capture_output=True, text=True, check=True
        )
        names = {m.split("==")[0] for m in re.findall(r"^[a-z0-9][^ ]*", done.stdout, re.M)}
        cuda = {n for n in names if n.startswith(("nvidia-", "cuda-"))}
        assert ({"torch", "torchvision", "triton"} <= names) == kept == bool(cuda)
        assert {"numpy", "torch-pruning"} <= names
        assert done.stdout.count("--hash") > 1000


def test_a_full_disk_is_told_before_anything_is_installed(tmp_path):
    place = tmp_path / "env"
    command = ["make", f"{place}/.installed", f"VENV={place}", "ROOM=900000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode and not place.exists()
    assert re.match(r"the environment needs 900000 GB of disk, [\d.]+ GB are free", done.stderr)


def test_the_lock_holds_for_every_python_that_the_project_admits():
    assert PROJECT["requires-python"] == ">=3.11"
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tools["ruff"]["target-version"] == "py311"
    assert "--python-version 3.11" in (ROOT / "Makefile").read_text()
    for pin in map(Requirement, tools["uv"]["constraint-dependencies"]):
        assert pin.specifier.contains(locked(pin.name)[0])


def test_conda_installs_the_lock_and_no_version_of_its_own():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    python, pip, inner = environment
    assert Requirement(PROJECT["name"] + PROJECT["requires-python"]).specifier.contains(
        python.removeprefix("python=")
    )
    assert pip == "pip" and inner == {"pip": ["-r requirements.lock"]}


def test_what_the_package_imports_is_declared():
    """Imports at the top of a module must come with every installation, but for pages; those
    inside a function may be an extra's.
    """
    declared = {*DIRECT, *(canonicalize_name(r.name) for r in EXTRAS)}
    beside = {path.stem for path in (ROOT / "notebooks").glob("*.py")}
    for path in [*(ROOT / "dpes").rglob("*.py"), *(ROOT / "notebooks").glob("*.py")]:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            else:
                continue
            for name in (
                {n.split(".")[0] for n in names} - sys.stdlib_module_names - {"dpes", *beside}
            ):
                known = (
                    set(DIRECT)
                    if node in tree.body and path.parent.name not in ("report", "teaching")
                    else declared
                )
                assert IMPORT_NAMES.get(name, name).replace("_", "-") in known, (
                    f"{path.relative_to(ROOT)} imports {name}"
                )


def test_version_is_said_once():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert dpes.__version__ == PROJECT["version"] == citation["version"]


def test_commands_in_the_readme_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    text = README + (ROOT / "CONTRIBUTING.md").read_text()
    assert (
        {"book", "test"}
        <= (named := set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.M)))
        <= targets | {"help"}
    ), named
    known = subprocess.run(
        [sys.executable, "-m", "dpes", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    for command in set(re.findall(r"python -m dpes (\w+)", text)):
        assert re.search(rf"^ +{command}\b", known, re.M), command
    for path in re.findall(r"`((?:[\w.-]+/)*[\w.-]+(?:/|\.md|\.yml|\.csv|\.cff))`", README):
        assert (ROOT / path).exists() or path == "data/runs/", path


def test_the_example_in_the_readme_runs(tmp_path, monkeypatch):
    import torch

    from dpes.study import data, models

    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    monkeypatch.chdir(tmp_path)
    digits = data.load("digits")
    images = data.normalise(digits.search.x[:60], digits)
    names = {
        "model": models.build("vgg-tiny", channels=1).eval(),
        "x": images,
        "y": digits.search.y[:60],
    }
    with torch.no_grad():
        exec(compile(code, "README.md", "exec"), names)
    assert sorted(p.name for p in tmp_path.glob("*.safetensors")) == [
        "heavy.safetensors",
        "knee.safetensors",
        "light.safetensors",
    ]
    assert dpes_macs(names["front"].light, images) < dpes_macs(names["model"], images)


@pytest.mark.parametrize(
    "path",
    "README.md Makefile pyproject.toml requirements.lock environment.yml CITATION.cff LICENSE "
    "LICENSE-text CONTRIBUTING.md "
    "_config.yml _toc.yml .ci/run .github/workflows/test.yml .github/workflows/publish.yml "
    ".pre-commit-config.yaml "
    ".binder/postBuild .binder/environment.yml dpes notebooks/runs.yml notebooks/execute.py book data/README.md data/reported.csv".split(),
)
def test_the_house_is_complete(path):
    assert (ROOT / path).exists()


def test_chapters_name_what_exists():
    runs = yaml.safe_load((ROOT / "notebooks" / "runs.yml").read_text())
    toc = (ROOT / "_toc.yml").read_text()
    for sets in runs.values():
        for name, parameters in sets.items():
            if "model" in parameters:
                same = {
                    name: parameters[name] for name in ("profile", "model", "dataset", "seed")
                } | parameters.get("overrides", {})
                for overrides in ({}, parameters.get("beside", {})):
                    settings = make_settings(**{**same, **overrides})
                    assert (
                        settings.profile == "quick"
                        or (ROOT / "data" / "runs" / settings.run_id / "result.json").exists()
                    )
                assert (
                    parameters["model"] in models.MODELS and parameters["dataset"] in data.DATASETS
                )
            assert f"book/chapters/{name}\n" in toc
    in_toc = set(re.findall(r"book/chapters/(\S+)", toc))
    assert in_toc == {name for sets in runs.values() for name in sets}


def test_a_reported_number_has_a_source():
    rows = list(csv.DictReader((ROOT / "data" / "reported.csv").read_text().splitlines()))
    assert list(rows[0]) == [
        "family",
        "model",
        "dataset",
        "solution",
        "error_percent",
        "flops_reduction_percent",
        "source",
    ]
    for row in rows:
        assert (
            models.MODELS[row["model"]].family == row["family"] and row["dataset"] in data.DATASETS
        )
        assert row["solution"] in ("baseline", "heavy", "knee", "light")
        for column in ("error_percent", "flops_reduction_percent"):
            assert not row[column] or (row["source"] and 0 <= float(row[column]) <= 100)


def test_the_engine_imports_quickly():
    """Neither pandas nor what only the study or its pages need is loaded before it is used."""
    code = "import sys, dpes; print(*sorted({'pandas', 'sklearn', 'torchvision', 'matplotlib', 'distributed', 'yaml'} & set(sys.modules)))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "\n"
    )
