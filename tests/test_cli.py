"""The command line: what it prints, and one clear line for every bad input."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import DPES

from dpes import errors
from dpes.__main__ import main
from dpes.strategy.history import Candidate
from dpes.study.finished import where
from dpes.study.profiles import make_settings
from dpes.study.settings import flat_fields

pytestmark = pytest.mark.usefixtures("own_weights")
SMOKE = ["--profile", "smoke", "--quiet"]


def call(capsys, *argv):
    """(exit code, stdout, stderr) of one command."""
    try:
        code = main([str(a) for a in argv])
    except SystemExit as exit:
        code = exit.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *argv):
    """The one line that a refused command prints."""
    code, _, error = call(capsys, *argv)
    assert code == 2, error
    assert error.count("\n") == 1 and "Traceback" not in error, error
    return error


SETTINGS = [  # arguments of `run`, words of the message that name the problem and the cure
    (["--model", "resnet21"], "unknown model 'resnet21': did you mean"),
    (["--dataset", "cifar11"], "unknown dataset 'cifar11': did you mean 'cifar10'"),
    (["--profile", "smoky"], "unknown profile 'smoky': did you mean 'smoke'"),
    (["--weights", "nobody"], "unknown weights 'nobody'"),
    (["--model", "vgg16", "--weights", "akamaster"], "no weights of 'akamaster' for 'vgg16'"),
    (["--p-mutation", "0"], "p_mutation = 0.0: must be above 0 and at most 1"),
    (["--p-mutation", "-0.1"], "must be above 0 and at most 1"),
    (["--p-mutation", "1.5"], "must be above 0 and at most 1"),
    (["--p-mutation", "nan"], "p_mutation = nan: must be"),
    (["--p-mutation", "often"], "invalid float value: 'often'"),
    (["--population", "3"], "population = 3: must be at least 4"),
    (["--population", "4.5"], "invalid int value: '4.5'"),
    (["--generations", "0"], "generations = 0: must be at least 1"),
    (["--knee", "elbow"], "knee = 'elbow': choose from mmd, win"),
    (["--fitness", "inherit"], "fitness = 'inherit': choose from"),
    (["--cost", "flops"], "cost = 'flops': choose from"),
    (["--error-on", "test"], "error_on = 'test': "),
    (["--search-images", "0"], "search_images = 0: must be at least 1"),
    (["--calibration-images", "-5"], "calibration_images = -5: must be at least 1"),
    (["--partial-epochs", "0"], "partial_epochs = 0: must be at least 1"),
    (["--partial-lr", "0"], "partial_lr = 0.0: must be above 0"),
    (["--batch-size", "1"], "batch_size = 1: must be at least 2"),
    (["--error-ceiling", "2"], "error_ceiling = 2.0: must be above 0 and at most 1"),
    (["--partial-images", "1"], "partial_images = 1: must be at least 2"),
    (["--seed", "-1"], "seed = -1: must be at least 0"),
    (["--seed", str(2**63)], "must be at least 0 and at most"),
    (["--finetune-images", "1"], "images = 1: must be at least 2"),
    (["--partial-images", "1"], "partial_images = 1: must be at least 2"),
    (["--finetune-epochs", "-1"], "epochs = -1: must be at least 0"),
    (["--finetune-lr", "0"], "lr = 0.0: must be above 0"),
    (["--finetune-schedule", "steps"], "schedule = 'steps': choose from"),
    (["--baseline-momentum", "1"], "momentum = 1.0: must be at least 0 and at most 0.999"),
    (["--baseline-label-smoothing", "1"], "label_smoothing = 1.0"),
    (["--popultion", "5"], "unrecognized arguments: --popultion"),
    (["--workers", "0"], "workers = 0: must be at least 1"),
    (["--threads", "0"], "threads = 0: must be at least 1"),
    (["--device", "gpu"], "device 'gpu'"),
    (["--device", "cuda:99"], "device 'cuda:99'"),
]


@pytest.mark.parametrize("arguments, words", SETTINGS)
def test_bad_settings_get_one_line(arguments, words, capsys, tmp_path):
    error = refused(capsys, "run", *SMOKE, "--folder", tmp_path / "runs", *arguments)
    assert words in error
    assert not list((tmp_path / "runs").glob("*/history.jsonl"))


def test_what_a_profile_sets_can_be_unset(capsys):
    def where(*argv):
        return call(capsys, "where", *argv)[1]

    plain = where(
        "--profile",
        "cpu",
        "--precision",
        "none",
        "--finetune-precision",
        "None",
        "--partial-images",
        "none",
    )
    assert plain.strip().endswith(
        make_settings("cpu", precision=None, finetune_precision=None, partial_images=None).run_id
    )
    assert plain != where("--profile", "cpu")
    # it has no such state
    assert "invalid int value: 'none'" in refused(capsys, "where", "--search-images", "none")


def test_other_mistakes_get_one_line(capsys, tmp_path):
    assert "choose from" in refused(capsys, "prune")
    assert "command" in refused(capsys)
    assert "not a run directory" in refused(capsys, "front", "nothing", "--folder", tmp_path)
    assert "required: run" in refused(capsys, "front")


@pytest.mark.parametrize("name, damage, words", [
    ("result.json", "{", "cannot be read"),
    ("settings.json", "", "cannot be read"),
    ("settings.json", '{"schema": 99, "settings": {}}', "schema"),
    ("env.json", "\x00", "cannot be read"),
    ("settings.json", "[]", "no JSON object"),
    ("result.json", "{}", "no n_bits in it"),
    ("result.json", "null", "no JSON object"),
    ("env.json", "[]", "no JSON object"),
])  # fmt: skip
def test_damaged_runs_get_one_line(name, damage, words, capsys, finished, tmp_path):
    copy = tmp_path / finished.path.name
    shutil.copytree(finished.path, copy)
    (copy / name).write_text(damage)
    before = {p.name: p.read_bytes() for p in copy.iterdir()}
    assert words in refused(capsys, "front", copy)
    assert words in refused(capsys, "run", *SMOKE, "--folder", tmp_path)
    assert before == {p.name: p.read_bytes() for p in copy.iterdir()}


def test_missing_and_damaged_data_get_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DPES_DATA", str(tmp_path))
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"broken")
    error = refused(capsys, "run", *SMOKE, "--dataset", "cifar10", "--folder", tmp_path / "runs")
    assert "data_batch_1 is damaged" in error and "download" in error
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet20-12fca82f.th").write_bytes(b"broken")
    error = refused(
        capsys,
        "run",
        "--profile",
        "smoke",
        "--model",
        "resnet20",
        "--weights",
        "akamaster",
        "--folder",
        tmp_path / "runs",
    )
    assert "resnet20-12fca82f.th" in error


def test_a_full_disk_stops_with_one_line_and_loses_nothing(capsys, finished, tmp_path, monkeypatch):
    whole, lines = Candidate.line, []

    def full(candidate):
        lines.append(candidate)
        if len(lines) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(candidate)

    with monkeypatch.context() as patch:
        patch.setattr(Candidate, "line", full)
        assert "No space left on device; once that is put right" in refused(
            capsys, "run", *SMOKE, "--folder", tmp_path
        )
    assert call(capsys, "run", *SMOKE, "--folder", tmp_path)[0] == 0
    for name in ("history.jsonl", "knee.safetensors"):
        assert (tmp_path / finished.path.name / name).read_bytes() == (
            finished.path / name
        ).read_bytes()


def test_a_loss_that_is_no_number_names_the_cure(capsys, tmp_path):
    settings = ["--model", "vgg-tiny", "--finetune-lr", "1e6", "--folder", tmp_path]
    assert "lower lr" in refused(capsys, "run", *SMOKE, *settings)
    (run,) = tmp_path.iterdir()
    assert len((run / "history.jsonl").read_text().splitlines()) == 9  # the search is kept


def test_debug_shows_the_traceback():
    with pytest.raises(errors.SettingsError):
        main(["--debug", "run", "--profile", "smoke", "--population", "3"])


def test_a_process_ends_with_two_and_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dpes", "run", "--population", "3"],
        capture_output=True,
        text=True,
        env=os.environ | {"DPES_RUNS": str(tmp_path)},
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not done.stdout


@pytest.mark.parametrize("command", ["where", "show"])
def test_a_reader_that_leaves_is_no_error(command, finished):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "dpes", command, "--folder", finished.path.parent],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("number", "send"), [(signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)]
)
def test_a_run_that_is_stopped_stops_its_workers_and_counts_its_seconds(number, send, tmp_path):
    """By a batch system whose time is up, or by Ctrl-C, which reaches workers, too, at the worst of
    moments: they are being born.
    """
    sizes = [
        "--model",
        "vgg-tiny",
        "--generations",
        "2",
        "--baseline-epochs",
        "1",
        "--finetune-epochs",
        "0",
    ]
    command = ["run", *SMOKE, *sizes, "--folder", str(tmp_path)]
    process = subprocess.Popen(
        [*DPES, *command, "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not any(tmp_path.glob("*/history.jsonl")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    send(process.pid, number)
    out, error = process.communicate()  # returns when the workers, too, have let go of its pipes
    assert (process.returncode, out, error) == (
        130,
        "",
        "dpes: stopped; the same command continues where it was\n",
    )
    (run,) = tmp_path.iterdir()
    # 0.00 where the machine is quick
    before = json.loads((run / "env.json").read_text())["seconds"]["search"]
    assert main(command) == 0
    assert json.loads((run / "env.json").read_text())["seconds"]["search"] > before


def test_a_terminal_of_other_letters_gets_all_that_it_can_show(tmp_path):
    command = [*DPES, "where", "--profile", "smoke", "--folder", str(tmp_path / "läufe")]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert "l\\xe4ufe" in done.stdout and not done.stderr
    command[-1] = str(tmp_path / "läufe" / "nichts")
    command[command.index("where")] = "front"
    done = subprocess.run([*DPES, "front", command[-1]], capture_output=True, text=True, env=env)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_a_search_draws_its_bar_once_a_second(monkeypatch, capsys, tmp_path):
    """A notebook keeps each one that is drawn."""
    from dpes.strategy import loop

    assert loop.BAR["mininterval"] >= 1
    code, _, error = call(capsys, "run", *SMOKE[:2], "--folder", tmp_path)
    assert code == 0 and 1 <= error.count("search:") < 8


def test_where_starts_nothing(capsys, tmp_path):
    code, out, _ = call(capsys, "where", "--profile", "smoke", "--folder", tmp_path / "runs")
    assert code == 0 and out.strip() == str(where(make_settings("smoke"), tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_help_lists_every_setting(capsys):
    for command in ("run", "train", "where"):
        code, out, _ = call(capsys, command, "--help")
        assert code == 0
        for name in flat_fields():
            assert "--" + name.replace("_", "-") in out, (command, name)


def test_run_show_front(capsys, finished):
    folder = finished.path.parent
    code, out, error = call(capsys, "run", *SMOKE, "--folder", folder)
    assert code == 0 and not error
    assert out.splitlines()[0] == str(finished.path)
    for command in (
        ["show", "--folder", folder],
        ["front", finished.path.name, "--folder", folder],
    ):
        code, shown, _ = call(capsys, *command)
        assert code == 0 and all(word in shown for word in ("baseline", "heavy", "knee", "light"))
    assert f"{finished.archive.macs.iloc[-1] / 1e6:.3f} M MACs" in shown


def test_weights_that_are_missing_are_restored(capsys, finished):
    (finished.path / "light.safetensors").unlink()
    assert (
        "not here (large weights are not published); train them again: python -m dpes restore "
        f"{finished.path}" in refused(capsys, "export", finished.path)
    )
    code, out, _ = call(capsys, "restore", finished.path, "--quiet")
    error = f"{100 * finished.result['light']['error']:.2f} %"
    assert code == 0 and out.splitlines() == [
        f"light: test error {error}, in the run {error}",
        f"{finished.path}: all weights are there",
    ]
    code, out, _ = call(capsys, "restore", finished.path.name, "--folder", finished.path.parent)
    assert code == 0 and out == f"{finished.path}: all weights are there\n"
    assert "not a run directory" in refused(capsys, "restore", finished.path / "nowhere")


def test_rivals_are_listed_beside_the_knee(capsys, finished):
    code, out, _ = call(capsys, "rivals", finished.path, "--masks", 1, "--quiet")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == [
        "solution",
        "knee",
        "l1",
        "random0",
    ]
    _, shown, _ = call(capsys, "show", "--folder", finished.path.parent)
    assert [line.split()[0] for line in shown.splitlines()[-7:]] == [
        "baseline",
        "heavy",
        "knee",
        "light",
        "at",
        "l1",
        "random0",
    ]
    assert "workers = 0" in refused(capsys, "rivals", finished.path, "--workers", 0)
    assert "masks = -1" in refused(capsys, "rivals", finished.path, "--masks", -1)
    assert "not a run directory" in refused(capsys, "rivals", finished.path / "nowhere")
    assert "cannot be used here" in refused(capsys, "rivals", finished.path, "--device", "nonsense")
    assert "cannot be used here" in refused(
        capsys, "train", "--profile", "smoke", "--device", "nonsense"
    )
    file = finished.path / "rivals.json"
    for text in ("[]", '{"l1": {}}', "{"):
        file.write_text(text)
        assert "rivals.json: " in refused(capsys, "rivals", finished.path)
        assert file.read_text() == text
    file.unlink()


def test_front_is_plotted(capsys, finished, tmp_path):
    code, out, _ = call(capsys, "front", finished.path, "--plot", tmp_path / "front.svg")
    assert code == 0 and "Scatter of" in out
    assert (tmp_path / "front.svg").read_text().count("<path") > 10
    for name in ("front.doc", "front", ""):
        assert "cannot be drawn" in refused(
            capsys, "front", finished.path, "--plot", tmp_path / name if name else ""
        )


def test_show_nothing(capsys, tmp_path):
    code, out, _ = call(capsys, "show", "--folder", tmp_path)
    assert code == 0 and "no finished run" in out


def test_train_prints_the_test_error(capsys, finished):
    code, out, _ = call(capsys, "train", *SMOKE)
    assert code == 0
    assert f"test error {100 * finished.result['baseline']['error']:.2f} %" in out


def test_result_is_json_of_plain_numbers(finished):
    text = (finished.path / "result.json").read_text()
    assert not np.isnan(json.loads(text)["heavy"]["error"]) and "NaN" not in text
