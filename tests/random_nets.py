"""Random nets on demand: ``python -m tests.random_nets 2000 [--seed N] [--layers N]``, from the project's root.

Draws that many nets, compares the forms of each, prints how often each comparison was made, and of every disagreement the
smallest net that shows it. Exit code 1 where there was one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # support is a package of the tests

from hypothesis import HealthCheck, given, seed, settings
from support.random_net_checks import check_net
from support.random_nets import DrawnNet, drawn


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", type=int, nargs="?", default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, default=30, help="at most so many in a net")
    arguments = parser.parse_args()
    comparisons, types = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:

        @seed(arguments.seed)
        @settings(
            max_examples=arguments.nets, deadline=None, database=None, suppress_health_check=list(HealthCheck),
            report_multiple_bugs=True,
        )  # fmt: skip
        @given(drawn(arguments.layers))
        def check(net: DrawnNet) -> None:
            types.update(net.kinds)
            comparisons.update(["nets", *check_net(net, Path(folder))])

        try:
            check()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            faults = getattr(error, "exceptions", (error,))
            for fault in faults:
                print(f"{type(fault).__name__}: {fault}", *getattr(fault, "__notes__", ()), sep="\n", file=sys.stderr)
            return 1
        finally:
            print("comparisons:", *(f"{number} {what}" for what, number in comparisons.most_common()), sep="\n  ")
            print("nets with each type:", ", ".join(f"{kind} {number}" for kind, number in types.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
