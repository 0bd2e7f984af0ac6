"""Scores files whose arrays are sound and say what no scoring run says."""

import h5py
import numpy as np
import pytest
from scores_files import NAMES, SAMPLES, assert_refused, put

from edgeprune.scoring.scores_file import RECORD_TYPES


@pytest.mark.parametrize("raw", [b"", b"\0" * 8, b"\xff" * 40, b"\x02\0\0\0\0\0\0\0{}"])
def test_classifier_that_is_no_safetensors(second, raw):
    put(second, "classifier", np.frombuffer(raw, "u1"))
    assert_refused(second, "/classifier")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("classifier")])
@pytest.mark.parametrize("kind", ["<f8", "<i2", "S3"])
def test_an_array_of_another_type(sample, name, kind):
    with h5py.File(sample) as file:
        array = file[name][()].astype(kind)
    put(sample, name, array)
    assert_refused(sample, f"/{name}: not of type")


@pytest.mark.parametrize("value", ["text", np.array(["a", "b"], object)])
def test_a_tensor_that_is_text(sample, value):
    put(sample, "classifier/conv1.weight", value)
    assert_refused(sample, "/classifier/conv1.weight")


@pytest.mark.parametrize("name", [f"epochs/{name}" for name in RECORD_TYPES] + ["entropies/entropies"])
@pytest.mark.parametrize("change", ["wide", "flat", "scalar", "deep"])
def test_an_array_of_another_shape(sample, name, change):
    with h5py.File(sample) as file:
        array = file[name][()]
    changed = {
        "wide": np.hstack([array, array]),
        "flat": array.ravel(),
        "scalar": array[0, 0],
        "deep": array[None],
    }[change]
    put(sample, name, changed)
    assert_refused(sample, f"/{name} has the shape")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("samples/rows", np.arange(SAMPLES - 1)),
        ("samples/rows", np.arange(SAMPLES)[::-1].copy()),
        ("samples/rows", np.arange(SAMPLES) - 1),
        ("samples/rows", np.zeros(SAMPLES, int)),
        ("samples/rows", np.arange(SAMPLES)[None]),
        ("samples/labels", np.full(SAMPLES, -1)),
        ("samples/labels", np.array(3)),
        ("samples/final_entropies", np.zeros(SAMPLES + 1, "f4")),
        ("entropies/epochs", np.array([2])),
    ],
)
def test_arrays_that_disagree(sample, name, array):
    put(sample, name, array)
    assert_refused(sample, "damaged")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["epochs/margins", "entropies/entropies", "samples/final_entropies"])
def test_values_that_are_not_finite(sample, name, value):
    with h5py.File(sample) as file:
        array = file[name][()]
    array.flat[3] = value
    put(sample, name, array)
    assert_refused(sample, f"/{name} has values that are not finite")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b"9" * 10_000,
        b"{}",
        b'{"source": {}, "config": {}, "classifier": {"model": "resnet8"}}',
        b'{"source": {"sha256": 5}, "config": {}, "classifier": {"model": "resnet8"}}',
        b'{"source": {"sha256": "ab"}, "config": [], "classifier": {"model": "resnet8"}}',
        b'{"source": {"sha256": "ab"}, "config": {}, "classifier": {"model": null}}',
        b'{"source": "sha256", "config": {}, "classifier": "model"}',
    ],
)
def test_provenance_that_is_not_a_scoring_runs(sample, text):
    put(sample, "provenance", np.frombuffer(text, "u1") if text else np.zeros(0, "u1"))
    assert_refused(sample, "/provenance")
