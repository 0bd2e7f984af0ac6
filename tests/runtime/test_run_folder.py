"""Folders that a run may not begin in, or not go on in."""

import errno
import json
import os
from dataclasses import replace

import pytest
from training_runs import TINY, MemoryLoader, run

from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.training import load_model
from edgeprune_runtime.training.run_folder.description import require_same
from edgeprune_runtime.training.run_folder.opening import opened_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "name", ["config.json", "checkpoint-0007.json", "metrics.jsonl", "model.safetensors"]
)
def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match="already holds a run; go on with `resume=True`"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 2}, "epochs was 3 and is now 2"),
        ({"model": "resnet18"}, "model was 'resnet8' and is now 'resnet18'"),
        ({"ema": None}, "ema was 0.9 and is now not set"),
        ({"seed": 7}, "seed was 0 and is now 7"),
        ({"precision": "bfloat16"}, "precision was 'float32' and is now 'bfloat16'"),
    ],
)
def test_resume_with_other_settings(whole_run, change, message):
    with pytest.raises(ConfigError, match=message):
        run(whole_run.run_dir, replace(TINY, **change), resume=True, provenance={"pack": "digits.h5"})


def test_resume_with_other_data(whole_run):
    with pytest.raises(ConfigError, match=r"resumed: pack was 'digits.h5' and is now 'other.h5'"):
        run(whole_run.run_dir, resume=True, provenance={"pack": "other.h5"})
    options = {"loader": MemoryLoader(16), "provenance": {"pack": "digits.h5"}}
    with pytest.raises(ConfigError, match="steps_per_epoch was 4 and is now 2"):
        run(whole_run.run_dir, resume=True, **options)


def test_settings_that_only_spell_the_same_differently(whole_run):
    config = replace(TINY, device="cpu", precision="float32")
    assert run(whole_run.run_dir, config, resume=True, provenance={"pack": "digits.h5"}) == whole_run


@pytest.mark.slow
def test_two_processes_do_not_train_in_one_folder(tmp_path):
    def again(epoch, batch):
        if epoch == 1:
            with pytest.raises(ConfigError, match="another process trains in it"):
                run(tmp_path, resume=True)

    run(tmp_path, on_batch=again)


@pytest.mark.parametrize("when", ["before the folder is there", "after a failure"])
def test_of_two_processes_that_begin_in_one_new_folder_the_loser_leaves_all_to_the_winner(tmp_path, when):
    folder = tmp_path / "run"
    if when == "after a failure":
        with pytest.raises(ConfigError), opened_run(folder, {"config": {}}, False):
            raise ConfigError
        assert not folder.exists()
    with opened_run(folder, {"config": {"a": 1}}, False):
        before = sorted(folder.iterdir())
        for resume in (False, True):
            with pytest.raises(ConfigError, match="another process trains in it"):
                run(folder, resume=resume)
        assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", [".lock", "config.json.tmp", "metrics.jsonl.tmp"])
