"""The page of a pack in Chromium: seen, clicked through, on a desk and on a phone."""

import chromium
import pytest
import reported
from target_packs import target_pack

from edgeprune.inference.predictors import open_predictor
from edgeprune.report.page import look_at_run, write_report
from edgeprune.report.preview import open_originals
from edgeprune_formats import open_pack

pytestmark = pytest.mark.slow
SEEN = ".filter((one) => one.offsetHeight)"
SHOWN = f"[...document.querySelectorAll('main > section')]{SEEN}.map((one) => one.id)"
SECTIONS = ["pack", "images", "issues", "statistics", "training", "provenance"]
BACK = "getComputedStyle(document.body).backgroundColor"
DARK, LIGHT = "rgb(21, 27, 29)", "rgb(251, 252, 252)"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with chromium.opened(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    trained = reported.pack_and_run(tmp_path_factory.mktemp("reported"))
    path = tmp_path_factory.mktemp("report") / "report.html"
    with open_pack(trained / "pack.h5") as pack:
        training = look_at_run(pack, trained / "run", open_predictor(trained / "run"), None)
        source = open_originals(pack, f"npz:{trained / 'images.npz'}")
        write_report(pack, path, source=source, training=training)
    return path


def tab(page, name):
    page.click(f"nav a[href='#{name}']")
    assert page.run(SHOWN) == [name]


def test_clicked_through(page, report):
    page.open(report)
    assert page.run(SHOWN) == ["pack"]
    for name in reversed(SECTIONS):
        tab(page, name)
        assert page.run("document.querySelector('nav [aria-current]').hash") == f"#{name}"
    tab(page, "images")
    groups = f"[...document.querySelectorAll('#images .group')]{SEEN}.length"
    assert page.run(groups) == 3
    page.run("document.querySelector('#filter select').value = '1'")
    page.run("document.querySelector('#filter select').dispatchEvent(new Event('change'))")
    assert page.run(groups) == 1
    page.click("#images .group:not([hidden]) .card")
    assert page.run("document.querySelectorAll('#large[open] img').length") == 3
    assert page.run("document.querySelector('#large h2').textContent").startswith("1, row ")
    wide = "document.querySelector('#large img').getBoundingClientRect().width"
    assert page.run(wide) > 150
    page.press("Escape", 27)
    page.wait("!document.querySelector('#large[open]')")
    assert page.run("[...document.images].every((one) => one.naturalWidth || !one.complete)")
    assert page.errors == []
    assert set(page.requests) == {report.as_uri(), *(one for one in page.requests if one[:5] == "data:")}
    sent = page.run("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'blocked')")
    assert sent == "blocked"


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1100, False)])
def test_it_fits_in_dark_and_light(page, report, width, dark):
    page.open(report, width=width, dark=dark)
    for name in SECTIONS:
        tab(page, name)
        assert page.run(OVERFLOW) == 0, name
    assert page.run(BACK) == (DARK if dark else LIGHT)
    page.click("#theme")
    assert page.run(BACK) == (LIGHT if dark else DARK)


def test_it_is_read_without_scripts(page, report):
    page.open(report, width=390, script=False)
    assert page.run(SHOWN) == SECTIONS
    assert page.run(OVERFLOW) == 0
    assert page.run(f"[...document.querySelectorAll('button')]{SEEN}.length") == 0
    assert page.run("document.querySelector('#filter').offsetHeight") == 0


def test_what_strangers_wrote_does_not_run(page, tmp_path):
    attack = "<img src=x onerror='window.hacked=1'></script><script>window.hacked=1</script><b>"
    pack = target_pack(tmp_path / "p.h5", class_names=(attack, "b", attack * 9))
    write_report(open_pack(pack), tmp_path / "r.html")
    page.open(tmp_path / "r.html", width=390)
    for name in ("images", "statistics"):
        tab(page, name)
        assert page.run(OVERFLOW) == 0
    assert page.run("[window.hacked ?? 0, document.querySelectorAll('b').length]") == [0, 0]
    assert page.errors == []
