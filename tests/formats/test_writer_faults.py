import signal
import subprocess
import sys
import textwrap

import pytest

from edgeprune_formats import PackWriteError, PackWriter, verify_pack

PROLOGUE = """
import os, sys, time
import numpy as np
from edgeprune_formats import PackHeader, PackWriteError, PackWriter

def header(samples, side, components, chunk_samples):
    return PackHeader(samples, 3, side, side, components, "sparse-f32", chunk_samples, ("a", "b"),
                      (0.5,) * 3, (0.5,) * 3)

def spectra(count, side, components, seed):
    coefficients = np.random.default_rng(seed).standard_normal((count, 3, side, side)).astype(np.float32)
    mask = np.zeros(coefficients.shape, bool)
    mask.reshape(count, 3, -1)[..., :components] = True
    return coefficients, mask

path = sys.argv[1]
"""

WAIT_IN_MID_WRITE = """
with PackWriter(path, header(40, 32, 512, 4), np.zeros(40, int), np.arange(40)) as writer:
    for seed in range(5):
        writer.append(*spectra(7, 32, 512, seed))
    print("ready", flush=True)
    time.sleep(60)
"""

FILL_THE_DISK = """
try:
    with PackWriter(path, header(60, 32, 512, 4), np.zeros(60, int), np.arange(60),
                    compression=sys.argv[2]) as writer:
        for seed in range(60):
            writer.append(*spectra(1, 32, 512, seed))
except PackWriteError as error:
    print(error)
print(os.listdir(os.path.dirname(path)))
"""


def script(body):
    return [sys.executable, "-c", textwrap.dedent(PROLOGUE + body)]


@pytest.fixture
def mid_write():
    """Start writers that stop half way, and end them afterwards."""
    running = []

    def start(path):
        process = subprocess.Popen([*script(WAIT_IN_MID_WRITE), str(path)], stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def partials(folder):
    return sorted(path for path in folder.iterdir() if path.name.endswith(".partial"))


def test_killed_writer_leaves_nothing_under_the_name(tools, tmp_path, mid_write):
    path = tmp_path / "p.h5"
    process = mid_write(path)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not path.exists()
    assert len(partials(tmp_path)) == 1
    tools.write(path)
    assert tools.names(tmp_path) == ["p.h5"]
    assert verify_pack(path) == []


def test_killed_writer_keeps_what_was_there(sample, mid_write):
    before = sample.path.read_bytes()
    process = mid_write(sample.path)
    process.kill()
    process.wait()
    assert sample.path.read_bytes() == before


def test_terminated_writer_leaves_nothing_under_the_name(tmp_path, mid_write):
    process = mid_write(tmp_path / "p.h5")
    process.terminate()
    process.wait()
    assert not (tmp_path / "p.h5").exists()


@pytest.mark.slow
def test_sweep_spares_a_living_writer(tools, tmp_path, mid_write):
    path = tmp_path / "p.h5"
    dead = mid_write(path)
    dead.kill()
    dead.wait()
    (stale,) = partials(tmp_path)
    mid_write(path)
    (living,) = partials(tmp_path)
    assert living != stale
    tools.write(path)
    assert partials(tmp_path) == [living]
    assert verify_pack(path) == []


def test_sweep_spares_other_packs_and_what_is_no_leftover(tools, tmp_path, mid_write):
    dead = mid_write(tmp_path / "p.h5")
    dead.kill()
    dead.wait()
    (stale,) = partials(tmp_path)
    kept = [
        tmp_path / stale.name.replace("p.h5", "q.h5"),
        tmp_path / stale.name.replace("p.h5", "p.h5.q"),
        tmp_path / ".p.h5.partial",
        tmp_path / ".p.h5.elsewhere-17-0.partial",
    ]
    for path in kept:
        path.mkdir()
    tools.write(tmp_path / "p.h5")
    assert partials(tmp_path) == sorted(kept)


def write_two(tools, path, made):
    with PackWriter(path, made.header, made.labels, made.source_index) as first:
        with PackWriter(path, made.header, made.labels, made.source_index) as second:
            second.append(*tools.spectra(made.header)[:2])
        assert verify_pack(path) == []
        first.append(*tools.spectra(made.header)[:2])


def test_two_writers_of_one_pack_spoil_neither(tools, tmp_path):
    made = tools.write(tmp_path / "p.h5")
    write_two(tools, made.path, made)
    assert verify_pack(made.path) == []
    assert tools.names(tmp_path) == ["p.h5"]


def test_of_two_writers_of_a_new_pack_the_second_to_finish_fails(tools, tmp_path):
    made = tools.write(tmp_path / "other.h5")
    with pytest.raises(PackWriteError, match=r"p.h5: another process has made it in the meantime"):
        write_two(tools, tmp_path / "p.h5", made)
    assert verify_pack(tmp_path / "p.h5") == []
    assert tools.names(tmp_path) == ["other.h5", "p.h5"]


# From a disk that holds nothing to one that lacks only the end of the file, about 440 kB with gzip.
@pytest.mark.first_are_quick
@pytest.mark.parametrize("size", ["4k", "40k", "300k", "end"])
def test_full_disk_ends_in_one_clear_error(small_disk, tmp_path, size):
    if size == "end":
        subprocess.run([*script(FILL_THE_DISK), str(tmp_path / "whole.h5"), "gzip"], check=True)
        size = f"{(tmp_path / 'whole.h5').stat().st_size // 4096 * 4 - 4}k"
    path = small_disk(size) / "p.h5"
    done = subprocess.run(
        [*script(FILL_THE_DISK), str(path), "gzip"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    message, left = done.stdout.splitlines()
    assert message.startswith(str(path))
    assert "disk is full" in message
    assert left == "[]"


def test_whole_file_fits_a_disk_just_large_enough(small_disk):
    path = small_disk("2m") / "p.h5"
    subprocess.run([*script(FILL_THE_DISK), str(path), "none"], check=True, capture_output=True)
    assert verify_pack(path) == []
