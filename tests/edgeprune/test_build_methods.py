from dataclasses import replace

import numpy as np
import pytest
import small_builds
import torch
from small_builds import JELF, LF, MASKS, SCORING, Stops, content, kept, run_folder

import edgeprune.work.resumable
from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.selection import compute_scores
from edgeprune.masks import learning as mask_learning
from edgeprune.masks.components import energy_mask
from edgeprune.masks.fse_file import load_fse_net
from edgeprune.masks.fse_net import select
from edgeprune.packs.config import METHODS
from edgeprune.packs.encoding.dct import dct2
from edgeprune.packs.writing import assembly
from edgeprune.scoring.scores_file import read_scores_file
from edgeprune_formats import ConfigError, open_pack, verify_pack
from edgeprune_formats.files import file_sha256
from edgeprune_formats.packs import chunks
from edgeprune_runtime.training import TrainingInterrupted

# A scores file tells how long its epochs took, so two runs give two hashes.
TIMED = [("coreset", "scores_sha256")]


@pytest.fixture(scope="module")
def whole(scored, tmp_path_factory):
    """A pack that one call built from nothing but images."""
    path = tmp_path_factory.mktemp("whole") / "whole.h5"
    return build_pack(scored.spec, path, JELF)


def spectra_of(source, path):
    return dct2(source.read(open_pack(path).source_index))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "images", "components"),
    [("energy", 48, 72), ("random", 24, 144), ("lf", 48, 72), ("je", 24, 144), ("jelf", 24, 72)],
)
def test_each_method_keeps_its_shares(scored, tmp_path, method, images, components):
    path = tmp_path / "p.h5"
    given = scored.scores if METHODS[method].scored_images or METHODS[method].learned_masks else None
    report = build_pack(scored.spec, path, replace(JELF, method=method), scores=given)
    assert verify_pack(path) == []
    pack = open_pack(path)
    assert (len(pack), pack.header.components) == (images, components)
    assert len(set(pack.source_index.tolist())) == images
    np.testing.assert_array_equal(pack.labels, scored.source.labels[pack.source_index])
    assert (kept(path).sum((2, 3)) == components).all()
    assert (pack.scores is None) == (method not in ("je", "jelf"))
    assert [p.name for p in report.artifacts] == ["p.fse-net.safetensors"] * METHODS[method].learned_masks
    assert {p.name for p in tmp_path.iterdir()} == {"p.h5", *(p.name for p in report.artifacts)}
    assert pack.header.provenance["mask"] == ("fse-net" if method in ("lf", "jelf") else "energy")
    assert pack.header.provenance["coreset"]["score"] == ("joint_entropy" if "je" in method else "random")


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.9])
def test_learned_masks_hold_the_strongest_components_and_those_that_the_network_selects(
    scored, tmp_path, ratio
):
    path = tmp_path / "p.h5"
    build_pack(scored.spec, path, replace(LF, freq_prune=ratio), scores=scored.scores)
    net, record = load_fse_net(tmp_path / "p.fse-net.safetensors")
    spectra, found = spectra_of(scored.source, path), kept(path)
    k, k_total = record["k"], record["k_total"]
    assert k_total == round((1 - ratio) * 144)
    strongest = energy_mask(spectra, k)
    assert (found & strongest == strongest).all()
    expected, _ = select(net, torch.from_numpy(spectra), k, k_total)
    np.testing.assert_array_equal(found, expected.numpy())
    assert (found != energy_mask(spectra, k_total)).any()


