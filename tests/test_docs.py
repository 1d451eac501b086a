"""What the documentation shows is what happens."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import ModelProto, TensorProto
from support.golden_cases import ROOT

import caffeconv
import caffeconv.pycaffe as caffe
from caffeconv.cli import COMMANDS, main
from caffeconv.layers import LAYERS

FENCE = re.compile(r"(?:<!-- not run: (.*?) -->\n)?^```(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
"""Reason for which it is not run, if any; language; what stands between the fences."""
FILE_NAME = re.compile(r"# (\S+\.\w+)\n")
"""How a block begins that is a file."""
COMMAND = re.compile(r"^\$ ([^\n]*)\n((?:(?!\$ )[^\n]*\n)*)", re.MULTILINE)
REASONS = (
    "continuous integration runs it", "installs packages", "needs a cluster", "an outline", "runs for hours",
    "a setting of the shell", "needs the network", "onnxruntime-gpu's",
)  # fmt: skip
"""Why a block may be left out; one that needs a package says ``needs NAME``."""
PACKAGES = ("openvino", "torch", "coremltools", "onnx2tf", "TensorRT", "Node.js")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}
README = PAGES["README.md"]
Names = dict[str, Any]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the examples' relative paths hold, and where they may write."""
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run_page(page: str) -> Names:
    """Runs every block of a page in turn, as a reader would; what its Python blocks define."""
    names: Names = {"__name__": "__main__"}
    for reason, language, text in FENCE.findall(PAGES[page]):
        if reason:
            continue
        name = FILE_NAME.match(text)
        if language == "python" and not name:
            exec(compile(text, page, "exec", dont_inherit=True), names)
        elif name:
            Path(name.group(1)).write_text(text)
        elif language == "console":
            commands = COMMAND.findall(text)
            for command, shown in commands:
                run_command(command, shown if any(shown for _, shown in commands) else None)
        elif language == "sh":
            for command in text.splitlines():
                run_command(command, None)
    return names


def run_command(command: str, shown: str | None) -> None:
    """Runs a line and holds what it prints against what the page shows, where that shows anything; ``…`` alone on a
    line stands for any number of lines."""
    program, _, rest = command.partition(" ")
    assert program == "caffeconv", command
    arguments, _, stdin = rest.partition(" < ")
    result = CliRunner().invoke(main, shlex.split(arguments), input=Path(stdin).read_bytes() if stdin else None)
    is_error = shown is not None and "caffeconv: error:" in shown
    assert result.exit_code == is_error, f"{command}\n{result.output}"
    if shown is not None:
        printed = result.output if "caffeconv: " in shown else result.stdout
        pattern = "".join("(.*\n)*" if line == "…" else re.escape(line.rstrip()) + "\n" for line in shown.splitlines())
        text = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
        assert re.fullmatch(pattern, text), f"{command}\n{text}"


def check_readme(names: Names) -> None:
    assert np.shape(names["probabilities"]) == (1, 10)
    assert np.shape(names["features"]) == (1, 64)


def check_run(names: Names) -> None:
    assert np.load("features.npy").shape == (1437, 64)
    assert Path("features.lmdb", "data.mdb").exists()


def check_pycaffe(names: Names) -> None:
    assert names["digit"] == 7
    assert np.shape(names["features"]) == (1, 64)
    assert np.shape(names["without"]) == (10,)
    assert Path("surgery.caffemodel").exists()


def check_deployment(names: Names) -> None:
    model = names["model"]
    assert isinstance(model, ModelProto)
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8


def check_infogain(names: Names) -> None:
    h = np.asarray(names["h"])
    np.testing.assert_allclose(h.sum(axis=1), 1, rtol=1e-6)


def check_weights(names: Names) -> None:
    """The Keras model reads a picture as the net does."""
    assert names["padding"] == "same"
    picture = np.random.default_rng(1).uniform(0, 255, (1, 1, 28, 28)).astype(np.float32)
    want = caffeconv.Net(*DIGITS, phase="TEST").forward(data=picture)["prob"]
    model = names["model"]
    assert callable(model)
    np.testing.assert_allclose(model(picture.transpose(0, 2, 3, 1)), want, rtol=1e-4, atol=1e-6)


def check_custom_layers(names: Names) -> None:
    expected = np.arange(24).reshape(2, 3, 4) * np.array([1, 2, 3])[:, None] + 0.5
    np.testing.assert_allclose(np.asarray(names["y"]), expected)
    with pytest.raises(caffeconv.CaffeconvError, match="there is such a layer type already"):
        caffeconv.register_layer(LAYERS["ChannelGain"], "ReLU")


DIGITS = "fixtures/digits/deploy.prototxt", "fixtures/digits/digits.caffemodel"
CHECKS = {
    "README.md": check_readme, "docs/run.md": check_run, "docs/pycaffe.md": check_pycaffe,
    "docs/deployment.md": check_deployment, "docs/infogain.md": check_infogain, "docs/weights.md": check_weights,
    "docs/custom_layers.md": check_custom_layers,
}  # fmt: skip


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "```" in text])
def test_every_block_runs(page: str) -> None:
    """Console blocks print what they show, shell blocks succeed, Python blocks run, in the page's order."""
    layers = dict(LAYERS)
    try:
        names = run_page(page)
        if page in CHECKS:
            CHECKS[page](names)
    finally:
        for name in LAYERS.keys() - layers.keys():
            LAYERS.pop(name)


