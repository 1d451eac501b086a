"""Installs the lowest and the newest versions of everything that caffeconv needs, and runs a smoke test on both.

    python benchmarks/versions.py [lowest|newest] [PYTHON…]

Each in a virtual environment of its own. The lowest versions are the lower bounds of pyproject.toml, where they have wheels for
that Python: a bound without one is replaced by the first version that has one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "fixtures" / "digits"
SMOKE = (
    "tests/test_digits.py",
    "tests/test_hostile_files.py",
    "tests/test_faults.py",
    "tests/caffe_format",
    "tests/data/test_records.py",
)


def main() -> None:
    words = sys.argv[1:]
    kinds = [word for word in words if word in ("lowest", "newest")] or ["lowest", "newest"]
    pythons = [word for word in words if word not in kinds] or [sys.executable]
    results = {(python, kind): _try(python, kind) for python in pythons for kind in kinds}
    for (python, kind), result in results.items():
        print(f"{python} {kind}: {result}")
    sys.exit(any(result != "ok" for result in results.values()))


def bounds() -> list[str]:
    """The lower bounds, ``numpy==1.23.*``, of what is always needed, and of onnxruntime, as pyproject.toml has them."""
    text = (ROOT / "pyproject.toml").read_text()  # what is installed may have those of another day
    needed = text[text.index("\ndependencies = [") : text.index("\n]", text.index("\ndependencies = ["))]
    cpu = next(line for line in text.splitlines() if line.startswith("cpu = "))
    return [f"{name}=={version}.*" for name, version in re.findall(r'"([\w-]+)>=([\w.]+)', needed + cpu)]


def _try(python: str, kind: str) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([python, "-m", "venv", name], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        try:
            subprocess.run([*pip, f"{ROOT}[cpu]", "pytest", "hypothesis", "scipy"], check=True)
            for bound in bounds() if kind == "lowest" else ():
                subprocess.run(
                    [*pip, "--only-binary=:all:", bound], check=False
                )  # none for this Python: the newest stays
            smoke = [str(folder / "bin" / "python"), "-m", "pytest", "-q", *(str(ROOT / test) for test in SMOKE)]
            subprocess.run(smoke, check=True, cwd=ROOT)
        except subprocess.CalledProcessError as error:
            return f"failed: {' '.join(map(str, error.cmd))}"
    return "ok"


if __name__ == "__main__":
    main()
