"""Names of classes and files that a terminal cannot print, or that would drive it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeprune.cli import main
from edgeprune.sources import open_source
from edgeprune.text import printable

# Letters that no 8-bit encoding has, escape sequences, a line break, text from right to left, mathematics.
NAMES = ("猫", "\x1b[31mred", "two\nlines", "\u202etxt.exe", "$x_{", "a|b", "Zoë")
ENCODINGS = ("cp1252", "ascii", "utf-8")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fotos-œ猫") / "photos"
    for number, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for image in range(4):
            pixels = np.full((8, 8, 3), 30 * number + image, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{image}-\x1b[2J\u2066猫.png")
    return folder


@pytest.fixture
def run(monkeypatch):
    """Run the command line with streams of an encoding; give exit code and both outputs as text."""

    def edgeprune(encoding, *arguments):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding, "strict") for _ in range(2)]
        monkeypatch.setattr(sys, "argv", ["edgeprune", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code
        outputs = []
        for stream in streams:
            stream.flush()
            outputs.append(stream.buffer.getvalue().decode(encoding))
        monkeypatch.undo()
        return code, *outputs

    return edgeprune


@pytest.fixture(scope="module")
def pack(photos):
    from edgeprune import BuildConfig, build_pack

    path = photos.parent / "packs-猫.h5"
    build_pack(f"imagefolder:{photos}", path, BuildConfig(device="cpu"))
    return path


@pytest.fixture(scope="module")
def trained(pack):
    from edgeprune.training.setup import train_pack
    from edgeprune_formats import open_pack

    folder = pack.parent / "run-猫\x1b[1m"
    options = {"model": "resnet8", "epochs": 1, "batch_size": 8, "device": "cpu"}
    with open_pack(pack) as opened:
        train_pack(opened, folder, test=None, resume=False, augment="none", **options)
    return folder


def shown(name: str, encoding: str) -> str:
    return printable(name).encode(encoding, "backslashreplace").decode(encoding)


def require_tame(text: str) -> None:
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_command_escapes_names(run, photos, pack, trained, encoding, tmp_path):
    source, other = f"imagefolder:{photos}", tmp_path / "o-\x1b[1m猫.h5"
    (tmp_path / "bad").mkdir()
    bad = tmp_path / "bad" / "\x1b]0;title\x07猫.png"
    bad.write_bytes(b"")
    model = ["--model", "resnet8", "--batch-size", 8, "--device", "cpu"]
    commands = [
        ("build", source, "-o", other, "-q", "--sample-prune", 0.7),
        ("build", source, "-o", tmp_path / "2.h5", "--device", "cpu", "--method", "je", "--scores", bad),
        ("info", pack),
        ("verify", pack),
        ("convert", pack, "--codec", "sparse-f16", "-o", tmp_path / "猫2.h5"),
        ("split", pack, "--parts", 2, "-o", tmp_path / "parts"),
        ("preview", pack, "-o", tmp_path / "猫\x1b.png"),
        ("train", pack, *model, "--epochs", 1, "-o", trained),
        ("train", pack, *model, "--epochs", 1, "-o", trained, "--resume"),
        ("train", pack, *model, "--test", f"imagefolder:{photos.parent}/猫", "-o", tmp_path / "no"),
        ("plot", trained),
        ("predict", trained, photos, bad, "--top", 7),
        ("predict", trained, photos, bad, "--skip-bad", "--json"),
        ("score", source, "-o", tmp_path / "猫.scores.h5", "--epochs", 0),
        ("info", bad),
        ("info", tmp_path / "\x1b[31m猫"),
        ("info", "--\x1b猫"),
        ("\x1b[31m猫",),
    ]
    for arguments in commands:
        code, out, err = run(encoding, *arguments)
        assert code in (0, 1, 2), err
        assert "Traceback" not in err
        require_tame(out)
        require_tame(err)
    _, out, _ = run(encoding, "info", pack)
    names = sorted(NAMES)
    lines = out.splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith("  classes")) + 1
    assert [line[4:].rpartition(" 4 #")[0].rstrip() for line in lines[begin : begin + len(names)]] == [
        shown(name, encoding) for name in names
    ]
    _, out, _ = run(encoding, "info", pack, "--json")
    assert [entry["name"] for entry in json.loads(out)["classes"]] == names


@pytest.mark.first_are_quick
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_process_with_such_streams_escapes_names(pack, encoding):
    command = [sys.executable, "-m", "edgeprune", "info", str(pack)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u732b" in done.stdout
    assert (b"Zo\xeb" if encoding == "cp1252" else rb"Zo\xeb") in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="file names are text here")
def test_file_names_that_are_no_text_are_escaped(run, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.h5")
    try:
        Path(path).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes text only")
    for arguments in (("info", path), ("verify", path), ("predict", path, path), ("train", path, "-o", path)):
        code, out, err = run("utf-8", *arguments)
        assert code in (1, 2)
        require_tame(out + err)
        assert "\\udcff" in err


@pytest.mark.first_are_quick
@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("$\\frac{$", "$\\frac{$"),
        ("_hidden", " _hidden"),
        ("a$b$c", "a$b$c"),
        ("\x1b[31m\udcff猫", "\\x1b[31m\\udcff\\u732b"),
    ],
)
def test_plots_show_names_as_they_are(tmp_path, monkeypatch, name, label):
    from matplotlib.figure import Figure

    from edgeprune.training.curves import draw

    seen, save = [], Figure.savefig

    def savefig(figure, *arguments, **options):
        seen.extend(
            text for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()
        )
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    epochs = [
        {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": None, "test_accuracy": None}
    ]
    draw({name: epochs}, tmp_path / "named.png")
    assert [(text.get_text(), text.get_parse_math()) for text in seen] == [(f"{label}, train", False)]


def test_sources_keep_names_raw(photos):
    assert open_source(f"imagefolder:{photos}").class_names == tuple(sorted(NAMES))


def test_tables_hold_names_in_their_cells():
    from edgeprune_benchmarks.harness.markdown import Column, render

    lines = render([Column("class", "name")], [{"name": name} for name in NAMES])
    assert len(lines) == 2 + len(NAMES)
    assert all(line.isprintable() and line.replace("\\|", "").count("|") == 2 for line in lines)
