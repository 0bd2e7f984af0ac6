import copy
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import small_builds
import torch
from scipy.fft import dctn, idctn
from small_builds import LF, MASKS

import edgeprune.work.resumable
from edgeprune.masks import learning as mask_learning
from edgeprune.masks.classifier import classifier_from_scores
from edgeprune.masks.components import energy_mask
from edgeprune.masks.learning import learn_masks, preset_for
from edgeprune.scoring.scores_file import read_scores_file
from edgeprune.sources import check_source
from edgeprune.work.processes import Workers
from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import ArtifactError, TrainingError
from edgeprune_runtime.training import TrainingInterrupted

K, K_TOTAL, WEIGHT = 14, 72, 0.1
"""What the paper's settings are at 12x12 and a ratio of 0.5: 144 / 2, and 100 for each 1024 pixels."""


@pytest.fixture(scope="module")
def whole(scored, tmp_path_factory):
    """An FSE-Net that was learned without a stop."""
    path = tmp_path_factory.mktemp("whole") / "whole.safetensors"
    return path, learn(scored, path)


def masks(**changes):
    return replace(LF, masks=replace(MASKS, **changes))


def learn(scored, path, config=LF, *, check=None, classifier=None, **options):
    """Learn the masks of a build; give the network and its record."""
    return learn_masks(
        scored.source,
        check or scored.check,
        classifier or classifier_from_scores(read_scores_file(scored.scores)),
        path,
        config.masks,
        freq_prune=config.components_dropped,
        seed=config.seed,
        workers=options.pop("workers", Workers(device=config.device)),
        **options,
    )


def figures_of(net, scored, k, k_total, accuracy_weight):
    """What an epoch logs, computed image by image in double precision but for network and classifier."""
    classifier = classifier_from_scores(read_scores_file(scored.scores))
    source = scored.source
    pixels, labels = source.read(np.arange(len(source))), source.labels
    spectra = dctn(pixels / 255.0, axes=(2, 3), norm="ortho")
    with torch.no_grad():
        weights = net(torch.from_numpy(spectra).float()).numpy()
    energy, importance = np.abs(spectra).reshape(-1, 144), (weights * np.abs(spectra)).reshape(-1, 144)
    mask = np.zeros(energy.shape, bool)
    for row, kept in enumerate(mask):
        first = sorted(range(144), key=lambda i, row=row: -energy[row][i])[:k]
        kept[first] = True
        others = sorted(set(range(144)) - set(first), key=lambda i, row=row: -importance[row][i])
        kept[others[: k_total - k]] = True
    images = idctn(spectra * mask.reshape(spectra.shape), axes=(2, 3), norm="ortho")
    mean, std = (np.array(v).reshape(3, 1, 1) for v in (classifier.mean, classifier.std))
    with torch.no_grad():
        logits = classifier.model(torch.from_numpy((images - mean) / std).float()).double()
    p = logits.softmax(1).numpy()
    of_label = p[np.arange(len(labels)), labels]
    entropy = float(-(p * np.log(p)).sum(1).mean())
    strongest = energy_mask(spectra, k_total).reshape(mask.shape)
    return {
        "entropy": entropy,
        "probability": float(of_label.mean()),
        "loss": entropy - accuracy_weight * float(of_label.mean()),
        "accuracy": float((p.argmax(1) == labels).mean()),
        "overlap": float((mask & strongest).sum() / strongest.sum()),
    }


@pytest.fixture
def networks(monkeypatch):
    """The networks as they were before each step, once there were some."""
    taken = []

    class Noting(mask_learning.MaskLearner):
        def step(self, *arguments, **options):
            taken.append(copy.deepcopy(self.net))
            return super().step(*arguments, **options)

    monkeypatch.setattr(mask_learning, "MaskLearner", Noting)
    return taken


@pytest.mark.slow
def test_the_figures_of_each_epoch_are_those_of_the_network_before_it(scored, tmp_path, networks):
    # With one step an epoch, an epoch's figures are those of the network that the epochs before it gave.
    config = replace(masks(epochs=3, batch_size=100, lr=0.05), freq_prune=0.9)
    _, record = learn(scored, tmp_path / "net.safetensors", config)
    assert [epoch["epoch"] for epoch in record["history"]] == [1, 2, 3]
    assert record["history"][0]["overlap"] == 1
    assert record["history"][2]["overlap"] < 1
    assert (record["k"], record["k_total"], record["accuracy_weight"]) == (4, 14, 0.05)
    for epoch, net in zip(record["history"], networks, strict=True):
        expected = figures_of(net, scored, record["k"], record["k_total"], record["accuracy_weight"])
        # In single precision one component in a thousand may fall on the other side of a threshold.
        for name, value in expected.items():
            assert epoch[name] == pytest.approx(value, abs=2e-3), name
        assert set(epoch) == {*expected, "epoch"}


