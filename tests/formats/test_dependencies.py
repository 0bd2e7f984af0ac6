import subprocess
import sys

import edgeprune_formats


def test_import_needs_numpy_and_h5py_only():
    code = (
        "import sys\n"
        "absent = 'torch scipy PIL click tqdm fsspec aiohttp edgeprune edgeprune_runtime'\n"
        "for name in absent.split():\n"
        "    sys.modules[name] = None\n"
        "import edgeprune_formats\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules if sys.modules[name] is not None}))\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    loaded = set(done.stdout.split())
    assert {"edgeprune_formats", "numpy", "h5py"} <= loaded
    assert not loaded & {
        "torch",
        "scipy",
        "PIL",
        "click",
        "tqdm",
        "fsspec",
        "aiohttp",
        "edgeprune",
        "edgeprune_runtime",
    }


def test_public_names_exist():
    for name in edgeprune_formats.__all__:
        assert hasattr(edgeprune_formats, name)
    assert len(set(edgeprune_formats.__all__)) == len(edgeprune_formats.__all__)