def test_what_is_not_run_says_why() -> None:
    """And no block hides in a list, where it would not be found."""
    assert [page for page, text in PAGES.items() if re.search(r"^ +```", text, re.MULTILINE)] == []
    reasons = {reason for text in PAGES.values() for reason, _, _ in FENCE.findall(text) if reason}
    assert {
        reason for reason in reasons if reason not in REASONS and reason.removeprefix("needs ") not in PACKAGES
    } == set()


def pages() -> dict[str, str]:
    """Name below docs/ → text."""
    return {name.removeprefix("docs/"): text for name, text in PAGES.items() if name.startswith("docs/")}


def test_every_page_is_in_the_site_once() -> None:
    listed = re.findall(r"^\s*- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(pages())


def headings(text: str) -> set[str]:
    """The anchors of a page, as mkdocs and GitHub make them of plain words."""
    lines = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-") for line in lines}


def test_every_link_leads_somewhere() -> None:
    """Within the project; pages of the site link to each other alone, which mkdocs wants."""
    documents = {f"docs/{name}": text for name, text in pages().items()}
    documents |= {
        name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
    }
    broken = []
    for name, text in documents.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)):
            if re.match(r"[a-z]+:", target):
                continue
            place, _, anchor = target.partition("#")
            path = (ROOT / name).parent / place if place else ROOT / name
            is_on_site = not name.startswith("docs/") or (ROOT / "docs").resolve() in path.resolve().parents
            if not path.exists() or not is_on_site or (anchor and anchor not in headings(path.read_text())):
                broken.append(f"{name}: {target}")
    assert broken == []


@pytest.mark.parametrize("front", ["README.md", "docs/index.md"])
def test_every_page_is_linked_from_the_front(front: str) -> None:
    text = (ROOT / front).read_text()
    linked = {target.removeprefix("docs/") for target in re.findall(r"\]\(([^)#\s]+\.md)", text)}
    wanted = {
        name for name in pages() if front == "docs/index.md" or "/" not in name
    }  # how-to pages: the index has them
    assert wanted - linked - {"index.md"} == set()


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert releases[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", release) for release in releases[1:])
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert f"_CAFFECONV_COMPLETE={shell}_source caffeconv" in pages()["shell.md"]
    script = CliRunner().invoke(main, [], prog_name="caffeconv", env={"_CAFFECONV_COMPLETE": f"{shell}_source"}).output
    assert f"_CAFFECONV_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("caffeconv con", ["convert"]),
        ("caffeconv run --draw", ["--draw"]),
        ("caffeconv convert --layout n", ["nchw", "nhwc"]),
    ],
)
def test_what_is_completed(words: str, completed: list[str]) -> None:
    variables = {"_CAFFECONV_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    lines = CliRunner().invoke(main, [], prog_name="caffeconv", env=variables).output.split()
    assert [line.partition(",")[2] for line in lines] == completed


def test_every_command_has_an_example() -> None:
    blocks = [text for _, language, text in FENCE.findall(README) if language == "console"]
    assert {command.split()[1] for text in blocks for command, _ in COMMAND.findall(text)} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str) -> None:
    """One that works: docs/commands.md has it too."""
    text = CliRunner().invoke(main, [name, "--help"]).output
    assert re.search(rf"^ +caffeconv {name} .", text, re.MULTILINE), text


@pytest.mark.usefixtures("project")
def test_pycaffe_names() -> None:
    """What the page lists is there; `draw` once it is imported, as in Caffe."""
    importlib.import_module("caffeconv.pycaffe.draw")
    rows = re.findall(r"^\| (`.*?) \|", pages()["pycaffe.md"], re.MULTILINE)
    listed = [re.split(r"[.(]", name)[0] for row in rows for name in re.findall(r"`([^`]+)`", row)]
    net = caffe.Net("fixtures/digits/deploy.prototxt", caffe.TEST)
    assert [name for name in listed if not (hasattr(caffe, name) or hasattr(net, name))] == []
    assert len(listed) > 30


@pytest.mark.usefixtures("project")
def test_infogain_warning() -> None:
    """The page quotes what is said about a net that was written for probabilities."""
    (quoted,) = re.findall(r"they warn that `(.*?)`", pages()["infogain.md"])
    net = Path("old.prototxt")
    net.write_text(
        next(text for _, _, text in FENCE.findall(pages()["infogain.md"]) if text.startswith("# old.prototxt"))
    )
    assert quoted in CliRunner().invoke(main, ["inspect", str(net)]).stderr


def test_layer_table_is_fresh() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "generate_layers.py"))["layers_page"]()
    assert (ROOT / "docs" / "layers.md").read_text() == page, "run: python docs/generate_layers.py"


@pytest.mark.parametrize("page", ["commands.md", "python.md"])
def test_references_are_up_to_date(page: str) -> None:
    """The pages that are made of click and of docstrings."""
    make = runpy.run_path(str(ROOT / "docs" / "generate_reference.py"))["PAGES"][page]
    assert pages()[page] == make(), "run: python docs/generate_reference.py"
