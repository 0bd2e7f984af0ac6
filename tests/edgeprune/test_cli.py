import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import small_builds
from PIL import Image

from edgeprune import __version__
from edgeprune.cli import COMMANDS
from edgeprune.commands import demo as demo_command
from edgeprune_formats import open_pack, verify_pack


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def one_line(err):
    lines = err.splitlines()
    return len(lines) == 1 and lines[0].startswith("edgeprune: error: ")


def test_version_and_help(edgeprune):
    assert edgeprune("--version")[1].strip() == f"edgeprune, version {__version__}"
    code, out, _ = edgeprune("--help")
    assert code == 0
    assert all(f"\n  {name}  " in out for name in COMMANDS)


# The paper's layout, in place of the default.
SPARSE = ("--codec", "sparse-f32")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(edgeprune, command):
    code, out, _ = edgeprune(command, "--help")
    assert code == 0
    assert f"Example:\n    edgeprune {command}" in out


def test_build_info_verify_preview(edgeprune, npz, tmp_path):
    pack, picture = tmp_path / "p.h5", tmp_path / "grid.png"
    code, out, _ = edgeprune("build", *SPARSE, npz, "--freq-prune", 0.5, "--sample-prune", 0.25, "-o", pack)
    assert code == 0
    assert "30 images of 16x16 in 2 classes, 128 of 256 components a channel, " in out
    assert f"{pack.stat().st_size / 30:,.0f} B an image (its source 768), " in out
    code, out, _ = edgeprune("info", pack)
    assert code == 0
    assert "raw uint8 768 (" in out
    assert "    0      15 ########" in out
    facts = json.loads(edgeprune("info", pack, "--json")[1])
    assert facts["bytes_per_image"]["coefficients"] == 128 * 3 * 6
    assert facts["classes"] == [{"name": "0", "images": 15}, {"name": "1", "images": 15}]
    assert facts["provenance"]["config"]["sample_prune"] == 0.25
    assert edgeprune("verify", pack)[:2] == (
        0,
        f"{pack}: sound, 30 images in 1 chunk, every checksum matches\n",
    )
    assert edgeprune("preview", pack, "-o", picture, "--source", npz, "--images", 5)[0] == 0
    with_originals = pixels(picture).shape
    assert edgeprune("preview", pack, "-o", picture, "--images", 5)[0] == 0
    without = pixels(picture).shape
    assert with_originals[1] == without[1]
    assert with_originals[0] > without[0]


@pytest.mark.slow
def test_a_pack_by_jelf_says_what_was_made_and_what_it_depends_on(edgeprune, tmp_path):
    spec = small_builds.write_source(tmp_path)
    pack, scores = tmp_path / "p.h5", tmp_path / "s.h5"
    quick = ["--device", "cpu", "--seed", 1]
    options = ["--model", "resnet8", "--epochs", 2, "--batch-size", 12, *quick, "-o", scores]
    assert edgeprune("score", spec, *options)[0] == 0
    build = [
        "build",
        spec,
        "--codec",
        "sparse-f32",
        "--method",
        "jelf",
        "--scores",
        scores,
        "--mask-epochs",
        2,
        *quick,
        "-o",
        pack,
    ]
    code, out, err = edgeprune(*build)
    assert code == 0, err
    kept, built = out.splitlines()
    assert kept == f"{tmp_path / 'p.fse-net.safetensors'}: kept, can be used again"
    assert built.startswith(f"{pack}: 24 images of 12x12 in 3 classes, 72 of 144 components a channel, ")
    epochs = [line for line in err.splitlines() if line.startswith("learning masks, epoch")]
    assert len(epochs) == 2
    assert all(word in epochs[-1] for word in ("2/2", "images/s", "loss", "entropy", "accuracy", "overlap"))
    _, out, _ = edgeprune("info", pack)
    lines = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert all(word in lines["coreset"] for word in ("score=joint_entropy", "sampling=ccs", "beta=0"))
    assert all(word in lines["fse_net"] for word in ("k=14", "k_total=72", "accuracy_weight=0.1"))
    assert lines["mask"].split() == ["mask", "fse-net"]
    facts = json.loads(edgeprune("info", pack, "--json")[1])
    assert facts["provenance"]["fse_net"]["config"]["epochs"] == 2
    # The network is used again, and quiet is quiet.
    assert edgeprune(*build, "--force", "-q") == (0, "", "")


