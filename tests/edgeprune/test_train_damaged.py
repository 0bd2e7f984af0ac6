"""`edgeprune train` from a pack of which chunks are damaged, from the start or after it has failed."""

import json

import pytest
import small_builds
from damaging import damage_chunk

from edgeprune import BuildConfig, build_pack
from edgeprune_formats import open_pack

OPTIONS = ["--model", "resnet8", "--epochs", 2, "--batch-size", 8, "--device", "cpu"]


@pytest.fixture
def pack(tmp_path):
    """96 images in chunks of 6, of which two are damaged."""
    spec = small_builds.write_source(tmp_path, images=96)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeprune_formats.packs.chunks.TARGET_CHUNK_BYTES", 8_000)
        build_pack(spec, tmp_path / "p.h5", BuildConfig(codec="sparse-f32", freq_prune=0.5))
    assert open_pack(tmp_path / "p.h5").header.chunk_samples == 6
    for chunk in (2, 9):
        damage_chunk(tmp_path / "p.h5", chunk)
    return tmp_path / "p.h5"


@pytest.mark.slow
def test_a_run_that_damage_ended_goes_on_without_it(edgeprune, pack, tmp_path):
    run = [pack, "-o", tmp_path / "run", *OPTIONS, "--checkpoint-steps", 1]
    code, _, err = edgeprune("train", *run)
    assert (code, err.count("\n")) == (1, 1)
    assert f"{pack}: /samples/" in err
    code, out, err = edgeprune("train", *run, "--resume", "--on-corrupt", "skip")
    assert code == 0
    told = [line for line in err.splitlines() if "left out" in line]
    assert len(told) == 2
    assert all(line.startswith(f"edgeprune: 6 images left out: {pack}: /samples/") for line in told)
    assert out.splitlines()[-1].endswith("2 epochs; 12 images left out as damaged (see edgeprune repair)")
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["skipped_images"] for epoch in metrics] == [12, 12]
    # A finished run says it again.
    code, again, _ = edgeprune("train", *run, "--resume")
    assert again.splitlines()[-1] == out.splitlines()[-1]
    code, _, err = edgeprune("train", *run[:1], "-o", tmp_path / "other", *OPTIONS, "--on-corrupt", "ignore")
    assert code == 2
    assert "--on-corrupt" in err


@pytest.mark.slow
def test_a_damaged_test_pack_is_an_error(edgeprune, pack, tmp_path):
    edgeprune("repair", pack, "-o", tmp_path / "saved.h5", "-q")
    run = [tmp_path / "saved.h5", "-o", tmp_path / "run", *OPTIONS, "--test", pack, "--on-corrupt", "skip"]
    code, _, err = edgeprune("train", *run)
    assert code == 1
    assert f"{pack}: /samples/" in err
