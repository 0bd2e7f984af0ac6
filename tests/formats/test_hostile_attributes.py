import h5py
import numpy as np
import pytest

from edgeprune_formats import NotAPackError, PackLayoutError, PackLimitError, verify_pack

INTEGERS = ("samples", "channels", "height", "width", "components", "chunk_samples")
TEXTS = ("format_version", "generator", "created", "codec", "transform", "block", "color_space")
FLOATS = ("mean", "std")

WRONG_FOR_INTEGER = {
    "float": 7.0,
    "text": np.bytes_("7"),
    "variable-length text": "7",
    "bool": True,
    "array of one": np.array([7]),
    "empty": h5py.Empty("i8"),
    "float empty": h5py.Empty("f8"),
    "compound": np.array((1, 2), "i4,i4"),
    "array type": np.zeros((), np.dtype(("i8", (2,)))),
}
WRONG_FOR_TEXT = {
    "integer": 7,
    "variable-length": "text",
    "array of texts": np.array([b"a", b"b"]),
    "empty": h5py.Empty("S4"),
    "not UTF-8": np.bytes_(b"\xff\xfe"),
    "too long": np.bytes_(b"x" * 4097),
    "opaque": np.void(b"text"),
}
WRONG_FOR_FLOATS = {
    "integers": np.array([1, 2, 3]),
    "scalar": 0.5,
    "two": np.array([0.5, 0.5]),
    "four": np.full(4, 0.5),
    "row": np.full((1, 3), 0.5),
    "texts": np.array([b"1", b"2", b"3"]),
    "empty": h5py.Empty("f8"),
}


def set_attribute(path, name, value):
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value


@pytest.mark.parametrize("name", [*INTEGERS, *TEXTS, *FLOATS])
def test_missing(tools, sample, name):
    with h5py.File(sample.path, "r+") as file:
        del file.attrs[name]
    tools.assert_refused(sample.path, PackLayoutError, f"/ attribute {name}: missing")


def test_format_missing(tools, sample):
    with h5py.File(sample.path, "r+") as file:
        del file.attrs["format"]
    tools.assert_refused(sample.path, NotAPackError, "/")


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRONG_FOR_INTEGER)
@pytest.mark.parametrize("name", INTEGERS)
def test_wrong_integer(tools, sample, name, kind):
    set_attribute(sample.path, name, WRONG_FOR_INTEGER[kind])
    tools.assert_refused(sample.path, PackLayoutError, f"/ attribute {name}: ")


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRONG_FOR_TEXT)
@pytest.mark.parametrize("name", TEXTS)
def test_wrong_text(tools, sample, name, kind):
    set_attribute(sample.path, name, WRONG_FOR_TEXT[kind])
    tools.assert_refused(sample.path, PackLayoutError, f"/ attribute {name}: ")


@pytest.mark.parametrize("kind", WRONG_FOR_FLOATS)
@pytest.mark.parametrize("name", FLOATS)
def test_wrong_floats(tools, sample, name, kind):
    set_attribute(sample.path, name, WRONG_FOR_FLOATS[kind])
    tools.assert_refused(sample.path, PackLayoutError, f"/ attribute {name}: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", 0),
        ("samples", -1),
        ("samples", 2**31),
        ("samples", 2**63 - 1),
        ("samples", np.uint64(2**64 - 1)),
        ("height", 0),
        ("height", -12),
        ("height", 65537),
        ("height", 2**62),
        ("width", 0),
        ("width", 65537),
        ("components", 0),
        ("components", -1),
        ("components", 241),
        ("components", 2**62),
        ("chunk_samples", 0),
        ("chunk_samples", -3),
        ("chunk_samples", 8),
        ("chunk_samples", 2**62),
    ],
)
def test_number_out_of_range(tools, sample, name, value):
    set_attribute(sample.path, name, value)
    tools.assert_refused(sample.path, PackLimitError, f"/ attribute {name}: {value} is not between")


@pytest.mark.parametrize("value", [-3, 0, 1, 4, 2**62])
def test_wrong_number_of_channels(tools, sample, value):
    set_attribute(sample.path, "channels", value)
    with h5py.File(sample.path, "r+") as file:
        count = max(0, min(value, 3))
        file.attrs["mean"] = np.full(count, 0.5)
        file.attrs["std"] = np.full(count, 0.5)
    problems = verify_pack(sample.path, isolated=False)
    assert problems
    assert {problem.kind for problem in problems} <= {"layout", "limit"}


def test_image_too_large(tools, sample):
    set_attribute(sample.path, "height", 2**16)
    set_attribute(sample.path, "width", 2**16)
    tools.assert_refused(sample.path, PackLimitError, "/ attribute height: an image of (3, 65536, 65536)")


def test_chunk_too_large(tools, sample):
    for name, value in {"samples": 2**31 - 1, "chunk_samples": 2**31 - 1}.items():
        set_attribute(sample.path, name, value)
    tools.assert_refused(sample.path, PackLimitError, "/ attribute chunk_samples: a chunk of")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("color_space", np.bytes_("ycbcr")),
        ("color_space", np.bytes_("")),
        ("transform", np.bytes_("dct-iv")),
        ("block", np.bytes_("8x8")),
        ("mean", np.array([0.5, np.nan, 0.5])),
        ("mean", np.array([0.5, np.inf, 0.5])),
        ("std", np.array([0.5, 0.0, 0.5])),
        ("std", np.array([0.5, -0.1, 0.5])),
        ("std", np.array([0.5, np.nan, 0.5])),
        ("std", np.array([0.5, 0.5, -np.inf])),
    ],
)
def test_value_not_allowed(tools, sample, name, value):
    set_attribute(sample.path, name, value)
    tools.assert_refused(sample.path, PackLayoutError, f"/ attribute {name}: ")


@pytest.mark.parametrize("dtype", [">i8", "<i4", "<u2", "|u1"])
def test_any_integer_type_will_do(tools, sample, dtype):
    for name in INTEGERS:
        set_attribute(sample.path, name, np.array(getattr(sample.header, name), dtype))
    np.testing.assert_array_equal(tools.read_dense(sample.path), sample.dense)


def test_verify_lists_every_attribute(sample):
    with h5py.File(sample.path, "r+") as file:
        file.attrs["samples"] = "seven"
        file.attrs["std"] = 0.5
        del file.attrs["codec"], file.attrs["created"]
        del file["class_names"]
    found = [problem.location for problem in verify_pack(sample.path, isolated=False)]
    assert sorted(found) == [
        "/ attribute codec",
        "/ attribute created",
        "/ attribute samples",
        "/ attribute std",
        "/class_names",
    ]


def test_verify_lists_every_value_out_of_range(sample):
    with h5py.File(sample.path, "r+") as file:
        file.attrs["components"] = 0
        file.attrs["chunk_samples"] = 100
        file.attrs["std"] = np.zeros(3)
        file.attrs["block"] = np.bytes_("tiles")
        file.attrs["codec"] = np.bytes_("unheard-of")
    found = [problem.location for problem in verify_pack(sample.path, isolated=False)]
    assert sorted(found) == [
        f"/ attribute {n}" for n in ("block", "chunk_samples", "codec", "components", "std")
    ]
