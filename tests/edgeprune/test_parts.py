"""A pack built in parts by tasks that know nothing of each other, and by any number of threads."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_builds
from PIL import Image

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.errors import SourceError
from edgeprune.packs.build import build_share
from edgeprune.packs.planning.plan import Share
from edgeprune.packs.writing.assembly import assemble, part_path
from edgeprune.repack.merge import merge_packs
from edgeprune.scoring.run import run_scoring
from edgeprune.sources import check_source
from edgeprune_formats import ConfigError, PackFormatError, open_pack, verify_pack
from edgeprune_formats.packs import chunks
from edgeprune_runtime.errors import ArtifactError

QUANTIZED = BuildConfig(tile="full")
SPARSE = BuildConfig(codec="sparse-f32", sample_prune=0.25)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of about 6 images, and a time that is always the same."""
    monkeypatch.setattr(chunks, "TARGET_CHUNK_BYTES", 6 * 145)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")


@pytest.fixture
def spec(tmp_path):
    return small_builds.write_source(tmp_path)


def in_parts(spec, folder, count, config, order=None, **given):
    for number in order or range(1, count + 1):
        build_share(spec, folder, Share(number, count), config, **given)
    assemble(folder, folder / "whole.h5")
    return folder / "whole.h5"


def assert_same(path, expected):
    with open_pack(path) as ours, open_pack(expected) as theirs:
        assert ours.header == theirs.header
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.source_index, theirs.source_index)
        assert (ours.scores is None) == (theirs.scores is None)
        if ours.scores is not None:
            np.testing.assert_array_equal(ours.scores, theirs.scores)
        for chunk in range(ours.header.chunks):
            mine, other = ours.read_payload(chunk), theirs.read_payload(chunk)
            assert mine.keys() == other.keys()
            for name, array in mine.items():
                np.testing.assert_array_equal(array, other[name])
    assert verify_pack(path) == []


@pytest.mark.first_are_quick
@pytest.mark.parametrize(
    ("config", "count"),
    [
        (QUANTIZED, 3),
        (replace(QUANTIZED, sample_prune=0.5), 4),
        (SPARSE, 2),
        (replace(SPARSE, codec="sparse-f16"), 1),
    ],
    ids=["quantized", "pruned", "sparse-f32", "sparse-f16"],
)
def test_parts_make_the_pack_that_one_process_makes(spec, tmp_path, config, count):
    build_pack(spec, tmp_path / "one.h5", config)
    order = np.random.default_rng(count).permutation(np.arange(1, count + 1)).tolist()
    assert_same(in_parts(spec, tmp_path / "parts", count, config, order, jobs=2), tmp_path / "one.h5")


@pytest.mark.slow
def test_scores_are_an_input_of_all_parts(tmp_path_factory, tmp_path):
    scored = small_builds.scored(tmp_path_factory)
    config = BuildConfig(method="je", codec="sparse-f32", device="cpu")
    build_pack(scored.spec, tmp_path / "one.h5", config, scores=scored.scores)
    made = in_parts(scored.spec, tmp_path / "parts", 2, config, scores=scored.scores)
    assert_same(made, tmp_path / "one.h5")
    with pytest.raises(ConfigError, match="needs `scores`"):
        build_share(scored.spec, tmp_path / "parts", Share(1, 2), config)


@pytest.mark.first_are_quick
@pytest.mark.parametrize("config", [QUANTIZED, SPARSE], ids=["quantized", "sparse"])
def test_any_number_of_threads_makes_the_same_file(spec, tmp_path, config):
    for jobs in (1, 2, 7):
        build_pack(spec, tmp_path / f"{jobs}.h5", config, jobs=jobs)
    packs = [(tmp_path / f"{jobs}.h5").read_bytes() for jobs in (1, 2, 7)]
    assert packs[0] == packs[1] == packs[2]


class Counting:
    """A source that counts how often each image is read."""

    def __init__(self, source):
        self._source, self.read_rows, self._lock = source, [], threading.Lock()

    def __getattr__(self, name):
        return getattr(self._source, name)

    def __len__(self):
        return len(self._source)

    def read(self, rows):
        with self._lock:
            self.read_rows += list(rows)
        return self._source.read(rows)


