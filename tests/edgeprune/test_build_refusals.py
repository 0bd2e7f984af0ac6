"""What a build refuses, most of it before an image is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_builds
from click.testing import CliRunner
from small_builds import JELF, LF, MASKS, SCORING, Stops, run_folder

from edgeprune import BuildConfig, build_pack
from edgeprune.commands.packs.build import command
from edgeprune.coresets.config import CoresetConfig
from edgeprune.packs.planning.prerequisites import require_use
from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import ArtifactError


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("energy", {"scores": "f"}, "method energy uses no scores"),
        ("random", {"scores": "f"}, "method random uses no scores"),
        ("energy", {"fse_net": "f"}, "energy learns no masks; leave `fse_net` out"),
        ("je", {"classifier": "f"}, "je learns no masks; leave `classifier` out"),
        ("lf", {"fse_net": "f", "classifier": "f"}, "needs no `classifier`"),
        ("lf", {"fse_net": "f", "scores": "f"}, "lf with `fse_net` uses no scores"),
        ("lf", {"classifier": "f", "scores": "f"}, "lf with `classifier` uses no scores"),
    ],
)
def test_a_file_that_nothing_looks_at_is_refused(scored, tmp_path, method, given, message):
    with pytest.raises(ConfigError, match=message):
        build_pack(scored.spec, tmp_path / "p.h5", BuildConfig(method=method), **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [Path("photos"), None, np.zeros((2, 8, 8, 3))])
def test_what_is_no_source_is_told(tmp_path, given):
    with pytest.raises(
        ConfigError, match=r"^.{4,60} is no source; name one in text, such as imagefolder:photos$"
    ):
        build_pack(given, tmp_path / "p.h5")


def test_files_that_have_a_use_are_accepted():
    file = Path("f")
    nothing = dict.fromkeys(("scores", "classifier", "fse_net"))
    for method, given in [
        ("je", {"scores": file}),
        ("lf", {"scores": file}),
        ("jelf", {"scores": file, "classifier": file}),
        ("jelf", {"scores": file, "fse_net": file}),
    ]:
        require_use(BuildConfig(method=method), **{**nothing, **given})


def damaged(folder):
    (folder / "net.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    return {"fse_net": folder / "net.safetensors"}


@pytest.mark.parametrize(
    ("given", "changes", "error", "message"),
    [
        (damaged, {}, ArtifactError, "cannot be used as an FSE-Net"),
        (lambda f: {"fse_net": f / "none"}, {}, ArtifactError, "no such file"),
        (lambda f: {"classifier": f / "none"}, {}, ArtifactError, "none: not there; name a run"),
        (lambda f: {"classifier": run_folder(f, classes=5)}, {}, ArtifactError, "of 5 classes, and .* has 3"),
        (lambda f: {"classifier": run_folder(f, side=16)}, {}, ArtifactError, "give the `size`"),
        (lambda f: {"classifier": run_folder(f, other=1)}, {}, ArtifactError, "not say how its images are"),
        (lambda f: {"scores": f / "none"}, {}, ArtifactError, "none: no such file"),
        (
            lambda f: {},
            {"masks": replace(MASKS, k=73)},
            ConfigError,
            "`MaskConfig.k` is 73, more than the 72",
        ),
        (lambda f: {}, {"scoring": replace(SCORING, lr=0.0)}, ConfigError, "lr"),
        (lambda f: {}, {"device": "cuda:99"}, ConfigError, "cuda:99"),
        (
            lambda f: {"fse_net": f / "net"},
            {"masks": replace(MASKS, k=3)},
            ConfigError,
            "has the `k` and `accuracy_weight` that it was learned with",
        ),
    ],
)
@pytest.mark.parametrize("method", ["lf", "jelf"])
def test_what_cannot_work_is_refused_before_an_image_is_read(
    scored, tmp_path, method, given, changes, error, message
):
    stops, out = Stops("", 0), tmp_path / "out"
    out.mkdir()
    with pytest.raises(error, match=message) as caught:
        build_pack(
            scored.spec,
            out / "p.h5",
            replace(JELF, method=method, **changes),
            report=stops.report,
            progress=stops.progress,
            **given(tmp_path),
        )
    assert "\n" not in str(caught.value)
    assert stops.seen == []
    assert list(out.iterdir()) == []


def test_a_beta_that_leaves_too_few_images_is_refused_before_they_are_scored(scored, tmp_path):
    stops = Stops("", 0)
    config = replace(JELF, coreset=CoresetConfig(beta=0.6))
    with pytest.raises(ConfigError, match=r"`beta` 0\.6 leaves 19 of the 48"):
        build_pack(scored.spec, tmp_path / "p.h5", config, report=stops.report)
    assert stops.seen == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["je", "lf", "jelf"])
def test_scores_of_other_images_are_refused(scored, tmp_path, method):
    spec = small_builds.write_source(tmp_path, seed=5)
    with pytest.raises(ArtifactError, match=r"scores of other images|not those that were scored"):
        build_pack(spec, tmp_path / "p.h5", replace(JELF, method=method), scores=scored.scores)


def test_artifacts_of_other_settings_stop_the_build(scored, tmp_path):
    path = tmp_path / "p.h5"
    (tmp_path / "p.scores.h5").write_bytes(scored.scores.read_bytes())
    build_pack(scored.spec, path, LF)
    with pytest.raises(ConfigError, match=r"p\.scores\.h5 exists and was made with epochs 4, not 5"):
        build_pack(scored.spec, path, replace(LF, scoring=replace(SCORING, epochs=5)))
    with pytest.raises(
        ConfigError, match=r"p\.fse-net\.safetensors exists and was learned with epochs 2, not 3"
    ):
        build_pack(scored.spec, path, replace(LF, masks=replace(MASKS, epochs=3)))


def test_a_damaged_fse_net_beside_the_pack(scored, tmp_path):
    """Nobody has named it: to correct the path, or to train it again, is no remedy."""
    (tmp_path / "p.fse-net.safetensors").write_bytes(b"")
    with pytest.raises(
        ArtifactError, match=r"p\.fse-net\.safetensors exists, and cannot be used as an FSE-Net; remove"
    ):
        build_pack(scored.spec, tmp_path / "p.h5", LF, scores=scored.scores)


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--score", "aum"], "--score"),
        (["--method", "je", "--score", "aum", "--tau", "0.5"], "--tau"),
        (["--method", "jelf", "--sampling", "top-k", "--beta", "0.1"], "--beta"),
        (["--method", "je", "--mask-epochs", "2"], "--mask-epochs"),
        (["--method", "lf", "--strata", "9"], "--strata"),
        (["--method", "energy", "--score-epochs", "9"], "--score-epochs"),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path, words, option):
    done = CliRunner().invoke(
        command, ["digits", "-o", str(tmp_path / "p.h5"), *words], standalone_mode=False
    )
    assert str(done.exception) == f"{option} has no effect here; leave it out"
