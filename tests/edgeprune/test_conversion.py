import math

import numpy as np
import pytest

from edgeprune import BuildConfig, build_pack
from edgeprune.repack.convert import convert_pack
from edgeprune_formats import ConfigError, __version__, open_pack, verify_pack
from edgeprune_runtime import PackLoader


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs")
    build_pack(
        "digits", folder / "sparse.h5", BuildConfig(codec="sparse-f32", freq_prune=0.5, sample_prune=0.9)
    )
    quantized = BuildConfig(codec="quantized", quality=95, tile="8", sample_prune=0.9)
    build_pack("digits", folder / "quantized.h5", quantized)
    return folder


def images_of(path):
    return np.concatenate([images for images, _ in PackLoader(path, 64, backend="scipy")])


@pytest.mark.first_are_quick
@pytest.mark.parametrize("name", ["sparse", "quantized"])
@pytest.mark.parametrize(
    "config",
    [
        BuildConfig(codec="quantized", quality=90),
        BuildConfig(codec="quantized", quality=90, tile="16", color="rgb", rounding="deadzone"),
        BuildConfig(codec="sparse-f16"),
        BuildConfig(codec="sparse-f32", freq_prune=0.7, compression="gzip"),
    ],
)
def test_images_labels_and_origin_stay(packs, tmp_path, name, config, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    source, path = packs / f"{name}.h5", tmp_path / "p.h5"
    header, psnr = convert_pack(source, path, config)
    assert verify_pack(path) == []
    with open_pack(source) as old, open_pack(path) as new:
        assert new.labels.tolist() == old.labels.tolist()
        assert new.source_index.tolist() == old.source_index.tolist()
        assert new.header == header
        assert (header.created, header.generator) == ("2023-11-14T22:13:20Z", f"edgeprune {__version__}")
        assert old.header.created != header.created
        assert header.provenance["source"] == old.header.provenance["source"]
        assert new.header.provenance["converted"]["from"] == old.header.codec
        assert (header.mean, header.class_names) == (old.header.mean, old.header.class_names)
    error = np.mean((images_of(path) - images_of(source)).astype(np.float64) ** 2)
    assert -10 * math.log10(error) == pytest.approx(psnr, abs=0.05)
    assert psnr > 20


def test_exact_copies_are_exact(packs, tmp_path):
    _, psnr = convert_pack(
        packs / "sparse.h5", tmp_path / "p.h5", BuildConfig(codec="sparse-f32", compression="gzip")
    )
    assert math.isinf(psnr)
    np.testing.assert_array_equal(images_of(tmp_path / "p.h5"), images_of(packs / "sparse.h5"))


def test_a_pack_is_not_converted_onto_itself(packs):
    before = (packs / "sparse.h5").read_bytes()
    with pytest.raises(ConfigError, match="name another file"):
        convert_pack(packs / "sparse.h5", packs / "sparse.h5", BuildConfig())
    assert (packs / "sparse.h5").read_bytes() == before
