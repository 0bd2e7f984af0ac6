import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from edgeprune_formats import PackWriteError
from edgeprune_formats.files import atomic_hdf5, check_writable, write_error


class Failure(Exception):
    pass


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "x.h5"


@pytest.fixture(autouse=True)
def folder(path):
    path.parent.mkdir()
    return path.parent


def fill(file, value=7):
    file.create_dataset("a", data=np.full(1000, value), track_times=False)


def value_in(path):
    with h5py.File(path) as file:
        return file["a"][5]


def test_the_file_appears_when_it_is_whole(path, folder, tools):
    with atomic_hdf5(path) as file:
        fill(file)
        assert not path.exists()
        assert len(tools.names(folder)) == 1
    assert tools.names(folder) == ["x.h5"]
    assert value_in(path) == 7


def test_the_same_content_gives_the_same_bytes(path, folder):
    contents = []
    for name in ("x.h5", "y.h5"):
        with atomic_hdf5(folder / name) as file:
            fill(file)
        contents.append((folder / name).read_bytes())
    assert contents[0] == contents[1]


def test_it_can_be_read_by_the_oldest_hdf5_that_is_promised(path):
    with atomic_hdf5(path) as file:
        assert file.libver == ("v110", "v110")


def test_an_older_file_stays_until_the_new_one_is_whole(path):
    path.write_bytes(b"older")
    with atomic_hdf5(path) as file:
        fill(file)
        assert path.read_bytes() == b"older"
    assert value_in(path) == 7


