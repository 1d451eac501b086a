"""Lines of Caffe's log; whole logs are in test_solver.py."""

from __future__ import annotations

from caffeconv.training.events import Iteration, LogLine, NetTest, Note, Output, Snapshot, log_lines

ITERATION = Iteration(100, 2.0, 1.5, 1e-20, 64, True, 0.25, 400.0, 100, [Output("loss", 2.0, 0.5)], 2, 40.0, 10.0)


def test_an_iteration() -> None:
    assert [line.text for line in log_lines(ITERATION)] == [
        "Iteration 100 (0.25 iter/s, 400s/100 iters), loss = 1.5",
        "    Train net output #0: loss = 2 (* 0.5 = 1 loss)",
        "MultiStep Status: Iteration 100, step = 2",
        "Iteration 100, lr = 1e-20",
        "Gradient clipping: scaling down gradients (L2 norm 40 > 10) by scale factor 0.25",
    ]


def test_a_test() -> None:
    lines = [line.text for line in log_lines(NetTest(0, 0, [Output("accuracy", 1 / 3)], 0.5))]
    assert lines == ["Test loss: 0.5", "    Test net output #0: accuracy = 0.333333"]


def test_what_has_no_lines_of_its_own() -> None:
    assert list(log_lines(Snapshot(1, "w", "s", False))) == []
    assert list(log_lines(Note(LogLine("a.cpp:1", "text")))) == [LogLine("a.cpp:1", "text")]
