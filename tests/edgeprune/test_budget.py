import re

import numpy as np
import pytest
from click.testing import CliRunner

from edgeprune import BuildConfig, build_pack
from edgeprune.cli import cli
from edgeprune.options.sizes import parse_size
from edgeprune.packs.budget import build_within
from edgeprune_formats import ConfigError, EdgePruneError, PackWriteError, open_pack


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """600 images."""
    return write_source(tmp_path_factory, 600)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """150 images, where nothing depends on their number."""
    return write_source(tmp_path_factory, 150)


def write_source(tmp_path_factory, images, side=32):
    """Write smooth random square images; give the source's spec."""
    path = tmp_path_factory.mktemp("source") / "images.npz"
    random = np.random.default_rng(0)
    coarse = random.random((images, 3, side // 4 + 1, side // 4 + 1))
    fine = coarse.repeat(4, axis=2).repeat(4, axis=3)[:, :, :side, :side]
    pixels = (fine + random.normal(0, 0.04, fine.shape)).clip(0, 1) * 255
    np.savez(path, x=pixels.astype(np.uint8), y=np.arange(images) % 3)
    return f"npz:{path}"


def run(*arguments):
    done = CliRunner().invoke(cli, [str(word) for word in arguments], catch_exceptions=True)
    if isinstance(done.exception, EdgePruneError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *[("5MB", 5_000_000), ("500 kB", 500_000), ("1.5MiB", 1_572_864), ("77", 77), ("77 B", 77)],
        *[("1M", 1_000_000), ("1.5mb", 1_500_000), ("200KB", 200_000), (" .5g ", 500_000_000)],
        *[("1Ki", 1024), ("2gib", 2 << 30), ("1TB", 10**12), ("3 bytes", 3)],
    ],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MB", "-5MB", "0", "0.2", "5 horses", "5 i", "1,000", "5Mbit", "1e6", "inf", "M5"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="such as 5MB"):
        parse_size(text)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [150_000, 400_000])
def test_the_file_fills_the_budget(source, tmp_path, budget):
    path = tmp_path / "p.h5"
    text = run("build", source, "--budget", str(budget), "-o", path)
    assert 0.97 * budget <= path.stat().st_size <= budget
    quality = float(re.search(r"quality ([\d.]+) fills", text)[1])
    with open_pack(path) as pack:
        assert pack.header.provenance["config"]["quality"] == pytest.approx(quality, rel=1e-4)
        assert len(pack) == 600
        # The tiles were tried in the first of several builds.
        tried = pack.header.provenance["tile"]["bytes_per_image"]
        assert pack.header.tile == min(tried, key=tried.__getitem__)
        assert "tile" not in pack.header.provenance["config"]
    assert int(re.search(r"after (\d+) builds", text)[1]) > 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.h5"]


@pytest.mark.slow
def test_images_are_left_out_before_quality_falls(source, tmp_path):
    path = tmp_path / "p.h5"
    options = ["--budget", "100kB", "--min-quality", "80"]
    text = run("build", source, "--codec", "quantized", *options, "-o", path)
    assert 97_000 <= path.stat().st_size <= 100_000
    assert "quality 80 is the least allowed" in text
    with open_pack(path) as pack:
        assert pack.header.provenance["config"]["quality"] == 80
        assert len(pack) < 600


@pytest.mark.slow
@pytest.mark.parametrize("budget", [12_000, 20_000])
def test_an_image_may_be_larger_than_the_slack(tmp_path_factory, tmp_path, budget):
    """The pack has the most images that fit: one more would not."""
    large, path = write_source(tmp_path_factory, 40, side=96), tmp_path / "p.h5"
    options = [large, "--tile", "8", "-o", path]
    text = run("build", *options, "--budget", str(budget), "--min-quality", "80")
    kept, size = len(open_pack(path)), path.stat().st_size
    assert size <= budget
    assert f"{kept / 40:.1%} of the images fit, {size / budget:.1%} of the budget" in text
    run("build", *options, "--quality", "80", "--sample-prune", str(1 - (kept + 1) / 40), "--force")
    assert len(open_pack(path)) == kept + 1
    assert path.stat().st_size > budget


def test_sizes_may_jump_with_the_quality(few, tmp_path):
    """The best quality that fits is taken, where none fills the budget."""
    report = build_pack(few, tmp_path / "few.h5", BuildConfig(quality=50))

    def build(path, config, *, beside, tile_trial):
        path.write_bytes(bytes(800 if config.quality < 62.5 else 1200))
        return report

    fit = build_within(build, tmp_path / "p.h5", BuildConfig(), 1000)
    assert (fit.bytes, (tmp_path / "p.h5").stat().st_size, fit.builds) == (800, 800, 16)
    assert fit.config.quality == pytest.approx(62.5, abs=0.1)
    assert fit.config.quality < 62.5
    assert "fills 80.0% of the budget" in fit.why


def test_a_full_disk_is_told_of_the_pack_that_was_asked_for(tmp_path):
    def build(path, config, **others):
        raise PackWriteError(f"{path}: the disk is full")

    with pytest.raises(PackWriteError, match=rf"^{tmp_path}/p\.h5: the disk is full$"):
        build_within(build, tmp_path / "p.h5", BuildConfig(), 1000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_not_one_image_fits(few, tmp_path):
    with pytest.raises(ConfigError, match=r"not one image of quality 95 fits 2,000 B"):
        run("build", few, "--budget", "2kB", "--min-quality", "95", "-o", tmp_path / "p.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--min-quality", "80"]])
