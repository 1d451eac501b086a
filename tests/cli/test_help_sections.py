"""Help of commands with many options."""

from __future__ import annotations

from click import Context
from click.testing import CliRunner

from caffeconv.cli import main


def test_help_under_headings() -> None:
    text = CliRunner().invoke(main, ["run", "--help"]).stdout
    assert [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")] == [
        "Input:", "Pictures:", "Output:", "Compute:", "Cluster:", "Net:", "Other options:",
    ]  # fmt: skip
    names = {option for parameter in main.get_command(Context(main), "run").params for option in parameter.opts}  # type: ignore[union-attr]
    assert all(name in text for name in names if name.startswith("--"))
