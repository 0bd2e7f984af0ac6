"""Options are made of the fields of configurations, and the help lists them in sections."""

import dataclasses
import os
import subprocess
import sys

import click
import plain_commands
import pytest

from edgeprune.cli import COMMANDS, SECTIONS, cli
from edgeprune.coresets.config import CoresetConfig
from edgeprune.masks.config import MaskConfig
from edgeprune.options.fields import Command, config_options, make_config, option
from edgeprune.options.output import require_spare
from edgeprune.options.parameters import with_flags
from edgeprune.packs.config import BuildConfig
from edgeprune.scoring.config import ScoreConfig
from edgeprune.sources import KINDS
from edgeprune_formats import ConfigError
from edgeprune_runtime.training.settings import TrainConfig

LOADED = {name: cli.get_command(click.Context(cli), name) for name in COMMANDS}
OPTIONS = {
    f"{name} {param.opts[0]}": param
    for name, command in LOADED.items()
    for param in command.params
    if isinstance(param, click.Option)
}
BENCH = cli.get_command(click.Context(cli), "bench")
# Those of `edgeprune bench` as well.
EVERY = OPTIONS | {
    f"bench {name} {param.opts[0]}": param
    for name in BENCH.list_commands(click.Context(BENCH))
    for param in BENCH.get_command(click.Context(BENCH), name).params
    if isinstance(param, click.Option)
}
OF_FIELDS = {name: param for name, param in OPTIONS.items() if getattr(param, "config", None) is not None}
LONG = 12


@pytest.mark.parametrize("name", OF_FIELDS)
def test_the_default_of_an_option_is_that_of_its_field(name):
    param = OF_FIELDS[name]
    (field,) = (field for field in dataclasses.fields(param.config) if field.name == param.field)
    assert (type(param.default), param.default) == (type(field.default), field.default)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        *(("build", config) for config in (BuildConfig, CoresetConfig, MaskConfig)),
        *(("score", ScoreConfig), ("train", TrainConfig)),
    ],
)
def test_every_field_with_help_is_an_option(name, config):
    fields = {field.name for field in dataclasses.fields(config) if "help" in field.metadata}
    params = [param for param in LOADED[name].params if getattr(param, "config", None) is config]
    assert fields == {param.field for param in params}


@pytest.mark.parametrize("name", EVERY)
def test_the_line_of_an_option_means_something_by_itself(name):
    text = EVERY[name].help.partition("  [default:")[0]
    assert len(text.split()) >= 4
    assert text.split()[0] not in ("Of", "In", "As", "There", "At")
    assert text[0].isupper() or text.startswith("ccs:")


@pytest.mark.parametrize("words", [(), ("bench",)])
def test_a_list_of_commands_has_whole_lines(edgeprune, words):
    _, out, _ = edgeprune(*words, "--help")
    listed = [line for line in out.splitlines() if line.startswith("  ")]
    assert len(listed) > 20
    assert [line for line in listed if line.endswith("...") or "``" in line] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_many_options_are_listed_in_sections_that_do_not_come_twice(name):
    headings = [param.heading for param in LOADED[name].params if getattr(param, "heading", None)]
    assert len(headings) == len(set(headings))
    assert len(headings) > 2 or len(LOADED[name].params) <= LONG


def test_the_help_of_build_names_every_kind_of_source():
    text = LOADED["build"].help
    assert [kind.form for kind in KINDS.values() if f"{kind.form} ({kind.describes})" not in text] == []


def test_the_help_of_build_begins_with_the_everyday(edgeprune):
    _, out, _ = edgeprune("build", "--help")
    headings = [line[:-1] for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        "What to read and write",
        "What to keep",
        "How to store it",
        "Images by score (methods je, jelf)",
        "The scoring run, where no --scores are given",
        "Components by FSE-Net (methods lf, jelf)",
        "Run",
        "In parts, on several machines",
    ]
    out = out.partition("What to read")[2]
    assert "[SOURCE]" not in out
    assert out.index("--output") < out.index("--size") < out.index("--method") < out.index("--help")


