"""README and the site: commands and imports that exist, names with docstrings, nothing of other hosts."""

import ast
import importlib
import inspect
import re
import shlex
import subprocess
import sys
import types
import zlib
from pathlib import Path

import click
import pytest

from edgeprune.cli import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(path for path in (ROOT / "examples").rglob("*.md") if "node_modules" not in path.parts),
]
PUBLIC = ("edgeprune", "edgeprune_formats", "edgeprune_runtime", "edgeprune_runtime.training")


def fences(path, language):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE)


def typed_commands():
    for path in PAGES:
        text = "\n".join(fences(path, "bash") + fences(path, "ini"))
        for line in re.sub(r"\\\n *", "", text).splitlines():  # a command may go on in the next line
            found = re.search(r"^ *(?:ExecStart=\S*/)?(?:torchrun .* -m )?(edgeprune .*)", line)
            if found:
                yield pytest.param(found[1], id=f"{path.relative_to(ROOT)}: {found[1][:60]}")


@pytest.mark.parametrize("line", list(typed_commands()))
def test_commands_on_the_pages_exist(line):
    words = shlex.split(line, comments=True)[1:]
    command, context = cli, click.Context(cli)
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
        assert command is not None
        context = click.Context(command, parent=context)
    command.make_parser(context).parse_args(words)  # raises for an option that there is not


def snippets():
    for path in PAGES:
        for number, code in enumerate(fences(path, "python")):
            yield pytest.param(code, id=f"{path.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize("code", list(snippets()))
def test_python_on_the_pages_uses_what_there_is(code):
    tree, known = ast.parse(code), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("edgeprune"):
            module = importlib.import_module(node.module)
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []
            known.update({name.asname or name.name: getattr(module, name.name) for name in node.names})
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and callable(known.get(node.func.id))
        ):
            keywords = {one.arg: None for one in node.keywords if one.arg}
            inspect.signature(known[node.func.id]).bind_partial(*[None] * len(node.args), **keywords)


def test_readme_is_short_and_links_to_what_there_is():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 8192
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert [link for link in links if not (ROOT / link).exists()] == []


def generated(text):
    """Yield the name of each table that is made from a result, and the prose that leads to it.

    That is what stands since the heading or the table before; right after another table, that of the other.
    """
    prose, end = "", 0
    for found in re.finditer(r"^<!-- (\S.*) -->\n.*?^<!-- end \1 -->\n", text, re.DOTALL | re.MULTILINE):
        between = text[end : found.start()]
        prose = re.split(r"^#.*\n", between, flags=re.MULTILINE)[-1] if between.strip() else prose
        end = found.end()
        if not found[1].startswith("output"):  # of a command, in the quickstart
            yield found[1], prose


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_table_stands_beside_its_goal(path):
    without = [name for name, prose in generated(path.read_text()) if not re.search(r"(?i)\bgoals?\b", prose)]
    assert without == []


def test_a_table_without_a_goal_is_found():
    tables = "<!-- a -->\n<!-- end a -->\n\n<!-- b -->\ngoal\n<!-- end b -->\n"
    assert [*generated(f"Goal: none.\n\n{tables}# B\n\n{tables}")] == [
        *(("a", "Goal: none.\n\n"), ("b", "Goal: none.\n\n")),
        *(("a", "\n"), ("b", "\n")),
    ]


def undocumented(module):
    """Return the public functions and classes of a module that no docstring explains."""
    public = [getattr(module, name) for name in module.__all__]
    described = (one for one in public if inspect.isclass(one) or inspect.isfunction(one))
    return [one.__name__ for one in described if not (one.__doc__ or "").strip()]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring(name):
    assert undocumented(importlib.import_module(name)) == []


def test_a_public_name_without_a_docstring_is_found():
    bare = type("Bare", (), {})
    assert undocumented(types.SimpleNamespace(__all__=["Bare"], Bare=bare)) == ["Bare"]


def build(source, site):
    # Not with --quiet: it hides warnings from --strict, too.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=source, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("material", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_on_a_reference_page(site, module):
    lines = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    listed = {line.split(" ")[0] for line in lines}
    missing = []
    for name in importlib.import_module(module).__all__:
        one = getattr(importlib.import_module(module), name)
        homes = {f"{module}.{name}", f"{getattr(one, '__module__', module)}.{name}"}
        if name != "__version__" and not homes & listed:
            missing.append(name)
    assert missing == []


@pytest.mark.slow
def test_the_site_fetches_nothing_from_other_hosts(site):
    for page in site.rglob("*.html"):
        fetched = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\s\">]+)", page.read_text())
        fetched += re.findall(
            r"<link\b(?=[^>]*rel=\"?(?:stylesheet|icon|preconnect|preload))[^>]*href=\"?([^\s\">]+)",
            page.read_text(),
        )
        assert fetched or page.name == "viewer.html"
        assert [one for one in fetched if re.match(r"(?:https?:)?//", one)] == [], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//|@import", sheet.read_text()), sheet.name


@pytest.mark.slow
def test_a_dead_link_fails_the_build(site, tmp_path):
    (tmp_path / "docs").mkdir()
    settings = (ROOT / "mkdocs.yml").read_text()
    validation = settings[settings.index("validation:") : settings.index("nav:\n")]
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\n{validation}")
    links = ("gone.md", "index.md#gone", "../README.md")
    text = " ".join(f"[{link}]({link})" for link in ("index.md", *links))
    (tmp_path / "docs" / "index.md").write_text(f"# x\n\n{text}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert [link for link in links if f"a link '{link}', but" not in done.stderr] == []
    # The link that leads somewhere is not among them.
    assert done.stderr.count("WARNING") == len(links)


@pytest.mark.slow
def test_the_viewer_is_on_the_site_as_it_was_built(site):
    built = ROOT / "formats" / "js" / "dist" / "viewer.html"
    page = (site / "viewer.html").read_text(encoding="utf-8")
    if "make js" in page[:400]:
        pytest.skip("make js has not built the viewer, or not anew")
    assert page == built.read_text(encoding="utf-8")
