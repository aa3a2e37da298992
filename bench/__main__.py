"""`make bench`: `python -m bench [SUBJECT…]`, all of them where none is named. docs/performance.md says how to read it."""

import argparse
import json
import signal
import sys
from pathlib import Path

from bench import machine, report
from bench.catalogue import SUBJECTS
from bench.pairs import measured
from bench.subject import Remark, Row


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help="what to measure; all, where none is named")
    parser.add_argument("--list", action="store_true", help="tell the subjects and their floors")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--samples", type=int, metavar="N", help="pairs of samples, in place of each pair's own number")
    parser.add_argument("--size", type=int, metavar="N", help="how much of it: bars, rows, symbols (--list tells)")
    parser.add_argument("--seed", type=int, default=1, help="of the order within the pairs")
    parser.add_argument("--table", nargs="+", type=Path, metavar="FILE", help="make the table of these JSON files")
    found = parser.parse_args()
    if unknown := sorted(set(found.subjects) - SUBJECTS.keys()):
        parser.error(f"no such subject: {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    return found


def _tell_subjects() -> None:
    for subject in SUBJECTS.values():
        size = f"; {subject.size:,} {subject.size_of}" if subject.size_of else ""
        print(f"{subject.name:<10} {subject.what}{size}\n{'':<10} floor: {subject.floor}")


def _measure(arguments: argparse.Namespace, document: report.Result) -> None:
    """Adds each subject to the document; of one that breaks off, what was measured until then."""
    facts = document["machine"]
    load = ", ".join(map(str, facts["load_average"]))
    print(f"{facts['cores']} x {facts['cpu']}, {facts['memory_gb']} GB, {facts['system']}, Python {facts['python']}")
    print(f"revision {facts['revision']}, {facts['date']} UTC; load average {load}; seed {arguments.seed}")
    print("p50 p99, floor p50 p99, ratio of the medians with its 95 % interval, samples, CPU share of other processes")
    for name in arguments.subjects or [each.name for each in SUBJECTS.values() if not each.extra]:
        subject, found = SUBJECTS[name], list[Row | Remark]()
        print(f"\n{name}: {subject.what}; floor: {subject.floor}", flush=True)
        try:
            for each in measured(subject, arguments.seed, arguments.samples, arguments.size):
                print(report.line(each) if isinstance(each, Row) else f"  {each.text}", flush=True)
                found.append(each)
        finally:
            document["subjects"].append(report.result(subject, arguments.size or subject.size, found))


def _bench(arguments: argparse.Namespace) -> None:
    # Whoever ends a bench must not leave its desks and databases running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    document: report.Result = {"machine": machine.facts(), "seed": arguments.seed, "subjects": []}
    try:
        _measure(arguments, document)
    finally:
        if arguments.json:
            report.write(arguments.json, document)


def main() -> None:
    """Lists, makes a table, or measures."""
    arguments = _arguments()
    if arguments.list:
        _tell_subjects()
    elif arguments.table:
        sys.stdout.write(report.table(json.loads(path.read_text()) for path in arguments.table))
    else:
        _bench(arguments)


if __name__ == "__main__":
    main()
