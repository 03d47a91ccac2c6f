"""notebooks/execute.py on tiny notebooks in a folder of their own."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))
import at_once  # noqa: E402
import chapters  # noqa: E402
import execute  # noqa: E402
import outputs  # noqa: E402

KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}


def write_notebook(path: Path, *cells: str) -> None:
    parameters = nbformat.v4.new_code_cell(
        "n: float = 1  # a number\nnames: list = []", metadata={"tags": ["parameters"]}
    )
    code = [nbformat.v4.new_code_cell(c) for c in cells]
    nbformat.write(
        nbformat.v4.new_notebook(cells=[parameters, *code], metadata={"kernelspec": KERNELSPEC}),
        path,
    )


@pytest.fixture
def root(tmp_path):
    """A repository with three sets: one good, one that fails, one with a parameter that its
    notebook does not know.
    """
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "dpes").mkdir()
    (tmp_path / "dpes" / "module.py").write_text("x = 1\n")
    (tmp_path / "notebooks" / "runs.yml").write_text(
        "a.ipynb:\n  good: {n: 2}\n  typo: {m: 2}\nb.ipynb:\n  bad: {}\n"
    )
    write_notebook(
        tmp_path / "notebooks" / "a.ipynb",
        "import os",
        "print(n, os.path.exists('dpes/module.py'))",
    )
    write_notebook(tmp_path / "notebooks" / "b.ipynb", "1 / 0", "print('never')")
    return tmp_path


def page(root: Path, name: str) -> Path:
    return root / "book" / "chapters" / f"{name}.ipynb"


def texts(path: Path) -> list[str]:
    return [
        o.text
        for c in nbformat.read(path, 4).cells
        if c.cell_type == "code"
        for o in c.outputs
        if o.output_type == "stream"
    ]


def test_a_chapter_is_executed_once_with_its_parameters(root, capsys):
    assert execute.main(["good"], root) == 0
    # the parameter arrived, the repository is the working directory
    assert texts(page(root, "good")) == ["2 True\n"]
    first = page(root, "good").read_bytes()
    assert not (root / "build" / "notebooks" / "good.ipynb").exists()

    capsys.readouterr()
    assert execute.main(["good"], root) == 0
    assert capsys.readouterr().out == "good: up to date\n"
    assert page(root, "good").read_bytes() == first

    assert execute.main(["good", "--force"], root) == 0  # no noise
    assert page(root, "good").read_bytes() == first
    assert json.loads(first)["metadata"]["dpes"]["set"] == "good"


NOISY = (
    "import sys, time, warnings\nimport numpy as np\nimport matplotlib.pyplot as plt\nimport "
    "pandas as pd",
    "print('one', flush=True)\ntime.sleep(np.random.default_rng().uniform(0, "
    "0.5))\nprint('two')\nprint('three', file=sys.stderr)",
    "warnings.warn('of this cell')",
    "object()",
    "print(object())",
    "_ = plt.plot([1, 2])",
    "pd.Series([1, 2]).to_frame()",
)


def test_executing_twice_gives_the_same_bytes(root):
    write_notebook(root / "notebooks" / "a.ipynb", *NOISY)
    pages = []
    for _ in range(2):
        assert execute.main(["good", "--force"], root) == 0
        pages.append(page(root, "good").read_bytes())
    assert pages[0] == pages[1]
    outputs = [
        c.outputs for c in nbformat.read(page(root, "good"), 4).cells if c.cell_type == "code"
    ][3:]
    assert [(o.name, o.text) for o in outputs[0]] == [
        ("stdout", "one\ntwo\n"),
        ("stderr", "three\n"),
    ]
    assert outputs[1][0].text.startswith("cell.py:1: UserWarning: of this cell")
    assert (
        outputs[2][0].data == {"text/plain": "<object>"}
        and outputs[3][0].text == "<object object>\n"
    )
    assert {"image/png"} < set(outputs[4][0].data) and {"text/html"} < set(outputs[5][0].data)


def test_text_that_only_looks_like_an_address_stays():
    text = "byte at 0xff, <at 0x12>, mask at 0xdeadbeef\n"
    (output,) = outputs.settled([nbformat.v4.new_output("stream", text=text)])
    assert output.text == text


def test_styled_tables_have_the_same_ids_every_time():
    import pandas as pd

    table = pd.DataFrame({"a": [1, 2]})
    found = []
    for style in (table.style, table.style, (2 * table).style):
        data = {"text/html": style.to_html(), "text/plain": "T_12345"}
        (output,) = outputs.settled([nbformat.v4.new_output("display_data", data=data)])
        assert output.data["text/plain"] == "T_12345"
        found.append(output.data["text/html"])
    assert found[0] == found[1] != found[2] and found[0].count('id="T_') == 6


def interrupt(root: Path, started: Path) -> tuple[int, str]:
    """(exit status, stderr) of a command that gets Ctrl-C as soon as a cell has written
    ``started``.
    """
    code = (  # a shell that puts the tests into the background has Ctrl-C ignored
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.path.insert(0, {str(Path(execute.__file__).parent)!r})\n"
        f"import pathlib, execute; sys.exit(execute.main(['--workers', '2'], pathlib.Path({str(root)!r})))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while process.poll() is None and not started.exists():
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, error = process.communicate(timeout=60)
    return process.returncode, error


def test_ctrl_c_ends_with_one_line_and_no_half_chapter(root):
    (root / "notebooks" / "runs.yml").write_text("b.ipynb:\n  first: {}\n  second: {}\n")
    # both are under way, each in a kernel of its own
    wait = (
        "import os, pathlib, time\n"
        "kernels = pathlib.Path('kernels')\nkernels.mkdir(exist_ok=True)\n"
        "(kernels / str(os.getpid())).touch()\n"
        "while len(list(kernels.iterdir())) < 2: time.sleep(0.05)\n"
        "pathlib.Path('started').touch()\ntime.sleep(60)"
    )
    write_notebook(root / "notebooks" / "b.ipynb", "print('a long chapter')", wait)
    page(root, "first").parent.mkdir(parents=True)
    page(root, "first").write_text("the last good page")
    code, error = interrupt(root, root / "started")
    assert code == 130, error
    stopped = "execute: stopped; finished chapters are kept, the same command does the rest"
    assert error.splitlines() == [stopped]
    assert [p.name for p in page(root, "first").parent.iterdir()] == ["first.ipynb"]
    assert page(root, "first").read_text() == "the last good page"
    assert not list((root / "build" / "notebooks").iterdir())
    kernels = [int(p.name) for p in (root / "kernels").iterdir()]
    assert len(kernels) == 2
    for kernel in kernels:
        with pytest.raises(ProcessLookupError):  # it is gone, too
            os.kill(kernel, 0)


def meets(chapter, publish):
    """Whether another chapter is under way at the same time, as far as patience goes."""
    here = chapter.root / "under way"
    here.mkdir(exist_ok=True)
    (here / chapter.name).touch()
    end = time.monotonic() + (20 if chapter.parameters["patient"] else 1)
    while not (met := len(list(here.iterdir())) > 1) and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.2)  # the other one looks, too
    (here / chapter.name).unlink()
    return met, chapter.name


@pytest.mark.parametrize("other", ["resnet20", "resnet8"])
def test_two_chapters_at_a_time_but_never_two_on_one_run(root, other):
    same = other == "resnet8"
    (root / "notebooks" / "runs.yml").write_text(
        f"a.ipynb:\n  first: {{model: resnet8, patient: {not same}}}\n"
        f"b.ipynb:\n  second: {{model: {other}, patient: {not same}}}\n"
    )
    todo = list(chapters.chapters(root).values())
    done = sorted(at_once.several(meets, todo, True, 2))
    assert done == [(not same, "first"), (not same, "second")]


def dies(chapter, publish):
    if chapter.name == "first":
        os._exit(9)
    return True, chapter.name


def test_a_worker_that_dies_loses_its_chapter_alone(root):
    (root / "notebooks" / "runs.yml").write_text(
        "b.ipynb:\n  first: {}\n  second: {}\n  third: {}\n"
    )
    todo = list(chapters.chapters(root).values())
    done = sorted(at_once.several(dies, todo, True, 1))
    lost = "first: its process died (out of memory?)"
    assert done == [(False, lost), (True, "second"), (True, "third")]


def test_the_state_follows_what_the_page_is_made_from(root):
    chapter = chapters.chapters(root)["good"]
    assert chapter.state() == "missing"
    chapter.page.parent.mkdir(parents=True)
    nb = nbformat.v4.new_notebook(metadata={"dpes": {"digest": chapter.digest()}})
    nbformat.write(nb, chapter.page)
    assert chapter.state() == "fresh"
    outputs = json.loads(chapter.source.read_text())
    outputs["cells"][1] |= {
        "execution_count": 7,
        "outputs": [nbformat.v4.new_output("stream", text="old")],
    }
    chapter.source.write_text(json.dumps(outputs))
    assert chapter.state() == "fresh"  # outputs of the source do not count
    (root / "dpes" / "module.py").write_text("x = 2\n")
    assert chapter.state() == "stale"
    (root / "dpes" / "module.py").write_text("x = 1\n")
    assert dataclasses.replace(chapter, parameters={"n": 3}).state() == "stale"
    write_notebook(chapter.source, "print(n)")
    assert chapter.state() == "stale"


def test_a_kernel_that_does_not_start_gets_a_second_chance(root, monkeypatch):
    """Two that start at once may choose the same port; then one dies before it has said a word."""
    (chapter,) = chapters.choose(chapters.chapters(root), ["good"])
    real, starts = execute.by_papermill, []

    def unlucky(chapter):
        starts.append(chapter)
        if len(starts) != 2:
            raise RuntimeError("Kernel died before replying\nto kernel_info")
        real(chapter)

    monkeypatch.setattr(execute, "by_papermill", unlucky)
    good, line = execute.execute(chapter)
    assert good and len(starts) == 2 and texts(page(root, "good")) == ["2 True\n"]
    monkeypatch.setattr(execute, "by_papermill", lambda chapter: unlucky(starts.clear()))
    good, line = execute.execute(chapter)
    assert not good and "no kernel starts: Kernel died before replying to kernel_info" in line


def test_a_failing_notebook_leaves_the_old_page_and_the_others_go_on(root, capsys):
    page(root, "bad").parent.mkdir(parents=True)
    page(root, "bad").write_text("the last good page")
    runs = root / "notebooks" / "runs.yml"
    runs.write_text("b.ipynb:\n  bad: {}\na.ipynb:\n  good: {}\n")
    assert execute.main([], root) == 1
    assert page(root, "bad").read_text() == "the last good page"
    assert page(root, "good").exists()
    line = next(x for x in capsys.readouterr().err.splitlines() if "failed" in x)
    assert (
        "bad: cell 2 failed with ZeroDivisionError: division by zero" in line
        and "stays as it was" in line
    )
    assert (root / "build" / "notebooks" / "bad.ipynb").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["typo"], "typo: unknown parameter 'm': notebooks/a.ipynb knows n, names"),
        (["good", "-p", "q", "1"], "good: unknown parameter 'q'"),
        (["good", "-p", "names", "n"], "good: names = 'n' is a str, notebooks/a.ipynb wants list"),
        (["goood"], "unknown set 'goood': choose from good, typo, bad"),
        (["x-*"], "unknown set 'x-*'"),
    ],
)
def test_mistakes_are_one_line_and_start_nothing(root, capsys, argv, words):
    assert execute.main(argv, root) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (root / "book").exists() and not (root / "build").exists()


def test_a_missing_notebook_is_named(root, capsys):
    (root / "notebooks" / "a.ipynb").unlink()
    assert execute.main(["good"], root) == 2
    assert "no notebook notebooks/a.ipynb" in capsys.readouterr().err


def test_overrides_do_not_touch_the_book(root):
    assert execute.main(["good", "-p", "n", "1e-3"], root) == 0
    assert texts(root / "build" / "notebooks" / "good.ipynb") == ["0.001 True\n"]
    assert not page(root, "good").exists()


def test_drafts_do_not_touch_the_book_either(root):
    assert execute.main(["good"], root) == 0
    before = page(root, "good").read_bytes()
    assert execute.main(["good", "--draft"], root) == 0
    assert (root / "build" / "notebooks" / "good.ipynb").read_bytes() == before
    assert page(root, "good").read_bytes() == before


def test_patterns_choose_in_the_order_of_the_file(root):
    known = chapters.chapters(root)
    assert [c.name for c in chapters.choose(known, ["*o*"])] == ["good", "typo"]
    assert [c.name for c in chapters.choose(known, ["bad", "good"])] == ["good", "bad"]
    assert len(chapters.choose(known, [])) == 3


def test_values_from_the_command_line():
    given = ["3", "1e-3", "true", "False", "None", "null", "[1, 2]", "resnet20", "a b"]
    assert [execute.value(t) for t in given] == [
        3,
        0.001,
        True,
        False,
        None,
        None,
        [1, 2],
        "resnet20",
        "a b",
    ]


def test_list_executes_nothing(root, capsys):
    assert execute.main(["--list"], root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["good", "missing"] and len(lines) == 3
    assert not (root / "book").exists()


def test_a_page_says_what_is_true_of_its_family_alone(root):
    """Cells that are tagged take their texts from notebooks/texts/; no tag stays."""
    (root / "notebooks" / "texts").mkdir()
    (root / "notebooks" / "texts" / "resnet.md").write_text(
        "<!-- title -->\n# Additions\n\n<!-- end -->\nThat is all.\n"
    )
    cells = [
        nbformat.v4.new_markdown_cell(text, metadata={"tags": [f"own-{text}"]})
        for text in ("title", "other")
    ]
    parameters = nbformat.v4.new_code_cell('model: str = ""', metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(
        cells=[*cells, parameters], metadata={"kernelspec": KERNELSPEC}
    )
    nbformat.write(notebook, root / "notebooks" / "a.ipynb")
    (root / "notebooks" / "runs.yml").write_text("a.ipynb:\n  good: {model: resnet8}\n")
    assert execute.main(["good"], root) == 0
    title, other, *_ = nbformat.read(page(root, "good"), 4).cells
    assert (title.source, other.source) == ("# Additions", "other") and not {"tags"} & {
        *title.metadata,
        *other.metadata,
    }
    assert chapters.chapters(root)["good"].state() == "fresh"
    (root / "notebooks" / "texts" / "resnet.md").write_text("<!-- title -->\n# Sums\n")
    assert chapters.chapters(root)["good"].state() == "stale"


def test_every_family_has_all_texts():
    notebooks = Path(execute.__file__).parent
    cells = json.loads((notebooks / "network.ipynb").read_text())["cells"]
    tags = {
        t.removeprefix("own-")
        for c in cells
        for t in c["metadata"].get("tags", [])
        if t.startswith("own-")
    }
    for name in ("quick-cnn", "quick-resnet", "quick-densenet"):
        assert set(chapters.chapters(notebooks.parent)[name].own_texts()) == tags