@pytest.mark.slow
def test_the_provenance_is_complete(scored, whole):
    provenance = open_pack(whole.path).header.provenance
    scores, net = whole.path.with_suffix(".scores.h5"), whole.path.with_suffix(".fse-net.safetensors")
    assert whole.artifacts == (scores, net)
    assert set(provenance) == {"source", "config", "coreset", "mask", "fse_net", "versions", "result"}
    assert provenance["source"]["sha256"] == scored.check.sha256
    assert provenance["coreset"]["scores_sha256"] == file_sha256(scores)
    assert provenance["coreset"]["scores_run"]["epochs"] == SCORING.epochs
    described = provenance["fse_net"]
    assert described["sha256"] == file_sha256(net)
    assert (described["k"], described["k_total"], described["accuracy_weight"]) == (14, 72, 0.1)
    assert described["last_epoch"]["epoch"] == MASKS.epochs
    assert described["classifier"]["file"] == "whole.scores.h5"
    assert described["source"]["sha256"] == scored.check.sha256
    assert described["config"]["lr"] == MASKS.lr
    assert {"torch", "numpy"} <= set(described["versions"])
    assert provenance["config"] == {
        "method": "jelf",
        "freq_prune": 0.5,
        "sample_prune": 0.5,
        "codec": "sparse-f32",
        "compression": "none",
        "size": None,
        "split": "train",
        "skip_bad": False,
        "seed": JELF.seed,
        "device": "cpu",
    }
    rates = np.array(provenance["result"]["kept_rate"])
    np.testing.assert_allclose(rates, kept(whole.path).mean((0, 1)), atol=1e-6)
    assert whole.header.provenance == provenance


@pytest.mark.parametrize(
    "coreset",
    [CoresetConfig(), CoresetConfig("forgetting"), CoresetConfig("el2n", "top-k"), CoresetConfig("random")],
)
def test_the_scores_in_the_pack_are_those_of_the_records(scored, tmp_path, coreset):
    config = replace(JELF, method="je", coreset=coreset)
    build_pack(scored.spec, tmp_path / "p.h5", config, scores=scored.scores)
    pack = open_pack(tmp_path / "p.h5")
    expected = compute_scores(read_scores_file(scored.scores), coreset, seed=JELF.seed)
    np.testing.assert_array_equal(pack.scores, expected[pack.source_index].astype("f4"))


@pytest.mark.slow
def test_a_build_that_is_stopped_in_each_stage_goes_on_to_the_same_pack(scored, whole, tmp_path, monkeypatch):
    # A report after each step, a checkpoint at each stop alone; encoding in chunks of 5 images, 2 in a part.
    monkeypatch.setattr(edgeprune.work.resumable.ResumableRun, "report_seconds", -1)
    monkeypatch.setattr(chunks, "TARGET_CHUNK_BYTES", 5 * 3 * 72 * 6)
    monkeypatch.setattr(assembly, "CHUNKS_IN_PART", 2)
    path, seen = tmp_path / "p.h5", {}
    stages = [("scoring", 6, TrainingInterrupted), ("learning masks", 4, TrainingInterrupted)]
    stages += [("encoding", 4, KeyboardInterrupt), ("assembling", 2, KeyboardInterrupt)]
    for stage, at, error in stages:
        stops = Stops(stage, at)
        with pytest.raises(error):
            build_pack(scored.spec, path, JELF, report=stops.report, progress=stops.progress)
        assert not path.exists()
        assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*"))
        seen[stage] = stops.seen
    last = Stops("", 0)
    report = build_pack(scored.spec, path, JELF, report=last.report, progress=last.progress)
    monkeypatch.undo()
    made, expected = (content(pack, without=TIMED) for pack in (path, whole.path))
    assert made[1:4] == expected[1:4]
    # Checksums are of chunks, which have another size here.
    assert [made[0][name] for name in ("values", "indices")] == [
        expected[0][name] for name in ("values", "indices")
    ]
    net, expected = (p.with_suffix(".fse-net.safetensors") for p in (path, whole.path))
    assert load_fse_net(net)[1]["history"] == load_fse_net(expected)[1]["history"]
    # What one call had finished no later one did again.
    assert "scoring" not in seen["encoding"] + seen["assembling"] + last.seen
    assert "learning masks" not in seen["assembling"] + last.seen
    # 4 epochs of 4 steps and 2 of 3: once each, the ends of epochs reported as such.
    assert sum(calls.count("scoring") for calls in seen.values()) == 16
    assert sum(calls.count("learning masks") for calls in seen.values()) == 6
    assert {p.name for p in tmp_path.iterdir()} == {"p.h5", *(p.name for p in report.artifacts)}