def test_commands_are_listed_by_the_road_one_line_each(edgeprune, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    _, out, _ = edgeprune("--help")
    headings = (*SECTIONS, "Measure")
    places = [out.index(f"\n{heading}:\n") for heading in headings]
    assert places == sorted(places)
    assert "..." not in out[places[0] :]
    assert len(out[places[0] :].split("\n\n")) == len(places)
    assert {line.split()[0] for line in out[places[0] :].splitlines() if line.startswith("  ")} >= {*COMMANDS}


@dataclasses.dataclass(frozen=True)
class Example:
    count: int = dataclasses.field(default=3, metadata={"help": "How many there are."})
    ratio: float | None = dataclasses.field(
        default=None, metadata={"help": "Share of them.", "default_text": "all", "flag": "--part"}
    )
    kind: str = dataclasses.field(default="a", metadata={"help": "Which kind.", "choices": ("a", "b")})
    is_small: bool = dataclasses.field(default=False, metadata={"help": "Whether small."})
    tile: str = dataclasses.field(default="8", metadata={"help": "A tile.", "alias": "--block"})
    hidden: int = 7


MADE = {}


@click.command(cls=Command)
@config_options(Example, "tile", "count", prefix="my_", heading="First")
@config_options(Example, "ratio", "kind", "is_small", prefix="my_", heading="Second")
@option("--quiet", is_flag=True, help="Print nothing at all.")
def example(**options):
    MADE["config"] = make_config(Example, options, hidden=8)
    MADE["rest"] = options


def made(*arguments):
    example.main(list(arguments), standalone_mode=False)
    return MADE["config"]


def test_a_configuration_is_made_of_its_options():
    assert made() == Example(hidden=8)
    words = ["--my-count", "5", "--part", "0.5", "--my-kind", "b", "--my-is-small", "--block", "16"]
    assert made(*words) == Example(5, 0.5, "b", True, "16", 8)
    assert MADE["rest"] == {"quiet": False}
    with pytest.raises(click.BadParameter):
        made("--my-kind", "c")
    with pytest.raises(click.BadParameter):
        made("--my-count", "2.5")


def test_sections_of_the_help():
    lines = example.get_help(click.Context(example)).splitlines()
    assert lines[lines.index("First:") + 1].split() == ["--my-tile", "TEXT", "A", "tile.", "[default:", "8]"]
    second = lines[lines.index("Second:") :]
    assert second[1].split() == ["--part", "FLOAT", "Share", "of", "them.", "[default:", "all]"]
    assert second[4].split()[0] == "--quiet"
    assert second[5].split()[0] == "--help"


@pytest.mark.parametrize(
    ("command", "message", "said"),
    [
        ("build", "x.png: cut short; pass `skip_bad=True`", "x.png: cut short; pass --skip-bad"),
        ("build", "`MaskConfig.epochs` is 0", "--mask-epochs is 0"),
        ("build", "`ScoreConfig.epochs` is 0", "--score-epochs is 0"),
        ("score", "`epochs` is 0", "--epochs is 0"),
        (
            "build",
            "raise `ScoreConfig.batch_size` of edgeprune score",
            "raise --batch-size of edgeprune score",
        ),
        ("build", "`epochs` is 0", "epochs is 0"),
        ("build", "lower `lr`", "lower lr"),
        ("preview", "lower `batch_size` to 12", "lower batch_size to 12"),
        ("build", "`accuracy_weight` and `k`", "--lambda and --k"),
        ("build", 'use `split="train"` or `tile`', "use --split train or --tile"),
        ("merge", "build both with the same `size`", "build both with the same --size"),
        ("train", "lower `batch_size` or `lr`", "lower --batch-size or --lr"),
        ("train", "pass `replace_existing=True`", "pass --force"),
        ("score", "`no_such_thing` and `nesterov`", "no_such_thing and nesterov"),
        ("info", "size, epochs, a ` and `/tmp/x y` stay", "size, epochs, a ` and `/tmp/x y` stay"),
    ],
)
def test_what_the_library_names_is_said_in_flags(command, message, said):
    names = (command, "build", "train", "score", "convert")
    assert with_flags(message, [lambda name=name: LOADED[name] for name in names]) == said


def test_an_error_of_the_library_says_the_flag(edgeprune, monkeypatch, npz, tmp_path):
    def refuse(*_, **__):
        raise ConfigError("pass `skip_bad=True`")

    monkeypatch.setattr("edgeprune.packs.build.build_pack", refuse)
    code, _, err = edgeprune("build", npz, "-o", tmp_path / "p.h5")
    assert (code, err) == (2, "edgeprune: error: pass --skip-bad\n")


def test_what_exists_is_spared(tmp_path):
    path, other = tmp_path / "a.h5", tmp_path / "b.h5"
    require_spare(path)
    require_spare(tmp_path)
    path.touch()
    with pytest.raises(ConfigError, match="exists; pass --force"):
        require_spare(path)
    other.hardlink_to(path)
    require_spare(path, True, {"classifier": None, "pack": tmp_path / "none.h5"})
    with pytest.raises(ConfigError, match=r"a\.h5 is the scores file; name another"):
        require_spare(path, True, {"scores file": other})


@pytest.fixture
def completions(monkeypatch):
    """Give what bash is offered for the last of the words."""

    def complete(*words):
        monkeypatch.setenv("_EDGEPRUNE_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["edgeprune", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        done = plain_commands.edgeprune()
        assert done.stderr == ""
        return set(done.stdout.split())

    return complete


@pytest.mark.slow
def test_bash_completes_commands_options_choices_and_files(completions):
    assert completions("s") == {"plain,score", "plain,sign", "plain,split"}
    assert completions("be") == {"plain,bench"}
    assert completions("build", "--min") == {"plain,--min-quality"}
    assert completions("convert", "p.h5", "--codec", "sparse") == {"plain,sparse-f16", "plain,sparse-f32"}
    assert completions("info", "ph") == {"file,ph"}
    assert completions("train", "p.h5", "--teacher", "r") == {"dir,r"}


@pytest.mark.slow
def test_the_script_of_completion_is_for_the_command():
    environment = {**os.environ, "_EDGEPRUNE_COMPLETE": "zsh_source"}
    command = [sys.executable, "-m", "edgeprune"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("#compdef edgeprune\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("issues --source d.h5 --json d.h5", "d.h5 is the source; name another file"),
        ("issues --source npz:s.npz --csv s.npz", "s.npz is the source; name another file"),
        ("issues --source npz:s.npz?target=a --csv s.npz", "s.npz is the source; name another file"),
        ("issues --source d.h5 --json i --csv i", "i is named for both --json and --csv; name two files"),
        ("issues --source d.h5 --distance 25", "--distance is 0 to 24 bits, not 25"),
        ("evaluate model.onnx d.h5 --json d.h5", "d.h5 is the images; name another file"),
        ("evaluate model.onnx d.h5 --json model.onnx", "model.onnx is the network; name another file"),
        ("evaluate run d.h5 --json run/config.json", "run/config.json is the network; name another file"),
        (
            "evaluate run d.h5 --json run/checkpoint-0001.json",
            "run/checkpoint-0001.json is the network; name another file",
        ),
        ("report d.h5 --run run --test s.npz -o s.npz --force", "s.npz is the test set; name another file"),
        ("export run --pack d.h5 -o d.h5 --force", "d.h5 is the pack; name another file"),
        ("split d.h5 -n 999999999 -o f", "999,999,999 parts are more than 65,536"),
        (
            "build digits --part 3/3 -o parts",
            "1438 images are 1 chunks, too few for 3 parts; build at most 1",
        ),
    ],
)
def test_what_a_command_reads_is_not_what_it_writes(edgeprune, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    assert edgeprune("build", "digits", "--sample-prune", 0.9, "-o", "d.h5", "-q")[0] == 0
    for name in ("s.npz", "model.onnx"):
        (tmp_path / name).write_bytes(b"precious")
    (tmp_path / "run").mkdir()
    for name in ("config.json", "checkpoint-0001.json"):
        (tmp_path / "run" / name).write_bytes(b"precious")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, _, err = edgeprune(*words.split())
    assert code != 0
    assert err.splitlines()[-1].endswith(f"error: {said}")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
