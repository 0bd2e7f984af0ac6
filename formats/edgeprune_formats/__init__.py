"""EdgePack, the file that a device trains from: reader, writer, codecs and verification.

Needs numpy and h5py only. The format itself is specified in formats/SPEC.md.
"""

from ._errors import (
    ConfigError,
    EdgePruneError,
    NotAPackError,
    PackChecksumError,
    PackFormatError,
    PackLayoutError,
    PackLimitError,
    PackVersionError,
    PackWriteError,
    Problem,
    SourceError,
    TrainingError,
)
from ._version import __version__

__all__ = [
    "ConfigError",
    "EdgePruneError",
    "NotAPackError",
    "PackChecksumError",
    "PackFormatError",
    "PackLayoutError",
    "PackLimitError",
    "PackVersionError",
    "PackWriteError",
    "Problem",
    "SourceError",
    "TrainingError",
    "__version__",
]
