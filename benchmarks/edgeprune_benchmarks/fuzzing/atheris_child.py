"""The process that atheris fuzzes in; see `edgeprune_benchmarks.fuzzing.atheris_engine`."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

PACKAGES = ("edgeprune_formats", "edgeprune_runtime", "edgeprune.scoring")
MEMORY_MB = 4096


def main(name: str, place: str, seed: str, seconds: str) -> None:
    """Run libFuzzer in this process; it ends the process."""
    with atheris.instrument_imports(include=list(PACKAGES)):
        # Nothing of these packages may be imported earlier: only what is imported here is watched.
        from .outcomes import WRONG
        from .random_engine import HANGS
        from .targets import target_class

        kind = target_class(name)
    folder = Path(place)
    work = Path(tempfile.mkdtemp(dir=folder))
    target = kind(work)
    for number, content in enumerate(target.seeds):
        (folder / "corpus" / f"seed-{number}").write_bytes(content)
    largest = 2 * max(len(content) for content in target.seeds) + 4096
    options = {
        "max_total_time": seconds,
        "seed": seed,
        "max_len": str(largest),
        "timeout": str(int(HANGS)),
        "rss_limit_mb": str(MEMORY_MB),
        "artifact_prefix": f"{folder}/end-",
    }
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    words = [f"-{key}={value}" for key, value in options.items()]
    one = _test(target, folder / "outcomes.jsonl", WRONG)
    atheris.Setup([name, *words, str(folder / "corpus")], one, custom_mutator=_mutator(target))
    atheris.Fuzz()


def _test(target: Any, path: Path, wrong: str) -> Callable[[bytes], None]:
    """Return what tries an input, and appends what comes of it to a file."""
    record, counts = path.open("a"), {"right": 0, "refused": 0}

    def note(entry: dict[str, Any]) -> None:
        record.write(json.dumps(entry) + "\n")
        record.flush()

    def one(data: bytes) -> None:
        outcome = target(data)
        if outcome.kind == wrong:
            note({"data": data.hex(), "reason": outcome.reason})
            return
        counts[outcome.kind] += 1
        if sum(counts.values()) % 10 == 0:
            note(counts)
            counts.update(right=0, refused=0)

    return one


def _mutator(target: Any) -> Callable[[bytes, int, int], bytes]:
    def change(data: bytes, largest: int, number: int) -> bytes:
        source = random.Random(number)
        # What reached new code is mostly refused; changes of sound inputs are the other half.
        before = data if source.random() < 0.5 else source.choice(target.seeds)
        made = target.changed(before, source) if source.random() < 0.8 else atheris.Mutate(data, largest)
        return bytes(made[:largest])

    return change


if __name__ == "__main__":
    main(*sys.argv[1:])
