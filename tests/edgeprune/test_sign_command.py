"""``keygen``, ``sign``, ``verify --key`` and ``train --require-signature``, as a user types them."""

import json
import os

import pytest
import small_builds

from edgeprune import BuildConfig, build_pack
from edgeprune_runtime.signatures import ATTRIBUTE

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    build_pack(small_builds.write_source(folder), folder / "p.h5", BuildConfig(tile="8", device="cpu"))
    return folder / "p.h5"


@pytest.fixture
def pack(built, tmp_path):
    (tmp_path / "p.h5").write_bytes(built.read_bytes())
    return tmp_path / "p.h5"


def test_from_a_key_to_a_checked_pack(edgeprune, pack, tmp_path):
    key = tmp_path / "maker.key"
    code, said, _ = edgeprune("keygen", "-o", key)
    name = said.split()[-1]
    assert code == 0
    assert name.startswith("SHA256:")
    code, said, _ = edgeprune("sign", pack, "--key", key)
    assert code == 0
    assert said.startswith(f"{pack}: signed by {name} in {pack}.sig")
    code, said, _ = edgeprune("verify", pack, "--key", f"{key}.pub")
    assert code == 0
    assert said.splitlines()[0] == f"{pack}: signed by {name}"
    assert "sound" in said


def test_a_pack_of_somebody_else_is_refused(edgeprune, pack, tmp_path):
    for name in ("mine", "theirs"):
        edgeprune("keygen", "-o", tmp_path / name)
    edgeprune("sign", pack, "--key", tmp_path / "theirs")
    code, said, err = edgeprune("verify", pack, "--key", tmp_path / "mine.pub")
    assert (code, said) == (1, "")
    assert "signed by" in err
    assert len(err.splitlines()) == 1


@pytest.fixture
def keys(edgeprune, tmp_path):
    """The fingerprints of two keys, by their files."""
    return {name: edgeprune("keygen", "-o", tmp_path / name)[1].split()[-1] for name in ("mine", "theirs")}


@pytest.mark.parametrize("kept", ["beside it", "in the attribute"])
def test_a_signature_by_another_key_is_not_replaced(edgeprune, pack, keys, tmp_path, kept):
    assert edgeprune("sign", pack, "--key", tmp_path / "theirs")[0] == 0
    signature = tmp_path / "p.h5.sig"
    if kept == "in the attribute":
        if not hasattr(os, "listxattr") or ATTRIBUTE not in os.listxattr(pack):
            pytest.skip("this file system has no extended attributes")
        signature.unlink()
    code, said, err = edgeprune("sign", pack, "--key", tmp_path / "mine")
    assert (code, said) == (2, "")
    told = f"is signed by {keys['theirs']}, beside it or in its extended attribute, another key than "
    told += f"{keys['mine']}; pass --force to replace it"
    assert err == f"edgeprune: error: {pack}: {told}\n"
    assert signature.exists() == (kept == "beside it")
    assert edgeprune("sign", pack, "--key", tmp_path / "theirs")[0] == 0
    assert edgeprune("sign", pack, "--key", tmp_path / "mine", "--force")[0] == 0
    assert edgeprune("verify", pack, "--key", tmp_path / "mine.pub")[0] == 0


def test_what_is_no_signature_of_ours_is_not_replaced(edgeprune, pack, keys, tmp_path):
    signature = tmp_path / "p.h5.sig"
    signature.write_text("of minisign")
    code, _, err = edgeprune("sign", pack, "--key", tmp_path / "mine")
    assert code == 2
    assert f"{pack}: its signature is damaged" in err
    assert "--force" in err
    assert signature.read_text() == "of minisign"
    signature.unlink()
    signature.symlink_to(tmp_path / "elsewhere")
    code, _, err = edgeprune("sign", pack, "--key", tmp_path / "mine")
    assert (code, "remove it" in err) == (2, True)
    assert signature.is_symlink()
    signature.unlink()
    long = tmp_path / f"{'n' * 250}.h5"
    long.write_bytes(pack.read_bytes())
    code, _, err = edgeprune("sign", long, "--key", tmp_path / "mine")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "File name too long; rename" in err
    signature.mkdir()
    code, _, err = edgeprune("sign", pack, "--key", tmp_path / "mine")
    assert (code, "remove it" in err) == (2, True)


def test_a_damaged_pack_is_not_signed(edgeprune, pack, tmp_path):
    edgeprune("keygen", "-o", tmp_path / "key")
    damaged = tmp_path / "d.h5"
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 255
    damaged.write_bytes(content)
    code, _, err = edgeprune("sign", damaged, "--key", tmp_path / "key")
    assert code == 1
    assert str(damaged) in err
    assert not (tmp_path / "d.h5.sig").exists()


def test_a_key_that_exists_stays(edgeprune, tmp_path):
    (tmp_path / "key").write_text("mine")
    code, _, err = edgeprune("keygen", "-o", tmp_path / "key")
    assert code == 2
    assert "exists; a key is never replaced" in err
    assert (tmp_path / "key").read_text() == "mine"


@pytest.mark.parametrize("test", [False, True])
def test_training_from_a_pack_that_is_not_signed_never_opens_it(edgeprune, pack, tmp_path, test):
    edgeprune("keygen", "-o", tmp_path / "key")
    edgeprune("sign", pack, "--key", tmp_path / "key")
    other = tmp_path / "other.h5"
    other.write_bytes(b"hostile")
    words = [pack, "--test", other] if test else [other]
    code, _, err = edgeprune(
        "train", *words, "-o", tmp_path / "run", "--require-signature", tmp_path / "key.pub"
    )
    assert code == 1
    assert f"{other}: has no signature" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_training_from_a_signed_pack(edgeprune, pack, tmp_path):
    edgeprune("keygen", "-o", tmp_path / "key")
    edgeprune("sign", pack, "--key", tmp_path / "key")
    options = ["--model", "resnet8", "--epochs", 1, "--batch-size", 16, "--device", "cpu"]
    code, said, _ = edgeprune(
        "train", pack, "-o", tmp_path / "run", "--require-signature", tmp_path / "key.pub", *options
    )
    assert code == 0
    assert said.startswith(f"{pack}: signed by SHA256:")
    name = said.splitlines()[0].split()[-1]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["notes"]["signed_by"] == name
    code, said, _ = edgeprune(
        "train", pack, "-o", tmp_path / "run", "--require-signature", tmp_path / "key.pub", "--resume"
    )
    assert code == 0
    assert said.startswith(f"{pack}: signed by {name}")
    code, said, err = edgeprune("train", pack, "-o", tmp_path / "run", "--resume")
    assert (code, said, len(err.splitlines())) == (2, "", 1)


def test_resuming_without_the_signature_is_refused(edgeprune, pack, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"notes": {"signed_by": "SHA256:abc"}}))
    code, said, err = edgeprune("train", pack, "-o", run, "--resume")
    assert (code, said) == (2, "")
    assert err == (
        f"edgeprune: error: {run} takes packs signed by SHA256:abc alone; resume with --require-signature "
        "and the file of that public key\n"
    )
    # Of a forged record, whatever it holds.
    for value in ("a\nb", 1, [], False):
        (run / "config.json").write_text(json.dumps({"notes": {"signed_by": value}}))
        code, _, err = edgeprune("train", pack, "-o", run, "--resume")
        assert (code, len(err.splitlines())) == (2, 1)
        assert "resume with --require-signature" in err
