"""Small data sets as the libraries write them that people keep images with."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ("bird", "cat", "dog")


def pictures(count: int = 9, *, side: int = 8, seed: int = 0) -> np.ndarray:
    """Return images, uint8 [count, side, side, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def planes(pixels: np.ndarray) -> np.ndarray:
    """Return images as sources give them, [n, 3, H, W]."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def write_csv(folder: Path, rows: list[list[Any]], name: str = "labels.csv", **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        csv.writer(file, **options).writerows(rows)
    return folder / name


def write_files(folder: Path, pixels: np.ndarray, pattern: str = "{}.png") -> list[str]:
    names = [pattern.format(number) for number in range(len(pixels))]
    for name, image in zip(names, pixels, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(image))
    return names


def hugging_face(pixels: np.ndarray, labels: list[int], names: tuple[str, ...] = NAMES) -> Any:
    """Return a `datasets.Dataset` of images and class labels; its home is out of the user's way."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(names)))
    images = [Image.fromarray(image) for image in pixels]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def write_shard(path: Path, samples: list[dict[str, Any]]) -> Path:
    """Write samples by webdataset's own writer; bytes are written as they are."""
    import webdataset

    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def samples(pixels: np.ndarray, labels: list[Any], ending: str = "cls") -> list[dict[str, Any]]:
    return [
        {"__key__": f"{number:06d}", "png": encoded(image), ending: label}
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True))
    ]