@pytest.mark.parametrize("prune", [0.0, 0.75])
def test_every_image_is_read_once(spec, tmp_path, prune):
    source = Counting(open_source(spec))
    report = build_pack(source, tmp_path / "p.h5", replace(QUANTIZED, sample_prune=prune), jobs=3)
    assert sorted(source.read_rows) == list(range(len(source)))
    pruned = report.header.provenance["source"]["sha256"]
    build_pack(spec, tmp_path / "whole.h5", QUANTIZED)
    assert open_pack(tmp_path / "whole.h5").header.provenance["source"]["sha256"] == pruned


def test_a_part_that_is_sound_is_not_made_again(spec, tmp_path):
    share = Share(2, 3)
    assert build_share(spec, tmp_path / "parts", share, QUANTIZED).made
    path = part_path(tmp_path / "parts", share)
    before = path.stat().st_mtime_ns
    assert not build_share(spec, tmp_path / "parts", share, QUANTIZED).made
    assert path.stat().st_mtime_ns == before
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert build_share(spec, tmp_path / "parts", share, QUANTIZED).made
    assert build_share(spec, tmp_path / "parts", share, replace(QUANTIZED, quality=30.0)).made
    assert verify_pack(path) == []


def test_missing_parts_are_named(spec, tmp_path):
    with pytest.raises(ArtifactError, match=r"holds no part of a build; make them with"):
        assemble(tmp_path, tmp_path / "p.h5")
    for number in (2, 5):
        build_share(spec, tmp_path / "parts", Share(number, 6), QUANTIZED)
    with pytest.raises(ArtifactError, match=r"4 of 6 parts missing \(1, 3, 4, 6\); build them .*--part 1/6"):
        assemble(tmp_path / "parts", tmp_path / "p.h5")
    assert not (tmp_path / "p.h5").exists()


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"quality": 74.0}, {"sample_prune": 0.1}, {"rounding": "deadzone"}]
)
def test_parts_of_different_builds_are_not_mixed(spec, tmp_path, change):
    build_share(spec, tmp_path, Share(1, 2), QUANTIZED)
    build_share(spec, tmp_path, Share(2, 2), replace(QUANTIZED, **change))
    with pytest.raises(ArtifactError, match=r"part-2-of-2\.h5: a part of another build than part-1-of-2"):
        assemble(tmp_path, tmp_path / "p.h5")
    assert not (tmp_path / "p.h5").exists()


