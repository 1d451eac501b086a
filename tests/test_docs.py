"""What the documentation shows is what happens."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.databases import pixels, raw, write_lmdb
from support.golden_cases import ROOT

import caffeconv
import caffeconv.pycaffe as caffe
from caffeconv.cli import COMMANDS, main
from caffeconv.infogain import read_matrix

README = (ROOT / "README.md").read_text()
INFOGAIN = (ROOT / "docs" / "infogain.md").read_text()
WEIGHTS = (ROOT / "docs" / "weights.md").read_text()
RUN = (ROOT / "docs" / "run.md").read_text()
PYCAFFE = (ROOT / "docs" / "pycaffe.md").read_text()
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()
EXAMPLE = re.compile(r"```console\n\$ (caffeconv [^\n]*)\n(.*?)```", re.DOTALL)
FILE = re.compile(r"```text\n(# (\S+)\n.*?)```", re.DOTALL)
"""A file that a page shows: its first line is a comment with its name."""
PAGES = [README, *(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))]
EXAMPLES = [
    (command, output) for page in PAGES for command, output in EXAMPLE.findall(page) if not output.startswith("$ ")
]
"""Command and output. Blocks of several commands have a test of their own."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the examples' relative paths hold, and where they may write."""
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("command", "output"), EXAMPLES, ids=lambda text: " ".join(text.split()[:2]))
def test_examples(command: str, output: str) -> None:
    for content, name in FILE.findall(INFOGAIN):
        Path(name).write_text(content)
    command, _, stdin = command.partition(" < ")
    given = Path(stdin).read_bytes() if stdin else None
    result = CliRunner().invoke(main, shlex.split(command)[1:], input=given)
    assert result.exit_code == 0, result.stderr
    assert [line.rstrip() for line in result.stdout.splitlines()] == [line.rstrip() for line in output.splitlines()]


@pytest.mark.usefixtures("project")
def test_run_page() -> None:
    """The commands run, one after another, and print what the page shows."""
    write_lmdb(Path("digits_lmdb"), {f"{i:08}": raw(pixels(1, 28, 28, seed=i), i % 10) for i in range(12)})
    for block in re.findall(r"```console\n(.*?)```", RUN, re.DOTALL):
        for command, output in re.findall(r"^\$ caffeconv ([^\n]*)\n((?:[^$][^\n]*\n)*)", block, re.MULTILINE):
            result = CliRunner().invoke(main, shlex.split(command))
            assert result.exit_code == 0, result.stderr
            assert result.stdout == output
    assert sorted(path.name for path in Path().glob("[sf]*.*")) == [
        "features.h5", "features.lmdb", "features.npy", "scores.csv"
    ]  # fmt: skip
    assert np.load("features.npy").shape == (12, 64)


def pages() -> dict[str, str]:
    return {page.name: page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))}


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
            is_on_site = not name.startswith("docs/") or path.resolve().parent == (ROOT / "docs").resolve()
            if not path.exists() or not is_on_site or (anchor and anchor not in headings(path.read_text())):
                broken.append(f"{name}: {target}")
    assert broken == []


@pytest.mark.parametrize("front", ["README.md", "docs/index.md"])
def test_every_page_is_linked_from_the_front(front: str) -> None:
    text = (ROOT / front).read_text()
    linked = {Path(target).name for target in re.findall(r"\]\(([^)#\s]+\.md)", text)}
    assert set(pages()) - linked - {"index.md"} == set()


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert releases[0] == "[Unreleased]"
    assert f"[{caffeconv.__version__}]" in [release.split(" ")[0] for release in releases]
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


@pytest.mark.usefixtures("project")
def test_index_page() -> None:
    (block,) = re.findall(r"```console\n(.*?)```", pages()["index.md"], re.DOTALL)
    for command in re.findall(r"^\$ caffeconv (.*)$", block, re.MULTILINE):
        result = CliRunner().invoke(main, shlex.split(command))
        assert result.exit_code == 0, result.stderr
    assert "seven" in result.stdout


def test_every_command_has_an_example() -> None:
    assert {command.split()[1] for command, _ in EXAMPLE.findall(README)} == set(COMMANDS)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_works(name: str) -> None:
    text = CliRunner().invoke(main, [name, "--help"]).output
    example = re.search(rf"^ +(caffeconv {name} .*?)\n\n", text, re.DOTALL | re.MULTILINE)
    assert example, text
    for command in re.split(r"\n(?= +caffeconv )", example.group(1)):
        result = CliRunner().invoke(main, shlex.split(command.replace("\n", " "))[1:])
        assert result.exit_code == 0, result.stderr


