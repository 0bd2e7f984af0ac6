import numpy as np
import pytest
from cached_images import IMAGES
from image_folders import Counted, write_photos


@pytest.fixture
def source(tmp_path):
    return Counted.open(write_photos(tmp_path / "photos", IMAGES))


@pytest.fixture
def expected(source):
    pixels = source.read(np.arange(IMAGES))
    source.reads.clear()
    return pixels


@pytest.fixture
def output(tmp_path):
    return tmp_path / "s.h5"
