"""The dependency rule of docs/decisions/0001-layout.md."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import plain_commands
import pytest

from edgeprune import open_source
from edgeprune.scoring.scores_file import RECORD_TYPES, EpochRecords, write_scores_file
from edgeprune.sources import check_source, source_facts
from edgeprune_formats import open_pack

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "edgeprune_formats": ROOT / "formats" / "edgeprune_formats",
    "edgeprune_runtime": ROOT / "runtime" / "edgeprune_runtime",
    "edgeprune": ROOT / "edgeprune",
    "edgeprune_benchmarks": ROOT / "benchmarks" / "edgeprune_benchmarks",
}
ORDER = list(FOLDERS)
# What each package may import when it is itself imported, beside the standard library and those below it.
EVER = {
    # isal where it is installed (decision 0009); the tests below do without. The last are for far files.
    "edgeprune_formats": {"numpy", "h5py", "isal", "fsspec", "aiohttp", "yarl"},
    "edgeprune_runtime": {
        "numpy",
        "h5py",
        "scipy",
        "torch",
        "torchvision",
        "safetensors",
        "onnx",
        "onnxruntime",
        "cryptography",
        "timm",
    },
}
# edgeprune.cli must answer without these, so no module that it or `info` loads may import them at the top.
HEAVY = {"torch", "torchvision", "scipy", "sklearn", "PIL"}


def called(call):
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def beginning(argument):
    """Return the text that a string, also an f-string, begins with; "" where it is not known."""
    part = argument.values[0] if isinstance(argument, ast.JoinedStr) and argument.values else argument
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else ""


def imports(tree):
    """Yield (module, whether the import runs when the module is imported)."""
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    typing_only = {
        id(n)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for n in ast.walk(block)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            names = [beginning(argument) for argument in node.args[:1]]
        for name in filter(None, names):
            yield name.split(".")[0], id(node) not in inside | typing_only


MODULES = [(package, path) for package, folder in FOLDERS.items() for path in sorted(folder.rglob("*.py"))]


@pytest.mark.slow
@pytest.mark.parametrize(("package", "path"), MODULES, ids=[str(p.relative_to(ROOT)) for _, p in MODULES])
def test_no_module_imports_from_above_its_package(package, path):
    above = set(ORDER[ORDER.index(package) + 1 :])
    found = {name for name, _ in imports(ast.parse(path.read_text()))}
    assert not found & above
    if package in EVER:
        outside = found - set(sys.stdlib_module_names) - set(ORDER)
        assert outside <= EVER[package]


# What each folder, or module beside them, of edgeprune may import of the others: imports run one way.
ARROWS = {
    "errors": set(),
    "presets": set(),
    "psnr": set(),
    "text": set(),
    "pictures": {"text"},
    "sources": {"errors"},
    "work": {"sources", "text"},
    "scoring": {"presets", "sources", "work"},
    "coresets": {"presets", "scoring", "sources"},
    "issues": {"scoring", "sources"},
    "masks": {"presets", "scoring", "sources", "work"},
    "packs": {
        "coresets",
        "errors",
        "issues",
        "masks",
        "presets",
        "psnr",
        "scoring",
        "sources",
        "text",
        "work",
    },
    "repack": {"masks", "packs", "presets", "psnr", "work"},
    "training": {"errors", "pictures", "sources", "text"},
    "inference": {"errors", "pictures", "sources", "training"},
    "report": {"coresets", "inference", "issues", "psnr", "scoring", "sources", "text", "training"},
    "options": {"text", "work"},
}


# What each folder inside a step, or module beside them, imports of its neighbors there: one way too.
INNER_ARROWS = {
    "edgeprune.packs": {
        "encoding": set(),
        "config": {"encoding"},
        "planning": {"config", "encoding"},
        "writing": {"encoding", "planning"},
    },
    "edgeprune_runtime.loading": {
        "order": {"mixture"},
        "chunks": {"mixture", "order"},
    },
    "edgeprune_runtime.training": {
        "objectives": {"placement", "settings"},
        "progress": {"interfaces", "settings"},
        "run_folder": {"placement", "progress", "settings"},
    },
}


def whole_names(path, tree, package):
    """Yield the parts of the whole name of whatever a module of a package imports, also inside functions."""
    package = (package, *path.relative_to(FOLDERS[package]).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*module, alias.name] for alias in node.names]
        else:
            continue
        yield from names


def siblings(path, tree, within="edgeprune"):
    """The folders and modules of a package that a module of it imports."""
    within = within.split(".")
    depth = len(within)
    names = whole_names(path, tree, within[0])
    yield from (name[depth] for name in names if name[:depth] == within and len(name) > depth)


@pytest.mark.parametrize("folder", ARROWS)
def test_imports_inside_the_builder_run_one_way(folder):
    root = FOLDERS["edgeprune"]
    paths = sorted((root / folder).rglob("*.py")) or [root / f"{folder}.py"]
    found = {name for path in paths for name in siblings(path, ast.parse(path.read_text()))}
    assert found - {folder} <= ARROWS[folder]


@pytest.mark.parametrize("package", INNER_ARROWS)
def test_imports_inside_a_step_run_one_way(package):
    top, step = package.split(".")
    root = FOLDERS[top] / step
    for folder, allowed in INNER_ARROWS[package].items():
        paths = sorted((root / folder).rglob("*.py")) or [root / f"{folder}.py"]
        found = {name for path in paths for name in siblings(path, ast.parse(path.read_text()), package)}
        assert found - {folder} == allowed


def test_no_modules_import_each_other_in_a_circle():
    """Also by imports inside functions, and by those for types."""
    paths = {}
    for package, path in MODULES:
        name = (package, *path.relative_to(FOLDERS[package]).with_suffix("").parts)
        paths[name[:-1] if name[-1] == "__init__" else name] = package, path
    graph = {}
    for name, (package, path) in paths.items():
        found = {tuple(other) for other in whole_names(path, ast.parse(path.read_text()), package)}
        # Of a name in a module, the module.
        graph[name] = {other if other in paths else other[:-1] for other in found} & set(paths)
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES)


def test_the_builders_imports_have_no_circle():
    for number, folder in enumerate(ARROWS):
        assert ARROWS[folder] <= set(list(ARROWS)[:number])


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("from ..packs.config import METHODS", "packs"),
        ("from .. import packs", "packs"),
        ("from edgeprune.packs import build", "packs"),
        ("def f():\n    from ..packs.config import METHODS", "packs"),
        ("from .scores import SCORES", "coresets"),
    ],
)
def test_imports_of_siblings_are_seen(statement, name):
    assert list(siblings(FOLDERS["edgeprune"] / "coresets" / "x.py", ast.parse(statement))) == [name]


@pytest.mark.parametrize(
    "statement",
    [
        'importlib.import_module("edgeprune_benchmarks.cli")',
        'import_module(f"edgeprune_benchmarks.{name}")',
        '__import__("edgeprune_benchmarks")',
    ],
)
def test_imports_by_name_are_seen(statement):
    assert [name for name, _ in imports(ast.parse(statement))] == ["edgeprune_benchmarks"]


@pytest.mark.parametrize(
    "name", ["__init__", "cli", "__main__", "commands/inspection/info", "commands/inspection/verify"]
)
def test_the_command_line_answers_without_heavy_imports(name):
    tree = ast.parse((FOLDERS["edgeprune"] / f"{name}.py").read_text())
    assert not {module for module, at_top in imports(tree) if at_top} & HEAVY


NO_TORCH = """
import importlib.util, sys

