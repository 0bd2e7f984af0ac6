#!/usr/bin/env bash
# Installs the wheel for aarch64 where there is no compiler, and tries it on an emulated processor:
#   tests/aarch64/emulate.sh WHEEL_AARCH64 WHEEL_OF_THIS_MACHINE [FOLDER]
# Debian's arm64 packages and the wheels of what EdgePrune needs are unpacked into FOLDER, and stay there for the next
# time. No file of theirs runs as it is unpacked: neither binfmt nor chroot is needed. On Debian, as root:
#   apt install qemu-user-static debootstrap binutils-aarch64-linux-gnu
# With EMULATE_TORCH=0 nothing is trained: importing torch takes minutes in the emulator.
set -euo pipefail
wheel=$(realpath "$1") native=$(realpath "$2")
work=$(mkdir -p "${3:-/tmp/edgeprune-aarch64}" && realpath "${3:-/tmp/edgeprune-aarch64}")
source=$(realpath "$(dirname "$0")/../..")
host=${PYTHON:-python3} root=$work/root site=$work/site
# For Debian's own Python.
foreign="--python-version 3.11 --implementation cp --only-binary=:all: --platform manylinux2014_aarch64
  --platform manylinux_2_17_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64"
# On the emulator's default processor OpenBLAS raises spurious flags of floating-point numbers.
export QEMU_CPU=${QEMU_CPU:-cortex-a72} PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=2
unset PYTHONPATH

say() { printf '\n== %s\n' "$*"; }

unpack_debian() {
  # In a function that is followed by || a failure ends nothing by itself.
  rm -rf "$root" || return
  debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,libgomp1 bookworm "$root" || return
  for package in "$root"/var/cache/apt/archives/*.deb; do dpkg -x "$package" "$root" || return; done
  # Under this name Python starts itself again, as tests and workers do.
  printf '#!/bin/sh\nexec %s -0 "$0" -L %s %s/usr/bin/python3 "$@"\n' \
    "$(command -v qemu-aarch64-static)" "$root" "$root" > "$root/usr/bin/emulated"
  chmod +x "$root/usr/bin/emulated" && touch "$root/.unpacked"
}

install() { # into a folder of packages, by this machine's pip: it runs nothing of what it unpacks
  "$host" -m pip install --quiet --disable-pip-version-check --target "$@"
}

# No compiler is found there: that of this machine would make libraries for this machine.
emulated() { (cd "$work" && PATH=/nowhere PYTHONPATH=$site "$root/usr/bin/emulated" "$@"); }

say "Debian for arm64, and packages"
[ -e "$root/.unpacked" ] || unpack_debian > "$work/debootstrap.log" 2>&1 || { tail "$work/debootstrap.log" >&2; exit 1; }
installed=$site/.installed
[ "${EMULATE_TORCH:-1}" = 0 ] || installed=$site/.installed-with-torch
if ! [ -e "$installed" ]; then
  rm -rf "$site"
  install "$site" $foreign numpy scipy h5py click pillow tqdm pytest hypothesis
  # Later ones ask for the libraries of CUDA.
  [ "${EMULATE_TORCH:-1}" = 0 ] || install "$site" $foreign --no-deps torch==2.9.1 torchvision==0.24.1 \
    filelock typing_extensions sympy networkx jinja2 fsspec mpmath markupsafe safetensors
  touch "$site/.installed" "$installed"
fi
rm -rf "$site"/edgeprune* "$work/native" && install "$site" $foreign --no-deps --upgrade "$wheel"
install "$work/native" "$native"

say "edgeprune doctor"
emulated -m edgeprune doctor --json > "$work/doctor.json"
emulated -c 'import json; facts = json.load(open("doctor.json")); print(facts["system"], facts["kernels"], sep="\n")
assert None not in facts["kernels"].values(), "the kernels in C are not loaded"'

say "NEON: instructions on four float32 in the kernels"
for library in edgeprune_formats/coding edgeprune_runtime/decode edgeprune_runtime/networks; do
  count=$(aarch64-linux-gnu-objdump -d "$site/$library/_kernels.so" | grep -cP '\tf(mla|mls|mul|add|sub)\t.*\.4s' || true)
  echo "$library: $count"
  [ "$count" -gt 0 ] || { echo "no vectors in $library" >&2; exit 1; }
done

say "the same as on this machine"
(cd "$work" && PYTHONPATH=$work/native "$host" "$source/tests/aarch64/same.py" write "$work/there.npz")
emulated "$source/tests/aarch64/same.py" compare "$work/there.npz"

say "tests of the decoders"
emulated -m pytest -p no:cacheprovider --quiet -c "$source/pyproject.toml" --rootdir "$source" -m "not slow" \
  "$source"/tests/formats/test_{golden,quantized,coding,sparse_f16,planes}.py

[ "${EMULATE_TORCH:-1}" = 0 ] && exit
say "training"
emulated "$source/tests/aarch64/same.py" images images.npz
for side in 8 24; do emulated -m edgeprune build npz:images.npz --size $side -o images-$side.h5; done
rm -rf "$work"/run-*
# In one process: importing torch is the longest part.
emulated - <<'PYTHON'
import torch

from edgeprune.cli import cli
from edgeprune_runtime.networks.winograd import WinogradConv2d, library

assert library() is not None, "the convolutions in C are not loaded"
layer, images = WinogradConv2d(8, 16).train(), torch.randn(3, 8, 8, 12)
direct = torch.nn.functional.conv2d(images, layer.weight, padding=1)
print(f"convolutions in C and of torch differ by {(layer(images) - direct).abs().max():.1e} at most")
torch.testing.assert_close(layer(images), direct, atol=1e-5, rtol=1e-4)
for model, side, *more in (("resnet9", 8, "--optimizer", "sgd"), ("shufflenet_v2", 24, "--stem", "imagenet")):
    words = ["train", f"images-{side}.h5", "--model", model, "--epochs", "2", "--batch-size", "8", "-o", f"run-{model}"]
    cli([*words, *more], standalone_mode=False)
PYTHON