@pytest.mark.slow
@pytest.mark.parametrize("values", [5 * 3 * 144, 100])
def test_a_batch_in_pieces_gives_the_same_network_even_where_an_image_is_too_large(
    scored, whole, tmp_path, monkeypatch, values
):
    monkeypatch.setattr(mask_learning, "_STEP_VALUES", values)
    net, record = learn(scored, tmp_path / "net.safetensors")
    for found, expected in zip(record["history"], whole[1][1]["history"], strict=True):
        assert found == pytest.approx(expected, abs=1e-3)
    torch.testing.assert_close(net.state_dict(), whole[1][0].state_dict(), rtol=0, atol=1e-3)


def test_few_images_in_a_large_batch_are_cut_into_no_more_pieces_than_there_are(
    tmp_path, scored, monkeypatch
):
    monkeypatch.setattr(mask_learning, "_STEP_VALUES", 5 * 3 * 144)
    check = replace(scored.check, good=scored.check.good[:3])
    _, record = learn(scored, tmp_path / "net.safetensors", masks(batch_size=1000), check=check)
    assert np.isfinite(record["history"][-1]["loss"])


def test_the_learning_rate_falls_as_half_a_cosine(scored, tmp_path, monkeypatch):
    rates = []

    class Noting(mask_learning.MaskLearner):
        def step(self, *arguments, **options):
            rates.append(self.optimizer.param_groups[0]["lr"])
            return super().step(*arguments, **options)

    monkeypatch.setattr(mask_learning, "MaskLearner", Noting)
    learn(scored, tmp_path / "net.safetensors")
    assert rates == pytest.approx([0.01 * (1 + np.cos(np.pi * step / 6)) / 2 for step in range(6)])


@pytest.mark.slow
def test_learning_lowers_the_loss(scored, tmp_path):
    _, record = learn(scored, tmp_path / "net.safetensors", masks(epochs=12, lr=0.01))
    losses = [epoch["loss"] for epoch in record["history"]]
    assert losses[-1] < losses[0] - 0.01
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert record["history"][-1]["entropy"] < record["history"][0]["entropy"]


def test_the_record_says_what_the_network_depends_on(scored, whole):
    _, (net, record) = whole
    assert (net.height, net.width) == (12, 12)
    assert (record["k"], record["k_total"], record["accuracy_weight"]) == (K, K_TOTAL, WEIGHT)
    assert record["freq_prune"] == 0.5
    assert record["source"]["sha256"] == scored.check.sha256
    assert (
        record["classifier"]["sha256"]
        == classifier_from_scores(read_scores_file(scored.scores)).identity()["sha256"]
    )
    assert record["config"]["seed"] == LF.seed
    assert record["ran_on"] == {"device": "cpu", "precision": "float32"}
    assert set(record["versions"]) == {"edgeprune", "python", "torch", "numpy"}


def test_reports_name_the_stage_and_the_figures(scored, tmp_path):
    events = []
    learn(scored, tmp_path / "net.safetensors", report=events.append)
    ends = [event for event in events if event["event"] == "epoch"]
    assert [event["epoch"] for event in ends] == [1, 2]
    assert all(event["stage"] == "learning masks" for event in events)
    assert {"loss", "entropy", "accuracy", "overlap", "seconds"} <= set(ends[0])


class Crash(BaseException):
    """What no code expects, in place of kill -9."""


def crash():
    raise Crash


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "error"),
    [(lambda: os.kill(os.getpid(), signal.SIGINT), TrainingInterrupted), (crash, Crash)],
)
@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_stop_at_any_step_changes_no_bit(scored, whole, tmp_path, monkeypatch, stop, error, at):
    # A report, and a checkpoint, after each of the 3 steps of both epochs.
    monkeypatch.setattr(edgeprune.work.resumable.ResumableRun, "report_seconds", -1)
    monkeypatch.setattr(edgeprune.work.resumable.ResumableRun, "checkpoint_seconds", -1)
    path, calls = tmp_path / "net.safetensors", []

    def report(event):
        calls.append(event)
        if len(calls) == at:
            stop()

    with pytest.raises(error):
        learn(scored, path, report=report)
    assert not path.exists()
    first = len(calls)
    learn(scored, path, report=report)
    assert path.read_bytes() == whole[0].read_bytes()
    # None of the six steps was taken twice, but for one that was not yet kept.
    assert len(calls) - first <= 6 - at + 1
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_another_seed_gives_another_network(scored, whole, tmp_path):
    net, _ = learn(scored, tmp_path / "net.safetensors", replace(LF, seed=4))
    assert not torch.equal(net.compress.weight, whole[1][0].compress.weight)


def refuse_reports(event):
    raise AssertionError(event)


