"""Images of a source that counts its reads, kept on the disk beside an output."""

import numpy as np

from edgeprune.work.temporary import images_folder

IMAGES = 24


def file_of(output):
    return images_folder(output) / "pixels"


def decoded(source):
    return sorted(np.concatenate([*source.reads, []]).astype(int).tolist())
