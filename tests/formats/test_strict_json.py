import json
import os
from pathlib import Path

import pytest

from edgeprune_formats.files import read_regular
from edgeprune_formats.limits import MAX_NESTING
from edgeprune_formats.strict_json import parse_json


@pytest.mark.parametrize("raw", [b"{}", b"[1, 2.5, null]", '{"ü": "x"}'.encode(), b"3"])
def test_json_is_read(raw):
    parse_json(raw)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b"\xff", "decode"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ("{}".encode("utf-16"), "decode"),
        ("{}".encode("utf-16-le"), "Expecting|Extra data"),
        (b"NaN", "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b"1e999", "not JSON compliant"),
        (b'{"a": 1, "a": 1}', "'a' twice"),
        (b'[{"x": {"b": 1, "c": 2, "b": 3}}]', "'b' twice"),
        (rb'"\ud800"', "surrogates not allowed"),
        (b"1" * 5000, "digits"),
        (b"1" * 400, "a number is too large"),
        (b"[" * (MAX_NESTING + 1) + b"]" * (MAX_NESTING + 1), "nested deeper than 64"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested deeper than 64"),
        (b"[" * 200_000, "nested deeper than 64"),
    ],
)
def test_what_is_not_sound_is_refused(raw, words):
    with pytest.raises(ValueError, match=words):
        parse_json(raw)


@pytest.mark.parametrize("name", ["a" * 10**6, "\x1b[2J"])
def test_a_name_in_a_message_is_short_and_harmless(name):
    with pytest.raises(ValueError, match=r"twice|\.\.\.$") as caught:
        parse_json(b'{"%b": 1, "%b": 1}' % ((json.dumps(name)[1:-1].encode(),) * 2))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 400


def test_nesting_up_to_the_bound_is_read():
    parse_json(b"[" * MAX_NESTING + b"1" + b"]" * MAX_NESTING)


def test_a_regular_file_is_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 B"):
        read_regular(path, 4)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(path, 10)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(name):
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(Path(name), 10)
