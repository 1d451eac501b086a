"""What every command that writes does when it is killed, interrupted, short of space, raced, or robbed of its sources.

    python benchmarks/faults.py [--tries 100] [--seed 0] [kill interrupt full truncate writers outputs]

kill: SIGKILL at a random moment; what is at the target is nothing, the older file, or the whole new one, and the next run
to it leaves nothing else. interrupt: SIGINT, so exit code 130, no traceback and nothing half written; also while modules
are imported. full: no file may grow beyond a random size, as on a full disk. truncate: a source is cut off or replaced
meanwhile. writers: two processes write one target. outputs: a pipe, /dev/stdout, a folder that cannot be written.

A command runs in a child of a process that has imported everything, so that what is hit is its work.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py  # noqa: F401  what commands import is there before the clock runs
import lmdb
import onnx  # noqa: F401
import onnxruntime  # noqa: F401

from caffeconv.cli import main as caffeconv_main

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "fixtures" / "digits"
LIMIT = 60
"""Seconds after which a command hangs."""
SOLVER = """net: "train_val.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 4 snapshot: 2 snapshot_prefix: "OUT"
random_seed: 1 test_iter: 1 test_interval: 100 {}
"""


@dataclass(frozen=True)
class Command:
    """Its words, the target that they name, and what else lies beside that once it has run."""

    words: str
    out: str
    is_repeatable: bool = True
    """Whether it writes the same bytes each time."""

    @property
    def argv(self) -> list[str]:
        return self.words.replace("OUT", self.out).split()


NET = "deploy.prototxt digits.caffemodel"
RUN = f"run {NET} --input-db train_lmdb --blobs prob -q"
COMMANDS = [
    *(Command(f"convert {NET} -q -o OUT", f"o.{suffix}")
      for suffix in ("onnx", "npz", "h5", "safetensors", "caffemodel", "caffemodel.h5")),
    Command(f"convert {NET} -q --weights external -o OUT", "o.onnx"),
    Command(f"convert {NET} -q --fp16 -o OUT", "o.onnx"),
    Command(f"convert {NET} -q --verify --verify-report OUT -o m.onnx", "r.json", is_repeatable=False),
    *(Command(f"{RUN} -o OUT", f"o.{suffix}") for suffix in ("npy", "npz", "h5", "lmdb")),
    *(Command(f"run {NET} --input pictures.txt -q -o OUT", f"o.{suffix}") for suffix in ("npz", "csv", "json", "jsonl")),
    Command(f"{RUN} --resume -o OUT", "o.npz"),
    Command("run train_val.prototxt digits.caffemodel --phase train --iterations 3 --per-batch OUT -q", "o.csv"),
    Command(f"inspect {NET} -q --html OUT", "o.html", is_repeatable=False),
    Command("upgrade old.prototxt -q -o OUT", "o.prototxt"),
    Command("upgrade digits.caffemodel -q -o OUT", "o.caffemodel"),
    *(Command("make-h --identity 300 -o OUT", f"o.{suffix}") for suffix in ("binaryproto", "h5")),
    Command("make-h --balance median-frequency --count-labels train_lmdb -o OUT", "H_lmdb"),
    Command("train solver.prototxt -q --log l.csv", "s_iter_4.caffemodel"),
    Command("train hdf5.prototxt -q --plot p.png", "s_iter_4.caffemodel.h5"),
]  # fmt: skip


def set_up(folder: Path) -> None:
    for path in DIGITS.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, folder / path.name)
    text = (folder / "train_val.prototxt").read_text()
    (folder / "train_val.prototxt").write_text(text.replace("fixtures/digits/", ""))
    pictures = folder / "pictures.txt"
    pictures.write_text(pictures.read_text().replace("fixtures/digits/", ""))
    (folder / "solver.prototxt").write_text(SOLVER.replace("OUT", "s").format(""))
    (folder / "hdf5.prototxt").write_text(SOLVER.replace("OUT", "s").format("snapshot_format: HDF5"))
    (folder / "old.prototxt").write_text('input: "x" input_dim: 1 input_dim: 1 input_dim: 4 input_dim: 4 '
                                         'layers { name: "a" type: RELU bottom: "x" top: "y" }')  # fmt: skip
    with lmdb.open(str(folder / "train_lmdb"), map_size=1 << 30, readonly=True, lock=False) as environment:
        assert environment.stat()["entries"]


class Child:
    """A command in a process of its own, forked from this one."""

    def __init__(self, argv: Sequence[str], folder: Path, *, file_bytes: int | None = None) -> None:
        self.said = folder / ".said"
        self.pid = os.fork()
        if self.pid:
            return
        code = 99
        try:
            os.chdir(folder)
            output = os.open(".said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if file_bytes is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
            sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
            sys.argv = ["caffeconv", *argv]
            from caffeconv.__main__ import main

            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 98
        finally:
            os._exit(code)

    def end(self) -> int:
        """Its exit code; the negative number of the signal that ended it; -1000 where it hangs."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return -1000

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def words(self) -> str:
        return self.said.read_text(errors="replace") if self.said.exists() else ""


