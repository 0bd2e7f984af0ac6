"""The test set of a run: opened, held against that of a run that goes on, and against the training images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune_formats import ConfigError, Pack, PackHeader
from edgeprune_formats.remote.locations import RemoteFile
from edgeprune_formats.targets import Column
from edgeprune_runtime import Mixture

from ..errors import SourceError
from .evaluation import TestImages

__all__ = ["open_test_images", "shared_warning", "tested_on"]


def open_test_images(
    test: str | RemoteFile, header: PackHeader, skip_bad: bool, column: Column, earlier: Mapping[str, Any]
) -> TestImages:
    """Open the test set of a run; where that of a run that goes on is gone, say how to name its new place.

    Raises
    ------
    ConfigError, SourceError, PackFormatError, RemoteError
        As `TestImages`.
    """
    try:
        return TestImages(test, header, skip_bad=skip_bad, column=column)
    except (ConfigError, SourceError, OSError) as error:
        kind, colon, rest = str(test).partition(":")
        place = rest if colon else kind
        if test == earlier.get("provenance", {}).get("test") and place and not Path(place).exists():
            raise ConfigError(
                f"{error}; if the test images were moved, `test` takes their new place"
            ) from error
        raise


def tested_on(
    images: TestImages,
    test: str | RemoteFile | None,
    header: PackHeader,
    output: Path,
    earlier: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the run says of its test images: those of a run that goes on have moved, but are the same.

    Raises
    ------
    ConfigError
        They are others, or the pack has images of another size.
    """
    before = earlier.get("provenance", {})
    if not earlier:
        return {"test_sha256": images.sha256}
    if "test_sha256" not in before:
        return {}
    shape = earlier.get("image_shape")
    if isinstance(shape, list) and shape != list(header.shape):
        former, now = ("x".join(map(str, of)) for of in (shape, header.shape))
        raise ConfigError(
            f"the run in {output} learns images of {former}, and the pack has {now}; name its own pack, "
            "or start in another folder"
        )
    if before["test_sha256"] != images.sha256:
        raise ConfigError(
            f"{test}: not the test images of the run in {output}, by their SHA-256; name those with `test`, "
            "or start in another folder"
        )
    return {"test_sha256": images.sha256, "test": before.get("test")}


def shared_warning(images: TestImages | None, pack: Pack | Mixture) -> str | None:
    """Return a warning where the test images are training images."""
    packs = pack.packs if isinstance(pack, Mixture) else (pack,)
    if images is None or not any(images.come_from(one) for one in packs):
        return None
    return f"{images.name}: has images that the pack was built from; accuracy on them says little of others"