def test_links_in_a_run_folder_are_not_followed(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(victim)
    if name == ".lock":
        with pytest.raises(ConfigError, match=r"\.lock is a symbolic link; remove it"):
            run(folder)
    else:
        run(folder)
    assert victim.read_bytes() == b"precious"


@pytest.mark.first_are_quick
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks_is_no_second_process(tmp_path, monkeypatch, number):
    def refuse(file, operation):
        raise OSError(number, None if number == 524 else os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.warns(UserWarning, match=f"{tmp_path}/run: the file system has no locks") as told:
        assert len(run(tmp_path / "run", replace(TINY, epochs=1)).metrics) == 1
    assert len(told) == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        run(tmp_path / "file" / "run")


@pytest.mark.parametrize("name", ["\x1b[2J", "\n", "\0"])
@pytest.mark.parametrize("part", ["config", "provenance", None])
def test_names_of_a_forged_record_are_escaped(tmp_path, name, part):
    record = {"config": {}, "provenance": {}} | ({name: 1} if part is None else {part: {name: 1}})
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="cannot be resumed: ") as told:
        run(tmp_path, resume=True)
    assert str(told.value).isprintable()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pack config": {"quality": 50}}, "its config quality was 75 and is now 50"),
        ({"pack config": {}}, "its config quality was 75 and is now not set"),
        ({"pack config": 3, "mean": [2]}, "its config was not set and is now 3"),
        # Other images: what follows from them is not what is told.
        ({"pack source": {"sha256": "b"}, "mean": [2]}, "its source sha256 was 'a' and is now 'b'"),
        ({"pack parts": [{"of": "x"}, {"of": "z"}]}, "its parts 1 of was 'y' and is now 'z'"),
        # Of a pack that says nothing of itself there is the count alone.
        ({"pack parts": [{"of": "x"}, {"of": "y"}, {}]}, "its parts count was 2 and is now 3"),
        ({"pack parts": [{"of": "x"}, {"of": "y" * 2000}]}, "its parts 1 of was 'y' and is now 'yyy"),
        # Of several packs the entries of one are missing, which says less than how many there are.
        ({"pack config": {}, "pack packs": ["a"]}, "its packs was a single one and is now ['a']"),
    ],
)
def test_another_pack_is_told_by_the_entry_that_differs(tmp_path, change, told):
    provenance = {
        "pack config": {"quality": 75},
        "pack source": {"sha256": "a"},
        "pack parts": [{"of": "x"}, {"of": "y"}],
        "mean": [1],
    }
    old = {"config": {"lr": 0.1}, "provenance": provenance}
    require_same(tmp_path, old, old | {"provenance": {**provenance, "pack empty": {}}})
    with pytest.raises(ConfigError) as caught:
        require_same(tmp_path, old, {"config": {"lr": 0.2}, "provenance": provenance | change})
    assert str(caught.value).startswith(f"{tmp_path} cannot be resumed: it learned from another pack: {told}")
    assert str(caught.value).endswith("; resume with the former, or start in another folder")


def test_provenance_hides_no_setting_of_its_name(tmp_path):
    provenance = {"seed": "mine", "num_classes": 4, "lr": 1}
    old = {"config": {"seed": 0, "lr": 0.1}, "num_classes": 4, "provenance": provenance}
    for change in (
        {"config": {"seed": 7, "lr": 0.1}},
        {"num_classes": 5},
        {"provenance": {**provenance, "lr": 2}},
    ):
        with pytest.raises(ConfigError, match=r"(seed|num_classes|lr) was"):
            require_same(tmp_path, old, old | change)


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_a_damaged_record(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(TrainingError, match=r"config\.json .* another folder"):
        run(tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"", b"{}", bytes(100)])
def test_a_damaged_model(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(TrainingError, match=r"model\.safetensors: not a model of a run, or damaged"):
        load_model(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("made", [False, True])
def test_what_fails_before_the_first_checkpoint_leaves_nothing(tmp_path, made):
    folder = tmp_path / "run"
    if made:
        folder.mkdir()
    with pytest.raises(TrainingError, match="an `lr` lower"):
        run(folder, replace(TINY, lr=1e20))
    assert [path.name for path in tmp_path.rglob("*")] == (["run"] if made else [])
    run(folder, replace(TINY, epochs=1))


def test_what_fails_before_the_first_checkpoint_leaves_the_files_of_others(tmp_path):
    names = ["best-model.safetensors", "checkpoint-old.json", "notes.txt"]
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(TrainingError, match="an `lr` lower"):
        run(tmp_path, replace(TINY, lr=1e20))
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_run_from_several_packs_is_not_gone_on_with_by_one(tmp_path):
    several = {"pack packs": ["a, 3 images", "b, 4 images"], "pack provenances": [{"config": {}}]}
    one = {"pack config": {"codec": "x"}}
    former, now = ({"config": {}, "provenance": facts} for facts in (several, one))
    told = r"its packs was \['a, 3 images', 'b, 4 images'\] and is now a single one;"
    with pytest.raises(ConfigError, match=told):
        require_same(tmp_path, former, now)
