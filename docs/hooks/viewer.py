"""Puts the page that looks into packs on the site, as `make js` built it."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).parents[2] / "formats" / "js"
VIEWER = PACKAGE / "dist" / "viewer.html"
NOT_BUILT = """<!doctype html>
<meta charset="utf-8">
<title>Look into a pack</title>
<p>This copy of the site has no viewer. <code>make js</code>, then <code>make docs</code>, put it here.</p>
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add `viewer.html`: the page, or a line that says how to build it where it is not there or stale."""
    if is_fresh(VIEWER):
        files.append(File.generated(config, "viewer.html", abs_src_path=str(VIEWER)))
    else:
        files.append(File.generated(config, "viewer.html", content=NOT_BUILT))
    return files


def is_fresh(built: Path) -> bool:
    """Whether the page is there and no older than what it is built from."""
    sources = [one for folder in ("src", "viewer") for one in (PACKAGE / folder).rglob("*.*")]
    return built.exists() and built.stat().st_mtime >= max(one.stat().st_mtime for one in sources)