def content(path: Path) -> object:
    if path.is_dir():
        return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
    return path.read_bytes() if path.exists() else None


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".said", "lock.mdb"}


@dataclass
class Trial:
    """One command in a folder of its own: what it writes, and how long that takes."""

    command: Command
    folder: Path
    seconds: float
    before: set[str]
    after: set[str]
    whole: object

    @classmethod
    def of(cls, command: Command, folder: Path) -> Trial:
        set_up(folder)
        before, start = names(folder), time.monotonic()
        child = Child(command.argv, folder)
        code = child.end()
        if code:
            raise SystemExit(f"{command.words}: exit code {code}: {child.words}")
        return cls(command, folder, time.monotonic() - start, before, names(folder), content(folder / command.out))

    def clear(self) -> None:
        """Removes what the command wrote, and what was left of it."""
        for name in names(self.folder) - self.before:
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    @property
    def left(self) -> set[str]:
        """What lies there and should not; the rows of a run that --resume goes on with may."""
        return names(self.folder) - self.after - {f"{self.command.out}.partial"}

    def is_whole(self) -> bool:
        now = content(self.folder / self.command.out)
        return now is not None and (now == self.whole or not self.command.is_repeatable)

    def run_again(self) -> str:
        """Runs it undisturbed; what is wrong after that."""
        child = Child(self.command.argv, self.folder)
        code = child.end()
        if code and "--resume continues it" in child.words:
            child = Child([*self.command.argv, "--resume"], self.folder)
            code = child.end()
        if code:
            return f"the next run ends with {code}: {child.words[-300:]}"
        extra = names(self.folder) - self.after
        if extra:
            return f"the next run leaves {sorted(extra)}"
        return "" if self.is_whole() else "the next run writes something else"


def bad_end(child: Child, code: int, allowed: Sequence[int]) -> str:
    said = child.words
    if code not in allowed:
        return f"exit code {code}: {said[-300:]}"
    if "Traceback" in said:
        return f"a traceback: {said[-500:]}"
    return (
        ""
        if code in (0, 2, 130) or code < 0 or "error: " in said
        else f"exit code {code} without a message: {said[-200:]}"
    )


def kill(trial: Trial, draw: random.Random) -> str:
    trial.clear()
    has_older = draw.random() < 0.5 and "lmdb" not in trial.command.out
    if has_older:
        Child(trial.command.argv, trial.folder).end()
        older = content(trial.folder / trial.command.out)
    child = Child(trial.command.argv, trial.folder)
    time.sleep(draw.uniform(0, 1.1 * trial.seconds))
    child.signal(signal.SIGKILL)
    child.end()
    now = content(trial.folder / trial.command.out)
    if now is not None and not trial.is_whole() and not (has_older and now == older):
        return "half a file at the target"
    if "lmdb" in trial.command.out and now is not None:  # an LMDB that is there is not replaced
        trial.clear()
    return trial.run_again()


def interrupt(trial: Trial, draw: random.Random) -> str:
    trial.clear()
    child = Child(trial.command.argv, trial.folder)
    time.sleep(draw.uniform(0.02, 1.1 * trial.seconds))
    child.signal(signal.SIGINT)
    code = child.end()
    said = bad_end(child, code, (0, 130))
    left = trial.left
    if left and "train" not in trial.command.words:
        said = said or f"left behind: {sorted(left)}"
    if content(trial.folder / trial.command.out) is not None and not trial.is_whole():
        said = said or "half a file at the target"
    return said


def interrupt_import(trial: Trial, draw: random.Random) -> str:
    """The program itself, so that modules are being imported."""
    trial.clear()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "caffeconv", *trial.command.argv], cwd=trial.folder, env=environment, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    time.sleep(draw.uniform(0.1, 0.8))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT)
    if process.returncode == -signal.SIGINT and "caffeconv" not in said:  # Python itself was not ready yet
        return ""
    return "" if process.returncode in (0, 130) and "Traceback" not in said else f"{process.returncode}: {said[-500:]}"


def full(trial: Trial, draw: random.Random) -> str:
    trial.clear()
    whole = trial.whole
    size = len(whole) if isinstance(whole, bytes) else 20000
    most = draw.randrange(max(1, int(1.1 * size)))
    child = Child(trial.command.argv, trial.folder, file_bytes=most)
    code = child.end()
    is_mute = code == 99 and len(child.words.encode()) >= most  # its message goes into a file of that size too
    said = "" if is_mute else bad_end(child, code, (0, 1))
    left = trial.left
    if left and not trial.is_whole():
        said = said or f"left behind: {sorted(left)}"
    if content(trial.folder / trial.command.out) is not None and not trial.is_whole():
        said = said or "half a file at the target"
    return said or trial.run_again()


