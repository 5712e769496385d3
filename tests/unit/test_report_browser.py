# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Reports in headless Chromium: drawn, silent, legible by day and night, on a phone and a desk."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.analyses import analysis_of, random_flows
from vnethash.analysis.report import html
from vnethash.rss.config import RssConfig

PHONE, DESK = 390, 1280
SIZES = pytest.mark.parametrize("width", [PHONE, DESK])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


@pytest.fixture(name="browser", scope="module")
def _browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("VNETHASH_REQUIRE_KERNEL"):
            pytest.fail("VNETHASH_REQUIRE_KERNEL is set, but there is no chromium", pytrace=False)
        pytest.skip("no chromium")
    with sync_playwright() as playwright:
        # Its sandbox wants a user that is not root; the page is ours.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(name="file", scope="module")
def _file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    analysis = analysis_of(RssConfig.default(8), random_flows(500), windows=40)
    table = [(entry + (entry % 9 == 0)) % 8 for entry in range(128)]
    after = analysis.under(analysis.rss.replace(indirection_table=table))
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(html(analysis, after))
    return file


class Visit:
    """A page as one reader sees it, and what it said and asked for."""

    def __init__(self, browser: Browser, file: Path, width: int, scheme: Any = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme=scheme
        )
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())

    def ask(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


@SIZES
@SCHEMES
def test_drawn_silent_and_inside_of_the_window(
    browser: Browser, file: Path, width: int, scheme: str
) -> None:
    with Visit(browser, file, width, scheme) as visit:
        assert visit.said == []
        assert visit.asked == [file.as_uri()]
        assert visit.ask("document.documentElement.scrollWidth") == width
        shown = """[...document.querySelectorAll('figure svg')].filter(s => s.checkVisibility())
            .map(s => [s.getBoundingClientRect().width,
                       [...s.querySelectorAll('path, line')].filter(
                           m => m.getBoundingClientRect().width > 3).length])"""
        drawings = visit.ask(shown)
        assert len(drawings) == 5
        for wide, marks in drawings:
            assert width * 0.6 < wide <= width
            assert marks >= 2
        # Text of pictures is neither blown up nor too small to be read.
        sizes = """[...document.querySelectorAll('figure svg text')]
            .filter(t => t.checkVisibility()).map(t => t.getBoundingClientRect().height)"""
        heights = visit.ask(sizes)
        assert len(heights) > 100
        assert all(height > 8 for height in heights)


@SCHEMES
def test_colours_stand_out(browser: Browser, file: Path, scheme: str) -> None:
    """WCAG 2.2, 1.4.3 and 1.4.11: 4.5 to 1 for text, 3 to 1 for what pictures tell by."""
    with Visit(browser, file, DESK, scheme) as visit:
        colour = "getComputedStyle(document.querySelector('{}')).{}"
        page = visit.ask(colour.format("body", "backgroundColor"))
        assert (luminance(page) > 0.5) == (scheme == "light")
        for what, least in (("td", 4.5), ("th", 4.5), ("figcaption", 4.5)):
            assert contrast(page, visit.ask(colour.format(what, "color"))) >= least
        marks = "[...new Set([...document.querySelectorAll('.wide svg :is(path, line, text)')]" + (
            ".filter(m => m.querySelector('title') || m.tagName == 'text')"
            ".map(m => getComputedStyle(m)).filter(s => s.opacity == 1)"
            ".map(s => s.fill == 'none' ? s.stroke : s.fill))]"
        )
        colours = visit.ask(marks)
        assert len(colours) >= 11
        for mark in colours:
            assert mark.startswith("rgb("), "a colour that the page does not know"
            assert contrast(page, mark) >= 3


def test_pictures_follow_the_night(browser: Browser, file: Path) -> None:
    with Visit(browser, file, DESK, "light") as visit:
        bar = "getComputedStyle([...document.querySelectorAll('.wide path')].find(p => " + (
            "/^queue 0, now/.test(p.textContent))).fill"
        )
        day = visit.ask(bar)
        visit.page.emulate_media(color_scheme="dark")
        assert visit.ask(bar) != day


def test_marks_tell_their_numbers(browser: Browser, file: Path) -> None:
    with Visit(browser, file, DESK) as visit:
        titles = visit.ask("[...document.querySelectorAll('svg title')].map(t => t.textContent)")
        assert sum(title.startswith("queue 1, planned: ") for title in titles) == 2
        assert sum(title.startswith("entry 77, queue ") for title in titles) >= 4


def test_the_policy_holds(browser: Browser, file: Path, tmp_path: Path) -> None:
    """Even where something foreign gets into the page, it is neither run nor fetched."""
    broken = tmp_path / "broken.html"
    intruder = (
        "<script>document.title = 'run'</script><img src='http://192.0.2.1/a.png'>"
        "<link rel='stylesheet' href='http://192.0.2.1/a.css'></body>"
    )
    broken.write_text(file.read_text().replace("</body>", intruder))
    with Visit(browser, broken, DESK) as visit:
        assert visit.page.title() != "run"
        assert len([text for text in visit.said if "Content Security Policy" in text]) == 3


def test_for_a_screen_reader(browser: Browser, file: Path) -> None:
    """Each picture is one image with a name, and its numbers are a table."""
    with Visit(browser, file, DESK) as visit:
        tree = visit.page.locator("body").aria_snapshot()
        assert tree.count("- img ") == 5
        assert '- img "Load of the queues; the dashed line is the mean"' in tree
        assert '- table "Load of the queues"' in tree or "- caption: Load of the queues" in tree


def luminance(colour: str) -> float:
    """Of ``rgb(r, g, b)``, as WCAG 2.2 defines it."""
    channels = [int(channel) / 255 for channel in colour[4:-1].split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(
        weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
