import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import SignatureError
from edgeprune_runtime.signatures import (
    ATTRIBUTE,
    check_signature,
    make_key,
    sign_file,
    signature_path,
)

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa


@pytest.fixture
def key(tmp_path):
    make_key(tmp_path / "k")
    return tmp_path / "k"


@pytest.fixture
def public(key):
    return key.with_name("k.pub")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "p.h5"
    path.write_bytes(os.urandom(3_000_000))
    return path


@pytest.fixture
def no_attributes(monkeypatch):
    """A disk without extended attributes, so that the file beside the pack is all there is."""

    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "setxattr", refuse)
    monkeypatch.setattr(os, "getxattr", refuse)


def test_a_system_without_extended_attributes_signs_as_well(file, key, public, monkeypatch):
    monkeypatch.delattr(os, "setxattr", raising=False)
    monkeypatch.delattr(os, "getxattr", raising=False)
    made, in_attribute = sign_file(file, key)
    assert not in_attribute
    assert check_signature(file, public) == made


def test_what_was_signed_is_accepted_under_any_name(file, key, public, tmp_path, no_attributes):
    before = file.read_bytes()
    made, in_attribute = sign_file(file, key)
    assert not in_attribute
    assert check_signature(file, public) == made
    assert file.read_bytes() == before
    file.rename(tmp_path / "q.h5")
    signature_path(file).rename(tmp_path / "q.h5.sig")
    assert check_signature(tmp_path / "q.h5", public) == made


@pytest.mark.parametrize("place", [0, 1_500_000, -1])
def test_one_changed_bit_is_refused(file, key, public, place, no_attributes):
    sign_file(file, key)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(SignatureError, match=r"p.h5: is not the file that SHA256:\S+ has signed"):
        check_signature(file, public)


@pytest.mark.parametrize(
    "change", [lambda content: content[:-1], lambda content: content + b"\0", lambda _: b""]
)
def test_another_length_is_refused(file, key, public, change, no_attributes):
    sign_file(file, key)
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(SignatureError, match="is not the file"):
        check_signature(file, public)


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "\u0660" * 64},
        {"sha256": "ab"},
        {"sha256": "ab" * 32},
        {"sha256": ""},
        {"signature": "A" * 88},
        {"signature": "\x1b[2J"},
        {"key": "SHA256:\x1b[2J"},
        {"key": "a" * 5000},
        {"\n": 1},
        {"a" * 5000: 1},
    ],
)
def test_what_stands_beside_the_signature_counts_as_well(file, key, public, change, no_attributes):
    sign_file(file, key)
    beside = signature_path(file)
    beside.write_text(json.dumps(json.loads(beside.read_bytes()) | change))
    with pytest.raises(SignatureError, match=r"p\.h5: (its signature is damaged|is not the file)") as caught:
        check_signature(file, public)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_a_file_without_a_signature(file, public, no_attributes):
    with pytest.raises(SignatureError, match=r"p.h5: has no signature; get p.h5.sig from its maker"):
        check_signature(file, public)


def test_the_signature_of_another_key(file, key, tmp_path, no_attributes):
    sign_file(file, key)
    make_key(tmp_path / "other")
    with pytest.raises(
        SignatureError, match=r"signed by SHA256:\S+, and .*other.pub is SHA256:\S+; do not use"
    ):
        check_signature(file, tmp_path / "other.pub")


def test_the_signature_of_another_file(file, key, public, tmp_path, no_attributes):
    other = tmp_path / "other.h5"
    other.write_bytes(b"other")
    sign_file(other, key)
    signature_path(other).rename(signature_path(file))
    with pytest.raises(SignatureError, match="is not the file"):
        check_signature(file, public)


