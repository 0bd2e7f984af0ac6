"""The kernels in C: compiled where there is a compiler, never needed. All else is in pyproject.toml."""

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class BuildLibrary(build_ext):
    """Builds plain libraries, which ctypes loads: they hold no module for a linker to look for."""

    def get_export_symbols(self, ext):
        """Export what the C code says it exports."""
        return ext.export_symbols


def _kernels(folder, sources, headers, contract):
    return Extension(
        f"{folder.split('/', 1)[1].replace('/', '.')}._kernels",
        [f"{folder}/{source}" for source in sources],
        depends=[f"{folder}/{header}" for header in headers],
        extra_compile_args=["-O3", "-std=c11", f"-ffp-contract={contract}"],
        optional=True,
    )


setup(
    cmdclass={"build_ext": BuildLibrary},
    ext_modules=[
        # What is encoded is the same to the bit on every machine.
        _kernels("formats/edgeprune_formats/coding", ["_kernels.c", "_encode.c"], ["_format.h"], "off"),
        _kernels("runtime/edgeprune_runtime/decode", ["_kernels.c"], ["_kernels_decode.h"], "fast"),
    ],
)
