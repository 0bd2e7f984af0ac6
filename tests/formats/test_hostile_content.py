import h5py
import numpy as np
import pytest

from edgeprune_formats import PackChecksumError, PackLayoutError, PackLimitError, open_pack, verify_pack


def change(tools, sample, name, *edits):
    """Assign within a codec's dataset and make its checksums right again."""
    with h5py.File(sample.path, "r+") as file:
        for where, value in edits:
            file["samples"][name][where] = value
        tools.seal(file, name)


@pytest.fixture
def spectrum(tools, tmp_path):
    """Make a pack whose one spectrum keeps 3 components and put these positions into it."""

    def build(height, width, positions, bits):
        header = tools.header(
            samples=1, height=height, width=width, components=len(positions), chunk_samples=1
        )
        made = tools.write(tmp_path / "p.h5", header)
        packed = [row << bits | column for row, column in positions]
        change(tools, made, "indices", ((0, 1), packed))
        return made

    return build


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["sample", "gzip_sample"])
def test_value_not_finite(tools, request, kind, value):
    damaged = request.getfixturevalue(kind)
    change(tools, damaged, "values", ((4, 1, 7), value))
    tools.assert_refused(damaged.path, PackLayoutError, "/samples/values chunk 1: ", "NaN or infinite")


@pytest.mark.parametrize("positions", [(5, 3), (39, 38), (1, 0)], ids=str)
def test_indices_not_ascending(tools, sample, positions):
    with h5py.File(sample.path, "r") as file:
        stored = file["samples/indices"][6, 2].copy()
    stored[list(positions)] = stored[list(positions[::-1])]
    change(tools, sample, "indices", ((6, 2), stored))
    tools.assert_refused(sample.path, PackLayoutError, "/samples/indices chunk 2: ", "ascending")


@pytest.mark.parametrize("place", [0, 20, 38])
def test_index_repeated(tools, sample, place):
    with h5py.File(sample.path, "r") as file:
        again = file["samples/indices"][3, 0, place]
    change(tools, sample, "indices", ((3, 0, place + 1), again))
    tools.assert_refused(sample.path, PackLayoutError, "/samples/indices chunk 1: ", "ascending")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width", "bits", "position"),
    [
        (12, 20, 5, (12, 0)),
        (12, 20, 5, (15, 19)),
        (12, 20, 5, (2047, 31)),
        (12, 20, 5, (11, 20)),
        (12, 20, 5, (11, 31)),
        (32, 32, 5, (32, 0)),
        (32, 32, 5, (2047, 31)),
        (33, 31, 5, (33, 0)),
        (33, 31, 5, (32, 31)),
        (300, 300, 9, (300, 0)),
        (300, 300, 9, (299, 300)),
        (300, 300, 9, (2**23 - 1, 511)),
        (1, 1, 0, (1, 0)),
        (5, 1, 0, (5, 0)),
        (1, 5, 3, (0, 5)),
    ],
)
def test_last_index_outside_the_spectrum(tools, spectrum, height, width, bits, position):
    few = [(0, 0)] if width * height == 1 or width == 1 or height == 1 else [(0, 0), (0, 3)]
    made = spectrum(height, width, [*few[: width * height - 1], position], bits)
    tools.assert_refused(
        made.path, PackLayoutError, "/samples/indices chunk 0: ", f"outside the {height}x{width} spectrum"
    )


@pytest.mark.parametrize(("column", "after"), [(20, (7, 0)), (31, (7, 0)), (25, (6, 30))])
def test_earlier_index_in_a_column_that_is_not_there(tools, spectrum, column, after):
    made = spectrum(12, 20, [(0, 3), (6, column), after], 5)
    tools.assert_refused(made.path, PackLayoutError, "/samples/indices chunk 0: ", "outside the 12x20")


def test_column_that_is_not_there_behind_larger_indices_of_other_images(tools, sample):
    packed = [*range(20), 25, *range(32, 51)]
    change(tools, sample, "indices", ((4, 1), packed))
    tools.assert_refused(sample.path, PackLayoutError, "/samples/indices chunk 1: ", "outside the 12x20")