def test_a_finished_file_is_used_again(scored, whole, tmp_path):
    path, (net, record) = whole
    before = path.read_bytes()
    found, again = learn(scored, path, report=refuse_reports)
    assert again == record
    assert torch.equal(found.excite.weight, net.excite.weight)
    assert path.read_bytes() == before
    # The same pixels and weights under other names.
    pixels, labels = small_builds.pixels()
    np.savez(tmp_path / "copy.npz", x=pixels, y=labels)
    (tmp_path / "copy.h5").write_bytes(scored.scores.read_bytes())
    renamed = small_builds.Scored(f"npz:{tmp_path / 'copy.npz'}", tmp_path / "copy.h5")
    learn(renamed, path, report=refuse_reports)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "named"),
    [
        (masks(epochs=3), "epochs 2, not 3"),
        (masks(lr=0.02), r"lr 0\.01, not 0\.02"),
        (masks(batch_size=8), "batch_size 16, not 8"),
        (masks(k=13), "k 14, not 13"),
        (masks(accuracy_weight=0.5), r"accuracy_weight 0\.1, not 0\.5"),
        (replace(LF, seed=5), "seed 3, not 5"),
        (replace(LF, freq_prune=0.6), r"freq_prune 0\.5, not 0\.6"),
    ],
)
def test_a_finished_file_of_other_settings_is_refused(scored, whole, config, named):
    with pytest.raises(
        ConfigError, match=f"exists and was learned with {named}; write the pack elsewhere"
    ) as error:
        learn(scored, whole[0], config, report=refuse_reports)
    assert "\n" not in str(error.value)


def test_a_finished_file_of_other_images_or_another_classifier_is_refused(scored, whole, tmp_path):
    other = small_builds.Scored(small_builds.write_source(tmp_path, seed=5), scored.scores)
    with pytest.raises(ConfigError, match=r"learned with source \(SHA-256\)"):
        learn(other, whole[0])
    classifier = classifier_from_scores(read_scores_file(scored.scores))
    with torch.no_grad():
        classifier.model.fc.bias += 1
    with pytest.raises(ConfigError, match=r"learned with classifier \(SHA-256\)"):
        learn(scored, whole[0], classifier=classifier)


def test_a_finished_file_that_is_damaged_is_refused(scored, tmp_path):
    (tmp_path / "net.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=r"cannot be used as an FSE-Net"):
        learn(scored, tmp_path / "net.safetensors")


def test_a_folder_of_a_run_with_other_settings_is_refused(scored, tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(Crash):
        learn(scored, path, report=lambda event: crash())
    with pytest.raises(
        ConfigError, match=r"net\.safetensors\.work cannot be resumed: epochs was 2 and is now 3"
    ):
        learn(scored, path, masks(epochs=3))


def test_settings_come_from_the_paper_or_the_configuration(scored):
    preset = preset_for(scored.source, 0.5, MASKS)
    assert (preset.k, preset.k_total, preset.accuracy_weight) == (K, K_TOTAL, WEIGHT)
    preset = preset_for(scored.source, 0.5, replace(MASKS, k=0, accuracy_weight=0.0))
    assert (preset.k, preset.k_total, preset.accuracy_weight) == (0, K_TOTAL, 0.0)
    assert preset_for(scored.source, 0.5, replace(MASKS, k=K_TOTAL)).k == K_TOTAL
    with pytest.raises(
        ConfigError, match=r"`MaskConfig.k` is 73, more than the 72 components .* ratio of 0\.5 keeps"
    ):
        preset_for(scored.source, 0.5, replace(MASKS, k=73))


def test_a_loss_that_is_no_number_stops_the_learning(scored, tmp_path):
    classifier = classifier_from_scores(read_scores_file(scored.scores))
    with torch.no_grad():
        classifier.model.fc.bias[1] = torch.nan
    path = tmp_path / "net.safetensors"
    with pytest.raises(TrainingError, match=r"loss of the FSE-Net became nan; lower its learning rate"):
        learn(scored, path, classifier=classifier)
    assert not path.exists()


def test_batches_too_small_to_share_are_refused(scored, tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(ConfigError, match=r"batches of 16 images are too small for 17 processes"):
        learn(scored, path, workers=Workers(count=17, device="cpu"))
    assert list(tmp_path.iterdir()) == []


def test_images_that_were_skipped_are_not_learned_from(scored, tmp_path):
    check = check_source(scored.source)
    some = replace(check, good=check.good[5:])
    seen = []

    class Noting(mask_learning.ImageStore):
        def __init__(self, source, rows, device, **others):
            seen.append(rows)
            super().__init__(source, rows, device, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_learning, "ImageStore", Noting)
        learn(scored, tmp_path / "net.safetensors", check=some)
    np.testing.assert_array_equal(seen[0], check.good[5:])
