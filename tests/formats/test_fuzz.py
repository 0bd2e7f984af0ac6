"""Damage a small pack at random; run as a script, so that a crash within HDF5 is reported, not suffered.

What must hold: a damaged pack is refused by a `PackFormatError`, or reads exactly as the sound one does.
"""

import collections
import faulthandler
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune_formats import PackFormatError, open_pack, verify_pack
from edgeprune_formats.structure import why_not_plain

FLIPS, SMEARS = 300, 50


def everything(path):
    with open_pack(path, isolated=False) as pack:
        parts = [pack.read_chunk(chunk) for chunk in range(pack.header.chunks)]
        samples = [(part.values.tobytes(), part.positions.tobytes()) for part in parts]
        rows = pack.labels.tolist(), pack.source_index.tolist(), pack.scores.tobytes()
        return pack.header, rows, samples


def damages(content, seed):
    """Descriptions and contents of damaged copies: each with one bit flipped, or with many bytes replaced."""
    rng = random.Random(seed)
    step = max(1, len(content) // FLIPS)
    for position in range(rng.randrange(step), len(content), step):
        damaged, bit = bytearray(content), 1 << rng.randrange(8)
        damaged[position] ^= bit
        yield f"byte {position} ^ {bit}", damaged
    for number in range(SMEARS):
        damaged = bytearray(content)
        start = rng.randrange(len(content))
        count = rng.choice((2, 4, 8, 64, 512))
        fill = rng.choice((b"\0", b"\xff", None))
        for place in range(start, min(start + count, len(content))):
            damaged[place] = fill[0] if fill else rng.randrange(256)
        yield f"smear {number}: {count} bytes from {start}", damaged


def outcome(path, sound, check):
    try:
        why_not_plain(path)
        read = everything(path)
    except PackFormatError as error:
        problems = verify_pack(path, isolated=False) if check else [error.problem]
        return type(error).__name__ if problems else "refused but verified"
    if read != sound:
        return "read as something else"
    return "same" if not check or verify_pack(path, isolated=False) == [] else "same but not verified"


def fuzz(path, seed):
    sound, content, tally, broken = everything(path), path.read_bytes(), collections.Counter(), []
    for number, (name, damaged) in enumerate(damages(content, seed)):
        path.write_bytes(damaged)
        print(name, file=sys.stderr, flush=True)
        try:
            result = outcome(path, sound, number % 5 == 0)
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
        tally[result] += 1
        if result != "same" and result not in REFUSALS:
            broken.append(f"{name}: {result}")
    print(json.dumps({"tally": tally, "broken": broken}))


REFUSALS = {kind.__name__ for kind in PackFormatError.__subclasses__()}


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_damage_is_found_or_harmless(tools, tmp_path, compression):
    header = tools.header(samples=4, height=6, width=5, components=8, chunk_samples=2)
    made = tools.write(tmp_path / "p.h5", header, compression=compression)
    seed = 20260101 if compression == "none" else 20260102
    command = [sys.executable, __file__, str(made.path), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"died at {done.stderr[-500:]}"
    result = json.loads(done.stdout)
    assert result["broken"] == []
    assert sum(result["tally"].values()) >= FLIPS + SMEARS
    # Most bytes matter: a reader that looked at nothing would find all damage harmless.
    assert result["tally"]["same"] < 0.6 * (FLIPS + SMEARS)


if __name__ == "__main__":
    faulthandler.enable()
    fuzz(Path(sys.argv[1]), int(sys.argv[2]))
