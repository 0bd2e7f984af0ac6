"""Files that are given for weights or models and are none."""

import os

import h5py
import torch

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
# By name: what an error must say of each.
WORDS = {
    "pipe": "not a regular file, but a pipe or device; copy what it gives into a file",
    "device": "not a regular file, but a pipe or device",
    "empty": "empty; copy it again",
    "pointer": "a pointer of Git LFS in place of the file; fetch it: git lfs pull",
    "pickle": "a pickle of torch.save, which could run code and is not opened",
    "old pickle": "a pickle of torch.save",
    "hdf5": "HDF5, such as a pack or scores are",
    "page": "a web page",
}


def make(kind, path):
    """Write a file of a kind of `WORDS` at a path."""
    weights = {"fc.weight": torch.zeros(2, 2)}
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "hdf5":
        with h5py.File(path, "w"):
            pass
    elif "pickle" in kind:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "pickle")
    else:
        path.write_text({"empty": "", "pointer": POINTER, "page": "<!DOCTYPE html><html>404</html>"}[kind])
    return path