def test_scores_and_masks_are_made_once_for_all_trials(few, tmp_path, more):
    path = tmp_path / "p.h5"
    options = ["--method", "jelf", "--mask-epochs", "1", "--device", "cpu", "--freq-prune", "0.5"]
    options += ["--score-model", "resnet8", "--score-epochs", "2", "--score-augment", "none", *more]
    text = run("build", few, "--codec", "quantized", "--budget", "25kB", *options, "-o", path)
    assert 24_250 <= path.stat().st_size <= 25_000
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "p.fse-net.safetensors",
        "p.h5",
        "p.scores.h5",
    ]
    assert int(re.search(r"after (\d+) builds", text)[1]) > 1
    with open_pack(path) as pack:
        facts = pack.header.provenance
    assert (facts["coreset"]["score"], facts["config"]["method"]) == ("joint_entropy", "jelf")
    assert (facts["config"]["quality"] == 80) == bool(more)


@pytest.mark.slow
def test_a_pack_may_have_any_name(few, tmp_path):
    path, other = tmp_path / "p.budget", tmp_path / "q.budget"
    other.write_text("rent, food, travel")
    options = ["--codec", "quantized", "--budget", "40kB", "--force"]
    for _ in range(2):
        run("build", few, *options, "-o", path)
    assert len(open_pack(path)) == 150
    run("build", few, *options, "-o", tmp_path / "q.h5")
    assert other.read_text() == "rent, food, travel"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["p.budget", "q.budget", "q.h5"]


@pytest.mark.slow
def test_a_budget_that_nothing_meets(few, tmp_path):
    with pytest.raises(ConfigError, match=r"at quality 1 the pack still has .* raise `budget`"):
        run("build", few, "--codec", "quantized", "--budget", "2kB", "-o", tmp_path / "p.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_budget_larger_than_the_best_quality(few, tmp_path):
    path = tmp_path / "p.h5"
    text = run("build", few, "--codec", "quantized", "--budget", "90MB", "-o", path)
    assert "quality 100 takes no more" in text


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--codec", "sparse-f32", "--budget", "5MB"], "codec quantized"),
        (["--codec", "quantized", "--quality", "80", "--budget", "5MB"], "leave out `quality`"),
        (["--codec", "quantized", "--quality", "101"], "`quality` must be between 1 and 100"),
        (["--codec", "quantized", "--quality", "nan"], "between 1 and 100"),
        (["--codec", "quantized", "--compression", "gzip"], "leave `compression` out"),
        (["--codec", "sparse-f32", "--quality", "80"], "no effect with codec sparse-f32"),
        (
            ["--codec", "quantized", "--budget", "5MB", "--min-quality", "0"],
            "`min_quality` must be between 1 and 100",
        ),
    ],
)
def test_options_that_do_not_fit(source, tmp_path, options, word):
    with pytest.raises(ConfigError, match=word):
        run("build", source, *options, "-o", tmp_path / "p.h5")
    assert list(tmp_path.iterdir()) == []
