import contextlib
import errno
import hashlib
import json
import os
import resource
import stat

import pytest
import torch

from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.output_files import AGAIN, RESUME, DiskFullError, write_tensors, write_text
from edgeprune_runtime.training.run_folder.checkpoint import (
    has_checkpoint,
    load_checkpoint,
    read_state,
    save_checkpoint,
)


class Crash(BaseException):
    """Stands for the end of the process: no handler of the code under test may catch it."""


def numbered(number):
    """Tensors and state of checkpoint `number`, so that a mixture of two is seen."""
    tensors = {
        "weight": torch.full((4, 3, 3, 3), float(number)).contiguous(memory_format=torch.channels_last),
        "random": torch.tensor([number, 255], dtype=torch.uint8),
        "count": torch.tensor(number),
    }
    return tensors, {"number": number, "tenth": 0.1 * number, "nested": {"läuft": [1, None]}}


def loaded_number(run_dir):
    found = load_checkpoint(run_dir)
    tensors, state = numbered(found.state["number"])
    assert found.state == state == read_state(run_dir)
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype
    return state["number"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def failing_at(monkeypatch, name, call, error):
    """Make call number `call` of ``os.<name>`` raise; return the list of calls made."""
    calls, original = [], getattr(os, name)

    def counted(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(os, name, counted)
    return calls


def pairs(*numbers):
    return [f"checkpoint-{number:04d}.{kind}" for number in numbers for kind in ("json", "safetensors")]


def test_round_trip_and_the_last_two_stay(tmp_path):
    assert not has_checkpoint(tmp_path)
    for number in range(1, 5):
        save_checkpoint(tmp_path, *numbered(number))
        assert loaded_number(tmp_path) == number
        assert load_checkpoint(tmp_path).damage is None
    assert has_checkpoint(tmp_path)
    assert names(tmp_path) == pairs(3, 4)


def test_other_files_of_the_folder_stay(tmp_path):
    for name in ("model.safetensors", "notes.tmp", "checkpoint-best.safetensors"):
        (tmp_path / name).touch()
    save_checkpoint(tmp_path, *numbered(1))
    assert {"model.safetensors", "notes.tmp", "checkpoint-best.safetensors"} <= set(names(tmp_path))


# link and fsync are called for each of the two files; fsync for the folder as well.
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), Crash()])
@pytest.mark.parametrize(
    ("name", "call"), [*(("link", n) for n in (1, 2)), *(("fsync", n) for n in range(1, 5))]
)
@pytest.mark.parametrize("earlier", [0, 1])
def test_a_failing_write_leaves_the_old_or_the_new_checkpoint(
    tmp_path, monkeypatch, name, call, error, earlier
):
    if earlier:
        save_checkpoint(tmp_path, *numbered(1))
    with monkeypatch.context() as patch:
        failing_at(patch, name, call, error)
        with pytest.raises(Crash if isinstance(error, Crash) else TrainingError):
            save_checkpoint(tmp_path, *numbered(2))
    # The commit is the second link, after which only the fourth fsync follows.
    committed = (name, call) == ("fsync", 4)
    if earlier or committed:
        assert loaded_number(tmp_path) == (2 if committed else 1)
    else:
        assert not has_checkpoint(tmp_path)
    save_checkpoint(tmp_path, *numbered(3))
    assert loaded_number(tmp_path) == 3
    assert len(names(tmp_path)) == 2 * (1 + (earlier or committed))


@pytest.mark.parametrize(("name", "count"), [("link", 2), ("fsync", 4)])
def test_the_fault_injection_reaches_every_call(tmp_path, monkeypatch, name, count):
    calls = failing_at(monkeypatch, name, 0, Crash())
    save_checkpoint(tmp_path, *numbered(1))
    assert len(calls) == count


def test_old_files_that_cannot_be_removed_do_no_harm(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, *numbered(1))
    with monkeypatch.context() as patch:
        failing_at(patch, "unlink", 1, PermissionError("read-only"))
        save_checkpoint(tmp_path, *numbered(2))
    assert loaded_number(tmp_path) == 2


