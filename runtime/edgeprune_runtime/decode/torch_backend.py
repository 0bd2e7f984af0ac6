"""Decoding with torch, on the CPU or a GPU, from the same code."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune_formats.coefficients import (
    Coefficients,
    QuantizedCoefficients,
    SparseCoefficients,
    column_bits,
)

from ..system.devices import resolve_device
from .augmentation import Augmentation
from .dtypes import require_dtype
from .native import NativeKernel, native_kernel
from .plan import DecodePlan, basis_fits, batch_shape, full_size, held_sides, inverse_basis

if TYPE_CHECKING:
    from .dtypes import Device, Dtype

__all__ = ["TorchDecoder"]

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


class TorchDecoder:
    """Batched inverse DCT in torch tensors; see `edgeprune_runtime.decode.plan.Decoder`."""

    in_background = True

    def __init__(self, plan: DecodePlan, *, device: Device, dtype: Dtype) -> None:
        self.plan = plan
        self._device = resolve_device(device)
        self._dtype = DTYPES[require_dtype(dtype, "torch", DTYPES)]
        if basis_fits(plan):
            rows, columns = plan.header.tile_shape
            self._rows = self._put(np.ascontiguousarray(inverse_basis(rows, plan.tile[0]).T))
            self._columns = self._put(inverse_basis(columns, plan.tile[1]))
        self._matrix = self._put(plan.matrix)
        self._scale = self._put(plan.scale).view(1, -1, 1)
        self._constant = self._put(plan.constant)
        self._scratch: dict[str, torch.Tensor] = {}
        pixels: dict[type[Coefficients], Callable[..., torch.Tensor]] = {
            SparseCoefficients: self._of_sparse,
            QuantizedCoefficients: self._of_tiles,
        }
        self._pixels = pixels[plan.layout]
        self._kernel = native_kernel(plan) if self._device.type == "cpu" else None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_scratch": {}}

    def _put(self, array: NDArray[Any]) -> torch.Tensor:
        return self._move(torch.from_numpy(array))

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _reused(self, name: str, dtype: torch.dtype, *shape: int) -> torch.Tensor:
        """Return working memory that the next batch uses again, in place of fresh pages for each batch."""
        size = math.prod(shape)
        held = self._scratch.get(name)
        if held is None or len(held) < size or held.dtype != dtype:
            held = self._scratch[name] = torch.empty(size, dtype=dtype, device=self._device)
        return held[:size].view(shape)

    def room(self, count: int) -> torch.Tensor | None:
        """Return memory for so many images on the CPU, pinned where the process uses CUDA; None on CUDA."""
        if self._device.type != "cpu":
            return None
        pinned: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return torch.empty(batch_shape(self.plan, count), dtype=self._dtype, device="cpu", pin_memory=pinned)

    @torch.no_grad()
    def images(
        self,
        coefficients: Coefficients,
        rows: NDArray[np.int64],
        augmentation: Augmentation | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return images [n, C, h, w] of the decoder's dtype on its device."""
        whole = out
        if out is not None and self._dtype != torch.float32:
            whole = self._reused("images", torch.float32, *out.shape)
        images = self._float32(coefficients, rows, augmentation, whole)
        if out is None:
            return images.to(self._dtype)
        return out if images is out else out.copy_(images)

    def _float32(
        self,
        coefficients: Coefficients,
        rows: NDArray[np.int64],
        augmentation: Augmentation | None,
        out: torch.Tensor | None,
    ) -> torch.Tensor:
        if self._kernel is not None:
            return self._compiled(self._kernel, coefficients, rows, augmentation, out)
        mirrored = None if augmentation is None or not self._whole else augmentation.mirrored
        images = self._pixels(coefficients, rows, mirrored)
        if augmentation is not None and mirrored is None:
            images = self._augment(images, augmentation)
        return images

    @property
    def _whole(self) -> bool:
        """Whether a spectrum is that of a whole image."""
        return self.plan.header.tile_shape == self.plan.header.shape[1:]

    def _compiled(
        self,
        kernel: NativeKernel,
        coefficients: Coefficients,
        rows: NDArray[np.int64],
        augmentation: Augmentation | None,
        out: torch.Tensor | None,
    ) -> torch.Tensor:
        shape = batch_shape(self.plan, len(rows))
        images = torch.empty(shape, dtype=torch.float32, device="cpu") if out is None else out
        kernel.decode(coefficients, rows, augmentation, images.data_ptr(), torch.get_num_threads())
        return images

    def _of_tiles(
        self,
        coefficients: QuantizedCoefficients,
        rows: NDArray[np.int64],
        mirrored: NDArray[np.bool_] | None,
    ) -> torch.Tensor:
        spectra = self._spectra(coefficients, rows, mirrored)
        if basis_fits(self.plan):
            return self._join(spectra)
        return self._transform(spectra[:, :, :, 0].permute(2, 1, 0, 3))

    def _of_sparse(
        self, coefficients: SparseCoefficients, rows: NDArray[np.int64], mirrored: NDArray[np.bool_] | None
    ) -> torch.Tensor:
        """Return images from sparse spectra; rows that hold nothing in any of them are left out."""
        plan, header = self.plan, self.plan.header
        planes = len(rows) * header.channels
        # Positions ascend, so the last of each spectrum is in its last row.
        last = int(coefficients.positions[:, :, -1].take(rows, axis=0).max(initial=0))
        held = min(plan.height, (last >> column_bits(header.width)) + 1)
        spectra = self._scatter(coefficients, rows)
        if mirrored is not None:
            self._mirror(spectra.view(len(rows), header.channels, header.height, -1), mirrored)
        if not basis_fits(plan):
            return self._transform(spectra.view(len(rows), header.channels, header.height, -1))
        across = self._reused("across", torch.float32, planes, held, plan.width)
        if held == header.height:
            tall = spectra.view(planes * header.height, -1)[:, : plan.width]
            torch.mm(tall, self._columns, out=across.view(-1, plan.width))
        else:
            low = spectra[:, :held, : plan.width]
            torch.bmm(low, self._columns.expand(planes, -1, -1), out=across)
        images = torch.bmm(self._rows[:, :held].expand(planes, -1, -1), across)
        return images.view(len(rows), header.channels, plan.height, plan.width)

    def _mirror(self, spectra: torch.Tensor, mirrored: NDArray[np.bool_]) -> None:
        """Mirror images left to right in their spectra [n, ...]: odd cosines change sign."""
        sign = self._put((1 - 2 * mirrored).astype(np.float32))
        spectra[..., 1::2] *= sign.view(-1, *[1] * (spectra.ndim - 1))

    def _spectra(
        self, coefficients: QuantizedCoefficients, rows: NDArray[np.int64], mirrored: NDArray[np.bool_] | None
    ) -> torch.Tensor:
        """Return the channels' spectra [r, C, n, tiles, c], as far as rows and columns hold something."""
        plan, header = self.plan, self.plan.header
        down, across = held_sides(plan, coefficients.extents.take(rows, axis=0))
        sides = coefficients.values.reshape(*coefficients.values.shape[:3], *header.tile_shape)
        # Integers go to the device, a half of what floats would take.
        stored = self._select("values", sides[..., :down, :across], rows).permute(3, 1, 0, 2, 4)
        planes = self._reused("planes", torch.float32, *stored.shape)
        torch.mul(stored, header.step, out=planes)
        spectra = self._reused("spectra", torch.float32, *stored.shape)
        flat = spectra.view(down, header.channels, -1)
        torch.bmm(self._matrix.expand(down, -1, -1), planes.view_as(flat), out=flat)
        spectra[0, ..., 0] += self._constant.view(-1, 1, 1)
        if mirrored is not None:
            self._mirror(spectra.permute(2, 0, 1, 3, 4), mirrored)
        return spectra

    def _join(self, spectra: torch.Tensor) -> torch.Tensor:
        """Transform spectra [r, C, n, tiles, c] by two tall products, and join the tiles to images."""
        plan, (down, channels, n, tiles, across) = self.plan, spectra.shape
        halfway = self._reused("across", torch.float32, down * channels * n * tiles, plan.tile[1])
        torch.mm(spectra.reshape(-1, across), self._columns[:across], out=halfway)
        pixels = self._reused("pixels", torch.float32, plan.tile[0], channels * n * tiles * plan.tile[1])
        torch.mm(self._rows[:, :down], halfway.view(down, -1), out=pixels)
        parts = pixels.view(plan.tile[0], channels, n, *plan.header.grid, plan.tile[1])
        images = parts.permute(2, 1, 3, 0, 4, 5).reshape(n, channels, *full_size(plan))
        return images[:, :, : plan.height, : plan.width].contiguous()

    def _transform(self, spectra: torch.Tensor) -> torch.Tensor:
        """Transform spectra [n, C, r, c] of whole images, cut or padded to their size, without matrices."""
        (height, width), header = self.plan.tile, self.plan.header
        there = spectra[:, :, :height, :width]
        padded = torch.nn.functional.pad(there, (0, width - there.shape[3], 0, height - there.shape[2]))
        brightness = math.sqrt(height * width / (header.height * header.width))
        return _inverse_dct(_inverse_dct(padded).mT).mT.contiguous() * brightness

    def labels(self, labels: NDArray[np.int64]) -> torch.Tensor:
        """Return the labels on the decoder's device."""
        return self._put(labels)

    def receive(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Let this thread's CUDA stream wait for the one in which another thread decoded."""
        if self._device.type == "cpu":
            return
        theirs, ours = (torch.cuda.default_stream(self._device), torch.cuda.current_stream(self._device))
        if theirs != ours:
            ours.wait_stream(theirs)
            for tensor in (images, labels):
                tensor.record_stream(ours)

    def _scatter(self, coefficients: SparseCoefficients, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return scaled spectra [n * C, H, P]; packed positions address rows of a power of two, P."""
        header = self.plan.header
        planes, stride = len(rows) * header.channels, 1 << column_bits(header.width)
        spectra = self._reused("spectra", torch.float32, planes, header.height, stride).zero_()
        positions, values = self._gather(coefficients, rows, header.height * stride)
        spectra.view(planes, -1).scatter_(1, positions.view(planes, -1), values.view(planes, -1))
        spectra.view(len(rows), header.channels, -1)[:, :, 0] += self._constant
        return spectra

    def _gather(
        self, coefficients: SparseCoefficients, rows: NDArray[np.int64], plane: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return int64 positions and scaled values [n, C, K] of the images at `rows`."""
        # Torch gathers and widens signed integers faster than unsigned ones, and gathers only the former.
        signed = coefficients.positions.view(f"i{coefficients.positions.itemsize}")
        positions = self._select("positions", signed, rows)
        if plane > np.iinfo(signed.dtype).max + 1:
            positions = positions.view(torch.uint16)
        wide = self._reused("wide", torch.int64, *positions.shape)
        return wide.copy_(positions), self._select("values", coefficients.values, rows).mul_(self._scale)

    def _select(self, name: str, array: NDArray[Any], rows: NDArray[np.int64]) -> torch.Tensor:
        tensor, index = torch.from_numpy(array), torch.from_numpy(rows)
        if self._device.type == "cpu":
            out = self._reused(name, tensor.dtype, len(rows), *tensor.shape[1:])
            return torch.index_select(tensor, 0, index, out=out)
        return self._move(torch.index_select(tensor, 0, index))

    def _augment(self, images: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
        n, channels, _, width = images.shape
        flat = augmentation.rows[:, :, None] * width + augmentation.columns[:, None, :]
        index = self._put(flat).view(n, 1, -1).expand(-1, channels, -1)
        return torch.gather(images.view(n, channels, -1), 2, index).view_as(images)


def _inverse_dct(spectra: torch.Tensor) -> torch.Tensor:
    """Return the inverse of the orthonormal DCT-II along the last axis, by one FFT (Makhoul 1980)."""
    size = spectra.shape[-1]
    scaled = spectra * math.sqrt(size / 2)
    scaled[..., 0] *= math.sqrt(2)
    angle = torch.arange(size, device=spectra.device) * (math.pi / (2 * size))
    behind = torch.nn.functional.pad(scaled[..., 1:].flip(-1), (1, 0))
    halves = torch.complex(scaled, -behind) * torch.polar(torch.ones_like(angle), angle)
    found = torch.fft.irfft(halves[..., : size // 2 + 1], n=size)
    pixels = torch.empty_like(spectra)
    pixels[..., ::2] = found[..., : (size + 1) // 2]
    pixels[..., 1::2] = found[..., (size + 1) // 2 :].flip(-1)
    return pixels