@pytest.mark.usefixtures("project")
def test_readme_python() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    Path("example.py").write_text("import numpy\npicture = numpy.zeros((1, 1, 28, 28), numpy.float32)\n" + code)
    names = runpy.run_path("example.py")
    assert names["probabilities"].shape == (1, 10)
    assert names["features"].shape == (1, 64)


@pytest.mark.usefixtures("project")
def test_pycaffe_python() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PYCAFFE, re.DOTALL)
    Path("example.py").write_text(code)
    names = runpy.run_path("example.py")
    assert names["digit"] == 7
    assert names["features"].shape == (1, 64)
    assert names["without"].shape == (10,)
    assert Path("surgery.caffemodel").exists()


@pytest.mark.usefixtures("project")
def test_pycaffe_names() -> None:
    """What the page lists is there; `draw` once it is imported, as in Caffe."""
    importlib.import_module("caffeconv.pycaffe.draw")
    rows = re.findall(r"^\| (`.*?) \|", PYCAFFE, re.MULTILINE)
    listed = [re.split(r"[.(]", name)[0] for row in rows for name in re.findall(r"`([^`]+)`", row)]
    net = caffe.Net("fixtures/digits/deploy.prototxt", caffe.TEST)
    assert [name for name in listed if not (hasattr(caffe, name) or hasattr(net, name))] == []
    assert len(listed) > 30


@pytest.mark.usefixtures("project")
def test_deployment_python() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DEPLOYMENT, re.DOTALL)
    Path("example.py").write_text(code)
    (given,) = runpy.run_path("example.py")["model"].graph.input
    assert given.type.tensor_type.elem_type == 2  # uint8


@pytest.mark.usefixtures("project")
def test_infogain_python() -> None:
    code = re.findall(r"```python\n(.*?)```", INFOGAIN, re.DOTALL)
    Path("example.py").write_text("\n".join(code))
    h = runpy.run_path("example.py")["h"]
    np.testing.assert_array_equal(read_matrix("H.binaryproto"), h)
    np.testing.assert_allclose(h.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.usefixtures("project")
def test_infogain_warning() -> None:
    """The page quotes what is said about a net that was written for probabilities."""
    (quoted,) = re.findall(r"they warn that `(.*?)`", INFOGAIN)
    net = Path("old.prototxt")
    net.write_text({name: content for content, name in FILE.findall(INFOGAIN)}[net.name])
    assert quoted in CliRunner().invoke(main, ["inspect", str(net)]).stderr


@pytest.mark.usefixtures("project")
def test_weights_python() -> None:
    """The page's snippets run one after the other, and the Keras model reads a picture as the net does."""
    for suffix in ("safetensors", "npz", "h5"):
        digits = "fixtures/digits/deploy.prototxt", "fixtures/digits/digits.caffemodel"
        assert CliRunner().invoke(main, ["convert", *digits, "-o", f"digits.{suffix}"]).exit_code == 0
    snippets = re.findall(r"```python\n(.*?)```", WEIGHTS, re.DOTALL)
    found = []
    for code in snippets:
        Path("example.py").write_text(code)
        found.append(runpy.run_path("example.py"))
    safetensors, npz, keras, metadata = found
    assert safetensors["kernel"].shape == (5, 5, 1, 8)
    np.testing.assert_array_equal(safetensors["kernel"], npz["kernel"])
    assert metadata["padding"] == "same"
    picture = np.random.default_rng(1).uniform(0, 255, (1, 1, 28, 28)).astype(np.float32)
    want = caffeconv.Net(*digits, phase="TEST").forward(data=picture)["prob"]
    np.testing.assert_allclose(keras["model"](picture.transpose(0, 2, 3, 1)), want, rtol=1e-4, atol=1e-6)


def test_layer_table_is_fresh() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "generate_layers.py"))["layers_page"]()
    assert (ROOT / "docs" / "layers.md").read_text() == page, "run: python docs/generate_layers.py"


def test_links() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_custom_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from caffeconv.layers import LAYERS

    page = (ROOT / "docs" / "custom_layers.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (layer,) = re.findall(r"```\n(layer \{.*?)```", page, re.DOTALL)
    (tmp_path / "gain.py").write_text(code)
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 } } }\n' + layer
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(caffeconv.CaffeconvError, match="Unknown layer type: ChannelGain"):
        caffeconv.Net("net.prototxt")
    try:
        runpy.run_path("gain.py")
        net = caffeconv.Net("net.prototxt")
        net.params["gain"][0].data[...] = [1, 2, 3]
        x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        expected = x * np.array([1, 2, 3], np.float32)[:, None] + np.float32(0.5)
        np.testing.assert_allclose(net.forward(x=x)["y"], expected)
        with pytest.raises(ValueError, match="there is a layer type ReLU already"):
            caffeconv.register_layer(LAYERS["ChannelGain"], "ReLU")
    finally:
        LAYERS.pop("ChannelGain", None)
