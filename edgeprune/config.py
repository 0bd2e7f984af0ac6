"""How a pack is to be built."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune_formats import COMPRESSIONS, ConfigError, get_codec

__all__ = ["BuildConfig"]


@dataclass(frozen=True)
class BuildConfig:
    """Configuration of `edgeprune.build_pack`, recorded in the pack's provenance.

    Attributes
    ----------
    freq_prune : float
        Share of the frequency components dropped from each channel, at least 0 and below 1.
    sample_prune : float
        Share of the images left out, at least 0 and below 1.
    codec : str
        How coefficients are stored; see `edgeprune_formats.codec_names`.
    compression : str
        ``"none"`` or ``"gzip"``, lossless.
    size : int or None
        Resize the short side to this many pixels and crop the centre; None keeps sizes, which must agree.
    split : str
        ``"train"`` or ``"test"``.
    skip_bad : bool
        Leave out images that cannot be read, in place of stopping at them.
    seed : int
        Non-negative; fixes the coreset and the order of the images in the pack.

    Raises
    ------
    ConfigError
        A value out of range.
    """

    freq_prune: float = 0.5
    sample_prune: float = 0.0
    codec: str = "sparse-f32"
    compression: str = "none"
    size: int | None = None
    split: str = "train"
    skip_bad: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("freq_prune", "sample_prune"):
            ratio = getattr(self, name)
            if not 0 <= ratio < 1:
                raise ConfigError(f"{name} must be at least 0 and below 1, not {ratio}: 1 would keep nothing")
        get_codec(self.codec)
        if self.compression not in COMPRESSIONS:
            raise ConfigError(
                f"compression must be one of {', '.join(COMPRESSIONS)}, not {self.compression!r}"
            )
        if self.size is not None and not 1 <= self.size <= 4096:
            raise ConfigError(f"size must be between 1 and 4096 pixels, not {self.size}")
        if self.split not in ("train", "test"):
            raise ConfigError(f"split must be train or test, not {self.split!r}")
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative: {self.seed}")
