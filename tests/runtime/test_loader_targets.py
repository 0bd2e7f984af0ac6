import json
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
import torch
from target_packs import NAMES, columns_of, target_pack
from torch.utils.data import DataLoader

from edgeprune_formats import ConfigError, PackWriter, open_pack
from edgeprune_runtime import PackDataset, PackLoader

ALL = ("kind", "tags", "value", "soft", "file", "row", "weight")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return target_pack(tmp_path_factory.mktemp("packs") / "pack.h5")


@pytest.mark.parametrize(("backend", "prefetch"), [("torch", 2), ("torch", 0), ("scipy", 0)])
def test_batches_have_the_columns_of_their_images(path, backend, prefetch):
    loader = PackLoader(
        path, 5, True, 3, backend=backend, device="cpu", prefetch=prefetch, targets=("label", *ALL)
    )
    assert [column.name for column in loader.targets] == ["label", *ALL]
    seen = []
    for images, label, kind, tags, value, soft, file, row, weight in loader:
        levels = np.asarray(images).mean(axis=(1, 2, 3))
        np.testing.assert_array_equal(label, kind)
        np.testing.assert_allclose(np.asarray(value)[:, 0], 100 * levels, atol=1e-2)
        np.testing.assert_allclose(np.asarray(soft)[:, 1], 1 - levels, atol=1e-3)
        np.testing.assert_allclose(weight, levels / 2, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(tags)[:, 1], levels >= 0.5)
        assert file == [f"{number}.jpg" for number in np.asarray(row)]
        seen += np.asarray(row).tolist()
    assert sorted(seen) == list(range(24))
    assert seen != list(range(24))
    if backend == "torch":
        assert (tags.dtype, value.dtype, row.dtype) == (torch.bool, torch.float32, torch.int64)


def test_without_targets_batches_are_images_alone(path):
    assert all(len(batch) == 1 for batch in PackLoader(path, 8, targets=(), device="cpu"))
    assert len(PackDataset(path, targets=(), backend="scipy")[3]) == 1


def test_by_default_batches_are_images_and_labels(path):
    images, labels = next(iter(PackLoader(path, 8, device="cpu")))
    assert (len(images), labels.dtype) == (8, torch.int64)


def test_a_dataset_has_the_columns_as_well(path):
    data = PackDataset(path, targets=("value", "file", "row", "tags"))
    _, value, file, row, tags = data[5]
    assert (file, row, value.shape, tags.dtype) == ("5.jpg", 5, (2,), bool)
    _, values, files, rows, _ = data[[3, 1]]
    assert (rows.tolist(), files.tolist(), values.shape) == ([3, 1], ["3.jpg", "1.jpg"], (2, 2))
    batch = next(iter(DataLoader(data, batch_size=4)))
    assert batch[1].shape == (4, 2)
    assert batch[2] == ("0.jpg", "1.jpg", "2.jpg", "3.jpg")


def test_several_packs(path, tmp_path):
    other = target_pack(tmp_path / "other.h5", samples=11, seed=5, first=100)
    loader = PackLoader([path, other], 6, True, device="cpu", targets=("value", "row", "file"))
    rows = []
    for images, value, row, file in loader:
        np.testing.assert_allclose(value[:, 0], 100 * images.mean(dim=(1, 2, 3)), atol=1e-2)
        assert file == [f"{number}.jpg" for number in row.tolist()]
        rows += row.tolist()
    assert sorted(rows) == [*range(24), *range(100, 111)]


def test_several_packs_of_other_kinds(path, tmp_path):
    alike = target_pack(tmp_path / "a.h5", samples=5, columns=("value",))
    with pytest.raises(ConfigError, match=r"a\.h5: has no target 'kind'; those it has: label, value"):
        PackLoader([path, alike], targets=("kind",))


def test_labels_of_several_packs_are_of_all_their_classes(path, tmp_path):
    names = ("zebra", NAMES[1], unicodedata.normalize("NFD", NAMES[2]))
    other = target_pack(tmp_path / "other.h5", samples=11, seed=5, first=100, class_names=names)
    loader = PackLoader([path, other], 6, True, device="cpu", targets=("row", "label", "kind"))
    assert loader.targets[1].classes == (*NAMES, "zebra")
    assert loader.targets[2].classes == NAMES
    for _, row, label, kind in loader:
        wanted = [3 if number >= 100 and own == 0 else own for number, own in zip(row, kind, strict=True)]
        assert label.tolist() == wanted
    strong = PackLoader([path, other], 6, device="cpu", backend="torch", augment="strong")
    assert next(iter(strong))[1].shape == (6, 4)


