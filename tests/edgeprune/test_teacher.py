"""What a teacher says of images, as a column of their pack: ``edgeprune build --teacher``."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_builds import SIDE, pixels, run_folder

from edgeprune import BuildConfig, build_pack
from edgeprune.commands.packs import add, build
from edgeprune.packs import ray_engine
from edgeprune.packs.addition import add_images
from edgeprune.packs.budget import build_within
from edgeprune.packs.build import build_share
from edgeprune.packs.encoding.teacher import PackTeacher, teacher_column
from edgeprune.packs.planning.plan import Share
from edgeprune.packs.writing.assembly import assemble
from edgeprune.repack.convert import convert_pack
from edgeprune.repack.merge import merge_packs
from edgeprune.sources import open_source
from edgeprune_formats import ConfigError, open_pack, verify_pack
from edgeprune_formats.targets import encode_target
from edgeprune_runtime.networks import code
from edgeprune_runtime.networks.trained import load_trained

NAMES = [f"n{number}" for number in range(8)]
# The teacher's own order, and another spelling of one of them.
THEIRS = ["n7", *NAMES[:6], "ca\u0301n"]
OURS = [*NAMES[:6], "c\u00e1n", "n7"]
CONFIG = BuildConfig(codec="quantized", tile="full", quality=50, rounding="deadzone", device="cpu")


def source_of(path, names=tuple(OURS), *, images=40, side=SIDE, seed=0):
    x, y = pixels(images, side, seed, len(names))
    np.savez(path, x=x, y=y, class_names=np.array(names))
    return f"npz:{path}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    return run_folder(folder, classes=8, side=SIDE, mean=[0.5] * 3, std=[0.25] * 3, class_names=THEIRS)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return source_of(tmp_path_factory.mktemp("images") / "a.npz")


@pytest.fixture(scope="module")
def built(run, spec, tmp_path_factory):
    return build_pack(spec, tmp_path_factory.mktemp("pack") / "p.h5", CONFIG, teacher=run).path


def expected(run, spec, rows):
    """The mean over the original image and its mirror image, of our classes."""
    images = torch.from_numpy(open_source(spec).read(rows)).float() / 255
    network = load_trained(run).on_images()
    with torch.no_grad():
        mean = sum(network(one).softmax(1) for one in (images, images.flip(3))) / 2
    return mean.numpy()[:, [*range(1, 8), 0]]


def test_the_pack_stores_what_the_teacher_says_of_the_original_images(run, spec, built):
    with open_pack(built) as pack:
        target, facts = pack.targets["teacher"], pack.header.provenance["teacher"]
        assert (target.kind, target.classes, target.column.top) == (
            "probabilities",
            pack.header.class_names,
            3,
        )
        wanted = expected(run, spec, pack.source_index)
        column = teacher_column(pack.header.class_names)
        np.testing.assert_array_equal(
            target.take().values, encode_target(replace(target.take(), column=column, values=wanted), 40)
        )
        assert facts == load_trained(run).identity()
    assert verify_pack(built) == []


def test_parts_and_several_threads_make_the_same_column(run, spec, built, tmp_path):
    whole = build_pack(spec, tmp_path / "whole.h5", CONFIG, teacher=run, jobs=3).path
    (tmp_path / "parts").mkdir()
    build_share(spec, tmp_path / "parts", Share(1, 1), CONFIG, teacher=run)
    assemble(tmp_path / "parts", tmp_path / "joined.h5")
    with open_pack(built) as one, open_pack(whole) as two, open_pack(tmp_path / "joined.h5") as three:
        for other in (two, three):
            np.testing.assert_array_equal(
                one.targets["teacher"].take().values, other.targets["teacher"].take().values
            )
            assert other.header.provenance["teacher"] == one.header.provenance["teacher"]


@pytest.mark.slow
def test_a_budget_counts_the_column_and_asks_once_of_each_image(run, spec, tmp_path, monkeypatch):
    teacher, asked = PackTeacher(run, "cpu", remember=True), []
    ask = teacher.probabilities
    monkeypatch.setattr(teacher, "probabilities", lambda some: asked.append(len(some)) or ask(some))

    def build(path, config, **options):
        return build_pack(spec, path, config, teacher=teacher, **options)

    bare = build_pack(spec, tmp_path / "bare.h5", CONFIG).path.stat().st_size
    fit = build_within(build, tmp_path / "fit.h5", replace(CONFIG, quality=None), bare)
    assert fit.builds > 1
    assert sum(asked) == 40
    assert fit.config.quality < CONFIG.quality
    with open_pack(tmp_path / "fit.h5") as pack:
        np.testing.assert_allclose(
            pack.targets["teacher"].read(), expected(run, spec, pack.source_index), atol=0.3
        )


def test_merged_and_converted_packs_keep_the_column(run, built, tmp_path):
    other = source_of(tmp_path / "b.npz", seed=1)
    build_pack(other, tmp_path / "b.h5", CONFIG, teacher=run)
    merge_packs([built, tmp_path / "b.h5"], tmp_path / "both.h5")
    convert_pack(built, tmp_path / "sparse.h5", BuildConfig(codec="sparse-f32"))
    with open_pack(tmp_path / "both.h5") as both, open_pack(tmp_path / "sparse.h5") as sparse:
        assert both.targets["teacher"].column.top == 3
        with open_pack(built) as pack:
            stored = pack.targets["teacher"].take().values
        np.testing.assert_array_equal(sparse.targets["teacher"].take().values, stored)
        joined = both.targets["teacher"].take().values.reshape(80, -1)
        assert {row.tobytes() for row in stored} <= {row.tobytes() for row in joined}


def test_added_images_need_a_teacher_too(run, built, tmp_path):
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "a.h5").write_bytes(built.read_bytes())
    more = source_of(tmp_path / "more.npz", images=16, seed=2)
    with pytest.raises(ConfigError, match=r"built with a teacher.*`teacher`"):
        add_images(more, tmp_path / "packs")
    report = add_images(more, tmp_path / "packs", teacher=run).report
    with open_pack(report.path) as pack:
        assert pack.targets["teacher"].column.top == 3
        assert "teacher" in pack.header.provenance
    new = source_of(tmp_path / "new.npz", (*OURS, "zebra"), images=18)
    with pytest.raises(ConfigError, match="does not know class 'zebra'"):
        add_images(new, tmp_path / "packs", teacher=run)
    bare = tmp_path / "bare"
    bare.mkdir()
    build_pack(more, bare / "a.h5", CONFIG)
    with pytest.raises(ConfigError, match="without a teacher; leave `teacher` out"):
        add_images(new, bare, teacher=run)


@pytest.mark.parametrize(
    ("names", "side", "words"),
    [
        (OURS[:7], SIDE, "knows class 'n7', which npz:.* lacks"),
        ([*OURS[:7], "n9"], SIDE, r"does not know class 'n9', which npz:.* has"),
        (OURS, 16, r"images \(3, 16, 16\), and .* takes \(3, 12, 12\); give the `size`"),
    ],
)
def test_a_teacher_of_other_images_is_refused(run, tmp_path, names, side, words):
    with pytest.raises(ConfigError, match=words):
        PackTeacher(run, "cpu").for_source(open_source(source_of(tmp_path / "o.npz", names, side=side)))


def test_a_target_of_the_same_name_is_refused(run, tmp_path):
    x, y = pixels(16, SIDE, 0, 8)
    np.savez(tmp_path / "t.npz", x=x, y=y, class_names=np.array(OURS), teacher=y)
    with pytest.raises(ConfigError, match="has target 'teacher' already"):
        PackTeacher(run, "cpu").for_source(open_source(f"npz:{tmp_path / 't.npz'}?target=teacher:integer"))


def test_the_run_must_name_its_classes(tmp_path):
    with pytest.raises(ConfigError, match="does not name its classes"):
        PackTeacher(run_folder(tmp_path, classes=8), "cpu")


def test_the_command_line(edgeprune, run, spec, tmp_path):
    path = tmp_path / "p.h5"
    code, out, err = edgeprune("build", spec, "--teacher", run, "--device", "cpu", "-o", path)
    assert code == 0, err
    assert "target teacher (probabilities)" in out
    code, out, _ = edgeprune("info", path)
    assert "teacher: probabilities, 8 classes" in out
    assert "the 3 likeliest and the rest, 6 B an image" in out
    facts = json.loads(edgeprune("info", path, "--json")[1])
    assert facts["targets"][0]["top"] == 3


@pytest.mark.parametrize(("classes", "top"), [(2, 0), (6, 0), (7, 3), (256, 3), (257, 5), (1000, 5)])
def test_how_many_classes_are_stored(classes, top):
    assert teacher_column([str(number) for number in range(classes)]).top == top


@pytest.mark.slow
def test_images_are_added_to_packs_merged_of_those_of_several_teachers(run, built, tmp_path):
    other = PackTeacher(run)
    other.identity = {"sha256": "0" * 64}
    second = build_pack(source_of(tmp_path / "b.npz", seed=1), tmp_path / "b.h5", CONFIG, teacher=other).path
    (tmp_path / "merged").mkdir()
    merge_packs([built, second], tmp_path / "merged" / "m.h5")
    more = source_of(tmp_path / "more.npz", images=16, seed=2)
    with pytest.raises(ConfigError, match=r"built with a teacher.*`teacher`"):
        add_images(more, tmp_path / "merged")
    with open_pack(add_images(more, tmp_path / "merged", teacher=run).report.path) as pack:
        assert "teacher" in pack.targets


@pytest.mark.parametrize("command", [build.command, add.command])
def test_a_teacher_of_the_users_own_code_can_be_named(command):
    flags = [flag for param in command.params for flag in param.opts]
    assert {"--teacher", "--trust-model"} <= set(flags)


def test_tasks_of_ray_may_run_the_code_that_the_user_has_named(monkeypatch, tmp_path):
    code.forget_code()
    monkeypatch.setattr("edgeprune.packs.build.build_share", lambda *given, **named: code.allowed_code())
    monkeypatch.chdir(tmp_path)
    given = str(tmp_path), "npz:a.npz", "parts", CONFIG, None, None, tmp_path, 1
    assert ray_engine._build_share(Share(1, 2), *given, ("networks:tiny",)) == ("networks:tiny",)
    code.forget_code()
