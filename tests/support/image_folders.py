"""Folders of small images, and what is read of them."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from edgeprune.sources import open_source
from edgeprune.sources.folders.folder import FolderSource


def write_photos(folder, images, side=16, top=256, classes=("cat", "dog", "owl")):
    """Write noise below `top` as PNG files; give the source's spec."""
    noise = np.random.default_rng(0)
    for number in range(images):
        path = Path(folder) / classes[number * len(classes) // images] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, top, (side, side, 3)).astype(np.uint8)).save(path)
    return f"imagefolder:{folder}"


class Counted(FolderSource):
    """A folder that notes which rows are read."""

    @classmethod
    def open(cls, spec, size=None):
        opened = open_source(spec, size=size)
        made = cls(**{field.name: getattr(opened, field.name) for field in dataclasses.fields(opened)})
        object.__setattr__(made, "reads", [])
        return made

    def path(self, row):
        return Path(self.root) / self.files[row]

    def read(self, rows):
        pixels = super().read(rows)
        self.reads.append(np.array(rows))
        return pixels
