"""The fuzzer finds what is planted, survives what it finds, and finds nothing in the readers as they are."""

import ctypes
import json
import os
import random
import time
from importlib.util import find_spec

import numpy as np
import pytest
from click.testing import CliRunner

from edgeprune_benchmarks.cli import command
from edgeprune_benchmarks.fuzzing import atheris_engine, random_engine
from edgeprune_benchmarks.fuzzing.hdf5_metadata import blocks, repair
from edgeprune_benchmarks.fuzzing.mutation import changed_bytes, changed_json
from edgeprune_benchmarks.fuzzing.outcomes import REFUSED, RIGHT, WRONG, WrongError, judged
from edgeprune_benchmarks.fuzzing.run import fuzz_table
from edgeprune_benchmarks.fuzzing.targets import NAMES, packs, payloads, target_class
from edgeprune_benchmarks.fuzzing.targets.base import Target
from edgeprune_formats import ConfigError, EdgePruneError
from edgeprune_formats.codecs import quantized
from edgeprune_formats.coding import native

# As many as make a minute of all together on a slow machine.
INPUTS = {
    "pack-file": 120,
    "pack-content": 60,
    "provenance": 50,
    "scores-file": 90,
    "scores-content": 50,
    "sparse-f32": 1500,
    "sparse-f16": 2500,
    "quantized": 250,
    "onnx": 20_000,
    "signature": 600,
    "run-config": 40,
    "checkpoint-state": 40,
    "checkpoint-tensors": 25,
    "model": 200,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wrong_in_the_readers(name):
    for package in target_class(name).needs:
        pytest.importorskip(package)
    tally = random_engine.fuzz(name, 7, inputs=INPUTS[name])
    assert [reason for _, reason in tally.findings] == []
    assert tally.tried == INPUTS[name]
    # A target that refused all, or took all, would look at nothing.
    assert tally.right
    assert tally.refused


class Planted(Target):
    """A reader with a fault for every first byte."""

    name, what = "planted", "one byte"

    def __init__(self, folder):
        super().__init__(folder)
        self.seeds = [b"r"]

    def check(self, data):
        faults = {
            b"x": lambda: ctypes.string_at(0),
            b"h": lambda: time.sleep(60),
            b"m": lambda: np.ones(4 * random_engine.MEMORY, np.uint8),
            b"e": lambda: {}["missing"],
            b"q": lambda: os._exit(3),
            b"w": self._accept,
            b"n": self._refuse_on_two_lines,
        }
        if data[:1] == b"f":
            raise EdgePruneError("refused")
        faults.get(data[:1], lambda: None)()

    def _accept(self):
        raise WrongError("accepted")

    def _refuse_on_two_lines(self):
        raise EdgePruneError("one\ntwo")

    def changed(self, data, source):
        return source.choice((b"r", b"f", b"x", b"e", b"w"))


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setattr(random_engine, "target_class", lambda name: Planted)
    monkeypatch.setattr(random_engine, "HANGS", 2.0)
    monkeypatch.setattr(random_engine, "MEMORY", 2**28)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"r", RIGHT, ""),
        (b"f", REFUSED, ""),
        (b"x", WRONG, "the process ended by SIGSEGV"),
        (b"h", WRONG, "took longer than 2 s"),
        (b"m", WRONG, "MemoryError"),
        (b"e", WRONG, "KeyError"),
        (b"q", WRONG, "status 3"),
        (b"w", WRONG, "accepted"),
        (b"n", WRONG, "no line of text"),
    ],
)
def test_what_is_planted_is_found(planted, data, kind, words):
    outcome = random_engine.replay("planted", data)
    assert outcome.kind == kind
    assert words in outcome.reason


@pytest.mark.slow
def test_a_process_that_dies_is_followed_by_another(planted):
    tally = random_engine.fuzz("planted", 1, inputs=40)
    assert tally.tried >= 40
    assert {data for data, _ in tally.findings} == {b"x", b"e", b"w"}
    assert tally.right
    assert tally.refused


