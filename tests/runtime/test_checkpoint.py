import contextlib
import errno
import hashlib
import json
import os
import resource

import pytest
import torch

from edgeprune_formats import TrainingError
from edgeprune_runtime.checkpoint import (
    has_checkpoint,
    load_checkpoint,
    read_state,
    save_checkpoint,
    write_tensors,
    write_text,
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


def test_round_trip_and_only_one_checkpoint_stays(tmp_path):
    assert not has_checkpoint(tmp_path)
    for number in range(1, 4):
        save_checkpoint(tmp_path, *numbered(number))
        assert loaded_number(tmp_path) == number
    assert has_checkpoint(tmp_path)
    assert names(tmp_path) == ["checkpoint-0003.safetensors", "state.json"]


def test_other_files_of_the_folder_stay(tmp_path):
    for name in ("model.safetensors", "notes.tmp", "checkpoint-best.safetensors"):
        (tmp_path / name).touch()
    save_checkpoint(tmp_path, *numbered(1))
    assert {"model.safetensors", "notes.tmp", "checkpoint-best.safetensors"} <= set(names(tmp_path))


# replace and fsync are called for each of the two files; fsync for the folder as well.
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), Crash()])
@pytest.mark.parametrize(
    ("name", "call"), [*(("replace", n) for n in (1, 2)), *(("fsync", n) for n in range(1, 5))]
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
    # The commit is the second rename, after which only the fourth fsync follows.
    committed = (name, call) == ("fsync", 4)
    if earlier or committed:
        assert loaded_number(tmp_path) == (2 if committed else 1)
    else:
        assert not has_checkpoint(tmp_path)
    save_checkpoint(tmp_path, *numbered(3))
    assert loaded_number(tmp_path) == 3
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize(("name", "count"), [("replace", 2), ("fsync", 4)])
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
    for _ in range(3):
        with monkeypatch.context() as patch:
            failing_at(patch, "replace", 2, OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(TrainingError, match=r"state\.json: cannot be written \(No space left"):
                save_checkpoint(tmp_path, *numbered(2))
    assert names(tmp_path) == ["checkpoint-0001.safetensors", "checkpoint-0002.safetensors", "state.json"]


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
        pytest.raises(TrainingError, match=r"checkpoint-0002\.safetensors: cannot be written .*--resume"),
    ):
        save_checkpoint(tmp_path, tensors, state)
    assert loaded_number(tmp_path) == 1
    assert names(tmp_path) == ["checkpoint-0001.safetensors", "state.json"]


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_a_byte, cut, os.unlink])
@pytest.mark.parametrize("name", ["checkpoint-0001.safetensors", "state.json"])
def test_damage_is_told_with_file_and_remedy(tmp_path, damage, name):
    save_checkpoint(tmp_path, *numbered(1))
    if damage is cut and name == "state.json":
        cut(tmp_path / name)  # its last byte is only the end of the line
    damage(tmp_path / name)
    with pytest.raises(TrainingError, match=rf"{name}: the checkpoint cannot be read .*start again"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"\xff", b"null", b'{"format": 2}', b'{"format": 1}'])
def test_a_state_of_another_kind(tmp_path, content):
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(TrainingError, match=r"state\.json"):
        load_checkpoint(tmp_path)


def test_a_state_cannot_name_a_file_elsewhere_without_a_checksum(tmp_path):
    save_checkpoint(tmp_path, *numbered(1))
    record = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(record | {"tensors": "../other.safetensors"}))
    with pytest.raises(TrainingError, match="checksum"):
        load_checkpoint(tmp_path)


def test_a_state_that_json_cannot_hold_is_refused_before_anything_counts(tmp_path):
    save_checkpoint(tmp_path, *numbered(1))
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, {}, {"loss": float("nan")})
    assert loaded_number(tmp_path) == 1


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
