import signal
import subprocess
import sys
import textwrap

import pytest

from edgeprune_formats import EdgePruneError, PackWriter, verify_pack

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


def test_sweep_spares_other_packs_and_other_hosts(tools, tmp_path, mid_write):
    dead = mid_write(tmp_path / "p.h5")
    dead.kill()
    dead.wait()
    (stale,) = partials(tmp_path)
    kept = [
        tmp_path / stale.name.replace("p.h5", "q.h5"),
        tmp_path / f".p.h5.elsewhere-{dead.pid}.partial",
        tmp_path / ".p.h5.partial",
    ]
    for path in kept:
        path.write_text("keep")
    tools.write(tmp_path / "p.h5")
    assert partials(tmp_path) == sorted(kept)


@pytest.mark.parametrize("number", ["x", "99999999999999999999"])
def test_sweep_takes_names_that_are_no_process(tools, tmp_path, mid_write, number):
    dead = mid_write(tmp_path / "p.h5")
    dead.kill()
    dead.wait()
    (stale,) = partials(tmp_path)
    stale.rename(tmp_path / stale.name.replace(str(dead.pid), number))
    tools.write(tmp_path / "p.h5")
    assert verify_pack(tmp_path / "p.h5") == []


def test_second_writer_in_the_same_process_spoils_neither(tools, tmp_path):
    path = tmp_path / "p.h5"

    def second():
        with PackWriter(path, made.header, made.labels, made.source_index) as writer:
            writer.append(*tools.spectra(made.header)[:2])

    made = tools.write(tmp_path / "other.h5")
    with PackWriter(path, made.header, made.labels, made.source_index) as first:
        try:
            second()
        except EdgePruneError:
            assert not path.exists()
        first.append(*tools.spectra(made.header)[:2])
    assert verify_pack(path) == []


# From a disk that holds nothing to one that lacks only the end of the file, about 440 kB with gzip.
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
