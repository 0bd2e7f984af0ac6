"""Files that are fetched into the cache of a test."""

import hashlib

import numpy as np

from edgeprune_formats.remote.fetch import fetch
from edgeprune_formats.remote.locations import as_remote

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = CONTENT[::-1]


def digest(content):
    return hashlib.sha256(content).hexdigest()


def got(url):
    """Fetch a file; give its content, of which the copy says the right digest."""
    copy = fetch(as_remote(url))
    content = copy.path.read_bytes()
    assert copy.sha256 == digest(content)
    return content


def kept(cache):
    return [path for path in (cache / "files").rglob("*") if path.is_file() and path.suffix != ".json"]
