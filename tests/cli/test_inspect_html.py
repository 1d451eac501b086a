"""The page that `inspect --html` writes: whole in itself, and at work in a browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from support.golden_cases import GOLDENS

from caffeconv.cli import main
from caffeconv.cli.show.inspect_html import groups

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

INCEPTION = GOLDENS / "nets" / "inception"
BROKEN = GOLDENS / "errors" / "fc6_after_padded_1x1"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")


def write_page(folder: Path, case: Path) -> Path:
    out = folder / f"{case.name}.html"
    files = [str(case / "net.prototxt"), str(case / "weights.caffemodel")]
    CliRunner().invoke(main, ["inspect", "-q", *files, "--html", str(out)])
    return out


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    text = write_page(tmp_path, INCEPTION).read_text()
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=\"(?!data:)", text)
    assert "default-src 'none'" in text


def test_names_from_the_net_cannot_break_out(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    name = "</script><script>alert(1)</script>"
    net.write_text(
        f'name: "{name}" layer {{ name: "{name}" type: "Input" top: "a" input_param {{ shape {{ dim: 1 }} }} }}'
    )
    out = tmp_path / "page.html"
    assert CliRunner().invoke(main, ["inspect", "-q", str(net), "--html", str(out)]).exit_code == 0
    assert out.read_text().count("<script") == 2
    assert "alert(1)</script>" not in out.read_text()


def test_blocks() -> None:
    names = [
        "data",
        "res2a_branch1",
        "bn2a_branch1",
        "scale2a_branch1",
        "res2b_branch2a",
        "bn2b_branch2a",
        "relu2b",
        "prob",
    ]
    assert [(group["name"], group["first"], group["last"]) for group in groups(names)] == [
        ("block 2a", 1, 3), ("block 2b", 4, 6),
    ]  # fmt: skip
    assert [group["name"] for group in groups(["d", "inc0/1x1", "relu_inc0/1x1", "inc0/pool", "p"])] == ["inc0"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


def opened(browser: Browser, path: Path, width: int, height: int) -> tuple[Page, list[str]]:
    """The page, and whatever it complains of or asks the network for."""
    page = browser.new_page(viewport={"width": width, "height": height})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(path.as_uri())
    return page, said


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)], ids=["desktop", "phone"])
def test_clicking_searching_and_keys(browser: Browser, width: int, height: int, tmp_path: Path) -> None:
    page, said = opened(browser, write_page(tmp_path, INCEPTION), width, height)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".node").first.click()
    assert page.locator("#details h2").inner_text() == "data"
    page.keyboard.press("/")
    page.keyboard.type("inc1/3x3_reduce")
    assert page.locator("#details h2").inner_text() == "inc1/3x3_reduce"
    assert page.locator("tbody tr:visible").count() == 2
    assert page.locator("#details svg.hist").count() == 2
    page.keyboard.press("Escape")
    assert page.locator("tbody tr:visible").count() == 34
    page.locator(".node").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    assert page.locator("#details h2").inner_text() == "inc0/1x1"
    before = page.locator("#world").get_attribute("transform")
    page.keyboard.press("+")
    assert page.locator("#world").get_attribute("transform") != before
    page.get_by_role("button", name="parameters").click()
    assert page.locator("tbody tr td").first.inner_text() == page.evaluate(
        "layers.slice().sort((a, b) => b.parameters - a.parameters)[0].name"
    )
    page.locator("#fold").click()
    assert page.locator(".node.group").count() == 2
    page.locator(".node.group").first.click()
    assert page.locator(".node.group").count() == 1
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert said == []


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)], ids=["desktop", "phone"])
def test_a_broken_net(browser: Browser, width: int, height: int, tmp_path: Path) -> None:
    page, said = opened(browser, write_page(tmp_path, BROKEN), width, height)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator(".badge").inner_text() == "does not fit"
    assert page.locator(".node.bad text").first.text_content() == "fc6"
    assert page.locator("#details h2").inner_text() == "fc6"
    assert "reduce { pad: 1 → 0, num_output: 4 → 16 }" in page.locator(".cures").inner_text()
    assert said == []
