"""Images that look mislabeled, near duplicates, and builds that leave duplicates out."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from image_folders import write_photos
from scores_files import PROVENANCE, content, write

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.uncertainty import dual
from edgeprune.errors import SourceError
from edgeprune.issues import duplicates
from edgeprune.issues.duplicates import DISTANCE, Fingerprints, find_duplicates
from edgeprune.issues.hashing import bit_counts, perceptual_hashes
from edgeprune.issues.mislabeled import find_suspects
from edgeprune.packs.budget import build_within
from edgeprune.packs.build import build_share
from edgeprune.packs.planning import deduplication
from edgeprune.packs.planning.plan import Share
from edgeprune.packs.writing.assembly import assemble
from edgeprune.scoring.scores_file import read_scores_file
from edgeprune.sources import check_source, source_facts
from edgeprune_formats import ConfigError, open_pack

SIDE = 16
LOSSLESS = BuildConfig(codec="sparse-f32", freq_prune=0.0, seed=2)


def smooth(count, seed=0):
    """Images of a few low frequencies, uint8 [n, 3, SIDE, SIDE]."""
    random = np.random.default_rng(seed)
    basis = np.cos(np.pi * np.arange(9)[:, None] * (2 * np.arange(SIDE) + 1) / (2 * SIDE))
    waves = random.normal(size=(count, 3, 9, 9))
    images = basis.T @ waves @ basis
    images -= images.min(axis=(1, 2, 3), keepdims=True)
    return np.rint(20 + 200 * images / images.max(axis=(1, 2, 3), keepdims=True)).astype(np.uint8)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """30 images; 30 is image 3, 31 is 4 mirrored and brighter, 32 is 5 with another class, 33 is 3 again."""
    images = smooth(30)
    copies = [images[3], images[4, :, :, ::-1] + 5, images[5], images[3]]
    labels = [*(np.arange(30) % 3).tolist(), 0, 1, 0, 0]
    path = tmp_path_factory.mktemp("planted") / "images.npz"
    np.savez(path, x=np.concatenate([images, np.stack(copies)]), y=np.array(labels))
    spec = f"npz:{path}"
    return SimpleNamespace(spec=spec, source=open_source(spec), gone=[5, 30, 31, 32, 33])


def hashed(pixels):
    return perceptual_hashes(pixels)[0]


def distances(hashes, one):
    return bit_counts(hashes ^ one).sum(axis=1, dtype=int)


def test_a_hash_hardly_changes_with_brightness_noise_and_size_and_differs_between_images():
    images = smooth(40)
    hashes = hashed(images)
    brighter = hashed((0.8 * images + 30).astype(np.uint8))
    larger = hashed(images.repeat(3, axis=2).repeat(3, axis=3))
    deeper = hashed(images.astype(np.uint16) * 257)
    np.testing.assert_array_equal(deeper, hashes)
    for place in range(40):
        found = distances(hashes, hashes[place])
        assert found[place] == 0
        assert np.sort(found)[1] > 2 * DISTANCE
        assert distances(brighter, hashes[place])[place] <= DISTANCE / 2
        assert distances(larger, hashes[place])[place] <= DISTANCE / 2


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_mirrored_hash_is_that_of_the_mirror_image(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, channels, 20, 7)).astype(np.uint8)
    hashes, mirrored, _ = perceptual_hashes(pixels)
    np.testing.assert_array_equal(mirrored, hashed(pixels[..., ::-1]))
    assert hashes.shape == (5, 2)


def test_flat_images_have_one_hash_whatever_their_brightness():
    flat = np.arange(0, 256, 17, dtype=np.uint8).repeat(3 * 64).reshape(-1, 3, 8, 8)
    assert len(np.unique(hashed(flat), axis=0)) == 1


def test_bits_are_counted_alike_with_and_without_numpys_own_function(monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 2**64, (50, 2), np.uint64)
    expected = [
        sum(bin(int(a ^ b)).count("1") for a, b in zip(one, hashes[7], strict=True)) for one in hashes
    ]
    assert distances(hashes, hashes[7]).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert distances(hashes, hashes[7]).tolist() == expected


def by_pairs(prints, distance):
    """The groups as they are defined, each pair compared."""
    first = list(range(len(prints.rows)))
    for place, one in enumerate(prints.hashes):
        if first[place] == place:
            near = np.minimum(distances(prints.hashes, one), distances(prints.hashes, prints.mirrored[place]))
            for other in range(place + 1, len(first)):
                either = distances(prints.present[[other]] | prints.present[place], np.uint64(0))[0]
                if first[other] == other and near[other] <= distance * either / 128:
                    first[other] = place
    return first


@pytest.mark.parametrize("distance", [0, 3, duplicates.MAX_DISTANCE])
def test_groups_are_what_their_definition_gives_pair_by_pair(distance, monkeypatch):
    monkeypatch.setattr(duplicates, "_COLUMNS", 100)
    random = np.random.default_rng(distance)
    hashes = random.integers(0, 2**64, (60, 2), np.uint64)[random.integers(0, 60, 300)]
    for _ in range(8):
        hashes[np.arange(300), random.integers(0, 2, 300)] ^= np.uint64(1) << random.integers(
            0, 64, 300
        ).astype(np.uint64)
    digests, present = np.zeros((300, 2), np.uint64), np.full((300, 2), 2**64 - 1, np.uint64)
    # Some images have half of the frequencies, some have none.
    present[::3, 1] = present[::20] = 0
    prints = Fingerprints(np.arange(300), hashes, random.permutation(hashes), present, digests)
    found = find_duplicates(prints, distance)
    assert found.first.tolist() == by_pairs(prints, distance)
    assert found.distance.max() <= distance
    sizes = [len(group) for group in found.groups()]
    assert sum(size - 1 for size in sizes) == np.count_nonzero(found.first != np.arange(300))
    for group in found.groups():
        assert (found.first[group] == group[0]).all()
    with pytest.raises(ConfigError, match="`distance` is 0 to 24 bits"):
        find_duplicates(prints, 25)


@pytest.mark.parametrize("kind", ["gray", "gray as RGB", "color of 8 pixels", "gray of 12 pixels"])
def test_images_of_few_frequencies_are_not_near_by_chance(kind):
    """Images of noise, of which no two are alike, and a noisy, a mirrored and an equal copy."""
    side = int(kind.split()[-2]) if "pixels" in kind else SIDE
    images = np.random.default_rng(0).integers(0, 230, (1500, 3, side, side)).astype(np.uint8)
    images[-3:] = (
        images[0] + np.uint8(1) * (np.arange(side) % 2).astype(np.uint8),
        images[1, :, :, ::-1],
        images[2],
    )
    if "gray" in kind:
        images = images[:, :1].repeat(3 if "RGB" in kind else 1, axis=1)
    prints = Fingerprints(
        np.arange(1500), *perceptual_hashes(images), images.reshape(1500, -1)[:, :16].copy().view(np.uint64)
    )
    found = find_duplicates(prints)
    assert [group.tolist() for group in found.groups()] == [[0, 1497], [1, 1498], [2, 1499]]
    assert found.mirrored[1497:].tolist() == [False, True, False]
    assert found.exact[1497:].tolist() == [False, False, True]


def with_odds(epoch, odds):
    """Let the label be so many times as probable as the class after it."""
    odds = np.asarray(odds, np.float64)
    epoch.arrays["probabilities"][:] = 0.9 * odds / (1 + odds)
    epoch.arrays["margins"][:] = 0.9 * (odds - 1) / (1 + odds)


def test_suspects_are_those_of_low_mean_margin_the_lowest_first(tmp_path):
    made = content()
    for epoch in made.epochs:
        with_odds(epoch, [3, 0.4, 9, 0.01, 0.6, 1, 1e6])
    # Its mean over the epochs counts.
    with_odds(made.epochs[0], [3, 0.4, 9, 0.01, 1e-5, 1e-2, 1])
    write(tmp_path / "s.h5", made)
    records = read_scores_file(tmp_path / "s.h5")
    found = find_suspects(records)
    # Three classes: below -log 2.
    assert found.threshold == pytest.approx(-np.log(2))
    expected = [
        np.log(0.01),
        np.log([1e-5] + [0.6] * 4).mean(),
        np.log([1e-2, 1, 1, 1, 1]).mean(),
        np.log(0.4),
    ]
    np.testing.assert_allclose(found.margins, expected, rtol=1e-4)
    assert found.rows.tolist() == made.rows[[3, 4, 5, 1]].tolist()
    assert found.labels.tolist() == made.labels[[3, 4, 5, 1]].tolist()
    assert found.scored == 7
    every = find_suspects(records, np.inf)
    assert len(every.rows) == 7
    assert np.isfinite(every.margins).all()


@pytest.fixture
def scores(planted, tmp_path):
    """Scores of the planted images, of which 7 and 2 have a low margin."""
    made = content(samples=34)
    for epoch in made.epochs:
        with_odds(epoch, np.where(np.arange(34) == 2, 0.4, np.where(np.arange(34) == 7, 0.2, 3)))
    facts = source_facts(planted.source, check_source(planted.source))
    write(
        tmp_path / "s.h5",
        made,
        rows=np.arange(34),
        labels=planted.source.labels,
        provenance={**PROVENANCE, "source": facts},
    )
    return tmp_path / "s.h5"


def test_of_two_classes_the_other_is_as_probable(edgeprune, tmp_path):
    made = content()
    write(tmp_path / "s.h5", made, labels=made.labels % 2)
    out = edgeprune("issues", tmp_path / "s.h5")[1]
    assert "below 0.00, where another class was as probable as the label" in out


def test_the_command_lists_all_and_writes_json_and_csv(edgeprune, planted, scores, tmp_path):
    files = ("--json", tmp_path / "i.json", "--csv", tmp_path / "i.csv", "--top", "2")
    code, out, err = edgeprune("issues", scores, "--source", planted.spec, *files)
    assert code == 0, err
    assert "2 images of 34 may be mislabeled" in out
    assert "below -0.69, where another class was 2 times as probable" in out
    assert out.index("-1.609") < out.index("-0.916")
    assert "3 groups of near duplicates among 34 images, 7 images in all" in out
    assert "... and 1 more" in out
    found = json.loads((tmp_path / "i.json").read_text())
    assert [one["row"] for one in found["mislabeled"]["images"]] == [7, 2]
    assert found["mislabeled"]["images"][0]["image"] == planted.source.name(7)
    groups = found["duplicates"]["groups"]
    assert [[one["row"] for one in group["images"]] for group in groups] == [[5, 32], [3, 30, 33], [4, 31]]
    assert [group["classes_differ"] for group in groups] == [True, False, False]
    exact = [[one["exact"] for one in group["images"][1:]] for group in groups]
    mirrored = [[one["mirrored"] for one in group["images"][1:]] for group in groups]
    assert (exact, mirrored) == ([[True], [True, True], [False]], [[False], [False, False], [True]])
    lines = list(csv.DictReader((tmp_path / "i.csv").read_text().splitlines()))
    assert [line["issue"] for line in lines] == [
        *["label"] * 2,
        *["duplicate of another class"] * 2,
        *["duplicate"] * 5,
    ]
    assert [line["row"] for line in lines[:2]] == ["7", "2"]


def test_scores_alone_and_a_pack_alone(edgeprune, planted, scores, tmp_path):
    code, out, _ = edgeprune("issues", scores)
    assert code == 0
    assert "row 7" in out
    assert "duplicates" not in out
    build_pack(planted.spec, tmp_path / "p.h5", LOSSLESS)
    code, out, _ = edgeprune("issues", "--source", tmp_path / "p.h5", "-q", "--json", tmp_path / "i.json")
    assert (code, out) == (0, "")
    found = json.loads((tmp_path / "i.json").read_text())
    assert found["mislabeled"] is None
    groups = found["duplicates"]["groups"]
    assert {frozenset(one["row"] for one in group["images"]) for group in groups} == {
        frozenset({5, 32}),
        frozenset({3, 30, 33}),
        frozenset({4, 31}),
    }
    rows = open_pack(tmp_path / "p.h5").source_index
    for one in groups[0]["images"]:
        assert one["image"] == f"{tmp_path / 'p.h5'}[{rows.tolist().index(one['row'])}]"
    # With both, those that look mislabeled are named as the pack has them.
    code, out, _ = edgeprune("issues", scores, "--source", tmp_path / "p.h5")
    assert code == 0
    assert f"{tmp_path / 'p.h5'}[{rows.tolist().index(7)}]" in out


def test_scores_of_others_and_nothing_named_are_refused(edgeprune, npz, scores, tmp_path):
    code, _, err = edgeprune("issues", scores, "--source", npz)
    assert (code, len(err.splitlines())) == (1, 1)
    assert "scores of other images" in err
    build_pack(npz, tmp_path / "p.h5")
    code, _, err = edgeprune("issues", scores, "--source", tmp_path / "p.h5")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "scores of other images than" in err
    code, _, err = edgeprune("issues")
    assert code == 2
    assert "name a scores file, --source or both" in err
    for words, said in (
        (["s.h5", "--size", "8"], "--size has no effect without --source"),
        (["--source", tmp_path / "p.h5", "--split", "test"], "--split has no effect with a pack"),
        (["--source", tmp_path / "no.h5"], "no.h5"),
        (
            ["--source", "https://example.org/p.h5"],
            "https://example.org/p.h5: duplicates are looked for in local files",
        ),
        (["--source", tmp_path], f"did you mean imagefolder:{tmp_path}?"),
    ):
        code, _, err = edgeprune("issues", *(scores if word == "s.h5" else word for word in words))
        assert (code, len(err.splitlines())) in ((1, 1), (2, 1)), err
        assert said in err
    code, _, err = edgeprune("issues", "--source", npz, "--distance", "25")
    assert (code, err.splitlines()[-1]) == (2, "edgeprune: error: --distance is 0 to 24 bits, not 25")


TWINS = BuildConfig(codec="sparse-f32", freq_prune=0.0, seed=2, drop_duplicates=True)


def test_a_build_leaves_duplicates_out_and_says_so(edgeprune, planted, tmp_path):
    code, out, _ = edgeprune(
        "build", planted.spec, "--drop-duplicates", "--sample-prune", "0", "-o", tmp_path / "p.h5"
    )
    assert code == 0
    assert (
        "5 near duplicates of 3 groups left out (0 3, 1 1, 2 1); "
        "1 group with more than one class left out whole, 2 images"
    ) in out
    pack = open_pack(tmp_path / "p.h5")
    assert sorted(pack.source_index.tolist()) == sorted(set(range(34)) - set(planted.gone))
    assert pack.header.provenance["duplicates"] == {
        "distance": DISTANCE,
        "groups": 3,
        "left_out": 5,
        "groups_of_several_classes": 1,
        "left_out_with_them": 2,
        "classes": {"0": 3, "1": 1, "2": 1},
    }
    # Its source is still named by the content of all images.
    assert pack.header.provenance["source"]["sha256"] == check_source(planted.source).sha256


def test_scores_choose_among_what_is_left(planted, scores, tmp_path):
    config = replace(TWINS, method="je", coreset=CoresetConfig("dual"), sample_prune=0.5)
    build_pack(planted.spec, tmp_path / "p.h5", config, scores=scores)
    pack = open_pack(tmp_path / "p.h5")
    rows = pack.source_index.tolist()
    assert len(rows) == round(29 / 2)
    assert not set(rows) & set(planted.gone)
    expected = dual(read_scores_file(scores).array("probabilities"))[rows]
    np.testing.assert_allclose(pack.scores, expected, rtol=1e-6)
    assert pack.header.provenance["coreset"]["drawn_from"] == 29


@pytest.mark.slow
def test_parts_and_budgets_leave_out_the_same_and_look_for_them_once(planted, tmp_path, monkeypatch):
    looked = []

    def counted(prints):
        looked.append(len(prints.rows))
        return find_duplicates(prints)

    monkeypatch.setattr(deduplication, "find_duplicates", counted)
    build_pack(planted.spec, tmp_path / "whole.h5", TWINS, jobs=2)
    whole = sorted(open_pack(tmp_path / "whole.h5").source_index.tolist())
    build_share(planted.spec, tmp_path / "parts", Share(1, 1), TWINS)
    build_share(planted.spec, tmp_path / "parts", Share(1, 1), TWINS)
    assemble(tmp_path / "parts", tmp_path / "assembled.h5")
    assert sorted(open_pack(tmp_path / "assembled.h5").source_index.tolist()) == whole
    assert looked == [34, 34]
    config = BuildConfig(drop_duplicates=True, tile="8")
    budget = 20_000

    def build(path, config, **options):
        return build_pack(planted.spec, path, config, **options)

    fit = build_within(build, tmp_path / "fit.h5", config, budget)
    assert fit.builds > 1
    assert looked == [34, 34, 34]
    assert sorted(open_pack(tmp_path / "fit.h5").source_index.tolist()) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "assembled.h5",
        "fit.h5",
        "parts",
        "whole.h5",
    ]


def test_unreadable_images_are_left_out_before_duplicates_are_looked_for(tmp_path):
    spec = write_photos(tmp_path / "photos", 9)
    files = sorted((tmp_path / "photos").rglob("*.png"))
    files[0].write_bytes(files[0].read_bytes()[:80])
    files[2].write_bytes(files[1].read_bytes())
    with pytest.raises(SourceError, match="`skip_bad=True`"):
        build_pack(spec, tmp_path / "p.h5", TWINS)
    report = build_pack(spec, tmp_path / "p.h5", replace(TWINS, skip_bad=True))
    assert len(report.skipped) == 1
    assert sorted(open_pack(tmp_path / "p.h5").source_index.tolist()) == [1, 3, 4, 5, 6, 7, 8]
    build_share(spec, tmp_path / "parts", Share(1, 1), replace(TWINS, skip_bad=True))
    assemble(tmp_path / "parts", tmp_path / "assembled.h5")
    assert sorted(open_pack(tmp_path / "assembled.h5").source_index.tolist()) == [1, 3, 4, 5, 6, 7, 8]


def test_images_without_classes_have_duplicates_too(tmp_path):
    images = smooth(8)[[0, 1, 2, 3, 2, 4, 5, 6]].transpose(0, 2, 3, 1)
    np.savez(tmp_path / "i.npz", x=images, steering=np.linspace(-1, 1, 8, dtype="f4"))
    spec = f"npz:{tmp_path / 'i.npz'}?target=steering:value"
    report = build_pack(spec, tmp_path / "p.h5", TWINS)
    assert sorted(open_pack(report.path).source_index.tolist()) == [0, 1, 2, 3, 5, 6, 7]
    assert report.header.provenance["duplicates"]["classes"] == {}


def test_images_that_are_all_alike_and_of_several_classes_make_no_pack(tmp_path):
    np.savez(tmp_path / "i.npz", x=np.full((4, 8, 8, 3), 7, np.uint8), y=np.arange(4) % 2)
    with pytest.raises(SourceError, match="leave out `drop_duplicates`"):
        build_pack(f"npz:{tmp_path / 'i.npz'}", tmp_path / "p.h5", TWINS)