@pytest.mark.parametrize(("height", "width", "bits"), [(12, 20, 5), (33, 31, 5), (300, 300, 9), (1, 1, 0)])
def test_last_index_of_the_spectrum_is_allowed(tools, spectrum, height, width, bits):
    made = spectrum(height, width, [(height - 1, width - 1)], bits)
    assert verify_pack(made.path, isolated=False) == []
    assert tools.read_dense(made.path)[0, 1, -1, -1] != 0


@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1, -(2**31)])
def test_label_outside_the_classes(tools, sample, label):
    with h5py.File(sample.path, "r+") as file:
        tools.put(file, "labels", np.array([0, 1, 2, label, 0, 1, 2], "<i4"))
    tools.assert_refused(sample.path, PackLayoutError, "/labels: ", "outside 0..2")


def test_fewer_class_names_than_labels(tools, sample):
    with h5py.File(sample.path, "r+") as file:
        tools.put(file, "class_names", np.array([b"ant", b"bee"]))
    tools.assert_refused(sample.path, PackLayoutError, "/labels: ", "outside 0..1")


def test_no_class_names(tools, sample):
    with h5py.File(sample.path, "r+") as file:
        tools.put(file, "class_names", np.empty(0, "S3"))
    tools.assert_refused(sample.path, PackLimitError, "/class_names: ")


def test_class_name_not_utf8(tools, sample):
    with h5py.File(sample.path, "r+") as file:
        tools.put(file, "class_names", np.array([b"ant", b"\xff\xfe", b"cat"]))
    tools.assert_refused(sample.path, PackLayoutError, "/class_names: ", "UTF-8")


def test_negative_source_row(tools, sample):
    with h5py.File(sample.path, "r+") as file:
        tools.put(file, "source_index", np.array([0, 1, -1, 3, 4, 5, 6], "<i8"))
    tools.assert_refused(sample.path, PackLayoutError, "/source_index: ", "negative")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_score_not_finite(tools, sample, value):
    with h5py.File(sample.path, "r+") as file:
        tools.put(file, "scores", np.array([0, 1, 2, 3, 4, 5, value], "<f4"))
    tools.assert_refused(sample.path, PackLayoutError, "/scores: ", "NaN or infinite")


def test_damaged_scores_stop_only_those_who_ask_for_them(tools, sample):
    with h5py.File(sample.path, "r") as file:
        offset = file["scores"].id.get_offset()
    tools.flip(sample.path, offset)
    with open_pack(sample.path, isolated=False) as pack:
        assert pack.labels.tolist() == sample.labels.tolist()
        for _ in range(2):
            with pytest.raises(PackChecksumError, match="/scores: does not match its checksum"):
                _ = pack.scores
    np.testing.assert_array_equal(tools.read_dense(sample.path), sample.dense)


@pytest.mark.parametrize(
    "text",
    [b"[1, 2]", b"3", b"null", b"{", b"", b"{'a': 1}", b"\xff{}", b"[" * 9000],
    ids=lambda t: repr(t[:8]),
)
def test_provenance_not_a_json_object(tools, sample, text):
    with h5py.File(sample.path, "r+") as file:
        tools.put(file, "provenance", np.array(text, f"S{max(1, len(text))}"))
    tools.assert_refused(sample.path, PackLayoutError, "/provenance: ", "JSON")


def test_provenance_nested_too_deep_to_parse(tools, sample):
    with h5py.File(sample.path, "r+") as file:
        text = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
        tools.put(file, "provenance", np.array(text, f"S{len(text)}"))
    tools.assert_refused(sample.path, PackLayoutError, "/provenance: ", "JSON")


