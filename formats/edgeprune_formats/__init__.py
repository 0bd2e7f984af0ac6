"""EdgePack, the file that a device trains from: reader, writer, codecs and verification.

Needs numpy and h5py only. The format itself is specified in formats/SPEC.md. What most programs need is here;
the rest is in submodules:

- `codecs`: what a codec is, and which there are;
- `coefficients`: what a chunk holds in memory, and packed positions;
- `tiles`: tiles, color spaces and the coding order;
- `targets`: what is known of an image beside its class;
- `packs.chunks`: how many images go into a chunk;
- `packs.transactions`: several packs that appear together;
- `remote`: packs that are named by URL;
- `files`, `locks`, `hdf5`: files that appear whole or not at all; locks; reading HDF5 without trusting it;
- `errors`, `header`, `limits`, `coding.rounding`, `coding.native`.
"""

from ._version import __version__
from .errors import (
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
    RemoteError,
)
from .header import FORMAT_VERSION, PackHeader
from .packs.opening import open_pack, verify_pack
from .packs.reader import Pack
from .packs.writer import PackWriter

__all__ = [
    "FORMAT_VERSION",
    "ConfigError",
    "EdgePruneError",
    "NotAPackError",
    "Pack",
    "PackChecksumError",
    "PackFormatError",
    "PackHeader",
    "PackLayoutError",
    "PackLimitError",
    "PackVersionError",
    "PackWriteError",
    "PackWriter",
    "Problem",
    "RemoteError",
    "__version__",
    "open_pack",
    "verify_pack",
]
