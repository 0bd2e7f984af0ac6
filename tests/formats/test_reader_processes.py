"""One pack read in several processes, and many packs in one."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

FORK = """
import os, sys
import numpy as np
from edgeprune_formats import open_pack

pack = open_pack(sys.argv[1])
want = np.load(sys.argv[2])

def matches():
    parts = [pack.read_chunk(chunk).to_dense(12, 20) for chunk in range(pack.header.chunks)]
    return np.array_equal(np.concatenate(parts), want)

assert matches()
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        good = all(matches() for _ in range(20))
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if matches() else 1)
        good &= os.waitpid(grandchild, 0)[1] == 0
        pack.close()
        os._exit(0 if good and matches() else 1)
    children.append(child)
assert all(matches() for _ in range(20))
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
assert matches()
pack.close()
assert matches()
"""

FORK_AFTER_REPLACEMENT = """
import os, sys
from edgeprune_formats import PackLayoutError, open_pack

pack = open_pack(sys.argv[1])
before = pack.read_chunk(0).values.tobytes()
os.replace(sys.argv[2], sys.argv[1])
child = os.fork()
if child == 0:
    try:
        pack.read_chunk(0)
    except PackLayoutError:
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert pack.read_chunk(0).values.tobytes() == before
"""

POOL = """
import multiprocessing, pickle, sys
import numpy as np
from edgeprune_formats import open_pack

def read(job):
    pack, chunk = job
    return pack.read_chunk(chunk).to_dense(12, 20)

if __name__ == "__main__":
    pack = open_pack(sys.argv[1])
    pack.read_chunk(0)
    with multiprocessing.get_context(sys.argv[3]).Pool(2) as pool:
        dense = np.concatenate(pool.map(read, [(pack, chunk) for chunk in range(3)]))
    assert np.array_equal(dense, np.load(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_use_after_fork(sample, tmp_path):
    np.save(tmp_path / "dense.npy", sample.dense)
    command = [sys.executable, "-W", "error", "-c", FORK, str(sample.path), str(tmp_path / "dense.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_process_opens_the_file_for_itself(tools, sample, tmp_path):
    other = tools.write(tmp_path / "other.h5", seed=1)
    code = ["-W", "error", "-c", FORK_AFTER_REPLACEMENT]
    command = [sys.executable, *code, str(sample.path), str(other.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_use_in_worker_processes(sample, tmp_path, method):
    if method == "fork" and not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    np.save(tmp_path / "dense.npy", sample.dense)
    (tmp_path / "pool.py").write_text(POOL)
    command = [sys.executable, tmp_path / "pool.py", sample.path, tmp_path / "dense.npy", method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


CHDIR = """
import multiprocessing, os, sys
import numpy as np
from edgeprune_formats import open_pack

def read(pack):
    return pack.read_chunk(1).arrays[0]

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    pack = open_pack("pack.h5")
    os.chdir("/")
    expected = read(pack)
    with multiprocessing.get_context(sys.argv[2]).Pool(1) as pool:
        assert np.array_equal(pool.apply(read, (pack,)), expected)
"""


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_the_working_directory_may_change(sample, tmp_path, method):
    (tmp_path / "elsewhere.py").write_text(CHDIR)
    command = [sys.executable, tmp_path / "elsewhere.py", sample.path.parent, method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


MANY_PACKS = """
import resource, shutil, sys
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from edgeprune_formats import open_pack

resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
packs = [open_pack(path) for path in sys.argv[1:]]
expected = packs[0].read_chunk(0).arrays[0]
with ThreadPoolExecutor(2) as pool:
    for _ in range(2):
        for chunk in pool.map(lambda pack: pack.read_chunk(0).arrays[0], packs):
            assert np.array_equal(chunk, expected)
for pack in packs:
    pack.close()
"""


@pytest.mark.slow
def test_more_packs_than_files_may_be_open(sample, tmp_path):
    paths = [tmp_path / f"{number}.h5" for number in range(40)]
    for path in paths:
        shutil.copyfile(sample.path, path)
    command = [sys.executable, "-W", "error", "-c", MANY_PACKS, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


NO_ROOM = """
import resource, sys
from edgeprune_formats import open_pack

pack, held = open_pack(sys.argv[1]), []
pack.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
try:
    while True:
        held.append(open(sys.argv[1]))
except OSError:
    pass
for read in (lambda: pack.read_chunk(0), lambda: open_pack(sys.argv[1])):
    try:
        read()
    except OSError as error:
        print(error.filename, error.errno, "ulimit -n" in error.strerror)
    held.pop().close()
    # HDF5 needs one, and closes it.
    pack.close()
    pack.read_chunk(0)
    pack.close()
    held.append(open(sys.argv[1]))
"""


def test_a_lack_of_open_files_is_no_damage(sample):
    command = [sys.executable, "-c", NO_ROOM, sample.path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, f"{sample.path} 24 True\n" * 2), done.stderr
