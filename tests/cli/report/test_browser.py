"""The report in a real browser: drawn, silent, asking for nothing, at home on a phone, deaf to what documents say."""

import pytest
from PIL import Image

from cli.report.write import write_report
from tests.cli.report.conftest import ATTACK

FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
DRAWN = "[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))"
MARKS = "document.querySelectorAll('.plot .point, .plot .sankey-link, .plot .js-line').length"


@pytest.fixture(scope="session")
def address(attacked):
    return write_report([attacked]).as_uri()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_opens_from_disk_without_a_word_or_a_request_and_every_chart_is_drawn(browser, address, width, dark):
    browser.open(address, width, dark=dark)
    assert browser.console == []
    assert browser.requests == [address]
    assert browser.run(DRAWN)
    assert browser.run("document.querySelectorAll('.plot').length") > 20
    assert browser.run(MARKS) > 100
    assert browser.run(FITS)
    ground = browser.run("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")


def test_a_document_with_scripts_does_nothing_and_is_shown_as_it_is(browser, address):
    browser.open(address)
    assert browser.run("document.title") == "attacked"  # the run's name
    assert browser.run("document.querySelectorAll('iframe, img').length") == 0
    assert browser.run("document.scripts.length") == 3
    said = browser.run("document.querySelector('main').textContent")
    assert ATTACK in said
    assert "Far too <b>short</b> to keep." in said


def test_even_markup_that_got_through_could_not_run_or_load_anything(browser, address, attacked, tmp_path):
    hole = "<script>document.title = 'run'</script><img src='https://192.0.2.1/x' onerror=\"document.title = 'run'\">"
    page = (attacked / "report.html").read_text()
    (tmp_path / "hole.html").write_text(page.replace("<main>", f"<main>{hole}"))
    browser.open((tmp_path / "hole.html").as_uri())
    assert browser.run("document.title") == "attacked"
    assert browser.refused == ["csp"]  # the image
    assert any("script-src" in message for message in browser.console)


def test_charts_follow_a_change_to_dark(browser, address):
    color = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    browser.open(address)
    light = browser.run(color)
    browser._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    redrawn = f"new Promise(done => {{ const look = () => {color} !== '{light}' ? done(true) : setTimeout(look, 50)"
    assert browser.run(redrawn + "; look() })")


def test_it_prints(browser, address):
    browser.open(address)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type /Page/") > 3


def test_every_chart_has_a_table_with_its_numbers(browser, address):
    browser.open(address)
    assert browser.run("[...document.querySelectorAll('figure')].every(f => f.querySelector('td'))")
    assert browser.run("[...document.querySelectorAll('.plot')].every(p => p.ariaLabel.includes('table below'))")


def test_a_comparison_opens_too(browser, attacked, tmp_path):
    place = write_report([attacked, attacked.parent / "attacked"], tmp_path / "both.html")
    browser.open(place.as_uri())
    assert browser.console == []
    assert browser.requests == [place.as_uri()]
    assert browser.run(DRAWN)


def test_a_screenshot_shows_the_charts_colours(browser, address, tmp_path):
    browser.open(address, 800, 1200)
    browser.screenshot(tmp_path / "shot.png")
    shot = Image.open(tmp_path / "shot.png").convert("RGB")
    assert shot.size == (800, 1200)
    colors = {color for count, color in shot.getcolors(1 << 20) if count > 500}
    assert {(0, 114, 178), (213, 94, 0)} <= colors  # kept and dropped in the first chart