ABSENT = ("torch", "torchvision", "safetensors", "sklearn", "isal")

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError("No module named " + name)

sys.meta_path.insert(0, Absent())
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ABSENT else find_spec(name, *rest)
"""

DECODE = """
from edgeprune_runtime import PackDataset, PackLoader
loader = PackLoader(sys.argv[1], 4, shuffle=True, augment=True, normalize=True)
images, labels = next(iter(loader))
print(type(images).__module__, images.shape, PackDataset(sys.argv[1])[0][0].shape)
mixed, _ = next(iter(PackLoader([sys.argv[1]] * 2, 18)))
print(type(mixed).__module__, mixed.shape)
"""

LOADED = """
import sys, edgeprune_formats, edgeprune_runtime
print([name for name in ("torch", "scipy", "PIL", "onnx", "onnxruntime") if name in sys.modules])
"""


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def edgeprune(*arguments):
    return plain_commands.edgeprune(*arguments, absent=plain_commands.TORCH)


@pytest.mark.slow
def test_importing_formats_and_runtime_loads_no_torch():
    assert run(LOADED).stdout.strip() == "[]"


@pytest.mark.slow
def test_the_scipy_backend_works_where_torch_is_not_installed(make_pack):
    path, _ = make_pack(samples=9)
    done = run(NO_TORCH + DECODE, path)
    assert done.stdout.strip() == "numpy (4, 3, 32, 32) (3, 32, 32)\nnumpy (18, 3, 32, 32)", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["info", "verify", "preview", "report"])
def test_commands_that_need_no_torch_work_without_it(make_pack, tmp_path, command):
    path, _ = make_pack(samples=9)
    draws, picture = command in ("preview", "report"), tmp_path / "picture"
    done = edgeprune(command, path, *(["-o", picture] if draws else []))
    assert done.returncode == 0, done.stderr
    assert str(picture if draws else path) in done.stdout


@pytest.mark.slow
def test_the_demo_says_what_to_install_where_packages_are_missing(tmp_path):
    done = edgeprune("demo", "-o", tmp_path / "demo")
    assert done.returncode == 2
    missing = "torch, torchvision, safetensors, scikit-learn"
    assert done.stderr == f"edgeprune: error: the demo needs {missing}; pip install 'edgeprune[build]'\n"
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_packs_are_split_and_merged_without_torch(make_pack, tmp_path):
    path, _ = make_pack(samples=9)
    done = edgeprune("split", path, "-n", 2, "-o", tmp_path / "fleet")
    assert done.returncode == 0, done.stderr
    done = edgeprune("merge", *(tmp_path / "fleet").iterdir(), "-o", tmp_path / "merged.h5")
    assert done.returncode == 0, done.stderr
    assert len(open_pack(tmp_path / "merged.h5")) == 9


@pytest.mark.slow
@pytest.mark.parametrize("method", ["energy", "random"])
def test_a_pack_can_be_built_without_torch(tmp_path, method):
    array = tmp_path / "images.npz"
    np.savez(array, x=np.zeros((4, 8, 8, 3), np.uint8), y=[0, 1, 0, 1])
    done = edgeprune("build", f"npz:{array}", "--method", method, "-o", tmp_path / "pack.h5")
    assert done.returncode == 0, done.stderr
    assert open_pack(tmp_path / "pack.h5").header.provenance["config"]["method"] == method


@pytest.mark.slow
def test_images_are_chosen_by_given_scores_without_torch(tmp_path):
    array, scores = tmp_path / "images.npz", tmp_path / "s.h5"
    np.savez(array, x=np.zeros((8, 8, 8, 3), np.uint8), y=[0, 1] * 4)
    source = open_source(f"npz:{array}")
    check = check_source(source)
    series = {name: np.linspace(0, 1, 8, dtype="f4") for name in RECORD_TYPES}
    write_scores_file(
        scores,
        rows=check.good.astype(np.int64),
        labels=source.labels,
        epochs=[EpochRecords(series, series["errors"])] * 3,
        count=3,
        every=1,
        classifier={},
        provenance={
            "source": source_facts(source, check),
            "config": {},
            "classifier": {"model": "resnet8"},
        },
    )
    arguments = ["build", f"npz:{array}", "--method", "je", "--score", "aum", "-o", tmp_path / "pack.h5"]
    done = edgeprune(*arguments, "--scores", scores)
    assert done.returncode == 0, done.stderr
    assert len(open_pack(tmp_path / "pack.h5").scores) == 4


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lf", "je", "jelf"])
def test_what_is_learned_needs_torch_and_says_so(tmp_path, method):
    done = edgeprune("build", "digits", "--method", method, "-o", tmp_path / "pack.h5")
    assert done.returncode == 2
    expected = f"edgeprune: error: method {method} needs torch; pip install 'edgeprune[build]'\n"
    assert done.stderr == expected


@pytest.mark.slow
def test_training_without_torch_says_what_to_install(make_pack, tmp_path):
    path, _ = make_pack(samples=9)
    done = edgeprune("train", path, "-o", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr == "edgeprune: error: training needs torch; pip install 'edgeprune[torch]'\n"