@pytest.mark.parametrize("text", ["\x1b[2J", "a" * 2000, "one\ntwo"])
def test_refusals_are_one_short_line(text):
    def check(data):
        raise EdgePruneError(f"p.h5: {text}")

    assert judged(check, b"").kind == WRONG


def test_equal_seeds_change_alike():
    def some(seed):
        source = random.Random(seed)
        return [changed_bytes(b"0123456789", source) for _ in range(50)] + [
            changed_json(b'{"a": [1, 2.5, "x"], "b": {"c": null}}', source) for _ in range(50)
        ]

    assert some(1) == some(1)
    assert some(1) != some(2)
    assert len(set(some(1))) > 80


@pytest.mark.skipif(native._library() is None, reason="nothing is compiled here")
def test_a_difference_between_c_and_numpy_is_found(tmp_path, monkeypatch):
    target, inside = payloads.Quantized(tmp_path), quantized._decode_numpy
    assert [target(data).kind for data in target.seeds] == [RIGHT, RIGHT]

    def other(payload, scan, values):
        bands = inside(payload, scan, values)
        values[0, 0, 0, 1] += 1
        return bands

    monkeypatch.setattr(quantized, "_decode_numpy", other)
    outcome = target(target.seeds[0])
    assert outcome.kind == WRONG
    assert "other coefficients" in outcome.reason


def test_checksums_are_repaired_so_that_changes_count(tmp_path):
    path = packs.write_pack(tmp_path / "p.h5", "sparse-f32")
    content = bytearray(path.read_bytes())
    repair(content, blocks(path))
    assert content == path.read_bytes()
    target = packs.PackFile(tmp_path)
    # The number of chunks that an index has.
    at = content.index(b"FAHD") + 8
    content[at] += 1
    outcome = target(bytes(content))
    assert outcome.kind == REFUSED
    assert "counts its chunks wrongly" in outcome.reason


def test_figures_and_table(tmp_path):
    pytest.importorskip("cryptography")
    words = ["fuzz", "--minutes", "0.05", "--target", "signature", "--engine", "random"]
    words += ["-o", str(tmp_path / "r"), "--findings", str(tmp_path / "f")]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "r" / "fuzz.json").read_text())["results"]
    (row,) = results["rows"]
    assert row["tried"] == row["right"] + row["refused"] > 0
    table = fuzz_table(results)
    assert "changed at random" in table[0]
    assert f"| signature | JSON of a signature beside a file | {row['tried']:,} |" in "\n".join(table)


@pytest.mark.slow
def test_a_finding_is_kept_and_tried_again(planted, tmp_path, monkeypatch):
    monkeypatch.setattr("edgeprune_benchmarks.fuzzing.run.target_class", lambda name: Planted)
    words = ["-o", str(tmp_path / "r"), "--findings", str(tmp_path / "f"), "--target", "model"]
    done = CliRunner().invoke(command, ["fuzz", "--minutes", "0.05", "--engine", "random", *words])
    assert done.exit_code == 1
    kept = sorted((tmp_path / "f").iterdir())
    assert {path.read_bytes() for path in kept} == {b"x", b"e", b"w"}
    done = CliRunner().invoke(command, ["fuzz", "--replay", str(kept[0]), "--target", "model"])
    assert done.exit_code == 1
    assert "wrong" in done.output


def test_one_target_for_one_input(tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    done = CliRunner().invoke(command, ["fuzz", "--replay", str(tmp_path / "x")])
    assert isinstance(done.exception, ConfigError)


def test_atheris_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(atheris_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"edgeprune\[fuzz\]"):
        atheris_engine.fuzz("onnx", 0, seconds=1)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
def test_atheris_counts_as_well():
    tally = atheris_engine.fuzz("quantized", 1, seconds=4)
    assert tally.right
    assert tally.refused
    assert tally.features > 20
    assert tally.findings == []