def test_a_damaged_part_and_one_that_is_none_are_named(spec, tmp_path):
    build_share(spec, tmp_path / "parts", Share(1, 2), QUANTIZED)
    second = part_path(tmp_path / "parts", Share(2, 2))
    build_pack(spec, second, QUANTIZED)
    with pytest.raises(ArtifactError, match=r"part-2-of-2\.h5: no part of a build"):
        assemble(tmp_path / "parts", tmp_path / "p.h5")
    build_share(spec, tmp_path / "parts", Share(2, 2), QUANTIZED)
    raw = bytearray(second.read_bytes())
    with open_pack(second) as pack:
        payload = pack.read_payload(0)["payload"].tobytes()
    raw[raw.index(payload) + len(payload) // 2] ^= 1
    second.write_bytes(raw)
    with pytest.raises(PackFormatError, match=r"part-2-of-2\.h5: .*checksum"):
        assemble(tmp_path / "parts", tmp_path / "p.h5")
    assert not (tmp_path / "p.h5").exists()


def test_merging_parts_says_what_to_do_instead(spec, tmp_path):
    for number in (1, 2):
        build_share(spec, tmp_path / "parts", Share(number, 2), QUANTIZED)
    packs = sorted((tmp_path / "parts").iterdir())
    with pytest.raises(ConfigError, match=r"part-1-of-2\.h5 is a part of a build; .*--assemble"):
        merge_packs(packs, tmp_path / "p.h5")


def test_no_part_may_be_empty(spec, tmp_path):
    with pytest.raises(ConfigError, match=r"48 images are 8 chunks, too few for 9 parts; build at most 8"):
        build_share(spec, tmp_path, Share(1, 9), QUANTIZED)
    with pytest.raises(ConfigError, match="`part` must be from 1 to 9, not 10"):
        Share(10, 9)


def photos(folder, bad=()):
    pixels, labels = small_builds.pixels(24)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{number:02d}.png")
    for name in bad:
        (folder / name).write_bytes(b"spoilt")
    return f"imagefolder:{folder}"


@pytest.mark.slow
def test_images_that_cannot_be_read_are_left_out_of_all_parts(tmp_path):
    spec, config = photos(tmp_path / "photos", ["1/07.png", "2/20.png"]), replace(QUANTIZED, skip_bad=True)
    report = build_pack(spec, tmp_path / "one.h5", config, jobs=2)
    assert (report.images, len(report.skipped)) == (22, 2)
    assert report.header.provenance["source"]["skipped"] == 2
    folder = tmp_path / "parts"
    # Those that ended before another met the image are of another choice, and are made again.
    for _ in range(2):
        for number in (3, 1, 2):
            build_share(spec, folder, Share(number, 3), config)
    assemble(folder, tmp_path / "p.h5")
    assert_same(tmp_path / "p.h5", tmp_path / "one.h5")


def test_nothing_is_left_of_a_build_with_an_unreadable_image(tmp_path):
    spec = photos(tmp_path / "photos", ["2/20.png"])
    with pytest.raises(SourceError, match=r"2.20\.png: .*; pass `skip_bad=True`"):
        build_pack(spec, tmp_path / "p.h5", QUANTIZED, jobs=2)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.slow
def test_images_without_scores_are_left_out_only_if_asked(tmp_path):
    spec = photos(tmp_path / "photos", ["1/07.png"])
    source = open_source(spec)
    scores = tmp_path / "s.scores.h5"
    run_scoring(source, check_source(source, skip_bad=True), scores, small_builds.SCORING)
    config = BuildConfig(method="je", device="cpu", sample_prune=0.5)
    with pytest.raises(SourceError, match=r"1.07\.png: .*; pass `skip_bad=True`"):
        build_pack(spec, tmp_path / "p.h5", config, scores=scores)
    report = build_pack(spec, tmp_path / "p.h5", replace(config, skip_bad=True), scores=scores)
    assert len(report.skipped) == 1
    (unreadable,) = (row for row in range(24) if "07.png" in source.name(row))
    assert unreadable not in open_pack(tmp_path / "p.h5").source_index
    photos(tmp_path / "photos")
    with pytest.raises(ArtifactError, match="can be read now, and could not when the scores were made"):
        build_pack(spec, tmp_path / "q.h5", replace(config, skip_bad=True), scores=scores)


@pytest.mark.slow
def test_an_image_that_changed_since_it_was_scored_stops_the_build(tmp_path_factory, tmp_path):
    scored = small_builds.scored(tmp_path_factory)
    pixels, labels = small_builds.pixels()
    pixels[-1] ^= 255
    np.savez(tmp_path / "images.npz", x=pixels, y=labels)
    config = BuildConfig(method="je", device="cpu", sample_prune=0.5)
    with pytest.raises(ArtifactError, match="not those that were scored"):
        build_pack(f"npz:{tmp_path / 'images.npz'}", tmp_path / "p.h5", config, scores=scored.scores)
    assert [path.name for path in tmp_path.iterdir()] == ["images.npz"]


def test_the_command_makes_parts_and_puts_them_together(edgeprune, spec, tmp_path):
    folder, path = tmp_path / "parts", tmp_path / "p.h5"
    code, out, _ = edgeprune("build", spec, "--part", "1/2", "-o", folder)
    assert code == 0
    assert "part 1 of 2, 24 of 48 images, in" in out
    assert "was there already, and is sound" in edgeprune("build", spec, "--part", "1/2", "-o", folder)[1]
    code, _, err = edgeprune("build", "--assemble", folder, "-o", path)
    assert code == 1
    assert "1 of 2 parts missing (2)" in err
    assert edgeprune("build", spec, "--part", "2/2", "-q", "-o", folder) == (0, "", "")
    code, out, _ = edgeprune("build", "--assemble", folder, "-o", path)
    assert code == 0
    assert f"{path}: 48 images of 12x12" in out
    code, _, err = edgeprune("build", "--assemble", folder, "-o", path)
    assert code == 2
    assert "--force" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--part", "3"], "'3' is no part; write one such as 3/16"),
        (["--part", "3/2"], "must be from 1 to 2, not 3"),
        (["--part", "1/0"], "is no part"),
        (["--part", "1/2", "--budget", "5MB"], "--budget cannot be used with parts"),
        (["--part", "1/2", "--engine", "ray", "--parts", "2"], "leave --engine out"),
        (["--engine", "ray"], "--engine and --parts need each other"),
        (["--assemble", ".", "--quality", "50"], "--quality has no effect with --assemble"),
    ],
)
def test_options_of_parts_that_do_not_fit_are_refused(edgeprune, spec, tmp_path, words, message):
    source = [] if words[0] == "--assemble" else [spec]
    code, _, err = edgeprune("build", *source, *words, "-o", tmp_path / "out")
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_engine_that_is_unknown_or_does_not_answer(edgeprune, spec, tmp_path):
    code, _, err = edgeprune("build", spec, "--engine", "slurm", "--parts", "2", "-o", tmp_path / "p.h5")
    assert code == 2
    assert "unknown engine 'slurm'; known: ray" in err
    pytest.importorskip("ray")
    words = ["--engine", "ray:127.0.0.1:1", "--parts", "2"]
    code, _, err = edgeprune("build", spec, *words, "-o", tmp_path / "p.h5")
    assert code == 2
    assert "no Ray answers at 127.0.0.1:1" in err
    assert [path.name for path in tmp_path.iterdir()] == ["images.npz"]


