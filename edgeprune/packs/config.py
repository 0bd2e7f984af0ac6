"""How images are to be scored and chosen, components chosen, and a pack built. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgeprune_formats import ConfigError
from edgeprune_formats.codecs import codec_names, get_codec
from edgeprune_formats.coding.rounding import ROUNDINGS
from edgeprune_formats.limits import MAX_SIDE
from edgeprune_formats.packs.chunks import COMPRESSIONS
from edgeprune_formats.tiles import COLOR_SPACES, TILES, color_spaces
from edgeprune_runtime.checks import check_types

from ..coresets.config import CoresetConfig
from ..masks.config import MaskConfig
from ..scoring.config import ScoreConfig
from ..sources.naming.options import CHANNELS
from .encoding.quality import DEFAULT_QUALITY, quantization_step

__all__ = ["METHODS", "BuildConfig", "Method"]


@dataclass(frozen=True)
class Method:
    """What a method chooses, and by default how much of it (paper, §3.3 and §4.1).

    Attributes
    ----------
    learned_masks : bool
        Whether components are chosen by an FSE-Net; otherwise by energy.
    scored_images : bool
        Whether images are chosen by score; otherwise at random, stratified by class.
    freq_prune, sample_prune : float
        The default shares of components and images left out.
    describes : str
        One line for a user.
    """

    learned_masks: bool
    scored_images: bool
    freq_prune: float
    sample_prune: float
    describes: str


METHODS = {
    "energy": Method(False, False, 0.5, 0.0, "components of highest energy"),
    "random": Method(False, False, 0.0, 0.5, "images at random"),
    "lf": Method(True, False, 0.5, 0.0, "components by FSE-Net"),
    "je": Method(False, True, 0.0, 0.5, "images by joint entropy"),
    "jelf": Method(True, True, 0.5, 0.5, "images by joint entropy, components by FSE-Net"),
}


@dataclass(frozen=True)
class BuildConfig:
    """Configuration of `edgeprune.build_pack`, recorded in the pack's provenance.

    Attributes
    ----------
    freq_prune : float or None
        Share of the frequency components dropped from each channel, at least 0 and below 1; None stands for
        the method's default. With codec ``quantized`` it buys next to nothing, because
        rounding drops the small components anyway.
    sample_prune : float or None
        Share of the images left out, likewise.
    codec : str
        How coefficients are stored; see `edgeprune_formats.codecs.codec_names`. ``"quantized"`` makes the
        smallest packs, ``"sparse-f32"`` is the paper's layout.
    compression : str
        ``"none"`` or ``"gzip"``, lossless, of the codecs ``sparse-f32`` and ``sparse-f16``.
    quality : float or None
        1 to 100, of the codec ``quantized``: one scale for size and error, see
        `edgeprune.packs.encoding.quality.quantization_step`; None stands for 70.
    color : str or None
        Planes that ``quantized`` stores: ``"rgb"`` or ``"ycbcr"``, for which None stands.
    tile : str or None
        Tiles that ``quantized`` transforms: ``"full"`` (the whole image), ``"8"``, ``"16"`` or ``"32"``
        pixels a side. None and ``"auto"`` try the sizes on a sample of the images, see
        `edgeprune.packs.encoding.tiles.laid_out`.
    rounding : str or None
        Of ``quantized``: ``"rdo"`` by rate and distortion, for which None stands: a higher PSNR for the
        bytes; ``"nearest"``; or ``"deadzone"``, see `edgeprune_formats.coding.rounding.rounded`.
    size : int or None
        Resize the short side to this many pixels and crop the center; None keeps sizes, which must agree.
    fast_jpeg : bool
        Let the JPEG decoder scale large images, see `edgeprune.sources.decoding.images.decode_image`; needs
        `size`.
    channels : str
        ``"as-is"``: the channels and bits that the images have; ``"gray"``, ``"rgb"`` or ``"rgba"``: all are
        converted to that, of 8 bits. See `edgeprune.sources.channels.with_channels`.
    split : str
        ``"train"`` or ``"test"``.
    skip_bad : bool
        Leave out images that cannot be read, in place of stopping at them.
    drop_duplicates : bool
        Leave out all but one of each group of near duplicates, and all of a group whose labels differ, see
        `edgeprune.packs.planning.deduplication`; `sample_prune` counts what is left.
    seed : int
        Non-negative; fixes the coreset, the order of the images in the pack, and the learning of masks.
    device : str
        Where scores are made, masks learned and applied: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    coreset : CoresetConfig
        How images are chosen by score.
    masks : MaskConfig
        How masks are learned.
    scoring : ScoreConfig
        The scoring run, where one is needed and no scores file is given.

    Raises
    ------
    ConfigError
        A value of another type than its field, or out of range.
    """

    freq_prune: float | None = field(
        default=None,
        metadata={
            "help": "Share of each image's frequency components to drop, from 0 to below 1. It saves next to "
            "nothing with codec quantized, whose rounding already drops small ones.",
            "default_text": "0.5; 0 for methods random and je, and for energy with quantized",
        },
    )
    sample_prune: float | None = field(
        default=None,
        metadata={
            "help": "Share of the images to leave out, from 0 to below 1.",
            "default_text": "0; 0.5 for methods random, je and jelf",
        },
    )
    codec: str = field(
        default="quantized",
        metadata={
            "help": "Codec of the coefficients: quantized is smallest; sparse-f32 is the paper's layout.",
            "choices": codec_names(),
        },
    )
    compression: str = field(
        default="none",
        metadata={
            "help": "Lossless compression for codecs sparse-f32 and sparse-f16.",
            "choices": COMPRESSIONS,
        },
    )
    quality: float | None = field(
        default=None,
        metadata={
            "help": "Quality of codec quantized, from 1 (smallest file) to 100 (smallest error).",
            "default_text": f"{DEFAULT_QUALITY:g}",
        },
    )
    color: str | None = field(
        default=None,
        metadata={
            "help": "Color space in which codec quantized stores images.",
            "choices": COLOR_SPACES,
            "default_text": "ycbcr",
        },
    )
    tile: str | None = field(
        default=None,
        metadata={
            "help": "Side of the tiles that codec quantized transforms, in pixels; full is the whole image.",
            "alias": "--block",
            "choices": (*TILES, "auto"),
            "default_text": "auto: the smallest result on a sample",
        },
    )
    rounding: str | None = field(
        default=None,
        metadata={
            "help": "Rounding of codec quantized: rdo has a higher PSNR for the bytes; nearest keeps more "
            "detail in more bytes; deadzone rounds up from 0.6 on, and builds faster than rdo.",
            "choices": ROUNDINGS,
            "default_text": "rdo",
        },
    )
    size: int | None = field(
        default=None,
        metadata={
            "help": "Resize the short side to this many pixels and crop the center.",
            "metavar": "PIXELS",
            "default_text": "unchanged",
        },
    )
    fast_jpeg: bool = field(
        default=False,
        metadata={
            "help": "Decode JPEG files at a half, a quarter or an eighth of their size, but at least at four "
            "times --size. Large photographs take a fraction of the time; pixels differ slightly."
        },
    )
    channels: str = field(
        default="as-is",
        metadata={
            "help": "Channels of the images: as-is keeps channels and bits; gray, rgb and rgba convert all "
            "images to 8 bits.",
            "choices": CHANNELS,
        },
    )
    split: str = field(
        default="train",
        metadata={"help": "Split of the source to read.", "choices": ("train", "test")},
    )
    skip_bad: bool = field(
        default=False,
        metadata={"help": "Leave out images that cannot be read, and count them."},
    )
    drop_duplicates: bool = field(
        default=False,
        metadata={
            "help": "Keep only one image of each group of near duplicates; none if their classes differ."
        },
    )
    seed: int = field(
        default=0,
        metadata={
            "help": "Seed of the choice of images, their order in the pack, the scoring run and the masks."
        },
    )
    method: str = field(
        default="energy",
        metadata={
            "help": "How components and images are chosen. "
            + "; ".join(f"{name}: {method.describes}" for name, method in METHODS.items())
            + ".",
            "choices": tuple(METHODS),
        },
    )
    device: str = field(
        default="auto",
        metadata={
            "help": "Device for scores, masks and the teacher: auto (CUDA if available), cpu, cuda or "
            "cuda:N.",
        },
    )
    coreset: CoresetConfig = field(default_factory=CoresetConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    scoring: ScoreConfig = field(default_factory=ScoreConfig)

    def __post_init__(self) -> None:
        check_types(self)
        if self.method not in METHODS:
            raise ConfigError(f"`method` must be one of {', '.join(METHODS)}, not {self.method!r}")
        for name in ("freq_prune", "sample_prune"):
            ratio = getattr(self, name)
            if ratio is not None and not 0 <= ratio < 1:
                raise ConfigError(
                    f"`{name}` must be at least 0 and below 1, not {ratio}: 1 would keep nothing"
                )
        self._check_codec()
        if self.compression not in COMPRESSIONS:
            raise ConfigError(
                f"`compression` must be one of {', '.join(COMPRESSIONS)}, not {self.compression!r}"
            )
        if self.size is not None and not 1 <= self.size <= MAX_SIDE:
            raise ConfigError(f"`size` must be between 1 and {MAX_SIDE} pixels, not {self.size}")
        if self.channels not in CHANNELS:
            raise ConfigError(f"`channels` must be one of {', '.join(CHANNELS)}, not {self.channels!r}")
        if self.split not in ("train", "test"):
            raise ConfigError(f"`split` must be train or test, not {self.split!r}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"`seed` must be at least 0 and below 2**63, not {self.seed}")

    def _check_codec(self) -> None:
        codec = get_codec(self.codec)
        quantizes = codec.quantizes
        choices = {"color": codec.color_spaces, "tile": (*codec.tiles, "auto"), "rounding": ROUNDINGS}
        for name in ("quality", *choices):
            value = getattr(self, name)
            if value is not None and not quantizes:
                raise ConfigError(f"`{name}` has no effect with codec {self.codec}; choose codec quantized")
            if value is not None and value not in choices.get(name, (value,)):
                raise ConfigError(f"`{name}` must be one of {', '.join(choices[name])}, not {value!r}")
        if quantizes:
            quantization_step(self.stored_quality)
            if self.compression != "none":
                raise ConfigError(f"codec {self.codec} is compressed by itself; leave `compression` out")

    @property
    def reading(self) -> dict[str, Any]:
        """How the images are read, as arguments of `edgeprune.open_source`."""
        return {name: getattr(self, name) for name in ("split", "size", "channels", "fast_jpeg")}

    @property
    def stored_quality(self) -> float:
        """The quality of codec ``quantized``: `quality`, or the default."""
        return DEFAULT_QUALITY if self.quality is None else self.quality

    @property
    def given_tile(self) -> str | None:
        """The size of tiles that was asked for; None where the sizes are to be tried."""
        return None if self.tile == "auto" else self.tile

    def quantization(self, channels: int) -> dict[str, Any]:
        """Return the header's ``color_space``, and ``step``, 0 for a codec that does not quantize.

        Raises
        ------
        ConfigError
            `color` is given, and images of so many channels have no colors.
        """
        codec = get_codec(self.codec)
        if channels != 3 and self.color:
            raise ConfigError(f"`color` has no effect on images of {channels} channels; leave it out")
        choices = codec.color_spaces if channels == 3 else color_spaces(channels)
        color_space = self.color or (choices[-1] if codec.quantizes else choices[0])
        step = quantization_step(self.stored_quality) if codec.quantizes else 0.0
        return {"color_space": color_space, "step": step}

    @property
    def components_dropped(self) -> float:
        """The share of components to drop: `freq_prune`, or the method's.

        A codec that quantizes drops what rounds to zero, and by energy nothing else unless it is asked to.
        """
        if self.freq_prune is not None:
            return self.freq_prune
        if self.method == "energy" and get_codec(self.codec).quantizes:
            return 0.0
        return METHODS[self.method].freq_prune

    @property
    def images_dropped(self) -> float:
        """The share of images to leave out: `sample_prune`, or the method's."""
        return METHODS[self.method].sample_prune if self.sample_prune is None else self.sample_prune
