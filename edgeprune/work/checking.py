"""The check of a source where several processes share the work: one reads, all know."""

from __future__ import annotations

from ..sources import Source, SourceCheck, check_source
from .callbacks import StageProgress
from .processes import Workers

__all__ = ["check_shared"]


def check_shared(
    source: Source, *, skip_bad: bool, jobs: int, workers: Workers, progress: StageProgress | None = None
) -> SourceCheck:
    """Check a source in the first process, and return in every one what it found; see `check_source`."""
    if workers.rank > 0:
        return SourceCheck.from_bytes(workers.from_first(b""))
    total = len(source)
    tell = (lambda done: progress("checking", done, total)) if progress else None
    check = check_source(source, skip_bad=skip_bad, jobs=jobs, progress=tell)
    if workers.count > 1:
        workers.from_first(check.to_bytes())
    return check