@pytest.mark.slow
def test_what_was_made_is_kept_and_used_again(scored, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    for kind in (".scores.h5", ".fse-net.safetensors"):
        (tmp_path / f"whole{kind}").write_bytes(whole.path.with_suffix(kind).read_bytes())
    stops = Stops("", 0)
    for _ in range(2):
        report = build_pack(scored.spec, tmp_path / "whole.h5", JELF, report=stops.report)
    assert stops.seen == []
    assert len(report.artifacts) == 2
    assert content(tmp_path / "whole.h5")[:4] == content(whole.path)[:4]
    assert report.header.provenance["fse_net"] == whole.header.provenance["fse_net"]


@pytest.mark.slow
def test_a_build_from_files_can_be_repeated_to_the_byte(scored, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    for name in ("a", "b"):
        build_pack(scored.spec, tmp_path / f"{name}.h5", JELF, scores=scored.scores)
    for kind in (".h5", ".fse-net.safetensors"):
        assert (tmp_path / f"a{kind}").read_bytes() == (tmp_path / f"b{kind}").read_bytes()


@pytest.mark.slow
def test_masks_learned_on_some_images_are_applied_to_others(whole, tmp_path):
    net_file = whole.path.with_suffix(".fse-net.safetensors")
    spec = small_builds.write_source(tmp_path, seed=7, images=10, classes=4)
    path = tmp_path / "p.h5"
    report = build_pack(
        spec, path, BuildConfig(method="lf", codec="sparse-f32", device="cpu"), fse_net=net_file
    )
    assert report.artifacts == ()
    assert {p.name for p in tmp_path.iterdir()} == {"images.npz", "p.h5"}
    net, record = load_fse_net(net_file)
    expected, _ = select(
        net, torch.from_numpy(spectra_of(open_source(spec), path)), record["k"], record["k_total"]
    )
    np.testing.assert_array_equal(kept(path), expected.numpy())
    assert report.header.provenance["fse_net"]["sha256"] == file_sha256(net_file)
    # The ratio is the network's.
    other = tmp_path / "other.h5"
    learned = replace(LF, freq_prune=0.8)
    build_pack(spec, other, learned, classifier=run_folder(tmp_path, classes=4))
    again = build_pack(
        spec, path, BuildConfig(method="lf"), fse_net=other.with_suffix(".fse-net.safetensors")
    )
    assert again.header.provenance["config"]["freq_prune"] == 0.8
    assert again.header.components == 29


def test_masks_can_be_learned_against_a_run_of_training(scored, tmp_path):
    run = run_folder(tmp_path)
    report = build_pack(scored.spec, tmp_path / "p.h5", LF, classifier=run)
    assert report.header.provenance["fse_net"]["classifier"]["file"] == "model.safetensors"
    assert [p.name for p in report.artifacts] == ["p.fse-net.safetensors"]


def test_another_ratio_than_the_networks_is_refused(whole, scored, tmp_path):
    with pytest.raises(ConfigError, match=r"learned for a frequency pruning ratio of 0\.5, not 0\.7"):
        build_pack(
            scored.spec,
            tmp_path / "p.h5",
            BuildConfig(method="lf", freq_prune=0.7),
            fse_net=whole.path.with_suffix(".fse-net.safetensors"),
        )


@pytest.mark.slow
def test_large_images_are_pruned_some_at_a_time(tmp_path, monkeypatch):
    images, labels = small_builds.pixels(24, side=224, classes=2)
    np.savez(tmp_path / "large.npz", x=images, y=labels)
    monkeypatch.setattr(mask_learning, "_SELECT_VALUES", 4 * 3 * 224**2)
    sizes = []

    def noting(net, spectra, *counts):
        sizes.append(len(spectra))
        return select(net, spectra, *counts)

    monkeypatch.setattr(mask_learning, "select", noting)
    config = BuildConfig(
        method="lf",
        codec="sparse-f32",
        freq_prune=0.9,
        device="cpu",
        masks=replace(MASKS, epochs=1, batch_size=8),
    )
    path = tmp_path / "p.h5"
    report = build_pack(
        f"npz:{tmp_path / 'large.npz'}",
        path,
        config,
        classifier=run_folder(tmp_path, classes=2, side=224),
    )
    assert sizes == [4, 4, 4] * 2
    assert (report.header.components, report.header.provenance["fse_net"]["k"]) == (5018, 600)
    assert verify_pack(path) == []
    mask = kept(path)
    strongest = energy_mask(spectra_of(open_source(f"npz:{tmp_path / 'large.npz'}"), path), 600)
    assert (mask & strongest == strongest).all()
    assert (mask.sum((2, 3)) == 5018).all()
