"""What two kinds of processors make of the same packs and images: python same.py write|compare|images FILE

`write` notes it on one machine, `compare` tells on the other whether it is the same, `images` writes the
images that are packed. Coefficients and what is built must be the same to the bit. Pixels come from float32
products, which processors round differently: they may differ by a part in a hundred thousand, and not as 8
bits.
"""

import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

from edgeprune import BuildConfig, build_pack
from edgeprune_formats import open_pack
from edgeprune_formats.coding.native import has_kernels
from edgeprune_runtime import PackLoader
from edgeprune_runtime.decode.kernels import lanes

GOLDEN = Path(__file__).parents[1] / "formats" / "golden"
ATOL = 1e-5


def images(path: Path) -> None:
    """Write 40 images of smooth colors, edges and noise."""
    random = np.random.default_rng(5)
    steps = np.linspace(0, 1, 24)
    smooth = random.uniform(60, 190, (40, 1, 1, 3)) + 60 * np.sin(
        random.uniform(1, 9, (40, 1, 1, 3)) * (steps[:, None, None] + steps[None, :, None])
    )
    smooth[:, 6:14, 5:20] = random.uniform(0, 255, (40, 1, 1, 3))
    noisy = smooth + random.normal(0, 4, smooth.shape)
    np.savez(path, x=noisy.clip(0, 255).astype(np.uint8), y=np.arange(40) % 4)


def decoded(path: Path) -> dict[str, np.ndarray]:
    """Return coefficients and pixels of a pack, decoded in C."""
    with open_pack(path) as pack:
        chunks = [pack.read_chunk(chunk).arrays for chunk in range(pack.header.chunks)]
    stored = {
        f"coefficients {n}": np.concatenate(arrays) for n, arrays in enumerate(zip(*chunks, strict=True))
    }
    return stored | {"pixels": np.concatenate([batch[0] for batch in PackLoader(path, 16, backend="native")])}


def built(folder: Path) -> dict[str, np.ndarray]:
    """Return what is stored of images that are packed here, by each codec."""
    images(folder / "images.npz")
    found = {}
    for codec in ("quantized", "sparse-f16", "sparse-f32"):
        path = folder / f"{codec}.h5"
        build_pack(f"npz:{folder / 'images.npz'}", path, BuildConfig(codec=codec))
        with h5py.File(path, locking=False) as file:
            found |= {f"built {codec} {name}": np.asarray(data) for name, data in file["samples"].items()}
    return found


def all_facts() -> dict[str, np.ndarray]:
    facts = {}
    for path in sorted(GOLDEN.glob("edgepack-1.3-[qs]*.h5")):
        facts |= {f"{path.stem} {name}": array for name, array in decoded(path).items()}
    with tempfile.TemporaryDirectory() as folder:
        return facts | built(Path(folder))


def differences(here: dict[str, np.ndarray], there: dict[str, np.ndarray]) -> list[str]:
    """Return the names of what is not the same, and print how far pixels are apart."""
    wrong = sorted(set(here) ^ set(there))
    for name in sorted(set(here) & set(there)):
        one, other = here[name], there[name]
        if name.endswith(" pixels"):
            apart = float(np.abs(one - other).max())
            print(f"{name}: {one.shape}, differ by {apart:.1e} at most")
            same = apart <= ATOL and np.array_equal(*((np.clip(x, 0, 1) * 255).round() for x in (one, other)))
        else:
            same = one.dtype == other.dtype and np.array_equal(one, other)
            print(f"{name}: {one.shape} {one.dtype}, {'the same' if same else 'NOT the same'}")
        wrong += [] if same else [name]
    return wrong


def main() -> None:
    assert has_kernels(), "nothing is decoded in C here"
    print(f"numbers at once: {lanes()}")
    how, file = sys.argv[1:]
    if how == "images":
        images(Path(file))
    elif how == "write":
        np.savez(file, **all_facts())
    elif wrong := differences(all_facts(), dict(np.load(file))):
        sys.exit(f"not the same: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
