"""Data: shapes, fixed disjoint splits, augmentation by its own words, and errors that name the file
and the cure.
"""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch

from dpes.study import data


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_digits_have_the_promised_sizes_and_range(digits):
    assert [len(s) for s in (digits.train, digits.search, digits.test)] == [1197, 300, 300]
    assert len(digits.test) == data.TEST_IMAGES["digits"] and set(data.TEST_IMAGES) == set(
        data.DATASETS
    )
    assert (digits.channels, digits.n_classes, digits.flip) == (1, 10, False)
    for split in (digits.train, digits.search, digits.test):
        assert split.x.dtype == torch.uint8 and split.x.shape[1:] == (1, 32, 32)
        assert split.y.dtype == torch.int64 and set(split.y.tolist()) == set(range(10))
    assert digits.train.x.min() == 0 and digits.train.x.max() == 255


def test_splits_hold_every_digit_once_and_are_the_same_every_time(digits):
    from sklearn.datasets import load_digits

    together = torch.cat([digits.train.y, digits.search.y, digits.test.y])
    assert together.bincount().tolist() == np.bincount(load_digits().target).tolist()
    # Enlarging by 4 keeps block means up to rounding and the neighbours' weight: whole images stay
    # recognisable by their sums.
    sums = torch.cat(
        [s.x.double().sum((1, 2, 3)) for s in (digits.train, digits.search, digits.test)]
    )
    expected = torch.from_numpy(load_digits().images.sum((1, 2))) * 16 * 255 / 16
    torch.testing.assert_close(sums.sort().values, expected.sort().values, rtol=0.1, atol=0)
    again = data.load("digits")
    assert torch.equal(again.test.x, digits.test.x) and torch.equal(again.train.y, digits.train.y)


def test_normalised_training_images_have_mean_0_and_deviation_1(digits):
    x = data.normalise(digits.train.x, digits)
    assert x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last)
    assert abs(float(x.mean())) < 0.01 and abs(float(x.std()) - 1) < 0.01