def test_scores_and_masks_are_made_where_none_are_given(edgeprune, tmp_path):
    spec, pack = small_builds.write_source(tmp_path), tmp_path / "p.h5"
    options = ["--score-model", "resnet8", "--score-epochs", 2, "--score-augment", "none"]
    code, out, err = edgeprune(
        "build",
        "--codec",
        "sparse-f32",
        spec,
        "--method",
        "jelf",
        "--mask-epochs",
        1,
        *options,
        "--device",
        "cpu",
        "-o",
        pack,
    )
    assert code == 0, err
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        str(tmp_path / name) for name in ("p.scores.h5", "p.fse-net.safetensors", "p.h5")
    ]
    run = open_pack(pack).header.provenance["coreset"]["scores_run"]
    assert (run["model"], run["epochs"], run["augment"]) == ("resnet8", 2, "none")


def test_the_preview_shows_originals_decoded_images_and_masks(edgeprune, npz, tmp_path):
    pack, picture = tmp_path / "p.h5", tmp_path / "grid.png"
    edgeprune("build", *SPARSE, npz, "--freq-prune", 0, "-o", pack)
    edgeprune("preview", pack, "-o", picture, "--source", npz, "--images", 3)
    sheet = pixels(picture)
    tiles = sheet[20:, 72:]
    original, decoded, lost, kept = (tiles[k * 134 : k * 134 + 128, :128] for k in range(4))
    np.testing.assert_array_equal(original, decoded)
    assert (lost == 128).all()
    assert (kept == 255).all()


def test_a_pack_is_not_replaced_without_force(edgeprune, npz, tmp_path):
    pack = tmp_path / "p.h5"
    edgeprune("build", *SPARSE, npz, "-o", pack)
    code, _, err = edgeprune("build", *SPARSE, npz, "-o", pack, "-q")
    assert code == 2
    assert one_line(err)
    assert "--force" in err
    assert edgeprune("build", *SPARSE, npz, "-o", pack, "-q", "--force") == (0, "", "")