@pytest.mark.parametrize("error", [Failure, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_exception_leaves_the_older_file_and_nothing_else(path, folder, tools, error):
    def write():
        with atomic_hdf5(path) as file:
            fill(file)
            raise error

    path.write_bytes(b"older")
    with pytest.raises(error):
        write()
    assert tools.names(folder) == ["x.h5"]
    assert path.read_bytes() == b"older"


def test_an_exception_leaves_nothing(path, folder):
    with pytest.raises(Failure), atomic_hdf5(path):
        raise Failure
    assert list(folder.iterdir()) == []


def test_a_file_closed_in_the_block_is_whole(path):
    with atomic_hdf5(path) as file:
        fill(file)
        file.close()
    assert value_in(path) == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_wait_until_the_file_is_whole(path, folder, tools, number):
    arrived = []
    before = signal.signal(number, lambda *_: arrived.append(path.exists()))
    try:
        with atomic_hdf5(path) as file:
            os.kill(os.getpid(), number)
            fill(file)
            assert arrived == []
        assert len(arrived) == 1
    finally:
        signal.signal(number, before)
    assert value_in(path) == 7


def test_a_handler_that_raises_leaves_the_old_file_or_the_new(path, folder, tools):
    def raise_failure(*_):
        raise Failure

    def write():
        with atomic_hdf5(path) as file:
            os.kill(os.getpid(), signal.SIGTERM)
            fill(file)

    path.write_bytes(b"older")
    before = signal.signal(signal.SIGTERM, raise_failure)
    try:
        with pytest.raises(Failure):
            write()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert tools.names(folder) == ["x.h5"]
    assert path.read_bytes() == b"older" or value_in(path) == 7


def test_it_works_in_a_thread(path):
    def write():
        with atomic_hdf5(path) as file:
            fill(file)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert value_in(path) == 7


def test_two_writers_of_one_name_do_not_meet(path, folder, tools):
    path.write_bytes(b"older")
    with atomic_hdf5(path) as first:
        with atomic_hdf5(path) as second:
            fill(second, 2)
        assert value_in(path) == 2
        fill(first, 1)
    assert value_in(path) == 1
    assert tools.names(folder) == ["x.h5"]


def write_two(path):
    with atomic_hdf5(path) as first:
        with atomic_hdf5(path) as second:
            fill(second, 2)
        fill(first, 1)


@pytest.mark.parametrize("links", [True, False])
def test_of_two_writers_of_a_new_name_the_second_to_finish_fails(path, folder, tools, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(PackWriteError, match=r"x.h5: another process has made it in the meantime"):
        write_two(path)
    assert value_in(path) == 2
    assert tools.names(folder) == ["x.h5"]


def no_links(source, target):
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_disk_without_hard_links(path, folder, tools, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    with atomic_hdf5(path) as file:
        fill(file)
    assert value_in(path) == 7
    assert tools.names(folder) == ["x.h5"]


@pytest.mark.parametrize("name", ["x" * 252 + ".h5", "ü" * 122 + ".h5", "y" * 232])
def test_names_as_long_as_the_disk_takes(folder, tools, name):
    with atomic_hdf5(folder / name) as file:
        fill(file)
    assert tools.names(folder) == [name]


def test_a_link_in_the_place_of_the_file_is_replaced_and_not_followed(path, folder, tools):
    victim = folder / "victim"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)
    with atomic_hdf5(path) as file:
        fill(file)
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink()
    assert value_in(path) == 7


@pytest.mark.parametrize("of", ["self", "own number"])
def test_a_link_to_an_open_file_as_dev_stdout_is_refused_and_stays(path, folder, tools, of):
    with (folder / "redirected").open("w") as stream:
        process = "self" if of == "self" else os.getpid()
        path.symlink_to(f"/proc/{process}/fd/{stream.fileno()}")
        assert path.is_file()
        with pytest.raises(PackWriteError, match=r"x\.h5: is a device or pipe"), atomic_hdf5(path):
            pass
    assert path.is_symlink()
    assert tools.names(folder) == ["redirected", "x.h5"]


@pytest.mark.parametrize("kind", ["folder", "file", "lock"])
def test_links_that_look_like_leftovers_are_not_followed(path, folder, tmp_path, kind):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_bytes(b"precious")
    trap = folder / ".x.h5.0123456789abcdef.partial"
    if kind == "lock":
        trap.mkdir()
        (trap / ".lock").symlink_to(victim / "precious")
    else:
        trap.symlink_to(victim if kind == "folder" else victim / "precious")
    with atomic_hdf5(path) as file:
        fill(file)
    assert (victim / "precious").read_bytes() == b"precious"
    assert sorted(victim.iterdir()) == [victim / "precious"]


def left_behind(path):
    """Leave what a killed writer leaves; give its folder."""
    code = "import os, sys; from pathlib import Path; from edgeprune_formats.files import atomic_hdf5\n"
    code += "with atomic_hdf5(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    (left,) = path.parent.glob(".*.partial")
    return left


@pytest.mark.first_are_quick
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_where_nothing_can_be_locked_only_old_leftovers_go(path, folder, tools, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    left = left_behind(path)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with atomic_hdf5(path) as file:
        fill(file)
    assert tools.names(folder) == [left.name, "x.h5"]
    os.utime(left, (1, 1))
    with atomic_hdf5(path) as file:
        fill(file)
    assert tools.names(folder) == ["x.h5"]


def test_places_where_no_file_can_be(path, folder):
    (folder / "folder").mkdir()
    for wrong, words in (
        (folder / "no" / "x.h5", "there is no folder .*create it first"),
        (folder / "folder", "is a folder; name a file"),
        (folder / ("a" * 300), "File name too long"),
    ):
        with pytest.raises(PackWriteError, match=words), atomic_hdf5(wrong):
            pytest.fail("the block must not be entered")
    with pytest.raises(PackWriteError, match="device or pipe"), atomic_hdf5(Path("/dev/null")):
        pytest.fail("the block must not be entered")


def test_what_a_killed_writer_left_is_swept_away(path, folder, tools):
    left_behind(path)
    with atomic_hdf5(path) as file:
        fill(file)
    assert tools.names(folder) == ["x.h5"]


FILL_THE_DISK = """
import os, sys
import numpy as np
from pathlib import Path
from edgeprune_formats import PackWriteError
from edgeprune_formats.files import atomic_hdf5, check_writable

path = Path(sys.argv[1])
try:
    with atomic_hdf5(path) as file:
        for number in range(40):
            file.create_dataset(f"array {number}", data=np.ones(2048))
except PackWriteError as error:
    print(error)
print(sorted(os.listdir(path.parent)), path.read_bytes()[:5])
"""


# The whole takes about 660 kB.
@pytest.mark.first_are_quick
@pytest.mark.parametrize("size", ["8k", "100k", "640k"])
def test_a_full_disk_ends_in_one_clear_error(small_disk, size):
    path = small_disk(size) / "x.h5"
    path.write_bytes(b"older")
    command = [sys.executable, "-c", FILL_THE_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{path}: the disk is full; free some space or write elsewhere",
        "['x.h5'] b'older'",
    ]


def test_an_error_of_the_file_system_is_told(path, monkeypatch, folder):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("edgeprune_formats.files.sync", fail)
    with pytest.raises(PackWriteError, match=r"x\.h5: .*Input/output error"), atomic_hdf5(path) as file:
        fill(file)
    assert list(folder.iterdir()) == []


def test_a_file_in_dev_fd_is_refused_before_there_is_work_to_lose(tools, folder):
    with (folder / "redirected").open("w") as stream:
        path = Path(f"/dev/fd/{stream.fileno()}")
        with pytest.raises(PackWriteError, match="is a device or pipe"):
            check_writable(path)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "a.h5: the disk is full; free some space or write elsewhere"),
        (errno.EDQUOT, "a.h5: the disk is full; free some space or write elsewhere"),
        (errno.EFBIG, "a.h5: the file system takes no file so large; write elsewhere"),
        (errno.EIO, "a.h5: cannot be written (Input/output error)"),
        (errno.ENAMETOOLONG, "a.h5: cannot be written (File name too long)"),
    ],
)
def test_what_a_file_system_refuses_is_told_in_words(number, told):
    assert str(write_error(Path("a.h5"), OSError(number, os.strerror(number)))) == told
