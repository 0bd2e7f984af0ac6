import json
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgeprune_benchmarks.cli import command as cli
from edgeprune_benchmarks.field import faults, leaks, load, trouble
from edgeprune_benchmarks.field.child import Done, in_child
from edgeprune_benchmarks.field.faults import Clean
from edgeprune_benchmarks.field.operations import Operation
from edgeprune_benchmarks.field.place import Place, WrongError
from edgeprune_benchmarks.field.shim import Writes, counted, install
from edgeprune_benchmarks.field.situations import KINDS, SITUATIONS, Situation
from edgeprune_formats import ConfigError


def invoke(*arguments):
    result = CliRunner().invoke(cli, [str(word) for word in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def place(tmp_path):
    (tmp_path / "here").mkdir()
    return Place(tmp_path / "here", tmp_path)


def test_each_kind_has_four_situations_of_different_names():
    kinds = [one.kind for one in SITUATIONS]
    assert {kind for kind in KINDS if kinds.count(kind) < 4} == set()
    assert len({(one.kind, one.name) for one in SITUATIONS}) == len(SITUATIONS)


def test_a_child_is_told_apart_by_how_it_ends(place):
    def cry():
        raise ValueError("no")

    assert place.script(lambda: print("done")).out == "done\n"
    assert "Traceback" in place.script(cry).err
    assert place.script(cry, ValueError).err == "no\n"
    assert place.script(lambda: os.kill(os.getpid(), 9)).code == -9
    assert place.script(lambda: time.sleep(60), limit=0.1).code is None
    assert in_child(lambda: print("ü"), place.folder, encoding="ascii").code == 70


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda: os.kill(os.getpid(), 11), "killed by signal 11"),
        (lambda: time.sleep(60), "did not end within"),
        (lambda: exec("raise ValueError('x')"), "traceback: ValueError: x"),
        (lambda: Path("out.h5.partial").write_bytes(b""), "left out.h5.partial"),
        (lambda: os.write(2, b"odd\n"), "said: odd"),
    ],
)
def test_what_is_not_right_is_named(place, work, said):
    # Long enough for a busy machine, but where the limit itself is looked at.
    limit = 0.5 if said.startswith("did not end") else 60
    with pytest.raises(WrongError, match=said):
        place.right(place.script(work, limit=limit))


def test_a_result_that_is_not_the_expected_one_is_wrong(place):
    assert place.right(place.script(int)) == "right"
    with pytest.raises(WrongError, match="not the expected result"):
        place.right(place.script(int), False)


def test_a_refusal_names_file_and_remedy_in_one_line_and_leaves_nothing(place):
    def refuse(text, leaves=False):
        def work():
            if leaves:
                Path("half.h5").write_bytes(b"")
            raise ValueError(text)

        return place.script(work, ValueError)

    assert place.refused(refuse("a.png: damaged; copy it again"), "a.png", "copy") == "refused"
    for text, leaves, said in (
        ("damaged; copy it again", False, "does not say a.png"),
        ("a.png: copy\nit again", False, "2 lines on stderr"),
        ("a.png: copy it again", True, "left half.h5"),
    ):
        with pytest.raises(WrongError, match=said):
            place.refused(refuse(text, leaves), "a.png", "copy")
    with pytest.raises(WrongError, match="exit status 0"):
        place.refused(place.script(int))


def test_a_situation_that_fails_by_itself_is_wrong(tmp_path):
    def die(_):
        os.kill(os.getpid(), 9)

    found = trouble._try(Situation("weights", "x", die), tmp_path, tmp_path)
    assert (found["outcome"], found["why"]) == ("wrong", "it could not be tried: exit status -9")


@pytest.mark.slow
def test_situations_are_counted_by_kind(tmp_path):
    out = invoke("trouble", "-o", tmp_path, "--kind", "indexing", "--name", "is no index")
    assert "refused  indexing: bytes is no index\n" in out
    results = json.loads((tmp_path / "trouble.json").read_text())["results"]
    lines = trouble.trouble_table(results)
    assert lines[2:4] == ["| indexing | 6 | 0 | 6 | 0 |", "| all | 6 | 0 | 6 | 0 |"]
    results["rows"][0] |= {"outcome": "wrong", "why": "a|b"}
    assert trouble.trouble_table(results)[-1] == "- Wrong: indexing, a tensor of 2.0 is no index: a\\|b"


def test_writes_fail_from_one_on_for_some_or_all_that_follow():
    def outcomes(writes):
        found = []
        for _ in range(5):
            try:
                found.append(writes.allow(9))
            except OSError as error:
                found.append(error.errno)
        return found

    assert outcomes(Writes()) == [9] * 5
    assert outcomes(Writes(3, 28)) == [9, 9, 28, 28, 28]
    assert outcomes(Writes(2, 5, 2)) == [9, 5, 5, 9, 9]
    assert outcomes(Writes(short=True)) == [5] * 5


def _writers():
    return {
        "text": lambda: Path("a").write_text("four"),
        "open": lambda: Path("a").open("wb", buffering=0).write(b"four"),
        "descriptor": lambda: os.write(os.open("a", os.O_WRONLY | os.O_CREAT), b"four"),
        "archive": lambda: np.savez("a", x=np.arange(9)),
    }


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("name", _writers())
def test_the_shim_reaches_whoever_writes_in_python(place, name):
    def fail():
        install(Writes(1, 28))
        _writers()[name]()

    assert "No space left on device" in place.script(fail).err
    assert place.script(lambda: counted(_writers()[name], Path("count"))).code == 0
    assert int((place / "count").read_text()) >= 1


