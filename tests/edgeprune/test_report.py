"""The page of a pack: what it says, and that nothing in a pack becomes a part of it."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import reported
import small_builds
from plane_packs import plane_header, plane_pack, plane_pixels, plane_spectra
from target_packs import target_pack

from edgeprune import BuildConfig, CoresetConfig, build_pack, open_source
from edgeprune.inference.evaluation import evaluate
from edgeprune.inference.predictors import open_predictor
from edgeprune.issues.mislabeled import Suspects
from edgeprune.report.album import Album
from edgeprune.report.charts import bar, histogram, lines, ticks
from edgeprune.report.facts import compare_sizes
from edgeprune.report.issues import find_issues, suspect_cards
from edgeprune.report.page import look_at_run, write_report
from edgeprune.report.preview import open_originals
from edgeprune.report.selection import score_of, select
from edgeprune.report.statistics import class_balance, distribution, masks, target_values
from edgeprune.scoring.scores_file import read_scores_file
from edgeprune_formats import ConfigError, PackWriter, open_pack
from edgeprune_runtime import PackDataset
from edgeprune_runtime.errors import ArtifactError

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=https://example.org/x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %} &amp; <b>\u202e",
)


class Read(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    VOID = ("meta", "img")

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.open, self.cards = [], "", [], Counter()
        self.feed(page.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if ("class", "card") in attributes:
            self.cards[self.sections()[-1]] += 1

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text += text

    def all(self, tag, **wanted):
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]

    def sections(self):
        return [found["id"] for found in self.all("section")]


def written(folder, pack, **options):
    write_report(open_pack(pack), folder / "report.html", **options)
    return Read(folder / "report.html")


def assert_harmless(read):
    """Nothing is fetched, and no script runs but ours."""
    assert len(read.all("script")) == 1
    for tag, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert attributes.get("src", "data:").startswith("data:image/webp;base64,") or tag != "img"
        assert attributes.get("href", "#").startswith("#")
    (policy,) = read.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in policy["content"]
    assert "unsafe" not in policy["content"]


def test_what_strangers_wrote_is_text(tmp_path):
    path = target_pack(tmp_path / "<b>.h5", class_names=HOSTILE)
    read = written(tmp_path, path)
    assert_harmless(read)
    assert HOSTILE[0] in read.text
    assert HOSTILE[1] in read.text
    assert r"{{ 7 * 7 }}{% raw %} &amp; <b>\u202e" in read.text
    assert "\u202e" not in read.text
    assert "even areas" in read.text
    assert not read.all("b")
    assert read.sections() == ["pack", "images", "issues", "statistics", "provenance"]
    assert all(image["alt"] for image in read.all("img"))
    assert {"scope"} <= set(read.all("th")[0])


def test_every_kind_of_column_is_told(tmp_path):
    pack = open_pack(target_pack(tmp_path / "p.h5"))
    found = {values.name: values for values in target_values(pack)}
    assert list(found) == ["kind", "tags", "value", "soft", "file", "row", "weight"]
    assert [one.images for one in found["kind"].balance.counted] == np.bincount(pack.labels).tolist()
    assert found["tags"].balance.counted[2].images == 12
    assert len(found["value"].charts) == 2
    assert found["file"].kind == "text, 24 different"
    assert found["file"].examples[0] == "0.jpg"
    assert all("<svg" in found[name].charts[0] for name in ("row", "weight"))


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize(
    ("channels", "bits", "codec"),
    [(1, 8, "quantized"), (2, 8, "sparse-f32"), (3, 16, "quantized"), (5, 8, "quantized")],
)
def test_images_of_any_planes(tmp_path, channels, bits, codec):
    pixels = plane_pixels(12, channels, 8, 12, bits)
    path = plane_pack(tmp_path / "p.h5", plane_header(pixels, codec), pixels)
    read = written(tmp_path, path)
    assert_harmless(read)
    assert read.cards["images"] == 12
    found = masks(open_pack(path))
    assert (found.images, len(found.planes)) == (12, channels)
    # All components are kept by these codecs' packs, but for what was rounded to zero.
    assert bool(found.chart) == (codec == "quantized")


def test_a_provenance_may_hold_anything(tmp_path):
    pixels = plane_pixels(4, 1, 8, 8)
    odd = {
        "source": {"spec": 3, "license": []},
        "result": {"psnr_db": "x"},
        "coreset": {"score": ["x"], "keep_end": 1},
        "more": "\u202e</pre>",
    }
    header = plane_header(pixels, provenance=odd)
    with PackWriter(tmp_path / "p.h5", header, [0, 1] * 2, np.arange(4), scores=np.arange(4.0)) as writer:
        writer.append(plane_spectra(header, pixels), np.ones(pixels.shape, bool))
    read = written(tmp_path, tmp_path / "p.h5")
    assert r"\u202e</pre>" in read.text
    assert "selection" in read.sections()


def test_a_pack_without_classes(tmp_path):
    path = target_pack(tmp_path / "p.h5", class_names=(), columns=["value"])
    read = written(tmp_path, path)
    assert read.cards["images"] == 24
    assert not read.all("select")
    assert "The first images of the pack" in read.text
    assert "Classes" not in read.text


def test_forms_of_the_same_images_have_at_least_the_psnr_of_the_pack(tmp_path, npz):
    build_pack(npz, tmp_path / "p.h5", BuildConfig(quality=60))
    pack = open_pack(tmp_path / "p.h5")
    sizes = compare_sizes(pack, open_originals(pack, npz))
    raw, png, jpeg, webp, own = sizes.forms
    assert (raw.bytes_per_image, sizes.images, sizes.note) == (768, 40, "")
    assert png.psnr == np.inf
    assert jpeg.name.startswith("JPEG, quality ")
    assert own.bytes_per_image == (tmp_path / "p.h5").stat().st_size / 40
    dataset = PackDataset(pack, backend="scipy")
    decoded = np.rint(255 * np.stack([dataset[row][0] for row in range(40)]).clip(0, 1))
    original = open_source(npz).read(pack.source_index)
    error = np.mean((decoded - original.astype(float)) ** 2)
    assert own.psnr == pytest.approx(10 * np.log10(255**2 / error), abs=1e-3)
    # The build measures before values are cut to 0..255, which brings them nearer.
    assert own.psnr >= pack.header.provenance["result"]["psnr_db"]
    assert jpeg.psnr >= own.psnr or jpeg.name.endswith("100")
    assert webp.psnr >= own.psnr or webp.name.endswith("100")
    assert [form.name for form in compare_sizes(pack, None).forms] == ["raw pixels, uint8", "this pack"]


def test_planes_are_files_of_their_own(tmp_path):
    pixels = plane_pixels(6, 4, 16, 16)
    np.savez(tmp_path / "x.npz", x=pixels, y=np.arange(6) % 2)
    build_pack(f"npz:{tmp_path / 'x.npz'}", tmp_path / "p.h5", BuildConfig())
    pack = open_pack(tmp_path / "p.h5")
    sizes = compare_sizes(pack, open_originals(pack, f"npz:{tmp_path / 'x.npz'}"))
    assert len(sizes.forms) == 5
    assert sizes.note == "Each plane is a gray file."
    assert sizes.forms[1].bytes_per_image > 4 * 60


@pytest.mark.slow
def test_kept_and_left_out_are_those_of_the_scores(tmp_path, scored, npz):
    how = CoresetConfig(gamma=0.5, window=1)
    config = replace(small_builds.LF, method="je", sample_prune=0.5, coreset=how)
    build_pack(scored.spec, tmp_path / "p.h5", config, scores=scored.scores)
    pack, scores = open_pack(tmp_path / "p.h5"), read_scores_file(scored.scores)
    known = score_of(pack, scores)
    assert sorted(known.rows[known.kept].tolist()) == sorted(pack.source_index.tolist())
    places = np.searchsorted(known.rows, pack.source_index)
    np.testing.assert_allclose(known.values[places], pack.scores, rtol=1e-6)
    selection = select(known, Album(pack, scored.source))
    assert (selection.kept, selection.rejected) == (24, 24)
    assert {name: len(cards) for name, cards in selection.cards.items()} == {"kept": 24, "left out": 24}
    values = [float(card.lines[-1].split()[1]) for card in selection.cards["left out"]]
    assert values == sorted(values)
    alone = score_of(pack, None)
    assert alone.kept.all()
    assert alone.name == known.name == "joint_entropy"
    read = written(tmp_path, pack.path, source=scored.source, scores=scores)
    assert "selection" in read.sections()
    assert (read.cards["images"], read.cards["selection"]) == (24, 48)
    originals = [one["alt"] for one in read.all("img") if one["alt"].startswith("original")]
    assert len([alt for alt in originals if "score " in alt]) == 24 + 48
    build_pack(npz, tmp_path / "other.h5", BuildConfig())
    with pytest.raises(ArtifactError, match=r"scores of other images than .*other.h5 was built from"):
        score_of(open_pack(tmp_path / "other.h5"), scores)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return reported.pack_and_run(tmp_path_factory.mktemp("reported"))


@pytest.mark.slow
def test_the_confusion_is_that_of_evaluate(trained, tmp_path):
    pack, model = open_pack(trained / "pack.h5"), open_predictor(trained / "run")
    training = look_at_run(pack, trained / "run", model, None)
    expected = evaluate(model, trained / "pack.h5")
    found = training.tested
    assert (found.images, found.of, training.own) == (48, 48, True)
    assert found.summary[0].startswith(f"accuracy {expected.accuracy:.2%}, mean recall of the classes ")
    assert [row[0] for row in found.table.rows] == list(expected.class_names)
    assert [[cell.images for cell in row] for row in found.matrix] == expected.matrix().tolist()
    wrong = sum(count for _, _, count in expected.confused())
    assert len(found.cards) == min(24, wrong)
    assert len(training.curves) == 2
    test = look_at_run(pack, trained / "run", model, f"npz:{trained / 'images.npz'}")
    assert (test.data, test.own, test.tested.images) == ("images.npz", False, 48)
    read = written(tmp_path, pack.path, training=training)
    assert read.sections()[-2:] == ["training", "provenance"]


def test_what_does_not_fit_the_run_is_refused(trained, make_pack):
    model = open_predictor(trained / "run")
    path, _ = make_pack(samples=3)
    with pytest.raises(ConfigError, match=r"has images .* takes"):
        look_at_run(open_pack(path), trained / "run", model, None)
    path, _ = make_pack(samples=3, size=(12, 12), components=9)
    with pytest.raises(ConfigError, match=r"has images of classes that .*run lacks: dog"):
        look_at_run(open_pack(path), trained / "run", model, None)


@pytest.mark.slow
def test_of_many_classes_some_are_shown_and_the_ends_counted(tmp_path):
    pixels, names = plane_pixels(700, 1, 2, 2), tuple(f"class {n:03}" for n in range(700))
    header = plane_header(pixels, "sparse-f32", class_names=names, chunk_samples=700)
    with PackWriter(tmp_path / "p.h5", header, np.arange(700), np.arange(700)) as writer:
        writer.append(plane_spectra(header, pixels), np.ones(pixels.shape, bool))
    groups = Album(open_pack(tmp_path / "p.h5")).groups()
    assert len(groups) == 240
    assert {len(group.cards) for group in groups} == {1}
    assert (groups[0].name, groups[-1].name) == ("class 000", "class 699")
    read = written(tmp_path, tmp_path / "p.h5")
    assert "240 of 700 classes are shown" in read.text
    counts = np.arange(1, 701)
    balance = class_balance(names, counts)
    assert [one.images for one in balance.counted][:2] == [700, 699]
    assert balance.counted[-1].images == 1
    assert "<svg" in balance.chart


def test_large_images_are_fewer_and_smaller(tmp_path):
    pixels = plane_pixels(4, 1, 150, 300)
    header = plane_header(pixels, tile="16")
    path = plane_pack(tmp_path / "p.h5", header, pixels)
    groups = Album(open_pack(path)).groups()
    assert [len(group.cards) for group in groups] == [2, 2]
    assert {(one.width, one.height) for card in groups[0].cards for one in card.pictures} == {(128, 64)}


def test_ticks_are_round_and_inside():
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(-0.31, 0.42) == pytest.approx([-0.2, 0, 0.2, 0.4])
    assert ticks(0, 3.4e38) == pytest.approx([0, 1e38, 2e38, 3e38])


def test_charts_escape_names_and_take_what_is_odd():
    chart = lines("<t>", {"<i>": [(1, 2.0)], "none": []}, "<x>", '"y"')
    assert not {"<t>", "<i>", "<x>"} & set(chart.split())
    assert "&lt;x&gt;" in chart
    assert "<circle" in chart
    assert lines("t", {"none": []}, "x", "y") == ""
    assert histogram("t", {"a": [0, 0]}, [0, 1, 2], "x").count("<rect") == 0
    stacked = histogram("t", {"a": [1, 0], "b": [1, 2]}, [0, 1, 2], "x")
    assert stacked.count('class="box') == 3
    assert 'width="50.00%"' in bar(0.5)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e16, -1.7e18, 3e38])
def test_charts_of_equal_values_have_room_around_them(value):
    bars = distribution("t", {"": np.full(3, value)}, "x")
    # One bar, in the middle.
    found = re.findall(r'class="box c0" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', bars)
    assert [float(x) <= 200 <= float(x) + float(width) + 1 for x, width in found] == [True]
    assert lines("t", {"train": [(1, value)]}, "epoch", "loss").count('cx="200.0" cy="87.0"') == 1


def test_the_command(edgeprune, tmp_path, npz, monkeypatch):
    pack, page = tmp_path / "p.h5", tmp_path / "r.html"
    assert edgeprune("build", npz, "-o", pack, "-q")[0] == 0
    (tmp_path / "other").mkdir()
    other = small_builds.write_source(tmp_path / "other", images=3)
    code, out, err = edgeprune("report", pack, "--source", npz, "-o", page)
    assert (code, err) == (0, "")
    assert out.startswith(f"{page}: ")
    assert edgeprune("report", pack, "-o", page)[2].endswith("exists; pass --force to replace it\n")
    assert edgeprune("report", pack, "-o", page, "--force", "-q") == (0, "", "")
    for words, message in (
        (["-o", pack, "--force"], "is the pack; name another file"),
        (["-o", tmp_path / "b.html", "--source", other], "the pack holds"),
        (
            ["-o", tmp_path / "b.html", "--test", npz],
            "--test is for the network of a run; name that with --run",
        ),
    ):
        code, out, err = edgeprune("report", pack, *words)
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert message in err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'edgeprune[build]'" in edgeprune("report", pack, "-o", tmp_path / "b.html")[2]
    assert not (tmp_path / "b.html").exists()


def test_near_duplicates_are_shown_those_of_several_classes_first(tmp_path):
    images, labels = small_builds.pixels()
    images[40], images[41], images[42] = images[4], images[5], images[6, :, ::-1]
    np.savez(tmp_path / "x.npz", x=images, y=labels)
    build_pack(f"npz:{tmp_path / 'x.npz'}", tmp_path / "p.h5", BuildConfig(codec="sparse-f32"))
    pack = open_pack(tmp_path / "p.h5")
    issues = find_issues(Album(pack), None)
    rows = [sorted(int(card.lines[1].split()[1]) for card in group) for group in issues.groups]
    pairs = [sorted(pack.source_index[some].tolist()) for some in rows]
    assert [4, 40] in pairs
    assert [5, 41] in pairs
    assert [6, 42] in pairs
    assert (issues.suspects, issues.compared, issues.found) == (None, 48, len(issues.groups))
    of_several = [len({card.lines[0] for card in group}) > 1 for group in issues.groups]
    assert of_several == sorted(of_several, reverse=True)
    assert sum(of_several) == issues.differing
    assert {len(card.pictures) for group in issues.groups for card in group} == {1}


def test_suspects_are_shown_of_the_source_or_of_the_pack(tmp_path, scored):
    build_pack(scored.spec, tmp_path / "p.h5", BuildConfig(sample_prune=0.5))
    pack = open_pack(tmp_path / "p.h5")
    rows = np.arange(48)
    suspects = Suspects(rows, scored.source.labels, np.linspace(-9, -1, 48), -1.0, 48)
    of_source = suspect_cards(Album(pack, scored.source), suspects)
    assert [card.lines[2] for card in of_source][:1] == ["margin -9.00"]
    assert len(of_source) == 24
    of_pack = suspect_cards(Album(pack), suspects)
    assert len(of_pack) == 24
    kept = sorted(pack.source_index.tolist())
    shown = [int(card.lines[1].split()[1]) for card in of_pack]
    assert pack.source_index[shown].tolist() == kept
    gone = ["not in the pack" in card.lines[1] for card in of_source]
    assert gone == [row not in kept for row in range(24)]