def test_files_of_failed_attempts_do_not_pile_up(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, *numbered(1))
    # The first file is there from the second time on, and is replaced.
    for call in (2, 1, 1):
        with monkeypatch.context() as patch:
            failing_at(patch, "link", call, OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(TrainingError, match=r"0002\.json: cannot be written \(No space left"):
                save_checkpoint(tmp_path, *numbered(2))
    assert names(tmp_path) == [*pairs(1), "checkpoint-0002.safetensors"]


@contextlib.contextmanager
def file_size_limit(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_names_the_file_and_keeps_the_previous_checkpoint(tmp_path):
    save_checkpoint(tmp_path, *numbered(1))
    tensors, state = numbered(2)
    tensors["weight"] = torch.zeros(1 << 20)
    with (
        file_size_limit(1 << 16),
        pytest.raises(TrainingError, match=r"checkpoint-0002\.safetensors: cannot be written .*resume=True"),
    ):
        save_checkpoint(tmp_path, tensors, state)
    assert loaded_number(tmp_path) == 1
    assert names(tmp_path) == pairs(1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_from_other_faults(tmp_path, monkeypatch, number):
    failing_at(monkeypatch, "fsync", 1, OSError(number, os.strerror(number)))
    with pytest.raises(DiskFullError, match=os.strerror(number)):
        save_checkpoint(tmp_path, *numbered(1))
    failing_at(monkeypatch, "fsync", 1, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(TrainingError, match="Input/output") as caught:
        save_checkpoint(tmp_path, *numbered(1))
    assert not isinstance(caught.value, DiskFullError)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_a_byte, cut, os.unlink])
@pytest.mark.parametrize("name", pairs(1))
def test_damage_of_the_only_checkpoint_is_told_with_file_and_remedy(tmp_path, damage, name):
    save_checkpoint(tmp_path, *numbered(1))
    spoil(tmp_path / name, damage)
    if (damage, name) == (os.unlink, "checkpoint-0001.json"):
        assert not has_checkpoint(tmp_path)
    with pytest.raises(TrainingError, match=rf"{name}: the checkpoint cannot be read .*start again"):
        load_checkpoint(tmp_path)


def spoil(path, damage):
    if damage is cut and path.suffix == ".json":
        cut(path)  # its last byte is only the end of the line
    damage(path)


@pytest.mark.parametrize("damage", [flip_a_byte, cut, os.unlink])
@pytest.mark.parametrize("name", pairs(3))
def test_the_older_checkpoint_stands_in_for_a_damaged_one(tmp_path, damage, name):
    for number in (1, 2, 3):
        save_checkpoint(tmp_path, *numbered(number))
    spoil(tmp_path / name, damage)
    found = load_checkpoint(tmp_path)
    assert found.state["number"] == 2
    unseen = (damage, name) == (os.unlink, "checkpoint-0003.json")
    assert (found.damage is None) == unseen
    assert unseen or name in found.damage
    assert loaded_number(tmp_path) == 2
    # The next one takes the damaged one's place and not that of the one that stood in.
    save_checkpoint(tmp_path, *numbered(4))
    assert loaded_number(tmp_path) == 4
    assert names(tmp_path) == pairs(2, 3)
    spoil(tmp_path / "checkpoint-0003.safetensors", damage)
    assert loaded_number(tmp_path) == 2


def test_both_checkpoints_damaged(tmp_path):
    for number in (1, 2):
        save_checkpoint(tmp_path, *numbered(number))
    for name in pairs(1, 2):
        spoil(tmp_path / name, cut)
    for read in (load_checkpoint, read_state):
        with pytest.raises(TrainingError, match=r"checkpoint-000[12]\.json: the checkpoint cannot be read"):
            read(tmp_path)
    # Nothing was set aside that might still be restored.
    assert names(tmp_path) == pairs(1, 2)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"\xff", b"null", b'{"format": 3}', b'{"format": 2}'])
def test_a_state_of_another_kind(tmp_path, content):
    (tmp_path / "checkpoint-0001.json").write_bytes(content)
    with pytest.raises(TrainingError, match=r"checkpoint-0001\.json"):
        load_checkpoint(tmp_path)


def test_a_state_that_was_edited_is_refused(tmp_path):
    save_checkpoint(tmp_path, *numbered(1))
    path = tmp_path / "checkpoint-0001.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": 64 * "0"}))
    with pytest.raises(TrainingError, match="checksum"):
        load_checkpoint(tmp_path)


def test_a_state_that_json_cannot_hold_is_refused_before_anything_counts(tmp_path):
    save_checkpoint(tmp_path, *numbered(1))
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, {}, {"loss": float("nan")})
    assert loaded_number(tmp_path) == 1


def test_tensors_are_for_whom_new_files_of_the_user_are(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        # It holds for the whole process, other threads included, so it is left alone.
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda mask: pytest.fail("changed"))
            write_tensors(tmp_path / "x.safetensors", {"x": torch.ones(3)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["x.safetensors"]


def test_the_digest_is_that_of_the_file(tmp_path):
    path = tmp_path / "a.safetensors"
    assert (
        write_tensors(path, {"x": torch.ones(3)}, {"k": "v"}) == hashlib.sha256(path.read_bytes()).hexdigest()
    )


def test_text_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_text(path, "ä\n")
    failing_at(monkeypatch, "replace", 1, OSError(errno.EACCES, "Permission denied"))
    with pytest.raises(TrainingError, match=r"a\.json: cannot be written \(Permission denied\)"):
        write_text(path, "new\n")
    assert path.read_bytes() == "ä\n".encode()
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("remedy", "words"), [(RESUME, "then go on with `resume=True`"), (AGAIN, "then run the same")]
)
def test_an_error_says_how_to_go_on(tmp_path, monkeypatch, remedy, words):
    failing_at(monkeypatch, "fsync", 1, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(DiskFullError, match=words):
        save_checkpoint(tmp_path, *numbered(1), remedy=remedy)
