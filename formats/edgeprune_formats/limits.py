"""The bounds that a reader holds a pack to before it allocates by any declared size; see formats/SPEC.md."""

MAX_SAMPLES = 2**31 - 1
MAX_CHANNELS = 32
MAX_SIDE = 2**16
MAX_IMAGE_VALUES = 2**26
MAX_CHUNK_BYTES = 2**28
MAX_CLASSES = 2**20
MAX_PROVENANCE_BYTES = 2**24
MAX_TEXT_BYTES = 4096
MAX_BITMAP_BYTES = 2**28
MAX_NESTING = 64
MAX_COLUMNS = 7
MAX_COLUMNS_BYTES = 2**24
MAX_OUTPUTS = 2**16
