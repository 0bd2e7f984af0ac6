"""Files that another process opens first: those that kill it, and those that do not."""

import multiprocessing
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from edgeprune_benchmarks.fuzzing.hdf5_metadata import repair
from edgeprune_formats import PackFormatError, PackLayoutError, isolation, open_pack, verify_pack
from edgeprune_formats.packs import isolated, local, writer

FRACTAL_HEAP, TREE = (b"FRHP", 146), (b"BTHD", 38)


@pytest.fixture(scope="module")
def old(tools, tmp_path_factory):
    """A sound pack as releases before 1.3 wrote it, whose attributes lie in a heap and a tree."""
    path = tmp_path_factory.mktemp("old") / "old.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "create_hdf5", lambda sink: h5py.File(sink, "w", libver=("v110", "v110")))
        made = tools.write(path)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = np.bytes_("1.2")
    return made


@pytest.fixture
def old_sample(old, tmp_path):
    path = tmp_path / "p.h5"
    shutil.copy(old.path, path)
    return SimpleNamespace(**(vars(old) | {"path": path}))


@pytest.fixture
def children(monkeypatch):
    """Counts the processes that are started."""
    started, run = [], isolation.subprocess.run

    def counted(*arguments, **options):
        started.append(arguments[0])
        return run(*arguments, **options)

    monkeypatch.setattr(isolation.subprocess, "run", counted)
    return started


def forge(path, block, at, value):
    """Put bytes into a block and repair its checksum."""
    content = bytearray(path.read_bytes())
    signature, size = block
    start = bytes(content).index(signature)
    content[start + at : start + at + len(value)] = value
    repair(content, [(start, start + size)])
    path.write_bytes(content)


FORGED = {
    "records of no size": (TREE, 10, b"\0\0"),
    "heap of no width": (FRACTAL_HEAP, 110, b"\0\0"),
    "endless tree": (TREE, 8, b"\xff\xff"),
}


@pytest.mark.parametrize("what", FORGED)
def test_forged_metadata_kills_another_process_than_ours(old_sample, monkeypatch, what):
    monkeypatch.setattr(isolation, "SECONDS", 1)
    forge(old_sample.path, *FORGED[what])
    with pytest.raises(PackFormatError) as caught:
        open_pack(old_sample.path)
    text = str(caught.value)
    assert text.startswith(f"{old_sample.path}: HDF5 cannot read this file safely: the process that tried ")
    assert text.endswith("get it again from whoever made it")
    assert ("needed more than 2 GB of memory" in text) == (what == "endless tree")
    assert "\n" not in text


def test_old_pack_is_opened_by_another_process_first_and_once(old_sample, children):
    with open_pack(old_sample.path) as pack:
        parts = [pack.read_chunk(chunk) for chunk in range(pack.header.chunks)]
    dense = np.concatenate([part.to_dense(12, 20) for part in parts])
    np.testing.assert_array_equal(dense, old_sample.dense)
    assert len(children) == 1
    assert verify_pack(old_sample.path) == []
    open_pack(old_sample.path).close()
    assert len(children) == 1
    # Another file under its name.
    content = old_sample.path.read_bytes()
    old_sample.path.unlink()
    old_sample.path.write_bytes(content)
    open_pack(old_sample.path).close()
    assert len(children) == 2


def test_plain_and_trusted_packs_need_no_other_process(sample, old_sample, children):
    open_pack(sample.path).close()
    assert verify_pack(sample.path) == []
    open_pack(old_sample.path, isolated=False).close()
    assert children == []


def _first_value(pack):
    return float(pack.read_chunk(0).values.reshape(-1)[0]), pack.path.name


def test_pack_that_is_sent_to_a_worker_is_not_opened_by_a_third_process(old_sample, children):
    with open_pack(old_sample.path) as pack:
        there = pickle.loads(pickle.dumps(pack))
        assert _first_value(there) == _first_value(pack)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply(_first_value, (pack,)) == _first_value(pack)
        there.close()
    assert len(children) == 1


@pytest.mark.slow
def test_pack_that_must_be_plain_and_is_not(sample):
    with h5py.File(sample.path, "r+", libver=("v110", "v110")) as file:
        file.attrs["note"] = "of variable length"
    with pytest.raises(PackLayoutError, match=r": not stored as EdgePack 1\.3 and later must be"):
        open_pack(sample.path)
    assert [problem.location for problem in verify_pack(sample.path)] == ["/"]
    assert [problem.location for problem in verify_pack(sample.path, isolated=True)] == ["/"]
    assert verify_pack(sample.path, isolated=False) == []


@pytest.mark.slow
def test_full_verification_in_another_process(tools, sample, children):
    open_pack(sample.path, isolated=True).close()
    assert verify_pack(sample.path, isolated=True) == []
    assert len(children) == 2
    tools.flip(sample.path, tools.chunk_place(sample.path, "values", 1)[0])
    # Without it, only reading the chunk finds this.
    open_pack(sample.path).close()
    found = verify_pack(sample.path, isolated=True)
    assert found == verify_pack(sample.path) != []
    with pytest.raises(PackFormatError, match="values chunk 1"):
        open_pack(sample.path, isolated=True)