def test_a_claim_to_be_of_the_key_is_not_enough(file, key, public, tmp_path, no_attributes):
    made, _ = sign_file(file, key)
    make_key(tmp_path / "other")
    forged, _ = sign_file(file, tmp_path / "other", replace_existing=True)
    content = json.loads(signature_path(file).read_text())
    assert content["key"] == forged.key
    signature_path(file).write_text(json.dumps({**content, "key": made.key}))
    with pytest.raises(SignatureError, match="is not the file"):
        check_signature(file, public)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"[" * 60_000, b'{"key": 3}', b"\xff", b"x" * 70_000],
)
def test_a_damaged_signature_is_one_line(file, public, content, no_attributes):
    signature_path(file).write_bytes(content)
    with pytest.raises(SignatureError, match=r"damaged|cannot be read") as caught:
        check_signature(file, public)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"signature": "?"}, {"signature": ""}, {"algorithm": "none"}, {"more": 1}]
)
def test_a_forged_entry_is_refused(file, key, public, changes, no_attributes):
    sign_file(file, key)
    content = json.loads(signature_path(file).read_text())
    signature_path(file).write_text(json.dumps({**content, **changes}))
    with pytest.raises(SignatureError, match=r"is not the file|damaged"):
        check_signature(file, public)


def test_the_extended_attribute_stands_in_for_the_file_beside(file, key, public):
    made, in_attribute = sign_file(file, key)
    if not in_attribute:
        pytest.skip("this disk has no extended attributes")
    signature_path(file).unlink()
    assert check_signature(file, public) == made
    os.setxattr(file, ATTRIBUTE, b"{}")
    with pytest.raises(SignatureError, match="damaged"):
        check_signature(file, public)


def test_a_key_is_its_owners_alone_and_never_replaced(key, public):
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    content = key.read_bytes()
    with pytest.raises(ConfigError, match=r"k exists; a key is never replaced"):
        make_key(key)
    key.unlink()
    with pytest.raises(ConfigError, match=r"k.pub exists"):
        make_key(key)
    assert content not in public.read_bytes()


def write(path, content):
    path.write_bytes(content)
    return path


def test_keys_of_other_programs(file, tmp_path, no_attributes):
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    made, _ = sign_file(file, write(tmp_path / "id", private))
    assert check_signature(file, write(tmp_path / "id.pub", public + b" me@home\n")) == made


def wrong_keys(folder):
    other = rsa.generate_private_key(65537, 2048)
    plain, locked = serialization.NoEncryption(), serialization.BestAvailableEncryption(b"secret")
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    own = ed25519.Ed25519PrivateKey.generate()
    return {
        "no such file": (folder / "missing", "cannot be read"),
        "folder": (folder / "folder", "cannot be read"),
        "pipe": (folder / "pipe", "cannot be read"),
        "text": (write(folder / "text", b"hello"), "not a key that can be read"),
        "rsa": (write(folder / "rsa", other.private_bytes(pem, private, plain)), "not an Ed25519 key"),
        "locked": (write(folder / "locked", own.private_bytes(pem, private, locked)), "has a passphrase"),
    }


@pytest.mark.parametrize("kind", ["no such file", "folder", "pipe", "text", "rsa", "locked"])
def test_keys_that_cannot_sign_are_one_line(file, tmp_path, kind):
    path, words = wrong_keys(tmp_path)[kind]
    with pytest.raises(ConfigError, match=words) as caught:
        sign_file(file, path)
    assert "\n" not in str(caught.value)
    assert not signature_path(file).exists()


def test_a_private_key_in_the_place_of_a_public_one(file, key):
    sign_file(file, key)
    with pytest.raises(ConfigError, match=r"is a private key, which stays with its owner"):
        check_signature(file, key)


@pytest.mark.slow
def test_without_cryptography_it_says_what_installs_it(file, key):
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path; from edgeprune_formats import ConfigError\n"
        "from edgeprune_runtime.signatures import check_signature\n"
        "try: check_signature(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, file, key], capture_output=True, text=True, check=True)
    assert done.stdout == "signatures need cryptography; pip install 'edgeprune[sign]'\n"


def test_what_is_no_file_cannot_be_signed(key, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path / "pipe", "not a regular file"), (Path("/nowhere"), "cannot be read")):
        with pytest.raises(SignatureError, match=words):
            sign_file(path, key)