def test_outputs_are_old_new_mixed_or_wrong(tmp_path):
    operation = Operation("merge", ("info", "--help"), "*.h5", ())
    clean = Clean(tmp_path, {"1.h5": "a", "2.h5": "b"}, {"1.h5": "c", "2.h5": "d"}, 1.0, 9, 9, frozenset())

    def judged(found, code=1, fault="disk full", err=""):
        object.__setattr__(operation, "state", lambda folder: found)
        return faults._judged(operation, fault, clean, tmp_path, Done(code, "", err, 1.0))[0]

    assert judged({"1.h5": "a", "2.h5": "b"}) == "old"
    assert judged({"1.h5": "c", "2.h5": "d"}, 0) == "new"
    # Merge refuses what is no pack.
    assert judged({"1.h5": "a", "2.h5": "d"}) == "mixed"
    assert judged({"1.h5": "x", "2.h5": "d"}) == "wrong"
    assert judged({"2.h5": "d"}) == "wrong"
    assert judged({"1.h5": "a", "2.h5": "b"}, 0) == "wrong"
    assert judged({"1.h5": "a", "2.h5": "b"}, -11) == "wrong"
    assert judged({"1.h5": "a", "2.h5": "b"}, err="Traceback (most recent call last):") == "wrong"
    assert judged({"1.h5": "a", "2.h5": "b"}, None) == "wrong"
    assert judged({"1.h5": "a", "2.h5": "b"}, -9, "SIGKILL") == "old"


@pytest.mark.slow
def test_faults_leave_the_old_output_or_the_new(tmp_path):
    words = [word for name in ("disk full", "short writes", "SIGKILL") for word in ("--fault", name)]
    out = invoke("faults", "-o", tmp_path, "--moments", 1, "--operation", "convert", *words)
    assert "operation convert, fault short writes, tried 1, old 0, new 1, mixed 0, wrong 0, swept 1" in out
    results = json.loads((tmp_path / "faults.json").read_text())["results"]
    assert [(row["wrong"], row["swept"]) for row in results["rows"]] == [(0, 1)] * 3
    lines = faults.faults_table(results)
    assert lines[-3].startswith("| convert | disk full | 1 | 1 | 0 |")
    results["rows"][0]["why"] = ["so"]
    assert faults.faults_table(results)[-1] == "- convert, disk full: so"
    with pytest.raises(ConfigError, match="unknown fault fire; choose from disk full, "):
        invoke("faults", "-o", tmp_path, "--fault", "fire")


@pytest.mark.slow
def test_readers_at_once_see_the_same_images(tmp_path, monkeypatch):
    tried = [way for way in load.ways(4) if way.readers in (0, 2, 4) and way.start in (None, "fork")]
    assert {way.name for way in tried} == {way.name for way in load.ways(64)}
    load.run(load.Settings(minutes=0.1, readers=4, images=64), tmp_path, tried)
    results = json.loads((tmp_path / "load.json").read_text())["results"]
    ended = [row for row in results["rows"] if row["runs"]]
    assert all(row["other"] + row["hung"] + row["failed"] == 0 for row in ended)
    assert all(row["images"] == 64 * row["epochs"] > 0 for row in ended)
    assert "| DataLoader | 0, 2, 4 | fork |" in load.load_table(results)[-1]


def test_runs_with_other_versions_of_python_are_kept(tmp_path):
    path = tmp_path / "load.json"
    assert load._earlier(path, "3.12") == {"minutes": {}, "rows": []}
    results = {"minutes": {"3.10": 1, "3.12": 1}, "rows": [{"python": "3.10"}, {"python": "3.12"}]}
    path.write_text(json.dumps({"results": results}))
    assert load._earlier(path, "3.12")["rows"] == [{"python": "3.10"}]


def test_runs_that_hang_fail_or_read_others_are_counted():
    row = {"name": "x", **dict.fromkeys(load.COUNTS, 0)}
    for code, out in ((None, ""), (1, ""), (0, '["a", "b"]')):
        load._count(row, Done(code, out, "", 1.0), "a", 10)
    assert {name: row[name] for name in load.COUNTS} == {
        "runs": 3,
        "epochs": 2,
        "images": 20,
        "other": 1,
        "hung": 1,
        "failed": 1,
    }
    images = np.arange(12, dtype=np.float32).reshape(3, 4)
    labels = [0, 1, 1]
    digest = load._digest(zip(images, labels, strict=True))
    assert load._digest(zip(images[::-1], labels[::-1], strict=True)) == digest
    assert load._digest(zip(images, [1, 0, 1], strict=True)) != digest


def test_what_stays_open_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(leaks, "SETTLING", 0.1)
    leak = partial(leaks._tell, 4, lambda: lambda: os.open(os.devnull, os.O_RDONLY))
    done = in_child(leak, tmp_path, limit=60)
    before, after = json.loads(done.out.splitlines()[-1])["descriptors"]
    assert after == before + 4


@pytest.mark.slow
def test_nothing_stays_open_and_memory_does_not_grow(tmp_path):
    rows = leaks.measure(tmp_path, opens=60, epochs=20)
    assert len(leaks.leaks_table({"rows": rows})) == 4 + len(rows)
    for row in rows:
        assert row["descriptors"][0] == row["descriptors"][1], row["use"]
        assert row["mib"][1] - row["mib"][0] < 8, row["use"]
