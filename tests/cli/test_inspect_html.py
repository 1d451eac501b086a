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
from caffeconv.net.net import Net

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


FORK = """
name: "a net" input: "x" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "bn" type: "BatchNorm" bottom: "c" top: "b" }
layer { name: "scale" type: "Scale" bottom: "b" top: "b" }
layer { name: "relu" type: "ReLU" bottom: "b" top: "r" }
layer { name: "left" type: "Sigmoid" bottom: "r" top: "left" }
layer { name: "right" type: "Slice" bottom: "r" top: "r1" top: "r2" slice_param { axis: 1 slice_point: 1 } }
"""


@pytest.mark.browser
def test_stacks_start_panel_and_files(browser: Browser, tmp_path: Path) -> None:
    net, weights, out = tmp_path / "net.prototxt", tmp_path / "w.caffemodel", tmp_path / "page.html"
    net.write_text(FORK)
    Net(net).save(weights)
    assert CliRunner().invoke(main, ["inspect", "-q", str(net), str(weights), "--html", str(out)]).exit_code == 0
    page, said = opened(browser, out, 1400, 900)
    boxes = ["|".join(node.locator("text").all_text_contents()) for node in page.locator(".node").all()]
    assert boxes == [
        "input|Input", "conv|Convolution 3×3|BatchNorm  bn|Scale  scale|ReLU  relu", "left|Sigmoid", "right|Slice",
    ]  # fmt: skip
    panel = page.locator("#details").inner_text()
    assert "x 1×3×8×8" in panel
    assert "left 1×4×6×6" in panel
    assert page.locator("#details img").count() == 1
    page.locator(".node").nth(3).click()
    assert page.locator("#details pre").inner_text() == "slice_param {\n  slice_point: 1\n  axis: 1\n}"
    page.keyboard.press("0")
    frame, last = page.locator("#graph").bounding_box(), page.locator(".node").last.bounding_box()
    assert frame is not None
    assert last is not None
    assert last["y"] + last["height"] <= frame["y"] + frame["height"]
    for name, start in (("svg", b"<svg "), ("png", b"\x89PNG")):
        with page.expect_download() as download:
            page.locator(f"#{name}").click()
        assert download.value.suggested_filename == f"a_net.{name}"
        assert Path(download.value.path()).read_bytes().startswith(start)
    assert [line for line in said if not line.startswith(("blob:", "data:"))] == []


@pytest.mark.browser
def test_problems_of_a_kind_are_folded_and_the_fix_copied(browser: Browser, tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text("\n".join(f'layer {{ name: "l{i}" type: "ReLU" bottom: "b{i}" top: "t{i}" }}' for i in range(20)))
    out = tmp_path / "page.html"
    assert CliRunner().invoke(main, ["inspect", "-q", str(net), "--html", str(out)]).exit_code == 1
    page, _ = opened(browser, out, 1400, 900)
    assert page.locator("#problems > .problem").count() == 3
    assert page.locator("#problems summary").inner_text() == "… and 17 more of this kind"
    page, _ = opened(browser, write_page(tmp_path, BROKEN), 1400, 900)
    page.get_by_role("button", name="copy the fix").click()
    assert page.get_by_role("button", name="copied").count() == 1
