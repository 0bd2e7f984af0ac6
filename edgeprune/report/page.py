"""The page: what there is to show of a pack, in one HTML file that fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune_formats import ConfigError, Pack, __version__
from edgeprune_formats.files import atomic_file, check_writable

from ..text import count_text, printable

if TYPE_CHECKING:
    from markupsafe import Markup

    from ..inference.predictors import Predictor
    from ..scoring.scores_file import ScoresFile
    from ..sources import Source
    from .network import Tested

__all__ = ["Training", "require_template_engine", "write_report"]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """What is shown of a run.

    Attributes
    ----------
    curves : sequence of Markup
    tested : Tested or None
        None where the images lack what the network has learned.
    data : str
        What it was tried on.
    own : bool
        Whether the network may have been trained on them.
    """

    curves: Sequence[Markup]
    tested: Tested | None
    data: str
    own: bool

    @property
    def note(self) -> str:
        """Why there are no figures of the network."""
        return "The network was not tested: these images lack what it has learned; name others with --test."


def require_template_engine() -> None:
    """Raise `ConfigError` where Jinja is not installed."""
    if importlib.util.find_spec("jinja2") is None:
        raise ConfigError("report needs Jinja2; pip install 'edgeprune[build]'")


def write_report(
    pack: Pack,
    output: Path,
    *,
    source: Source | None = None,
    scores: ScoresFile | None = None,
    training: Training | None = None,
    progress: Progress | None = None,
) -> None:
    """Write an HTML file that shows a pack.

    Parameters
    ----------
    pack : Pack
    output : Path
        Replaced as a whole.
    source : Source, optional
        What the pack was built from, see `edgeprune.report.preview.open_originals`.
    scores : ScoresFile, optional
        Of that source.
    training : Training, optional
        What a network learned of the pack, see `look_at_run`.
    progress : callable, optional
        Called with a line on what is being done.

    Raises
    ------
    ConfigError
        Jinja is not installed.
    ArtifactError
        The scores are of other images, or damaged.
    PackFormatError, SourceError
        The pack is damaged, or an image of the source cannot be read.
    PackWriteError
        The file cannot be written.
    """
    require_template_engine()
    check_writable(output)
    content = _content(pack, source, scores, progress or (lambda line: None))
    text = _render({**content, "training": training})
    with atomic_file(output) as partial:
        partial.write_text(text, encoding="utf-8")


def look_at_run(
    pack: Pack, run: Path, model: Predictor, test: str | None, progress: Progress | None = None
) -> Training:
    """Draw the curves of a run, and try its network on test images, or on those of the pack.

    Raises
    ------
    TrainingError
        The metrics of the run are missing or damaged.
    ConfigError
        Images or classes that are not the network's.
    PackFormatError, SourceError
        An image cannot be read.
    """
    from ..inference.labeled import open_labeled
    from ..training.evaluation import may_be_trained_on
    from .network import Tested, curves

    drawn = curves(run)
    if test is None and not model.task.is_default and model.task.target not in pack.targets:
        return Training(drawn, None, printable(pack.path.name), own=False)
    data = pack if test is None else Path(test) if Path(test).is_file() else test
    tried = open_labeled(data, model, with_target=True)
    own = may_be_trained_on(tried.origin.header if isinstance(tried.origin, Pack) else tried.origin, run)
    # Of a run that does not say, it is likely so of the pack that the page is about.
    own = test is None if own is None else own
    tested = Tested.on(tried, model, progress)
    return Training(drawn, tested, printable(Path(str(tried.where)).name), own)


def _content(
    pack: Pack, source: Source | None, scores: ScoresFile | None, progress: Progress
) -> dict[str, Any]:
    """Return what the template shows of a pack."""
    from .album import Album
    from .facts import compare_sizes, pack_facts
    from .issues import find_issues
    from .selection import score_of, select
    from .statistics import class_balance, masks, target_values

    scored = score_of(pack, scores)
    album = Album(pack, source)
    if scored is not None:
        album.scores = dict(zip(scored.rows.tolist(), scored.values.tolist(), strict=True))
    progress("comparing sizes")
    sizes = compare_sizes(pack, source)
    progress("drawing images")
    groups = album.groups()
    progress("looking at scores")
    selection = None if scored is None else select(scored, album)
    progress("looking for issues")
    issues = find_issues(album, scores)
    progress("counting")
    names, provenance = pack.header.class_names, dict(pack.header.provenance)
    counts = np.bincount(pack.labels, minlength=len(names))
    return {
        "title": printable(pack.path.name),
        "images": len(pack),
        "facts": list(pack_facts(pack)),
        "sizes": sizes,
        "groups": groups,
        "hidden": max(0, int((counts > 0).sum()) - len(groups)),
        "legends": dict(album.legends),
        "selection": selection,
        "issues": issues,
        "classes": class_balance(names, counts) if names else None,
        "masks": masks(pack),
        "targets": list(target_values(pack)),
        "provenance": [
            printable(line) for line in json.dumps(provenance, indent=2, ensure_ascii=False).split("\n")
        ],
    }


def _render(content: dict[str, Any]) -> str:
    import jinja2

    from .charts import bar

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgeprune.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["count"] = count_text
    style = environment.get_template("report.css").render()
    script = environment.get_template("report.js").render()
    sections = {
        "pack": "Pack",
        "images": "Images",
        **({"selection": "Kept"} if content["selection"] else {}),
        "issues": "Issues",
        "statistics": "Statistics",
        **({"training": "Training"} if content["training"] else {}),
        "provenance": "Provenance",
    }
    return environment.get_template("report.html").render(
        content,
        bar=bar,
        version=__version__,
        sections=sections.items(),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    """Return what a content security policy calls a script or a style sheet."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
