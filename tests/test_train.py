"""Training: it learns, goes on from a checkpoint to the same bits, refuses what is broken;
recalibration and counting are exact.
"""

from __future__ import annotations

import dataclasses
import errno
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from dpes.errors import SettingsError
from dpes.strategy import judging
from dpes.study import data, models, train
from dpes.study.settings import Training


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net(name="vgg-tiny", seed=0):
    return models.build(name, 10, 1, seed)


def states_equal(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


SHORT = Training(epochs=3, images=256, batch_size=64, lr=0.05)


def test_training_learns_and_leaves_evaluation_mode(digits):
    model, calls = net(), []
    before = train.error_rate(model, digits.test, digits)
    log = train.fit(
        model,
        digits,
        Training(epochs=6, batch_size=32, lr=0.1),
        0,
        progress=lambda *a: calls.append(a),
    )
    assert not any(m.training for m in model.modules())
    assert [e["epoch"] for e in log] == list(range(6)) == [c[0] for c in calls]
    assert log[-1]["loss"] < log[0]["loss"] / 2
    after = train.error_rate(model, digits.test, digits)
    assert before > 0.7 and after < 0.15  # chance is .9; four seeds gave at most .06


def test_every_epoch_trains_in_training_mode(digits):
    model = net()
    statistics = []

    def progress(epoch, loss, seconds):
        statistics.append(model.features[1].running_mean.clone())
        model.eval()  # what a caller's own evaluation would do

    train.fit(model, digits, SHORT, 0, progress=progress)
    assert not torch.equal(statistics[1], statistics[0]) and not torch.equal(
        statistics[2], statistics[1]
    )


def test_same_seed_same_bits_other_seed_other_bits(digits):
    runs = []
    for seed in (0, 0, 1):
        model = net()
        train.fit(model, digits, SHORT, seed)
        runs.append(model)
    assert states_equal(runs[0], runs[1]) and not states_equal(runs[0], runs[2])


@pytest.mark.parametrize("name", ["vgg-tiny", "resnet8"])
def test_interrupted_training_goes_on_to_the_same_bits(digits, tmp_path, name):
    whole, part, path = net(name), net(name), tmp_path / "training.safetensors"
    log = train.fit(whole, digits, SHORT, 0)

    def interrupt(epoch, loss, seconds):
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.fit(part, digits, SHORT, 0, progress=interrupt, checkpoint=path)
    assert os.listdir(tmp_path) == [path.name]
    epochs = []
    again = net(name, seed=5)  # other weights: all must come from the file
    resumed = train.fit(
        again, digits, SHORT, 0, progress=lambda e, *_: epochs.append(e), checkpoint=path
    )
    assert epochs == [2]
    assert states_equal(again, whole)
    assert [(e["loss"], e["train_error"]) for e in resumed] == [
        (e["loss"], e["train_error"]) for e in log
    ]
    # finished: read, not trained
    assert train.fit(net(name), digits, SHORT, 0, checkpoint=path) == resumed


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused(digits, tmp_path):
    path = tmp_path / "training.safetensors"
    recipe = dataclasses.replace(SHORT, epochs=1)
    train.fit(net(), digits, recipe, 0, checkpoint=path)
    for other, seed, name in (
        (dataclasses.replace(recipe, lr=0.01), 0, "vgg-tiny"),
        (recipe, 1, "vgg-tiny"),
        (recipe, 0, "resnet8"),
    ):
        with pytest.raises(train.CheckpointError, match="another training: delete it"):
            train.fit(net(name), digits, other, seed, checkpoint=path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(train.CheckpointError, match="is damaged: delete it"):
        train.fit(net(), digits, recipe, 0, checkpoint=path)


def test_a_checkpoint_without_generator_is_refused(digits, tmp_path):
    path = tmp_path / "training.safetensors"
    train.fit(net(), digits, dataclasses.replace(SHORT, epochs=1), 0, checkpoint=path)
    with safe_open(path, "pt") as file:
        tensors, header = (
            {key: file.get_tensor(key) for key in file.keys() if key != "generator"},
            file.metadata(),
        )
    save_file(tensors, path, header)
    with pytest.raises(train.CheckpointError, match="is damaged: delete it"):
        train.fit(net(), digits, dataclasses.replace(SHORT, epochs=1), 0, checkpoint=path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_keeps_the_last_checkpoint(digits, tmp_path):
    whole, path, part = (
        net(),
        tmp_path / "training.safetensors",
        tmp_path / "training.safetensors.part",
    )
    train.fit(whole, digits, SHORT, 0)
    written = []

    def fill(epoch, loss, seconds):
        if epoch == 1:
            written.append(path.read_bytes())
            part.symlink_to("/dev/full")

    with pytest.raises(OSError) as caught:  # which the command line answers with one line
        train.fit(net(), digits, SHORT, 0, progress=fill, checkpoint=path)
    assert caught.value.errno == errno.ENOSPC
    assert [path.read_bytes()] == written
    part.unlink(missing_ok=True)
    again = net(seed=5)
    train.fit(again, digits, SHORT, 0, checkpoint=path)
    assert states_equal(again, whole)


def test_a_checkpoint_can_be_read_by_others(digits, tmp_path):
    path, plain = tmp_path / "training.safetensors", tmp_path / "plain"
    train.fit(net(), digits, dataclasses.replace(SHORT, epochs=1), 0, checkpoint=path)
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode


def test_divergence_is_named_with_epoch_and_cure(digits, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    recipe = Training(epochs=3, images=128, batch_size=32, lr=0.1, schedule="constant")
    model[1].weight.data.fill_(1e38)
    with pytest.raises(train.TrainingDiverged, match="epoch 1 of 3: lower lr"):
        train.fit(model, digits, recipe, 0, checkpoint=tmp_path / "c")
    assert not model.training and not (tmp_path / "c").exists()


def test_a_last_batch_of_one_image_is_left_out_and_no_epochs_change_nothing(digits):
    model = net()
    log = train.fit(model, digits, Training(epochs=1, images=65, batch_size=32), 0)
    assert log[0]["train_error"] * 64 == pytest.approx(round(log[0]["train_error"] * 64), abs=1e-9)
    same = net()
    assert (
        train.fit(same, digits, Training(epochs=0), 0) == []
        and states_equal(same, net())
        and not same.training
    )


@pytest.mark.parametrize(
    "changes",
    [{"small_epochs": 2}, {"precision": "bfloat16"}, {"small_epochs": 2, "precision": "bfloat16"}],
)
@pytest.mark.parametrize("stopped", [0, 1])
def test_small_and_bfloat16_epochs_go_on_to_the_same_bits(digits, tmp_path, changes, stopped):
    # some processors emulate bfloat16, at a twentieth of the speed
    few = dataclasses.replace(SHORT, images=48, batch_size=16)
    recipe, path = dataclasses.replace(few, **changes), tmp_path / "training.safetensors"
    whole, plain = net("resnet8"), net("resnet8")
    train.fit(whole, digits, recipe, 0)
    train.fit(plain, digits, few, 0)
    assert not states_equal(whole, plain)  # the setting does something

    def interrupt(epoch, loss, seconds):
        if epoch == stopped:  # 0: in the small epochs, 1: between them and the others
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.fit(net("resnet8"), digits, recipe, 0, progress=interrupt, checkpoint=path)
    with pytest.raises(train.CheckpointError, match="another training"):
        train.fit(net("resnet8"), digits, few, 0, checkpoint=path)
    again = net("resnet8", seed=5)
    train.fit(again, digits, recipe, 0, checkpoint=path)
    assert states_equal(again, whole)


def test_sides_and_precision_of_each_epoch(digits):
    model, seen = net("resnet8"), []
    model.fc.register_forward_hook(lambda m, x, y: seen[-1].append(y.dtype))
    model.conv1.register_forward_pre_hook(
        lambda m, x: seen.append(
            [m.training, x[0].shape[-1], x[0].is_contiguous(memory_format=torch.channels_last)]
        )
    )
    recipe = Training(
        epochs=3, images=64, batch_size=64, lr=0.05, small_epochs=2, precision="bfloat16"
    )
    train.fit(model, digits, recipe, 0)
    # the first only asks whether 24 will do
    assert seen[1:] == [[True, side, True, torch.bfloat16] for side in (24, 24, 32)]
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32, torch.int64}
    train.error_rate(model, digits.test.first(10), digits)
    assert seen[-1] == [False, 32, True, torch.float32]


def test_bfloat16_trains_to_about_the_same_error(digits):
    errors = []
    for precision in (None, "bfloat16"):
        model = net("vgg-tiny")
        train.fit(model, digits, Training(epochs=4, batch_size=32, lr=0.1, precision=precision), 0)
        errors.append(train.error_rate(model, digits.test, digits))
    assert max(errors) < 0.1 and abs(errors[0] - errors[1]) < 0.04


@pytest.mark.parametrize("name", ["vgg16", "resnet8", "densenet10"])
def test_networks_that_can_read_the_images_of_small_epochs(name, digits):
    train.check_small(net(name), digits.train.x[:2].float())


def test_small_epochs_that_a_network_cannot_read_are_refused(digits, tmp_path):
    model = net("vgg-tiny")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(
        SettingsError,
        match="small_epochs: VGG cannot read images of 24 x 24 pixels; leave it unset",
    ) as caught:
        train.fit(
            model, digits, dataclasses.replace(SHORT, small_epochs=1), 0, checkpoint=tmp_path / "c"
        )
    assert "\n" not in str(caught.value) and not (tmp_path / "c").exists()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
def test_learning_rates(schedule):
    recipe = Training(lr=0.4, schedule=schedule)
    rates = [train.learning_rate(recipe, s, 100) for s in range(100)]
    assert 0 < min(rates) and max(rates) <= 0.4
    if schedule == "constant":
        assert set(rates) == {0.4}
    elif schedule == "cosine":
        assert rates == sorted(rates, reverse=True) and rates[0] > 0.399 and rates[-1] < 0.001
        assert sum(rates) / 100 == pytest.approx(0.2)
    else:
        assert 18 <= rates.index(max(rates)) <= 21 and rates[-1] < 0.01
        assert sum(rates) / 100 == pytest.approx(0.2, rel=0.01)  # the area of a triangle


def test_weight_decay_spares_biases_and_batch_norm():
    model = net("resnet8")
    decayed, spared = train.sgd(model, Training(weight_decay=0.1)).param_groups
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert {id(p) for p in decayed["params"]} == matrices and decayed["weight_decay"] == 0.1
    assert (
        len(spared["params"]) + len(decayed["params"]) == len(list(model.parameters()))
        and spared["weight_decay"] == 0
    )


def test_recalibration_is_the_mean_over_images():
    norm = nn.BatchNorm1d(3, momentum=0.3)
    model = nn.Sequential(norm, nn.Dropout(0.5))
    xs = [torch.randn(n, 3, generator=generator(n)) * n + n for n in (10, 20, 30)]
    judging.recalibrate(model, xs)
    torch.testing.assert_close(norm.running_mean, torch.cat(xs).mean(0))
    within = sum(len(x) * x.var(0) for x in xs) / 60
    torch.testing.assert_close(norm.running_var, within)
    assert norm.momentum == 0.3 and not norm.training


@pytest.mark.parametrize("batches", [1, 3, 7, 49])
def test_equal_batches_weigh_to_the_bit_as_they_always_did(batches):
    """The published runs recalibrate on equal ones."""
    assert [250 / (250 * k) for k in range(1, batches)] == [1 / k for k in range(1, batches)]
    model, xs = nn.BatchNorm1d(3), torch.randn(batches, 20, 3, generator=generator(0))
    judging.recalibrate(model, xs)
    like = nn.BatchNorm1d(3).train()
    for k, x in enumerate(xs, 1):
        like.momentum = 1 / k
        like(x)
    assert torch.equal(model.running_var, like.running_var)


def test_recalibration_forgets_old_statistics_and_touches_no_weight(digits):
    a, b = net("resnet8"), net("resnet8")
    for m in b.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.fill_(7.0), m.running_var.fill_(3.0)
    for model in (a, b):
        judging.recalibrate(
            model,
            [data.normalise(x, digits) for x, _ in data.batches(digits.train, 100, limit=200)],
        )
    assert states_equal(a, b)
    assert all(
        torch.equal(p, q) and p.grad is None
        for p, q in zip(a.parameters(), net("resnet8").parameters(), strict=True)
    )


def test_recalibration_keeps_dropout_off_and_restores_after_an_error():
    seen = []
    drop = nn.Dropout(0.5)
    drop.register_forward_hook(lambda m, i, o: seen.append(m.training))
    model = nn.Sequential(nn.BatchNorm1d(3), drop)
    with pytest.raises(RuntimeError):
        judging.recalibrate(model, [torch.rand(4, 3), torch.rand(4, 5)])
    assert seen == [False] and model[0].momentum == 0.1 and not model[0].training


def test_recalibration_without_batch_norm_or_batches_does_nothing():
    plain = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False))
    before = [p.clone() for p in plain.parameters()]
    judging.recalibrate(plain, [torch.rand(4, 3)])
    assert (
        all(torch.equal(p, q) for p, q in zip(before, plain.parameters(), strict=True))
        and not plain.training
    )
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(5)
    judging.recalibrate(norm, [])
    assert norm.running_mean.tolist() == [5, 5]


def test_errors_are_counted_over_incomplete_batches_too(digits):
    y = digits.test.y
    wrong = torch.zeros(300, dtype=torch.bool)
    wrong[[0, 5, 128, 299]] = True
    logits = nn.functional.one_hot((y + wrong) % 10, 10).float()
    parts = zip(logits.split(128), y.split(128), strict=True)
    count = judging.errors(lambda x: x, parts)
    assert isinstance(count, torch.Tensor) and count.dtype == torch.int64 and int(count) == 4
    logits[1] = float("nan")
    logits[1:3, y[2]] = float("nan")  # argmax would take NaN for the greatest
    assert int(judging.errors(lambda x: x, [(logits, y)])) == 6


def test_error_rate_uses_evaluation_mode_and_every_image(digits):
    class Probe(nn.Module):
        def forward(self, x):
            assert not self.training
            return torch.zeros(len(x), 10)  # argmax: class 0

    expected = float((digits.test.y != 0).double().mean())
    assert train.error_rate(Probe(), digits.test, digits, batch_size=77) == pytest.approx(expected)


def published(name: str):
    file = models.WEIGHTS["akamaster"][name].file
    if not any((p / "cifar-10-batches-py").is_dir() for p in data.folders()):
        pytest.skip("CIFAR-10 is in no data folder")
    if not any((p / "weights" / file).exists() for p in data.folders()):
        pytest.skip(f"{file} is in no data folder")
    return models.load_weights(name, "akamaster"), data.load("cifar10")


@pytest.mark.cifar
def test_published_resnet20_on_a_thousand_test_images():
    model, cifar = published("resnet20")
    # 8.27 % on all 10,000. The tolerance: two images that rounding may tip; a wrong normalisation
    # or layout costs far more.
    assert train.error_rate(model, cifar.test.first(1000), cifar) == pytest.approx(0.085, abs=0.002)


@pytest.mark.cifar
@pytest.mark.slow
def test_published_resnet56_scores_its_known_accuracy():
    model, cifar = published("resnet56")
    assert 1 - train.error_rate(model, cifar.test, cifar) == pytest.approx(0.9339, abs=0.0005)


@pytest.mark.cifar
@pytest.mark.slow
def test_recalibrating_the_intact_published_network_costs_it_little():
    model, cifar = published("resnet56")
    draws = generator()
    shuffled = data.batches(cifar.train, 250, draws, 2000)
    images = (data.normalise(data.augment(x, draws), cifar) for x, _ in shuffled)
    judging.recalibrate(model, images)
    # 7.05 % before; a normalising shortcut gave 11 %
    assert train.error_rate(model, cifar.test.first(2000), cifar) < 0.085