@pytest.mark.parametrize("number", ["1" + "0" * 5000, "1e999"])
def test_provenance_with_a_number_beyond_reason(tools, sample, number):
    with h5py.File(sample.path, "r+") as file:
        text = f'{{"seed": {number}}}'.encode()
        tools.put(file, "provenance", np.array(text, f"S{len(text)}"))
    problems = verify_pack(sample.path, isolated=False)
    assert [p.location for p in problems] in ([], ["/provenance"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sample", "gzip_sample"])
@pytest.mark.parametrize("name", ["values", "indices"])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_flipped_byte_in_a_chunk(tools, request, kind, name, where):
    damaged = request.getfixturevalue(kind)
    offset, size = tools.chunk_place(damaged.path, name, 1)
    tools.flip(damaged.path, offset + {"first": 0, "middle": size // 2, "last": size - 1}[where])
    tools.assert_refused(damaged.path, PackChecksumError, f"/samples/{name} chunk 1: ", "copy the file again")


@pytest.mark.parametrize("name", ["labels", "source_index", "class_names", "provenance", "scores"])
@pytest.mark.parametrize("place", [0, 5])
def test_flipped_byte_in_a_small_array(tools, sample, name, place):
    with h5py.File(sample.path, "r") as file:
        offset = file[name].id.get_offset()
    tools.flip(sample.path, offset + place)
    tools.assert_refused(sample.path, PackChecksumError, f"/{name}: ", "does not match its checksum")


def test_flipped_byte_in_the_checksums(tools, sample):
    with h5py.File(sample.path, "r") as file:
        offset = file["samples/values_crc32"].id.get_offset()
    tools.flip(sample.path, offset + 4)
    tools.assert_refused(sample.path, PackChecksumError, "/samples/values chunk 1: ")


@pytest.mark.parametrize("chunk", [0, 1, 2])
@pytest.mark.parametrize("name", ["values", "indices"])
def test_chunk_not_in_the_file(tools, sample, name, chunk):
    with h5py.File(sample.path, "r+") as file:
        group = file["samples"]
        data = group[name][...]
        del group[name]
        hollow = group.create_dataset(name, data.shape, data.dtype, chunks=(3, 3, 40))
        for kept in {0, 1, 2} - {chunk}:
            hollow[kept * 3 : kept * 3 + 3] = data[kept * 3 : kept * 3 + 3]
    tools.assert_refused(
        sample.path, PackChecksumError, f"/samples/{name} chunk {chunk}: ", "not in the file"
    )


def test_verify_lists_every_damaged_chunk(tools, sample):
    damaged = [("values", 0), ("indices", 1), ("values", 2), ("indices", 2)]
    for name, chunk in damaged:
        tools.flip(sample.path, tools.chunk_place(sample.path, name, chunk)[0] + 9)
    found = {problem.location for problem in verify_pack(sample.path, isolated=False)}
    assert found == {f"/samples/{name} chunk {chunk}" for name, chunk in damaged}


def test_verify_lists_defects_of_content_together(tools, sample):
    change(tools, sample, "values", ((0, 0, 0), np.nan))
    change(tools, sample, "indices", ((0, 0, 39), 0), ((1, 1, 39), 65535))
    found = [(problem.location, problem.kind) for problem in verify_pack(sample.path, isolated=False)]
    assert found == [("/samples/values chunk 0", "layout"), *[("/samples/indices chunk 0", "layout")] * 2]


def test_verify_lists_damage_in_labels_and_in_chunks_together(tools, sample):
    with h5py.File(sample.path, "r") as file:
        places = [file[name].id.get_offset() for name in ("labels", "source_index", "scores")]
    for place in [*places, tools.chunk_place(sample.path, "values", 2)[0]]:
        tools.flip(sample.path, place)
    found = {problem.location for problem in verify_pack(sample.path, isolated=False)}
    assert found == {"/labels", "/source_index", "/scores", "/samples/values chunk 2"}


def test_verify_lists_scores_where_samples_cannot_be_read(sample):
    with h5py.File(sample.path, "r+") as file:
        del file["samples/values"]
        del file["scores"].attrs["crc32"]
    found = {problem.location for problem in verify_pack(sample.path, isolated=False)}
    assert found == {"/samples/values", "/scores"}