def spoil(path, tmp_path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    (tmp_path / "flipped.h5").write_bytes(data)
    (tmp_path / "short.h5").write_bytes(data[: len(data) // 2])
    (tmp_path / "photo.h5").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))


JE, LF = ["--method", "je", "--scores"], ["--method", "lf"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["verify", "flipped.h5"], 1, "does not match its checksum; copy the file again"),
        (["verify", "short.h5"], 1, "the file is cut short"),
        (["info", "short.h5"], 1, "the file is cut short"),
        (["info", "photo.h5"], 1, "a JPEG image"),
        (["train", "photo.h5", "-o", "run"], 1, "a JPEG image"),
        (["info", "missing.h5"], 2, "does not exist"),
        (["info"], 2, "Missing argument 'PACK'"),
        (["biuld", "digits"], 2, "No such command 'biuld'"),
        (["build", "folder:x", "-o", "p.h5"], 2, "unknown source 'folder:x'"),
        (["build", "imagefolder:empty", "-o", "p.h5"], 1, "empty"),
        (["build", "imagefolder:nowhere", "-o", "p.h5"], 1, "nowhere"),
        (["build", "digits", "--freq-prune", "1.0", "-o", "p.h5"], 2, "--freq-prune must be"),
        (["build", "digits", "--freq-prune", "half", "-o", "p.h5"], 2, "not a valid float"),
        (["build", "digits", "--sample-prune", "-1", "-o", "p.h5"], 2, "--sample-prune must be"),
        (["build", "digits", "-o", "nowhere/p.h5"], 1, "there is no folder nowhere"),
        (["build", "digits", "-o", "empty"], 1, "is a folder"),
        (["preview", "sound.h5", "-o", "grid.png", "--source", "digits"], 2, "the pack holds"),
        (["preview", "sound.h5", "-o", "nowhere/grid.png"], 1, "there is no folder nowhere"),
        (["preview", "sound.h5", "-o", "sound.h5"], 2, "exists and is no PNG"),
        (["preview", "sound.h5", "-o", "empty"], 1, "is a folder"),
        (["preview", "sound.h5", "-o", "grid.png", "--images", "0"], 2, "1 to 64"),
        (["train", "sound.h5", "-o", "run", "--test", "digits"], 2, "digits has images of classes that the"),
        (["train", "sound.h5", "-o", "run", "--epochs", "0"], 2, "--epochs is 0"),
        (["train", "sound.h5", "-o", "run", "--test", "no.h5"], 2, "no.h5: no such file"),
        (["build", "npz:images.npz", "-o", "images.npz", "--force"], 2, "is the source"),
        (["build", "digits", "-o", "sound.h5", "--force", *JE, "sound.h5"], 2, "is the scores file"),
        (["build", "digits", "-o", "p.h5", *JE, "sound.h5"], 1, "HDF5, but not a scores file"),
        (["build", "digits", "-o", "p.h5", *JE, "no.h5"], 2, "does not exist"),
        (["build", "digits", "-o", "p.h5", "--scores", "sound.h5"], 2, "energy uses no scores"),
        (["build", "digits", "-o", "p.h5", *LF, "--fse-net", "sound.h5"], 1, "cannot be used as an FSE-Net"),
        (["build", "digits", "-o", "p.h5", *LF, "--classifier", "photo.h5"], 1, "not a model of a run"),
        (["build", "digits", "-o", "p.h5", *LF, "--classifier", "empty"], 1, "holds no trained model"),
        (["build", "digits", "-o", "p.h5", *LF, "--k", "2000"], 2, "--k is 2000, more than the 512"),
        (["build", "digits", "-o", "p.h5", *LF, "--lambda", "-1"], 2, "--lambda must be"),
        (["build", "digits", "-o", "p.h5", *LF, "--mask-epochs", "0"], 2, "--mask-epochs must"),
        (["build", "digits", "-o", "p.h5", *JE[:2], "--beta", "0.9", "-q"], 2, "--beta 0.9 leaves"),
        (["build", "digits", "-o", "p.h5", *JE[:2], "--score-epochs", "0"], 2, "--score-epochs is 0"),
        (["build", "digits", "-o", "p.h5", *JE[:2], "--device", "tpu"], 2, "tpu"),
        (["build", "digits", "-o", "p.h5", "--method", "best"], 2, "is not one of"),
        (["build", "digits", "-o", "p.h5", "--budget", "5 horses"], 2, "such as 5MB"),
        (["train", "sound.h5", "-o", "run", "--test", "data/no"], 2, "data/no: no such file"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    edgeprune, npz, tmp_path, monkeypatch, arguments, code, words
):
    monkeypatch.chdir(tmp_path)
    assert edgeprune("build", *SPARSE, npz, "-o", "sound.h5", "-q")[0] == 0
    spoil(tmp_path / "sound.h5", tmp_path)
    (tmp_path / "empty").mkdir()
    before = {p.name for p in tmp_path.iterdir()}
    found, _, err = edgeprune(*arguments)
    assert found == code
    assert words in err
    assert len(err.splitlines()) == 1
    assert {p.name for p in tmp_path.iterdir()} == before


def test_warnings_are_one_line(edgeprune):
    edgeprune("--version")
    assert warnings.formatwarning("no\nlocks", UserWarning, "a.py", 3) == "edgeprune: warning: no\\nlocks\n"


@pytest.mark.slow
def test_the_demo_runs_to_its_closing_table(edgeprune, tmp_path, monkeypatch):
    lines = demo_command._lines
    shorter = lambda line: line.replace("mobilenet_v2", "resnet8").replace("--epochs 5", "--epochs 1")  # noqa: E731
    monkeypatch.setattr(demo_command, "_lines", lambda output: map(shorter, lines(output)))
    demo = tmp_path / "demo"
    # What an earlier one left is replaced.
    (demo / "run").mkdir(parents=True)
    (demo / "run" / "metrics.jsonl").write_text("old")
    (demo / ".edgeprune-demo").touch()
    code, out, err = edgeprune("demo", "-o", demo)
    assert code == 0, err
    typed = [line for line in out.splitlines() if line.startswith("$ edgeprune ")]
    assert [line.split()[2] for line in typed] == [
        *("build", "convert", "info", "verify", "preview", "train", "train"),
    ]
    table = out.partition("719 of 1,438 images of 32x32")[2].splitlines()
    assert table[1].split() == ["B", "an", "image", "PSNR", "decoded", "test", "accuracy"]
    names = ("raw pixels, uint8", "PNG", "JPEG, quality", "pack, sparse-f32 (paper)", "pack, quantized")
    rows = table[2 : 2 + len(names)]
    assert all(row.startswith(name) for row, name in zip(rows, names, strict=True))
    raw, png, jpeg, paper, small = (int(row[26:37].replace(",", "")) for row in rows)
    assert small < jpeg < raw == 3072 < paper
    assert "(its source 3,072)" in out
    assert "raw uint8 3,072 (" in out
    assert png < raw
    psnr = [row[37:48].strip() for row in rows]
    assert psnr[:2] == ["the same"] * 2
    assert float(psnr[2].split()[0]) >= float(psnr[4].split()[0])
    assert [row.split()[-1][-1] for row in rows] == ["-", "-", "-", "%", "%"]
    assert {p.name for p in demo.iterdir()} == {
        *(".edgeprune-demo", "digits.h5", "digits-small.h5", "preview.png", "run", "run-small"),
    }


def test_the_demo_spares_a_folder_that_it_did_not_make(edgeprune, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    code, _, err = edgeprune("demo", "-o", tmp_path)
    assert code == 2
    assert "no demo made it" in err
    assert (tmp_path / "run" / "thesis.txt").read_text() == "precious"


def test_no_test_half_is_made_of_the_only_one(edgeprune, tmp_path):
    np.savez(tmp_path / "all.npz", x=np.zeros((4, 16, 16, 3), np.uint8), y=[0, 1, 0, 1])
    code, _, err = edgeprune(
        "build",
        "--codec",
        "sparse-f32",
        f"npz:{tmp_path / 'all.npz'}",
        "--split",
        "test",
        "-o",
        tmp_path / "t.h5",
    )
    assert code == 2
    assert "has no test half" in err
    assert not (tmp_path / "t.h5").exists()


@pytest.mark.slow
def test_a_budget_too_small_for_one_image_says_so(edgeprune, npz, tmp_path):
    options = ["--codec", "quantized", "--min-quality", 60, "--budget", "1kB"]
    code, _, err = edgeprune("build", *SPARSE, npz, *options, "-o", tmp_path / "t.h5", "-q")
    assert code == 2
    assert "1,000 B" in err
    assert "--min-quality" in err
    assert not list(tmp_path.glob("*t.h5*"))


@pytest.mark.slow
@pytest.mark.usefixtures("examined_in_forks")
def test_damage_to_what_hdf5_keeps_for_itself_names_a_remedy(edgeprune, npz, tmp_path):
    path = tmp_path / "p.h5"
    edgeprune("build", *SPARSE, npz, "-o", path, "-q")
    whole = path.read_bytes()
    told = {}
    for at in range(48, 3000, 48):
        spoiled = whole[:at] + bytes(b ^ 0xFF for b in whole[at : at + 16]) + whole[at + 16 :]
        path.write_bytes(spoiled)
        told |= {line: spoiled for line in map(str, verify_pack(path)) if "HDF5 cannot" in line}
    assert told
    assert all("copy" in line for line in told)
    # The command says the same.
    for line, spoiled in told.items():
        path.write_bytes(spoiled)
        assert f"{path}: {line}" in edgeprune("verify", path)[2].splitlines()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_does_its_work_where_streams_are_closed(tmp_path, closed):
    words = f"-m edgeprune build digits --sample-prune 0.9 -o {tmp_path / 'p.h5'}"
    done = subprocess.run(
        ["sh", "-c", f'"$0" {words} {closed}', sys.executable], capture_output=True, text=True
    )
    assert (done.returncode, "Error" in done.stderr) == (0, False)
    assert verify_pack(tmp_path / "p.h5") == []
