"""The data loaders that `PackLoader` is measured against, each on the same JPEG files and by its own manual.

Each function writes what its loader reads below `folder`, and returns one epoch's iterator: shuffled batches,
float32 [n, 3, H, W], normalized. Where a package is missing it raises ModuleNotFoundError.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...harness.timing import Epoch, images_of

__all__ = ["LOADERS", "Job"]

SHARDS = 4  # so that every worker has one


@dataclass(frozen=True)
class Job:
    """What a loader is to do.

    Attributes
    ----------
    files : Path
        JPEG files, a folder a class.
    folder : Path
        Where the loader's own layout may be written.
    mean, std : tuple of float
        For each channel.
    batch, workers : int
        Images in a batch; worker processes, 0 for none.
    """

    files: Path
    folder: Path
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch: int
    workers: int

    def transform(self) -> Any:
        """Return torchvision's chain from a PIL image or uint8 tensor to a normalized one."""
        import torch
        from torchvision.transforms import v2

        chain = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(self.mean, self.std)]
        return v2.Compose(chain)

    def paths(self) -> list[tuple[Path, int]]:
        """Return each file and its class."""
        return [(path, int(path.parent.name)) for path in sorted(self.files.glob("*/*.jpg"))]

    def workers_options(self) -> dict[str, Any]:
        """Return the options of torch's DataLoader for workers that outlive an epoch."""
        return {"num_workers": self.workers, "persistent_workers": self.workers > 0}


def image_folder(job: Job) -> Epoch:
    """Return torchvision's ImageFolder through torch's DataLoader."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    images = ImageFolder(str(job.files), transform=job.transform())
    return partial(images_of, DataLoader(images, job.batch, shuffle=True, **job.workers_options()))


def webdataset(job: Job) -> Epoch:
    """Return WebDataset: tar shards, a shuffle buffer, batches made in the workers."""
    import webdataset as wds

    job.folder.mkdir(parents=True)
    paths = job.paths()
    shards = [str(job.folder / f"{number}.tar") for number in range(SHARDS)]
    for number, shard in enumerate(shards):
        with wds.TarWriter(shard) as tar:
            for path, label in paths[number::SHARDS]:
                tar.write({"__key__": path.stem, "jpg": path.read_bytes(), "cls": label})
    images = (
        wds.WebDataset(shards, shardshuffle=SHARDS)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(job.transform(), int)
        .batched(job.batch)
    )
    return partial(images_of, wds.WebLoader(images, batch_size=None, **job.workers_options()))


def _litdata_sample(pair: tuple[str, int]) -> dict[str, Any]:
    from PIL import Image

    # LitData keeps the bytes of a JPEG file that PIL opened.
    return {"image": Image.open(pair[0]), "label": pair[1]}


def litdata(job: Job) -> Epoch:
    """Return LitData: chunks of samples, decoded by torchvision."""
    import litdata as ld

    inputs = [(str(path), label) for path, label in job.paths()]
    # One process, because they share the cores that everything is pinned to.
    ld.optimize(_litdata_sample, inputs, str(job.folder), chunk_bytes="16MB", num_workers=1)
    images = ld.StreamingDataset(
        str(job.folder), shuffle=True, transform=partial(_transformed, job.transform())
    )
    # Workers that outlive an epoch: starting them takes LitData seconds.
    return partial(images_of, ld.StreamingDataLoader(images, batch_size=job.batch, **job.workers_options()))


# At module level and by `partial`, because workers may be started by pickling.
def _transformed(transform: Any, sample: dict[str, Any]) -> Any:
    return transform(sample["image"]), sample["label"]


def mosaic_streaming(job: Job) -> Epoch:
    """Return MosaicML Streaming: MDS shards, decoded by Pillow."""
    from PIL import Image
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    with MDSWriter(out=str(job.folder), columns={"image": "jpeg", "label": "int"}, size_limit="16mb") as out:
        for path, label in job.paths():
            with Image.open(path) as image:
                # MDSWriter keeps the bytes of a JPEG file that PIL opened.
                out.write({"image": image, "label": label})
    images = StreamingDataset(local=str(job.folder), shuffle=True, batch_size=job.batch)
    collate = partial(_collated, job.transform())
    return partial(images_of, DataLoader(images, job.batch, collate_fn=collate, **job.workers_options()))


def _collated(transform: Any, samples: list[dict[str, Any]]) -> Any:
    from torch.utils.data import default_collate

    return default_collate([_transformed(transform, sample) for sample in samples])


def hugging_face(job: Job) -> Epoch:
    """Return Hugging Face datasets: Arrow with the files inside, decoded by Pillow."""
    import datasets
    from torch.utils.data import DataLoader

    datasets.disable_progress_bars()
    rows = [
        {"image": {"bytes": path.read_bytes(), "path": None}, "label": label} for path, label in job.paths()
    ]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(job.folder))
    images = datasets.load_from_disk(str(job.folder)).with_transform(partial(_rows, job.transform()))
    return partial(_named, DataLoader(images, job.batch, shuffle=True, **job.workers_options()))


def _rows(transform: Any, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {**rows, "image": [transform(image) for image in rows["image"]]}


def _named(loader: Any) -> Iterator[Any]:
    for batch in loader:
        yield batch["image"]


def ffcv(job: Job) -> Epoch:
    """Return FFCV, where it is installed: it has no wheels, and needs OpenCV and libjpeg-turbo to compile."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor, ToTorchImage
    from ffcv.writer import DatasetWriter
    from PIL import Image

    paths = job.paths()

    class Files:
        """The JPEG files with their labels, as FFCV's writer reads them."""

        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> Any:
            path, label = paths[index]
            return Image.open(io.BytesIO(path.read_bytes())), label

    job.folder.mkdir(parents=True)
    file = job.folder / "images.beton"
    fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
    DatasetWriter(str(file), fields, num_workers=1).from_indexed_dataset(Files())
    chain = [SimpleRGBImageDecoder(), ToTensor(), ToTorchImage()]
    loader = Loader(
        str(file),
        batch_size=job.batch,
        num_workers=max(job.workers, 1),
        order=OrderOption.RANDOM,
        pipelines={"image": chain},
    )

    def epoch() -> Iterator[Any]:
        import torch

        mean, std = (torch.tensor(part).view(-1, 1, 1) for part in (job.mean, job.std))
        for images in images_of(loader):
            yield (images.float() / 255 - mean) / std

    return epoch


LOADERS: dict[str, Callable[[Job], Epoch]] = {
    "ImageFolder + DataLoader": image_folder,
    "WebDataset": webdataset,
    "LitData": litdata,
    "MosaicML Streaming": mosaic_streaming,
    "Hugging Face datasets": hugging_face,
    "FFCV": ffcv,
}
