"""EdgePack, the file that a device trains from: reader, writer, codecs and verification.

Needs numpy and h5py only. The format itself is specified in formats/SPEC.md.
"""

from ._blocks import (
    Block,
    QuantizedBlock,
    SparseBlock,
    column_bits,
    pack_positions,
    position_dtype,
    unpack_positions,
)
from ._digest import file_sha256
from ._errors import (
    ArtefactError,
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
from ._header import BLOCKS, COLOR_SPACES, FORMAT_VERSION, MAX_CHUNK_BYTES, MAX_IMAGE_VALUES, PackHeader
from ._reader import Pack, open_pack, verify_pack
from ._rounding import ROUNDINGS
from ._target import check_room, check_target, new_file, new_hdf5
from ._tiles import color_matrix, color_shift
from ._together import written_together
from ._version import __version__
from ._writer import COMPRESSIONS, PackWriter, plan_chunk_samples
from .codecs import Codec, codec_names, get_codec, stored_bytes

__all__ = [
    "BLOCKS",
    "COLOR_SPACES",
    "COMPRESSIONS",
    "FORMAT_VERSION",
    "MAX_CHUNK_BYTES",
    "MAX_IMAGE_VALUES",
    "ROUNDINGS",
    "ArtefactError",
    "Block",
    "Codec",
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
    "QuantizedBlock",
    "SourceError",
    "SparseBlock",
    "TrainingError",
    "__version__",
    "check_room",
    "check_target",
    "codec_names",
    "color_matrix",
    "color_shift",
    "column_bits",
    "file_sha256",
    "get_codec",
    "new_file",
    "new_hdf5",
    "open_pack",
    "pack_positions",
    "plan_chunk_samples",
    "position_dtype",
    "stored_bytes",
    "unpack_positions",
    "verify_pack",
    "written_together",
]
