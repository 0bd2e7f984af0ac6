"""The kernels in C: compiled where there is a compiler, never needed. All else is in pyproject.toml."""

import os

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext


class BuildLibrary(build_ext):
    """Builds plain libraries, which ctypes loads: they hold no module, and are for any version of Python."""

    def get_export_symbols(self, ext):
        """Export what the C code says it exports."""
        return ext.export_symbols

    def get_ext_filename(self, fullname):
        """Return the library's name without the version of Python."""
        return f"{fullname.replace('.', '/')}.so"


class Wheel(bdist_wheel):
    """A wheel for one kind of processor and any version of Python 3."""

    def get_tag(self):
        """Return the tags of Python, ABI and platform."""
        return "py3", "none", super().get_tag()[2]


def _kernels(folder, sources, headers, contract):
    return Extension(
        f"{folder.split('/', 1)[1].replace('/', '.')}._kernels",
        [f"{folder}/{source}" for source in sources],
        depends=[f"{folder}/{header}" for header in headers],
        extra_compile_args=["-O3", "-std=c11", f"-ffp-contract={contract}"],
        extra_link_args=["-Wl,--strip-debug"],
        # A release must not lack them.
        optional=os.environ.get("EDGEPRUNE_KERNELS") != "required",
    )


setup(
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": Wheel},
    ext_modules=[
        # What is encoded is the same to the bit on every machine.
        _kernels(
            "formats/edgeprune_formats/coding", ["_kernels.c", "_encode.c"], ["_format.h", "_pixels.h"], "off"
        ),
        _kernels("runtime/edgeprune_runtime/decode", ["_kernels.c"], ["_kernels_decode.h"], "fast"),
        _kernels("runtime/edgeprune_runtime/networks", ["_winograd.c"], [], "fast"),
    ],
)