def test_normalise_treats_channels_apart():
    three = torch.tensor([10, 100, 200], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    empty = data.Split(three, torch.zeros(1, dtype=torch.int64))
    dataset = data.Dataset("x", empty, empty, empty, (0.1, 0.2, 0.3), (1.0, 2.0, 4.0), True, ("a",))
    expected = torch.tensor([10 / 255 - 0.1, (100 / 255 - 0.2) / 2, (200 / 255 - 0.3) / 4])
    torch.testing.assert_close(data.normalise(three, dataset)[0, :, 5, 5], expected)


def test_first_is_a_view_and_none_is_all(digits):
    assert (
        len(digits.test.first(7)) == 7
        and digits.test.first(7).x.data_ptr() == digits.test.x.data_ptr()
    )
    assert digits.test.first(None) is digits.test
    assert digits.to("cpu").test.x.shape == digits.test.x.shape


def test_augmented_images_are_shifts_into_black_and_mirror_images():
    x = torch.zeros(400, 2, 8, 8, dtype=torch.uint8)
    x[:, 0, 3, 2] = 9  # one bright pixel: its place afterwards tells shift and mirror
    x[:, 1, 3, 2] = 5
    y = data.augment(x, generator(), flip=False, pad=2)
    assert y.shape == x.shape and y.dtype == torch.uint8
    places = [(r, c) for n in range(400) for r, c in y[n, 0].nonzero().tolist()]
    # 5 x 5 shifts, all of them
    assert set(places) == {(r, c) for r in range(1, 6) for c in range(0, 5)}
    assert torch.equal(y[:, 1] // 5, y[:, 0] // 9)  # channels move together
    mirrored = data.augment(x, generator(), flip=True, pad=0)[:, 0, 3]
    assert set(mirrored.argmax(1).tolist()) == {2, 5}
    assert 140 < int((mirrored.argmax(1) == 5).sum()) < 260  # 200 expected, 6 standard deviations


def test_a_shift_leaves_black_at_the_border():
    y = data.augment(torch.full((200, 1, 8, 8), 255, dtype=torch.uint8), generator(), pad=2)
    kept = (y > 0).sum((1, 2, 3))
    assert kept.min() == 36 and kept.max() == 64


def test_augmentation_is_decided_by_its_generator_alone(digits):
    x = digits.train.x[:20]
    before = torch.get_rng_state()
    assert torch.equal(data.augment(x, generator(3)), data.augment(x, generator(3)))
    assert not torch.equal(data.augment(x, generator(3)), data.augment(x, generator(4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_in_order_and_shuffled_hold_every_image_once(digits):
    ordered = list(data.batches(digits.test, 128))
    assert [len(y) for _, y in ordered] == [128, 128, 44]
    assert torch.equal(torch.cat([x for x, _ in ordered]), digits.test.x)
    shuffled = torch.cat([y for _, y in data.batches(digits.test, 128, generator())])
    assert not torch.equal(shuffled, digits.test.y)
    assert torch.equal(shuffled.bincount(), digits.test.y.bincount())


def test_limit_takes_the_first_or_a_random_choice(digits):
    assert torch.equal(
        torch.cat([y for _, y in data.batches(digits.test, 8, limit=20)]), digits.test.y[:20]
    )
    some = [
        torch.cat([x for x, _ in data.batches(digits.test, 8, generator(s), limit=20)])
        for s in (0, 0, 1)
    ]
    assert (
        len(some[0]) == 20 and torch.equal(some[0], some[1]) and not torch.equal(some[0], some[2])
    )
    assert sum(len(y) for _, y in data.batches(digits.test, 8, limit=10**6)) == 300


def test_images_and_labels_stay_together(digits):
    labels = {
        x.numpy().tobytes(): int(y) for x, y in zip(digits.test.x, digits.test.y, strict=True)
    }
    for xs, ys in data.batches(digits.test, 50, generator()):
        assert all(labels[x.numpy().tobytes()] == int(y) for x, y in zip(xs, ys, strict=True))


def test_unknown_name():
    with pytest.raises(data.DataError, match="did you mean 'cifar10'"):
        data.load("cifar-10")


def write_fashion(home, sizes=((6000, 60),)):
    home.mkdir(parents=True)
    (train, test) = sizes[0]
    rng = np.random.default_rng(0)
    for part, n in (("train", train), ("t10k", test)):
        x, y = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)
        for kind, a in (("images-idx3", x), ("labels-idx1", y)):
            header = bytes([0, 0, 8, a.ndim]) + np.array(a.shape, ">i4").tobytes()
            (home / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + a.tobytes(), 1))
    return x


def test_fashion_mnist_is_read_from_gzipped_idx_files_and_framed(tmp_path):
    home = tmp_path / "FashionMNIST" / "raw"
    test_images = write_fashion(home)
    d = data.load("fashion-mnist", folder=tmp_path)
    assert (len(d.train), len(d.search), len(d.test)) == (1000, 5000, 60)
    assert torch.equal(d.test.x[:, 0, 2:30, 2:30], torch.from_numpy(test_images))
    assert int(d.test.x[:, :, [0, 1, 30, 31]].sum() + d.test.x[..., [0, 1, 30, 31]].sum()) == 0

    file = home / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(data.DataError, match=f"{file.name} is damaged.*delete it"):
        data.load("fashion-mnist", folder=tmp_path)
    file.unlink()
    with pytest.raises(data.DataError, match="t10k-images-idx3-ubyte is missing"):
        data.load("fashion-mnist", folder=tmp_path)


def test_a_flipped_byte_of_fashion_mnist_is_noticed(tmp_path):
    home = tmp_path / "FashionMNIST" / "raw"
    write_fashion(home)
    file = home / "train-images-idx3-ubyte.gz"
    whole, name = file.read_bytes(), "train-images-idx3-ubyte"
    (home / name).write_bytes(b"unpacked beside it, and damaged")
    before = data.read_idx(home, name)
    for at in range(20, len(whole), len(whole) // 40):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(data.DataError, match=f"{file.name} is damaged"):
            data.read_idx(home, name)
    file.write_bytes(whole)
    assert np.array_equal(data.read_idx(home, name), before)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_damaged_or_missing_cifar_file_is_named_with_the_cure(tmp_path, name):
    base = tmp_path / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    base.mkdir()
    first = {"cifar10": "data_batch_1", "cifar100": "train"}[name]
    with pytest.raises(data.DataError, match=f"{first} is missing: delete the folder {base}"):
        data.load(name, folder=tmp_path)
    (base / first).write_bytes(b"no batch")
    with pytest.raises(data.DataError, match=f"{first} is damaged"):
        data.load(name, folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "where"), [("cifar10", "cifar-10-batches-py"), ("fashion-mnist", "raw")]
)
def test_a_failed_download_says_where_the_files_are_expected(tmp_path, monkeypatch, name, where):
    import torchvision.datasets as tv

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(tv, "CIFAR10", type("Offline", (tv.CIFAR10,), {"__init__": offline}))
    monkeypatch.setattr(tv, "FashionMNIST", offline)
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "nowhere")
    with pytest.raises(
        data.DataError, match=f"no network.*expected in {tmp_path}.*{where}"
    ) as caught:
        data.load(name, folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_folders_in_order_of_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPES_DATA", str(tmp_path / "mine"))
    assert [str(p) for p in data.folders()[:2]] == [str(tmp_path / "mine"), "data"]
    assert data.folders("only") == [data.Path("only")]
    monkeypatch.delenv("DPES_DATA")
    assert str(data.folders()[0]) == "data"


@pytest.mark.cifar
def test_cifar10_splits():
    if not any((p / "cifar-10-batches-py").is_dir() for p in data.folders()):
        pytest.skip("CIFAR-10 is in no data folder")
    d = data.load("cifar10")
    assert [len(s) for s in (d.train, d.search, d.test)] == [45_000, 5_000, 10_000]
    assert (d.channels, d.n_classes, d.flip) == (3, 10, True)
    assert torch.cat([d.train.y, d.search.y]).bincount().tolist() == [5000] * 10
    assert d.test.y.bincount().tolist() == [1000] * 10
    # cat, ship, ship, airplane, frog: the well-known first five
    assert d.test.y[:5].tolist() == [3, 8, 8, 0, 6]
    assert 400 < d.search.y.bincount().min() and d.search.y.bincount().max() < 600
    assert d.classes[3] == "cat"
    # A mix-up of rows and channels would not keep the known channel means of the training images.
    means = torch.cat([d.train.x, d.search.x]).double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(
        means, torch.tensor([0.4914, 0.4822, 0.4465], dtype=torch.float64), atol=1e-4, rtol=0
    )
