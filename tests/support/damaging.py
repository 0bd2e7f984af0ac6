"""Damage to a pack, as a worn card does it: a bit of a stored chunk is another one."""

import h5py

from edgeprune_formats import open_pack


def damage_chunk(path, chunk, field=None):
    """Flip a bit near the start of what one array, by default the first, stores of a chunk."""
    with h5py.File(path, "r", locking=False) as file:
        group = file["samples"]
        field = field or next(name for name in group if f"{name}_crc32" in group)
        dataset = group[field]
        if dataset.chunks is None:
            start, stop = group[f"{field}_offsets"][chunk : chunk + 2]
            place, size = dataset.id.get_offset() + int(start), int(stop - start)
        else:
            first = (chunk * dataset.chunks[0], *(0 for _ in dataset.shape[1:]))
            info = dataset.id.get_chunk_info_by_coord(first)
            place, size = info.byte_offset, info.size
    # The end of the last chunk is padding.
    flip_bit(path, place + min(size // 2, 30))


def damage_array(path, name):
    """Flip a bit of ``/labels``, ``/scores``, or another array that is stored in one piece."""
    with h5py.File(path, "r", locking=False) as file:
        place = file[name].id.get_offset()
    flip_bit(path, place)


def flip_bit(path, place):
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def rows_of(path, chunks):
    """The images that chunks hold."""
    header = open_pack(path).header
    return [row for chunk in chunks for row in header.chunk_rows(chunk)]
