"""Commands that are killed at random moments: each name has the older file, whole, or the new one."""

import importlib.util
import shutil
import signal

import exported_models
import pytest
import small_builds
from damaging import damage_chunk
from killing import Trial, killed

from edgeprune import BuildConfig, build_pack
from edgeprune.repack.split import split_pack
from edgeprune_runtime.signatures import make_key

pytestmark = pytest.mark.slow
COMMANDS = ("split", "convert", "merge", "repair", "export", "sign")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What the commands work on: a pack of 1,500 images, its halves, a damaged copy, a run and a key."""
    folder = tmp_path_factory.mktemp("given")
    spec = small_builds.write_source(folder, images=1500, side=16, classes=3)
    build_pack(spec, folder / "pack.h5", BuildConfig(codec="sparse-f16", freq_prune=0.5))
    split_pack(folder / "pack.h5", folder / "half-{part}.h5", 2)
    shutil.copy(folder / "pack.h5", folder / "damaged.h5")
    damage_chunk(folder / "damaged.h5", 0)
    small_builds.run_folder(folder)
    if importlib.util.find_spec("cryptography"):
        make_key(folder / "maker.key")
    return folder


def trial(command, given, made):
    """A `Trial` of a command that takes what is in one folder and writes to another."""
    imports = ["edgeprune.cli", f"edgeprune.commands.packs.{command}", f"edgeprune.repack.{command}"]
    if command == "split":
        outputs = [made / f"part-{number}.h5" for number in (1, 2, 3)]
        arguments = [given / "pack.h5", "-n", 3, "-o", made / "part-{part}.h5"]
    elif command == "export":
        outputs = [made / "run.onnx"]
        arguments = [given / "run", "-o", *outputs]
        imports = ["edgeprune.cli", "edgeprune.commands.training.export", "edgeprune.inference.export"]
        imports += ["onnx", "onnxscript", "onnxruntime", "torch.onnx", "torch._dynamo"]
    elif command == "sign":
        pytest.importorskip("cryptography")
        pack = shutil.copy(given / "pack.h5", made)
        arguments = ["sign", str(pack), "--key", str(given / "maker.key")]
        imports = ["edgeprune.cli", "edgeprune.commands.signatures.sign", "edgeprune_runtime.signatures"]
        return Trial(arguments, [f"{pack}.sig"], imports, key=str(given / "maker.key.pub"))
    else:
        packs = {"merge": ["half-1.h5", "half-2.h5"], "repair": ["damaged.h5"], "convert": ["pack.h5"]}
        outputs = [made / "new.h5"]
        arguments = [*(given / name for name in packs[command]), "-o", *outputs]
        arguments += ["--codec", "quantized", "--tile", "8"] if command == "convert" else []
    # Each takes seconds, nearly all of it before the file is written.
    kills, prepare = (2, exported_models.read_operators) if command == "export" else (6, int)
    words = [command, *map(str, arguments), "--force"]
    return Trial(words, [*map(str, outputs)], imports, kills, prepare=prepare)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_command_leaves_whole_files_and_the_next_cleans_up(command, given, tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    found = killed(trial(command, given, made))
    assert found["problems"] == []
    assert found["left"] == []
    # Some were in time, and some of these in the middle.
    assert found["ends"].get(str(-signal.SIGKILL), 0) > 0
