"""The decoders in C: compiled where there is a compiler, and never needed. Everything else is in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "edgeprune_formats._kernels",
            ["formats/edgeprune_formats/_kernels.c"],
            extra_compile_args=["-O3", "-std=c11"],
            optional=True,
        )
    ]
)
