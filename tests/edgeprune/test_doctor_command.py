import copy
import json
import os
import subprocess
import sys

import pytest

from edgeprune import __version__
from edgeprune.commands.doctor import KERNELS_MISSING, diagnose, examine


@pytest.fixture(scope="module")
def facts():
    found = examine()
    # Whatever this machine lacks.
    found["kernels"] = {"coding": "in C", "transform": "in C, 8 numbers at once"}
    found["torch"] = {"cuda": "a GPU", "built_for_cuda": "13.0", "threads": 2}
    found["machine"]["processors"] = 2
    found["free"] = dict.fromkeys(found["free"], 2**40)
    found["variables"] = []
    return found


def test_a_sound_machine_needs_nothing(facts):
    assert list(diagnose(facts)) == []
    assert list(diagnose({**facts, "free": dict.fromkeys(facts["free"])})) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernels": {"coding": None, "transform": "in C"}}, KERNELS_MISSING),
        ({"kernels": {"coding": "in C", "transform": None}}, KERNELS_MISSING),
        ({"variables": ["EDGEPRUNE_NATIVE=0"]}, "unset it"),
        ({"variables": ["OMP_NUM_THREADS=3"]}, "OMP_NUM_THREADS is 3, on 2 processors"),
        ({"torch": None}, r"pip install 'edgeprune[torch]'"),
        ({"torch": {"error": "torch cannot be loaded"}}, "of one release"),
        ({"free": {"memory": 10**8}}, "memory: 100 MB free; train with a small --memory"),
        ({"free": {"this_folder": 5}}, "this folder: 5 B free; free some"),
        ({"free": {"shared": 64 * 2**20}}, "shared: 67.11 MB free; workers of a DataLoader"),
    ],
)
def test_what_is_wrong_is_told_with_a_remedy(facts, change, words):
    wrong = copy.deepcopy(facts)
    for name, value in change.items():
        wrong[name] = wrong[name] | value if name == "free" else value
    (line,) = diagnose(wrong)
    assert words in line


def test_it_prints_facts_for_people_and_for_programs(edgeprune):
    code, out, err = edgeprune("doctor")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["edgeprune", __version__]
    found = json.loads(edgeprune("doctor", "--json")[1])
    assert found["python"].startswith(sys.version.split()[0])
    assert found["packages"].keys() >= {"numpy", "h5py", "HDF5"}
    assert isinstance(found["advice"], list)


@pytest.mark.slow
def test_info_says_once_where_there_are_no_kernels(make_pack):
    command = [sys.executable, "-m", "edgeprune", "info", str(make_pack()[0])]
    environment = {**os.environ, "EDGEPRUNE_NATIVE": "0"}
    told = subprocess.run(command, capture_output=True, text=True, env=environment).stderr
    assert told == f"note: {KERNELS_MISSING}; see edgeprune doctor\n"