ENDINGS = {
    "took longer than": "import time; time.sleep(60)",
    "ended by signal 11": "import os; os.kill(os.getpid(), 11)",
    "of memory": "print('null')",
    "without an answer": "raise SystemExit('no')",
}


@pytest.mark.parametrize("what", ENDINGS)
def test_every_end_of_the_other_process_is_told(old_sample, monkeypatch, what):
    monkeypatch.setattr(isolation, "CHILD", ENDINGS[what])
    monkeypatch.setattr(isolation, "SECONDS", 1)
    monkeypatch.setattr(isolation, "VERIFY_SECONDS", 1)
    monkeypatch.setattr(isolation, "WAITING", 0.5 if "longer" in what else 60)
    with pytest.raises(PackLayoutError, match=f"HDF5 cannot read this file safely.*{what}"):
        open_pack(old_sample.path)
    assert [problem.kind for problem in verify_pack(old_sample.path, isolated=True)] == ["layout"]


def test_limits_of_the_other_process():
    code = "from edgeprune_formats.packs import isolated as i; import resource as r\n"
    code += "i._confine(7, 2**33)\n"
    code += "print(*(r.getrlimit(kind)[0] for kind in (r.RLIMIT_CORE, r.RLIMIT_CPU, r.RLIMIT_AS)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [int(word) for word in done.stdout.split()] == [0, 7, 2**33]


def test_the_other_process_has_one_thread_for_linear_algebra(old_sample, monkeypatch):
    code = "import json, os; print(json.dumps([['layout', '/', os.environ['OPENBLAS_NUM_THREADS']]]))"
    monkeypatch.setattr(isolation, "CHILD", code)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "64")
    assert [problem.message for problem in isolation.examine(old_sample.path)] == ["1"]


def test_the_other_process_imports_nothing_from_a_folder_that_was_entered_later(old_sample, tmp_path):
    """An interactive Python has the present folder, whichever that is, on its path."""
    (tmp_path / "h5py.py").write_text("raise SystemExit('taken from here')")
    code = "import os, pathlib, sys; assert sys.path[0] == ''\n"
    code += "from edgeprune_formats.isolation import examine\n"
    code += "os.chdir(sys.argv[1]); print(examine(pathlib.Path(sys.argv[2])))"
    command = [sys.executable, "-c", code, str(tmp_path), str(old_sample.path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_other_process_looks_at_everything(old_sample, monkeypatch):
    """What it does is done without an error, which it would hide, and reaches all objects."""
    monkeypatch.setattr(isolated, "_attempt", lambda step: step())
    attributes, chunks = [], []
    read, find = isolated._read_attributes, isolated._find_chunks
    monkeypatch.setattr(isolated, "_read_attributes", lambda item: (attributes.append(item), read(item)))
    monkeypatch.setattr(isolated, "_find_chunks", lambda item, size: (chunks.append(item), find(item, size)))
    isolated._open(old_sample.path)
    assert (len(attributes), len(chunks)) == (10, 9)


def test_file_that_changes_while_it_is_opened(sample, monkeypatch):
    inspect = local.inspect

    def changing(file, size):
        contents = inspect(file, size)
        os.utime(sample.path, ns=(1, 1))
        return contents

    monkeypatch.setattr(local, "inspect", changing)
    with pytest.raises(PackLayoutError, match="has changed"):
        open_pack(sample.path)


def test_close_while_others_read_reports_no_damage(sample):
    wrong, stop = [], threading.Event()
    with open_pack(sample.path) as pack:
        sound = [pack.read_chunk(chunk).values.tobytes() for chunk in range(pack.header.chunks)]

        def read():
            try:
                while not stop.is_set():
                    for chunk, values in enumerate(sound):
                        assert pack.read_chunk(chunk).values.tobytes() == values
            except BaseException as error:
                wrong.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for thread in readers:
            thread.start()
        for _ in range(40):
            pack.close()
        stop.set()
        for thread in readers:
            thread.join()
    assert wrong == []


def test_what_closing_finds_is_an_error_of_the_pack(sample, monkeypatch):
    def fail(self):
        raise RuntimeError("Can't decrement id ref count")

    pack = open_pack(sample.path)
    pack.read_chunk(0)
    with monkeypatch.context() as patch:
        patch.setattr(h5py.File, "close", fail)
        with pytest.raises(PackFormatError, match="Can't decrement"):
            pack.close()
        with pytest.raises(PackFormatError, match="Can't decrement"):
            open_pack(sample.path)


def test_pipe_is_no_pack(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(PackFormatError, match="no regular file"):
        open_pack(tmp_path / "pipe.h5")


def test_tree_is_found_by_its_size(old_sample):
    content = old_sample.path.read_bytes()
    for signature, size in (FRACTAL_HEAP, TREE):
        start = content.index(signature)
        block = bytearray(content[start : start + size])
        before = struct.unpack_from("<I", block, size - 4)
        repair(block, [(0, size)])
        assert struct.unpack_from("<I", block, size - 4) == before
