"""Tables in Markdown."""

from __future__ import annotations

__all__ = ["not_measured", "table"]


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows]]


def not_measured(command: str, *, gpu: bool) -> str:
    """Return what stands where there is no result yet, or where one needs a GPU."""
    with_gpu = " With a GPU:" if gpu else ""
    return f"Not yet measured.{with_gpu} `python -m edgeprune_benchmarks {command} --data FOLDER`"
