"""Far files: named by URL, fetched once to a cache folder, or read in ranges.

Needs fsspec, and for http and https aiohttp: the extra ``remote``. They are loaded when a far file is asked
for.
"""
