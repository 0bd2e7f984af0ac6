"""A codec that the packages do not know is one file: it is registered, and all else follows."""

import zlib

import numpy as np
import pytest
from scipy.fft import idctn

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.repack.convert import convert_pack
from edgeprune.repack.merge import merge_packs
from edgeprune.report.preview import kept_components
from edgeprune_formats import ConfigError, PackLayoutError, codecs, open_pack, verify_pack
from edgeprune_formats.codecs import Codec, ContentError, Field
from edgeprune_formats.coefficients import QuantizedCoefficients, SparseCoefficients
from edgeprune_formats.tiles import to_tiles
from edgeprune_runtime import PackLoader

SAMPLES, SIZE = 23, (21, 13)


class Inflating(Codec):
    """A stream that `_unpacked` makes two arrays of."""

    def fields(self, header):
        return (Field("zipped", np.dtype("u1"), None),)

    def problems(self, header, arrays):
        return []

    def _packed(self, *arrays):
        raw = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        return {"zipped": np.frombuffer(zlib.compress(raw), np.uint8)}

    def encode_coefficients(self, header, coefficients):
        return self._packed(*coefficients.arrays)

    def decode(self, header, arrays, samples):
        found = self.layout.empty(header, samples)
        try:
            raw = zlib.decompress(arrays["zipped"].tobytes())
        except zlib.error as error:
            raise ContentError("zipped", str(error)) from None
        first, second = found.arrays
        if len(raw) != first.nbytes + second.nbytes:
            raise ContentError("zipped", f"{len(raw)} B")
        first[...] = np.frombuffer(raw[: first.nbytes], first.dtype).reshape(first.shape)
        second[...] = np.frombuffer(raw[first.nbytes :], second.dtype).reshape(second.shape)
        return found


class ZippedSpectra(Inflating):
    """Kept coefficients of whole images, exactly."""

    name = "test-zipped-spectra"
    exact = True

    def encode(self, header, spectra, mask, *, rounding="rdo"):
        single = codecs.get_codec("sparse-f32").encode(header, spectra, mask)
        return self._packed(single["values"], single["indices"])


class ZippedTiles(Inflating):
    """Integers of tiles."""

    name = "test-zipped-tiles"
    layout = QuantizedCoefficients
    tiles = ("full", "8")

    def encode(self, header, spectra, mask, *, rounding="rdo"):
        kept = np.where(mask, spectra, np.float32(0))
        values = to_tiles(kept, header.tile_shape, header.grid, header.color_space) / header.step
        extents = np.full(values.shape[:3], sum(header.tile_shape) - 2, "<u2")
        return self._packed(np.rint(values).astype("<i2"), extents)


KINDS = [
    (ZippedSpectra(), {"freq_prune": 0.25}),
    (ZippedTiles(), {"quality": 90}),
    (ZippedTiles(), {"quality": 90, "tile": "8"}),
]


@pytest.fixture(params=KINDS, ids=["sparse", "whole", "tiles"])
def config(request):
    codec, options = request.param
    codecs.register(codec)
    yield BuildConfig(codec=codec.name, **options)
    codecs._CODECS.pop(codec.name)


@pytest.fixture
def source(tmp_path):
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 200, SIZE[1])[None, None, :, None]
    images = (random.random((SAMPLES, *SIZE, 3)) * 50 + ramp).astype(np.uint8)
    np.savez(tmp_path / "images.npz", x=images, y=np.arange(SAMPLES) % 3)
    return open_source(f"npz:{tmp_path / 'images.npz'}")


@pytest.fixture
def built(source, config, tmp_path):
    return build_pack(source, tmp_path / "pack.h5", config)


def images_of(path, backend):
    return np.concatenate([np.asarray(images) for images, _ in PackLoader(path, 7, backend=backend)])


def pixels_by_the_book(pack):
    """The images, float64 [N, C, H, W], from what the chunks hold in memory."""
    header = pack.header
    chunks = [pack.read_chunk(chunk) for chunk in range(header.chunks)]
    tiles = np.concatenate([chunk.to_tiles(header) for chunk in chunks]).astype(float)
    matrix, shift = chunks[0].color_transform(header)
    parts = tiles.reshape(len(pack), 3, *header.grid, *header.tile_shape)
    pixels = idctn(parts, axes=(4, 5), norm="ortho").swapaxes(3, 4)
    sides = [count * side for count, side in zip(header.grid, header.tile_shape, strict=True)]
    planes = pixels.reshape(len(pack), 3, *sides)[..., : header.height, : header.width]
    return np.einsum("ij,njhw->nihw", matrix, planes + shift[:, None, None])


def test_a_pack_is_built_verified_and_read(built, source, config):
    assert verify_pack(built.path) == []
    with open_pack(built.path) as pack:
        assert pack.header.codec == config.codec
        assert isinstance(pack.read_chunk(0), codecs.get_codec(config.codec).layout)
        originals = source.read(pack.source_index) / 255
        assert np.sqrt(np.mean((pixels_by_the_book(pack) - originals) ** 2)) < 0.04
    assert 30 < built.psnr < 60


@pytest.mark.first_are_quick(3)
@pytest.mark.parametrize("backend", ["scipy", "torch"])
def test_every_backend_decodes_it(built, backend):
    with open_pack(built.path) as pack:
        np.testing.assert_allclose(images_of(pack, backend), pixels_by_the_book(pack), atol=1e-5)


@pytest.mark.first_are_quick
def test_it_is_converted_merged_and_drawn(built, source, config, tmp_path):
    _, psnr = convert_pack(built.path, tmp_path / "known.h5", BuildConfig(codec="sparse-f32", freq_prune=0.0))
    assert psnr > 120
    np.testing.assert_allclose(
        images_of(tmp_path / "known.h5", "scipy"), images_of(built.path, "scipy"), atol=1e-5
    )
    build_pack(source, tmp_path / "other.h5", config)
    merged = merge_packs([built.path, tmp_path / "other.h5"], tmp_path / "both.h5", allow_duplicates=True)
    assert merged.header.samples == 2 * SAMPLES
    assert verify_pack(tmp_path / "both.h5") == []
    with open_pack(built.path) as pack:
        assert kept_components(pack.read_chunk(0), pack.header).shape[1:] == (*SIZE, 3)


def test_its_own_defects_are_reported(built, config):
    pack, empty = open_pack(built.path), np.frombuffer(zlib.compress(b""), np.uint8)
    with pytest.raises(PackLayoutError, match=r"/samples/zipped chunk 0: 0 B"):
        pack.decode_payload(0, {"zipped": empty})


def test_what_it_does_not_declare_is_refused():
    codecs.register(ZippedTiles())
    try:
        for options in ({"tile": "16"}, {"color": "ycbcr"}):
            with pytest.raises(ConfigError, match=f"`{next(iter(options))}` must be one of"):
                BuildConfig(codec=ZippedTiles.name, **options)
    finally:
        codecs._CODECS.pop(ZippedTiles.name)
    assert ZippedSpectra.layout is SparseCoefficients
