import re
import signal
from pathlib import Path

import numpy as np
import plain_commands
import pytest
from scoring_runs import (
    IMAGES,
    STEPS,
    TINY,
    Crash,
    arrays,
    assert_same_scores,
    crash,
    interrupt,
    names,
    options,
)

from edgeprune.commands.packs import score as score_command
from edgeprune.scoring import run as scoring
from edgeprune.scoring.config import ScoreConfig
from edgeprune.scoring.scores_file import read_scores_file


def test_a_scores_file_with_a_line_for_each_epoch_and_one_at_the_end(edgeprune, spec, tmp_path, whole):
    path = tmp_path / "s.h5"
    code, out, err = edgeprune("score", spec, "-o", path, *options(TINY))
    assert code == 0
    assert_same_scores(path, whole.path)
    assert read_scores_file(path).provenance["config"] == whole.provenance["config"]
    assert re.fullmatch(
        rf"{re.escape(str(path))}: 40 images, resnet8, 3 epochs, training accuracy \d+\.\d\d%, "
        r"\d+\.\d% of the time in the records, images on the device\n",
        out,
    )
    lines = [line for line in err.replace("\r", "\n").splitlines() if line.startswith("scoring")]
    assert [bool(re.search(r"loss \d\.\d{4}", line)) for line in lines] == [True] * 3
    assert ["entropy" in line for line in lines] == [False, True, True]
    assert [line.split()[2] for line in lines] == ["1/3", "2/3", "3/3"]
    assert names(tmp_path) == ["s.h5"]


@pytest.mark.slow
def test_quiet_says_nothing(edgeprune, spec, tmp_path):
    assert edgeprune("score", spec, "-o", tmp_path / "s.h5", *options(TINY), "-q") == (0, "", "")


@pytest.mark.slow
def test_the_embedded_digits_are_the_default(edgeprune, tmp_path, monkeypatch):
    asked = {}

    def record(source, check, path, config, **others):
        asked.update(spec=source.spec, config=config, images=len(check.good), **others)
        raise Crash

    monkeypatch.setattr(scoring, "run_scoring", record)
    with pytest.raises(Crash):
        edgeprune("score", "-o", tmp_path / "s.h5", "-q")
    assert asked["spec"] == "digits"
    assert asked["images"] == 1438
    assert asked["config"] == ScoreConfig()
    assert asked["replace_existing"] is False


def test_every_option_arrives(edgeprune, tmp_path, monkeypatch, spec):
    asked = []

    def record(source, check, path, config, **others):
        asked.append((source.shape, config, others["replace_existing"]))
        raise Crash

    monkeypatch.setattr(scoring, "run_scoring", record)
    given = ["--model", "resnet20", "--epochs", 9, "--every", 4, "--batch-size", 7, "--lr", 0.3]
    given += ["--weight-decay", 0.01, "--augment", "flip", "--seed", 5, "--device", "cpu"]
    given += ["--precision", "bfloat16", "--compile", "--jobs", 3, "--size", 12, "--force", "-q"]
    with pytest.raises(Crash):
        edgeprune("score", spec, "-o", tmp_path / "s.h5", *given)
    config = ScoreConfig("resnet20", 9, 4, 7, 0.3, 0.01, "flip", 5, "cpu", "bfloat16", True, 3)
    assert asked == [((3, 12, 12), config, True)]


