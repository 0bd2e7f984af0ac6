"""Commands that take far packs by URL, as a user types them."""

import json
from types import SimpleNamespace

import pytest
import small_builds
import web_server
from PIL import Image

from edgeprune import BuildConfig, build_pack
from edgeprune.inference.labeled import open_labeled
from edgeprune.training.evaluation import TestImages
from edgeprune_formats import RemoteError, open_pack, verify_pack
from edgeprune_formats.packs import remote as far
from edgeprune_formats.remote import receive
from edgeprune_runtime import PackLoader
from edgeprune_runtime.task import Task

pytest.importorskip("aiohttp")
NETWORK = ["--model", "resnet8", "--batch-size", 8, "--device", "cpu", "--epochs", 1]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("far")
    build_pack(small_builds.write_source(folder), folder / "p.h5", BuildConfig(tile="8", device="cpu"))
    return folder / "p.h5"


@pytest.fixture(scope="module")
def running():
    server = web_server.WebServer()
    yield server
    server.stop()


@pytest.fixture
def server(running, pack, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(receive, "PAUSES", (0.0,) * 3)
    # In this process, which takes less time.
    monkeypatch.setattr(far, "examine", lambda path, *, verify: verify_pack(path))
    running.begin_anew()
    running.files["/p.h5"] = pack.read_bytes()
    return running


def secret_url(server):
    return server.url("/p.h5?token=se-cret", user="anna:pass-word@")


def has_secrets(*texts):
    return any(word in str(text) for text in texts for word in ("anna", "pass-word", "se-cret"))


def test_info_and_preview_read_ranges_and_say_how_much(edgeprune, server, pack, tmp_path):
    code, out, err = edgeprune("info", secret_url(server))
    assert (code, err, has_secrets(out)) == (0, "", False)
    assert out.startswith(f"{server.url()}?...: edgepack")
    assert f"  read        {pack.stat().st_size / 1e3:.2f} kB of " in out
    code, out, _ = edgeprune("info", server.url(), "--json")
    facts = json.loads(out)
    assert facts["read_bytes"] <= facts["file_bytes"] == pack.stat().st_size
    assert facts["read_ranges"] >= 1
    assert "was not checked" not in out
    picture = tmp_path / "grid.png"
    code, out, err = edgeprune("preview", server.url(), "-o", picture)
    assert (code, err) == (0, "")
    assert f"{picture}: 8 images, read " in out
    with Image.open(picture) as image:
        assert image.width >= 480
    assert not (tmp_path / "cache").exists()
    assert "its digest was not checked" in edgeprune("info", f"{server.url()}#sha256={'0' * 64}")[1]


def test_without_ranges_info_says_that_it_fetches(edgeprune, server):
    server.has_ranges = False
    code, out, err = edgeprune("info", server.url())
    assert code == 0
    assert err == f"edgeprune: {server.url()}: its server sends no ranges, so all of it is fetched\n"
    assert "  read  " not in out


@pytest.mark.slow
def test_verify_says_where_it_is_kept(edgeprune, server, pack):
    code, out, err = edgeprune("verify", secret_url(server))
    assert (code, err, has_secrets(out)) == (0, "", False)
    assert out.splitlines()[0].startswith(f"{server.url()}?...: sound, ")
    with open_pack(server.url()) as opened:
        assert f"SHA-256 {opened.fetched.sha256}, kept in " in out
    server.files["/p.h5"] = pack.read_bytes()[:-100]
    code, out, err = edgeprune("verify", secret_url(server))
    assert (code, out, has_secrets(err)) == (1, "", False)
    assert err.startswith(f"{server.url()}?...: the file is cut short")


@pytest.mark.parametrize(
    "words", [("sign", "--key", "k"), ("repair", "-o", "x.h5"), ("convert", "-o", "x.h5")]
)
def test_commands_that_need_a_file_say_so(edgeprune, server, words):
    code, out, err = edgeprune(words[0], secret_url(server), *words[1:])
    assert (code, out, has_secrets(err)) == (2, "", False)
    assert "takes a file on this disk; edgeprune verify URL fetches it" in err


def test_no_error_shows_credentials(edgeprune, server, pack, tmp_path):
    url = secret_url(server)
    for words in (
        ("info", url.replace("p.h5", "gone")),
        ("train", "no-such-file", "-o", tmp_path / "r"),
        ("train", server.url(), "--init", url, "-o", tmp_path / "r"),
        ("info", f"{url}#sha256=12"),
        ("plot", url),
    ):
        code, out, err = edgeprune(*words)
        assert code in (1, 2)
        assert len(err.splitlines()) == 1
        assert not has_secrets(out, err), words
    with pytest.raises(RemoteError) as caught:
        TestImages(url.replace("p.h5", "gone"), open_pack(pack).header)
    assert not has_secrets(caught.value)


@pytest.mark.slow
def test_a_run_from_far_packs_notes_url_and_digest(edgeprune, server, pack, tmp_path):
    pytest.importorskip("cryptography")
    edgeprune("keygen", "-o", tmp_path / "maker")
    edgeprune("sign", pack, "--key", tmp_path / "maker")
    server.files["/p.h5.sig"] = (pack.parent / "p.h5.sig").read_bytes()
    url, folder = secret_url(server), tmp_path / "run"
    signed = ("--require-signature", tmp_path / "maker.pub")
    code, out, err = edgeprune("train", url, "--test", url, *NETWORK, *signed, "-o", folder)
    assert (code, err.count("\n"), has_secrets(out + err)) == (0, 1, False)
    assert "has images that the pack was built from" in err
    text = (folder / "config.json").read_text()
    record = json.loads(text)
    with open_pack(server.url()) as opened:
        digest = opened.fetched.sha256
    assert not has_secrets(text)
    assert record["notes"]["fetched"] == [{"url": f"{server.url()}?...", "sha256": digest}]
    assert record["provenance"]["test"] == f"{server.url()}?...#sha256={digest}"
    # It goes on without the network, from the cache; of the signature the last copy is taken.
    server.files = {"/p.h5.sig": 503}
    with pytest.warns(UserWarning, match="the copy in the cache"):
        code, out, err = edgeprune("train", url, "-o", folder, "--resume", "--epochs", 2, *signed)
    assert code == 0, err
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["test_loss"] is not None
    code, out, err = edgeprune("evaluate", folder, f"{url}#sha256={digest}", "--json", tmp_path / "e.json")
    assert (code, has_secrets(out, err, (tmp_path / "e.json").read_text())) == (0, False)
    assert err.endswith(
        "built from the same images as the training pack; accuracy on them says little of others\n"
    )
    assert err.count("\n") == 1
    code, out, err = edgeprune("predict", folder, f"{url}#sha256={digest}", "--top", 1)
    assert (code, err, has_secrets(out)) == (0, "", False)
    assert out.startswith(f"{server.url()}?...[0]: ")


def test_a_far_pack_that_is_not_what_was_signed_is_refused(edgeprune, server, pack, tmp_path, monkeypatch):
    pytest.importorskip("cryptography")
    edgeprune("keygen", "-o", tmp_path / "maker")
    words = ("verify", server.url(), "--key", tmp_path / "maker.pub")
    code, _, err = edgeprune(*words)
    assert (code, err) == (
        1,
        f"edgeprune: error: {server.url()}: has no signature; get p.h5.sig from its maker\n",
    )
    assert edgeprune("sign", pack, "--key", tmp_path / "maker", "--force")[0] == 0
    signature = json.loads((pack.parent / "p.h5.sig").read_text())
    server.files["/p.h5.sig"] = json.dumps(signature).encode()
    code, out, _ = edgeprune(*words)
    assert (code, out.splitlines()[0]) == (0, f"{server.url()}: signed by {signature['key']}")
    code, _, err = edgeprune("verify", f"{server.url()}#sha256={'0' * 64}", "--key", tmp_path / "maker.pub")
    assert code == 1
    assert "0" * 64 in err
    assert signature["sha256"] in err
    # Without the cache, in which the content that was signed is.
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "other"))
    server.files["/p.h5"] = pack.read_bytes() + b"x"
    code, out, err = edgeprune(*words)
    assert (code, out) == (1, "")
    assert f"and {signature['sha256']} was asked for" in err
    forged = {**signature, "sha256": "1" * 64}
    server.files["/p.h5.sig"] = json.dumps(forged).encode()
    code, _, err = edgeprune(*words)
    assert code == 1
    assert "its signature is not one of SHA256:" in err


def test_a_loader_takes_far_packs(server, pack):
    batches = list(PackLoader([server.url(), pack], 16, backend="scipy"))
    with open_pack(pack) as local:
        assert sum(len(labels) for _, labels in batches) == 2 * len(local)


def test_the_page_of_a_pack_is_tested_on_a_far_one(server, pack):
    with open_pack(pack) as local:
        model = SimpleNamespace(image_shape=local.header.shape, path=pack, task=Task())
        tried = open_labeled(server.url(), model)
        assert tried.labels.tolist() == local.labels.tolist()