@pytest.mark.slow
def test_a_task_that_fits_no_node_of_ray_is_refused(edgeprune, spec, tmp_path):
    pytest.importorskip("ray")
    words = ["--engine", "ray", "--parts", "2", "--jobs", "4000"]
    code, _, err = edgeprune("build", spec, *words, "-o", tmp_path / "p.h5")
    assert code == 2
    assert "no node of Ray has the 4000 processors of a task; lower --jobs to" in err
    assert [path.name for path in tmp_path.iterdir()] == ["images.npz"]


def _is_ours(process):
    """Whether a process descends from this one."""
    while process > 1 and process != os.getpid():
        # The name, in brackets, may hold anything.
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process == os.getpid()


def _kill_one_task(done):
    """Kill the first process that works on a task of our Ray; other tests have some at the same time."""
    while not done.wait(0.01):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                process = int(path.parent.name)
                if b"ray::_build_share" in path.read_bytes() and _is_ours(process):
                    os.kill(process, signal.SIGKILL)
                    done.killed = True
                    return
            except OSError:
                continue


@pytest.mark.slow
def test_ray_makes_the_pack_although_a_worker_is_killed(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.undo()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    images, labels = (
        np.random.default_rng(0).integers(0, 256, (800, 64, 64, 3)).astype(np.uint8),
        np.arange(800) % 3,
    )
    np.savez(tmp_path / "large.npz", x=images, y=labels)
    spec, config = f"npz:{tmp_path / 'large.npz'}", BuildConfig(tile="16")
    build_pack(spec, tmp_path / "one.h5", config)
    done = threading.Event()
    done.killed = False
    killer = threading.Thread(target=_kill_one_task, args=(done,))
    killer.start()
    told = []
    try:
        from edgeprune.packs.ray_engine import build_with_ray

        build_with_ray(spec, tmp_path / "p.h5", config, parts=2, progress=lambda *c: told.append(c))
    finally:
        done.set()
        killer.join()
    assert done.killed
    assert_same(tmp_path / "p.h5", tmp_path / "one.h5")
    assert ("encoding", 800, 800) in told
    assert not (tmp_path / "p.h5.work").exists()