def test_other_columns_of_several_packs_must_have_the_same_classes(path, tmp_path):
    columns = [
        replace(one, column=replace(one.column, classes=one.column.classes[::-1]))
        for one in columns_of(np.random.default_rng(5).random(11))[:1]
    ]
    other = tmp_path / "other.h5"
    pack = open_pack(target_pack(tmp_path / "plain.h5", samples=11, seed=5))
    with PackWriter(other, pack.header, pack.labels, pack.source_index, targets=columns) as writer:
        for chunk in range(pack.header.chunks):
            writer.append_coefficients(pack.read_chunk(chunk))
    with pytest.raises(ConfigError, match=r"other\.h5: target 'kind' has other classes, or another order"):
        PackLoader([path, other], targets=("kind",))
    assert len(PackLoader([path, other], 35)) == 1


def test_packs_with_and_without_classes_are_not_mixed(path, tmp_path):
    bare = target_pack(tmp_path / "bare.h5", class_names=(), columns=("value",))
    for packs in ([path, bare], [bare, path]):
        with pytest.raises(ConfigError, match=r"bare\.h5: has no classes, and .*pack\.h5 has"):
            PackLoader(packs, targets=("value",))
    assert len(PackLoader([bare, bare], 48, targets=("value",), device="cpu")) == 1


def test_a_column_that_is_missing(path):
    with pytest.raises(
        ConfigError, match="has no target 'age'; those it has: label, kind, tags, value, soft"
    ):
        PackLoader(path, targets=("age",))
    with pytest.raises(ConfigError, match="has no target 'age'"):
        PackDataset(path, targets=("age",))
    with pytest.raises(ConfigError, match="sequence of names"):
        PackLoader(path, targets="kind")


def test_a_pack_without_classes(tmp_path):
    path = target_pack(tmp_path / "pack.h5", class_names=(), columns=("value",))
    with pytest.raises(ConfigError, match="has no target 'label'; those it has: value"):
        PackLoader(path)
    assert len(list(PackLoader(path, 24, targets=("value",)))) == 1
    for packs in (path, [path, path]):
        with pytest.raises(ConfigError, match=r"goes by the class, and images of .*pack\.h5 have none"):
            PackLoader(packs, 24, shuffle=True, sampling="balanced", targets=("value",))


def test_a_state_is_of_its_targets(path):
    loader = PackLoader(path, 5, targets=("value",), device="cpu")
    next(iter(loader))
    state = json.loads(json.dumps(loader.state_dict()))
    again = PackLoader(path, 5, targets=("value",), device="cpu")
    again.load_state_dict(state)
    assert len(list(again)) == 4
    with pytest.raises(ConfigError, match="targets was"):
        PackLoader(path, 5, device="cpu").load_state_dict(state)
    del state["targets"]
    PackLoader(path, 5, device="cpu").load_state_dict(state)


def with_other_values(path, name, other):
    """Write the pack with the values of one column in another order."""
    pack = open_pack(path)
    columns = [
        replace(one, values=one.values[::-1]) if one.column.name == name else one
        for one in pack.take_targets()
    ]
    with PackWriter(other, pack.header, pack.labels, pack.source_index, targets=columns) as writer:
        for chunk in range(pack.header.chunks):
            writer.append_coefficients(pack.read_chunk(chunk))
    return other


@pytest.mark.first_are_quick(4)
@pytest.mark.parametrize("name", ["kind", "tags", "value", "file"])
@pytest.mark.parametrize("several", [False, True])
def test_a_state_is_of_the_values_of_its_targets(path, tmp_path, name, several):
    other = with_other_values(path, name, tmp_path / "other.h5")
    ours, theirs = ([path, path], [path, other]) if several else (path, other)
    loader = PackLoader(ours, 5, targets=("label", name), device="cpu")
    state = json.loads(json.dumps(loader.state_dict()))
    PackLoader(ours, 5, targets=("label", name), device="cpu").load_state_dict(state)
    changed = PackLoader(theirs, 5, targets=("label", name), device="cpu")
    with pytest.raises(ConfigError, match="cannot resume: targets_content was"):
        changed.load_state_dict(state)
    # States of before it was recorded go on, and columns that are not trained on may be others.
    del state["targets_content"]
    changed.load_state_dict(state)
    labels = PackLoader(ours, 5, device="cpu").state_dict()
    assert "targets_content" not in labels
    PackLoader(theirs, 5, device="cpu").load_state_dict(labels)