def test_the_options_have_the_defaults_of_the_settings():
    defaults = {option.name: option.default for option in score_command.command.params}
    for name, value in vars(ScoreConfig()).items():
        # None and False stand for an option that is not given.
        if value:
            assert defaults[name] == value


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["npz:images.npz"], 2, "Missing option '-o'"),
        (["npz:images.npz", "-o", "s.h5", "--model", "vgg"], 2, "'vgg' is not one of"),
        (["npz:images.npz", "-o", "s.h5", "--augment", "blur"], 2, "'blur' is not one of"),
        (["npz:images.npz", "-o", "s.h5", "--epochs", "many"], 2, "not a valid integer"),
        (["npz:images.npz", "-o", "s.h5", "--epochs", "0"], 2, "--epochs is 0"),
        (["npz:images.npz", "-o", "s.h5", "--epochs", "3", "--every", "4"], 2, "--every is 4; it must be at"),
        (["npz:images.npz", "-o", "s.h5", "--every", "0"], 2, "--every is 0"),
        (["npz:images.npz", "-o", "s.h5", "--batch-size", "1"], 2, "raise --batch-size"),
        (["npz:images.npz", "-o", "s.h5", "--lr", "0"], 2, "--lr is 0.0"),
        (["npz:images.npz", "-o", "s.h5", "--lr", "nan"], 2, "--lr is nan"),
        (["npz:images.npz", "-o", "s.h5", "--seed", "-1"], 2, "--seed is -1"),
        (["npz:images.npz", "-o", "s.h5", "--jobs", "0"], 2, "--jobs must be at least 1, not 0"),
        (["npz:images.npz", "-o", "s.h5", "--device", "tpu"], 2, "unknown device 'tpu'"),
        (["npz:images.npz", "-o", "s.h5", "--device", "cuda:99"], 2, "cuda:99"),
        (["npz:images.npz", "-o", "s.h5", "--size", "0"], 2, "size"),
        (["folder:x", "-o", "s.h5"], 2, "unknown source 'folder:x'"),
        (["npz:none.npz", "-o", "s.h5"], 1, "none.npz"),
        (["imagefolder:empty", "-o", "s.h5"], 1, "empty"),
        (["npz:images.npz", "-o", "nowhere/s.h5"], 1, "there is no folder nowhere"),
        (["npz:images.npz", "-o", "empty"], 1, "is a folder"),
        (["-o", "."], 1, "is a folder"),
        (["npz:images.npz", "-o", "images.npz", "--force"], 2, "images.npz is the source; name another"),
        (["npz:images.npz", "-o", "pack.h5"], 2, "pack.h5 exists and is not a sound scores file"),
        (["npz:images.npz", "-o", "scores.h5", "--epochs", "4"], 2, "exists and was made with"),
        (["npz:damaged.npz", "-o", "s.h5"], 1, "damaged.npz"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    edgeprune, spec, whole, tmp_path, monkeypatch, make_pack, arguments, code, words
):
    monkeypatch.chdir(tmp_path)
    images = Path(spec.removeprefix("npz:")).read_bytes()
    (tmp_path / "images.npz").write_bytes(images)
    (tmp_path / "damaged.npz").write_bytes(images[:999])
    (tmp_path / "scores.h5").write_bytes(whole.path.read_bytes())
    (tmp_path / "empty").mkdir()
    make_pack(samples=3)
    before = {path: path.is_dir() or path.read_bytes() for path in tmp_path.iterdir()}
    found, out, err = edgeprune("score", *arguments, "-q")
    assert (found, out) == (code, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert err.startswith("edgeprune: error: ")
    assert {path: path.is_dir() or path.read_bytes() for path in tmp_path.iterdir()} == before


def test_settings_are_checked_before_images_are_read(edgeprune, spec, tmp_path, monkeypatch):
    monkeypatch.setattr("edgeprune.sources.arrays.ArraySource.read", lambda *_: crash())
    for wrong in (["--lr", "-1"], ["--epochs", "0"], ["--device", "cuda:99"], ["--every", "0"]):
        assert edgeprune("score", spec, "-o", tmp_path / "s.h5", *wrong)[0] == 2
    assert edgeprune("score", spec, "-o", tmp_path / "no" / "s.h5")[0] == 1
    with pytest.raises(Crash):
        edgeprune("score", spec, "-o", tmp_path / "s.h5")


def test_a_file_that_is_there_is_used_refused_or_replaced(edgeprune, spec, tmp_path, whole):
    path = tmp_path / "s.h5"
    path.write_bytes(whole.path.read_bytes())
    code, out, err = edgeprune("score", spec, "-o", path, *options(TINY))
    assert code == 0
    assert "40 images, resnet8, 3 epochs" in out
    assert "scoring" not in err
    assert path.read_bytes() == whole.path.read_bytes()
    code, _, err = edgeprune("score", spec, "-o", path, *options(TINY), "--weight-decay", 0, "-q")
    assert code == 2
    assert "made with weight_decay 0.0005, not 0.0; give it to a build as its --scores, or" in err
    replaced = edgeprune("score", spec, "-o", path, *options(TINY), "--weight-decay", 0, "-q", "--force")
    assert replaced == (0, "", "")
    assert read_scores_file(path).provenance["config"]["weight_decay"] == 0
    assert len(arrays(path)["samples/rows"]) == IMAGES


def test_a_rate_far_too_high(edgeprune, spec, tmp_path):
    wrong = [*options(TINY), "--lr", "1e20", "-q"]
    code, out, err = edgeprune("score", spec, "-o", tmp_path / "s.h5", *wrong)
    assert (code, out) == (1, "")
    assert re.fullmatch(
        r"edgeprune: error: the loss became \w+ in epoch .* a lower learning rate than 1e\+20 .*\n", err
    )
    assert names(tmp_path) == ["s.h5.work"]


@pytest.mark.first_are_quick
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on_and_does(edgeprune, spec, tmp_path, whole, monkeypatch, number):
    path = tmp_path / "s.h5"
    calls = []

    def send(lines, event):
        calls.append(event)
        if len(calls) == STEPS + 2:
            interrupt(number)()

    # A shell that starts the tests in the background has its children ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr("edgeprune.work.resumable.ResumableRun.report_seconds", -1)
        patch.setattr("edgeprune.work.progress.EpochLines.__call__", send)
        code, out, err = edgeprune("score", spec, "-o", path, *options(TINY), "-q")
    signal.signal(signal.SIGINT, before)
    assert (code, out) == (128 + number, "")
    assert err == "edgeprune: interrupted in epoch 2 of 3; run the same command again to go on\n"
    assert names(tmp_path) == ["s.h5.work"]
    code, _, err = edgeprune("score", spec, "-o", path, *options(TINY), "--weight-decay", 0, "-q")
    assert code == 2
    assert "weight_decay was 0.0005 and is now 0.0; resume with the former" in err
    assert len(err.splitlines()) == 1
    assert edgeprune("score", spec, "-o", path, *options(TINY), "-q") == (0, "", "")
    assert_same_scores(path, whole.path)


def test_images_that_cannot_be_read_are_left_out_when_asked_for(edgeprune, tmp_path):
    from PIL import Image

    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(5):
            pixels = np.full((20, 30, 3), 40 * number + len(label), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    (tmp_path / "photos" / "dog" / "2.png").write_bytes(b"none")
    arguments = [f"imagefolder:{tmp_path / 'photos'}", "-o", tmp_path / "s.h5", *options(TINY), "-q"]
    code, _, err = edgeprune("score", *arguments, "--size", 16)
    assert code == 1
    assert "pass --skip-bad to leave such images out" in err
    assert edgeprune("score", *arguments, "--size", 16, "--skip-bad") == (0, "", "")
    assert read_scores_file(tmp_path / "s.h5").rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 9]


def without_torch(*arguments):
    return plain_commands.edgeprune("score", *arguments, absent=plain_commands.TORCH)


def test_help_needs_no_torch():
    done = without_torch("--help")
    assert done.returncode == 0, done.stderr
    assert "edgeprune score imagefolder:photos" in done.stdout


@pytest.mark.slow
def test_scoring_without_torch_says_what_to_install(tmp_path):
    done = without_torch("-o", tmp_path / "s.h5")
    assert done.returncode == 2
    assert done.stderr == "edgeprune: error: scoring needs torch; pip install 'edgeprune[build]'\n"
    assert list(tmp_path.iterdir()) == []
