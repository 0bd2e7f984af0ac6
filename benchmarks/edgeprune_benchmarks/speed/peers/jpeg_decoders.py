"""What decoding is measured against, as far as it is installed: raw pixels, and decoders of JPEG files."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...harness.timing import Epoch

__all__ = ["Peers"]

Decode = Callable[[bytes], NDArray[np.uint8]]


class Peers:
    """Epochs of the same images, in one order, by decoders that are not ours.

    Batches are tensors where torch is installed and otherwise arrays of numpy, as those of our own loader.

    Parameters
    ----------
    images : uint8 [N, 3, H, W]
    order : int64 [N]
    mean, std : float32 [3]
        To normalize with, of pixels on the scale of [0, 1].
    threads : int
        That decode JPEG files.

    Attributes
    ----------
    absent : dict
        Why decoders are left out, by name.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        order: NDArray[np.int64],
        mean: NDArray[np.float32],
        std: NDArray[np.float32],
        threads: int,
    ) -> None:
        self._images, self._order, self._threads = images, order, threads
        self._pool = ThreadPoolExecutor(threads)
        scale, shift = (part.reshape(-1, 1, 1).astype(np.float32) for part in (1 / (255 * std), -mean / std))
        arithmetic = _Torch if importlib.util.find_spec("torch") else _Numpy
        self._arithmetic: _Torch | _Numpy = arithmetic(images, scale, shift)
        self._decoders, self.absent = _load()

    def epochs(self, batch: int, files: list[bytes], finer: tuple[str, list[bytes]]) -> dict[str, Epoch]:
        """Return all that can be measured here, by name.

        Parameters
        ----------
        batch : int
        files : list of bytes
            JPEG files that every decoder decodes.
        finer : (str, list of bytes)
            Files of another quality, for simplejpeg alone, and what to call it.
        """
        epochs: dict[str, Epoch] = {"raw": partial(self.raw, batch)}
        for name, decode in self._decoders.items():
            epochs[name] = partial(self._normalized, files, decode, batch)
            if name == "simplejpeg":
                epochs[f"{name}, pixels only"] = partial(self._pixels, files, decode, batch)
                epochs[finer[0]] = partial(self._normalized, finer[1], decode, batch)
        return epochs

    def raw(self, batch: int) -> Iterator[Any]:
        """Gather uint8 images and normalize them, float32 [n, 3, H, W]."""
        for start in range(0, len(self._order), batch):
            yield self._arithmetic.gathered(self._order[start : start + batch])

    def raw_reused(self, batch: int) -> Iterator[Any]:
        """Do so in memory that each batch writes over."""
        room = self._arithmetic.room(batch)
        for start in range(0, len(self._order), batch):
            yield self._arithmetic.gathered_into(self._order[start : start + batch], *room)

    def _normalized(self, files: list[bytes], decode: Decode, batch: int) -> Iterator[Any]:
        for images in self._pixels(files, decode, batch):
            yield self._arithmetic.normalized(np.stack(images))

    def _pixels(self, files: list[bytes], decode: Decode, batch: int) -> Iterator[list[NDArray[np.uint8]]]:
        def some(rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
            return [decode(files[row]) for row in rows.tolist()]

        for start in range(0, len(self._order), batch):
            rows = self._order[start : start + batch]
            if self._threads == 1 or len(rows) == 1:
                yield some(rows)
            else:
                parts = self._pool.map(some, np.array_split(rows, self._threads))
                yield [image for part in parts for image in part]


class _Torch:
    def __init__(
        self, images: NDArray[np.uint8], scale: NDArray[np.float32], shift: NDArray[np.float32]
    ) -> None:
        import torch

        self._stored, self._scale, self._shift = map(torch.from_numpy, (images, scale, shift))

    def gathered(self, rows: NDArray[np.int64]) -> Any:
        import torch

        return self._stored[torch.from_numpy(rows)].float().mul_(self._scale).add_(self._shift)

    def room(self, count: int) -> tuple[Any, Any]:
        import torch

        shape = (count, *self._stored.shape[1:])
        return torch.empty(shape, dtype=torch.uint8), torch.empty(shape)

    def gathered_into(self, rows: NDArray[np.int64], pixels: Any, images: Any) -> Any:
        import torch

        some = torch.index_select(self._stored, 0, torch.from_numpy(rows), out=pixels[: len(rows)])
        return images[: len(rows)].copy_(some).mul_(self._scale).add_(self._shift)

    def normalized(self, pixels: NDArray[np.uint8]) -> Any:
        import torch

        planes = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        images = planes.to(torch.float32, memory_format=torch.contiguous_format)
        return images.mul_(self._scale).add_(self._shift)


class _Numpy:
    def __init__(
        self, images: NDArray[np.uint8], scale: NDArray[np.float32], shift: NDArray[np.float32]
    ) -> None:
        self._stored, self._scale, self._shift = images, scale, shift

    def gathered(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._scaled(self._stored[rows])

    def room(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        shape = (count, *self._stored.shape[1:])
        return np.empty(shape, np.uint8), np.empty(shape, np.float32)

    def gathered_into(
        self, rows: NDArray[np.int64], pixels: NDArray[np.uint8], images: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        some = self._stored.take(rows, axis=0, out=pixels[: len(rows)], mode="clip")
        return self._scaled(some, images[: len(rows)])

    def normalized(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._scaled(pixels.transpose(0, 3, 1, 2))

    def _scaled(
        self, planes: NDArray[np.uint8], images: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        images = np.empty(planes.shape, np.float32) if images is None else images
        np.multiply(planes, self._scale, out=images)
        images += self._shift
        return images


def _load() -> tuple[dict[str, Decode], dict[str, str]]:
    """Return the decoders, and why others are left out."""
    found: dict[str, Decode] = {}
    absent: dict[str, str] = {}
    for name, load in {
        "simplejpeg": _simplejpeg,
        "Pillow": _pillow,
        "torchvision.io": _torchvision,
    }.items():
        try:
            found[name] = load()
        except ModuleNotFoundError as error:
            absent[name] = f"not installed ({error.name})"
        except (ImportError, OSError, RuntimeError) as error:
            # A torchvision that was built for another torch.
            absent[name] = f"cannot be loaded ({str(error).splitlines()[0]})"
    return found, absent


def _simplejpeg() -> Decode:
    import simplejpeg

    decode: Decode = simplejpeg.decode_jpeg
    return decode


def _pillow() -> Decode:
    from PIL import Image

    return lambda file: np.asarray(Image.open(io.BytesIO(file)))


def _torchvision() -> Decode:
    import torch
    from torchvision.io import decode_jpeg

    def decode(file: bytes) -> NDArray[np.uint8]:
        # A copy, because torch refuses to look at bytes that cannot be written.
        decoded = decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8))
        pixels: NDArray[np.uint8] = decoded.permute(1, 2, 0).numpy()
        return pixels

    return decode
