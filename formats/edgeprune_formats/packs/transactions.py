"""Several packs that appear under their names together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ..files import shielded, sync, write_error
from .writer import PackWriter

__all__ = ["pack_transaction"]


@contextlib.contextmanager
def pack_transaction() -> Iterator[Callable[[PackWriter], PackWriter]]:
    """Give a function that opens a writer; all their packs appear when the block ends, or none.

    A writer may be sealed before that, which frees its memory. All are complete on the disk before the first
    is renamed; only a power cut between two renames can leave some without the others, each of them whole.
    If a rename fails, packs that were renamed before it are removed again; what they replaced is gone. If the
    disk fails after the last, all are there, and the error tells that a power cut may yet undo it.

    Raises
    ------
    ConfigError, PackWriteError
        As `PackWriter`.
    """
    writers: list[PackWriter] = []
    with contextlib.ExitStack() as stack:

        def enter(writer: PackWriter) -> PackWriter:
            writer.in_transaction = True
            writers.append(stack.enter_context(writer))
            return writer

        yield enter
        for writer in writers:
            writer.seal()
        # A signal must not act between two renames, nor undo what replaced older packs when all are done.
        with shielded():
            try:
                stack.close()
            except BaseException:
                for writer in writers:
                    if writer.published:
                        # What goes wrong now must not hide why there are none.
                        with contextlib.suppress(OSError):
                            writer.path.unlink()
                raise
            for folder, path in {writer.path.parent: writer.path for writer in writers}.items():
                try:
                    sync(folder)
                except OSError as error:
                    raise write_error(path, error) from error
