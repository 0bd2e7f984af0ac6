"""The decoders in C: compiled where there is a compiler, never needed. All else is in pyproject.toml."""

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class BuildLibrary(build_ext):
    """Builds plain libraries, which ctypes loads: they hold no module for a linker to look for."""

    def get_export_symbols(self, ext):
        """Export what the C code says it exports."""
        return ext.export_symbols


def _kernels(folder, headers=()):
    return Extension(
        f"{folder.split('/', 1)[1].replace('/', '.')}._kernels",
        [f"{folder}/_kernels.c"],
        depends=[f"{folder}/{header}" for header in headers],
        extra_compile_args=["-O3", "-std=c11", "-ffp-contract=fast"],
        optional=True,
    )


setup(
    cmdclass={"build_ext": BuildLibrary},
    ext_modules=[
        _kernels("formats/edgeprune_formats/coding"),
        _kernels("runtime/edgeprune_runtime/decode", ["_kernels_decode.h"]),
    ],
)