SOURCES = ("deploy.prototxt", "digits.caffemodel", "train_lmdb/data.mdb", "train_val.prototxt", "old.prototxt", "3.png")


def truncate(trial: Trial, draw: random.Random) -> str:
    trial.clear()
    read = [name for name in SOURCES if name.partition("/")[0] in trial.command.words] or [*SOURCES]
    if trial.command.words.startswith("train"):
        read = ["train_lmdb/data.mdb", "train_val.prototxt", "3.png"]
    source = trial.folder / draw.choice(read)
    kept = source.read_bytes()
    child = Child(trial.command.argv, trial.folder)
    time.sleep(draw.uniform(0, trial.seconds))
    if draw.random() < 0.5:
        os.truncate(source, draw.randrange(len(kept)))
    else:
        source.unlink()
        source.write_bytes(kept[: draw.randrange(len(kept))])
    said = bad_end(child, child.end(), (0, 1))
    if not said and trial.left:
        said = f"left behind: {sorted(trial.left)}"
    source.unlink()
    source.write_bytes(kept)
    return said


def writers(trial: Trial, draw: random.Random) -> str:
    trial.clear()
    children = [Child(trial.command.argv, trial.folder) for _ in range(1)]
    time.sleep(draw.uniform(0, 0.5 * trial.seconds))
    children.append(Child(trial.command.argv, trial.folder))
    codes = [child.end() for child in children]
    words = children[0].words  # both write to one file
    if any(code not in (0, 1) for code in codes) or "Traceback" in words:
        return f"{codes}: {words[-500:]}"
    if 0 not in codes:
        return f"neither writes: {words[-300:]}"
    if not trial.is_whole():
        return "what is there is no whole file of either"
    extra = names(trial.folder) - trial.after
    return f"left behind: {sorted(extra)}" if extra else ""


def outputs(trial: Trial, draw: random.Random) -> str:
    """A pipe that somebody reads, standard output, a folder that takes no file, a folder that is none."""
    said = []
    for place in ("fifo", "/dev/stdout", "/proc/o", "none/o"):
        trial.clear()
        suffix = trial.command.out.partition(".")[2]
        out = place if place == "/dev/stdout" else f"{place}.{suffix}" if suffix else place
        argv = trial.command.words.replace("OUT", out).split()
        if "OUT" not in trial.command.words:
            return ""
        reader = None
        if place == "fifo":
            os.mkfifo(trial.folder / out)
            reader = threading.Thread(target=(trial.folder / out).read_bytes, daemon=True)
            reader.start()
        child = Child(argv, trial.folder)
        code = child.end()
        fault = bad_end(child, code, (0, 1, 2))  # 2: a name that the option does not take
        left = names(trial.folder) - trial.before - {out, "m.onnx"}
        if fault or left:
            said.append(f"{place}: {fault or f'left behind: {sorted(left)}'}")
        if reader is not None and reader.is_alive():  # a refusal never opens it
            descriptor = os.open(trial.folder / out, os.O_WRONLY | os.O_NONBLOCK)
            os.close(descriptor)
            reader.join(5)
        (trial.folder / out).unlink(missing_ok=True)
    return "; ".join(said)


KINDS: dict[str, Callable[[Trial, random.Random], str]] = {
    "kill": kill, "interrupt": interrupt, "import": interrupt_import, "full": full, "truncate": truncate, "writers": writers,
    "outputs": outputs,
}  # fmt: skip
ONCE = ("outputs",)
"""Kinds in which nothing is drawn."""


def trials() -> Iterator[Trial]:
    for command in COMMANDS:
        with tempfile.TemporaryDirectory() as name:
            yield Trial.of(command, Path(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="commands that have this in their words")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    arguments = parser.parse_args()
    assert caffeconv_main is not None
    number, bad = Counter[str](), Counter[str]()
    for trial in trials():
        if arguments.only not in trial.command.words.replace("OUT", trial.command.out):
            continue
        for kind in arguments.kinds or KINDS:
            draw, seen = random.Random(arguments.seed), Counter[str]()
            for _ in range(1 if kind in ONCE else arguments.tries):
                number[kind] += 1
                fault = KINDS[kind](trial, draw)
                if fault:
                    bad[kind] += 1
                    seen[fault] += 1
            tries = 1 if kind in ONCE else arguments.tries
            print(f"{kind}, {' '.join(trial.command.argv)}: {tries} tries, {seen.total()} bad ends", flush=True)
            for fault, times in seen.most_common(5):
                print(f"{kind}, {' '.join(trial.command.argv)}: {times} times: {fault}", flush=True)
    print(*(f"{kind}: {number[kind]} tries, {bad[kind]} bad ends" for kind in number), sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
