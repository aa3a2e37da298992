"""How results are told: lines in a terminal, JSON, and the table of docs/performance.md."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.pairs import percentile
from bench.subject import SECONDS, Remark, Row, Subject

Result = dict[str, Any]
# Of a subject with more rows than this, the table shows the first, which is the plain case, and the dearest.
MOST_ROWS = 5


def figure(value: float, unit: str) -> str:
    """Three digits, with the unit that makes them readable."""
    if unit != SECONDS:
        return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    for least, name in ((1.0, "s"), (1e-3, "ms")):
        if value >= least:
            return f"{value / least:.3g} {name}"
    return f"{value * 1e6:.3g} µs"


def ratio(row: Row) -> str:
    """The ratio and its interval."""
    return f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]"


def _within(row: Row) -> str:
    if row.allowed is None:
        return ""
    return f"   allowed: {row.allowed:g}" + ("" if row.ratio <= row.allowed else "  TOO DEAR")


def line(row: Row) -> str:
    """One row, for a terminal."""
    both = [f"{figure(percentile(side, at), row.unit):>10}" for side in (row.ours, row.floor) for at in (50, 99)]
    return (
        f"{row.what:<66} {both[0]} {both[1]}   floor {both[2]} {both[3]}   {ratio(row):>20} x"
        f"   n={len(row.ours)}, others {row.others:.0%}{_within(row)}"
    )


def result(subject: Subject, size: int, found: Sequence[Row | Remark]) -> Result:
    """One subject, as JSON."""
    rows = [asdict(row) for row in found if isinstance(row, Row)]
    for row in rows:
        for side in ("ours", "floor"):
            row[side] = {"p50": percentile(row[side], 50), "p99": percentile(row[side], 99), "samples": row[side]}
    named = {"name": subject.name, "what": subject.what, "floor": subject.floor, "size": size}
    return named | {"rows": rows, "remarks": [each.text for each in found if isinstance(each, Remark)]}


def _short(value: Any) -> Any:
    """Six digits are more than any sample is good for."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, list) else value


def write(path: Path, document: Result) -> None:
    """The whole run."""
    path.write_text(json.dumps(_short(document), ensure_ascii=False) + "\n")


def table(documents: Iterable[Result]) -> str:
    """Markdown: each subject's rows, and where and when they were measured. A later document replaces an earlier one's."""
    found = {subject["name"]: (subject, document) for document in documents for subject in document["subjects"]}
    lines = ["| subject | ours | floor | ratio | measured |", "|---|---|---|---|---|"]
    for name, (subject, document) in sorted(found.items()):
        rows, left_out = _shown(subject["rows"])
        lines += [_table_row(name, row, document) for row in rows]
        lines += [f"| `{name}` | {left_out} more, each with a lower ratio | | | |"] if left_out else []
    lines += ["", "| subject | command | size | revision | load average | machine |", "|---|---|---|---|---|---|"]
    lines += [_run_row(name, subject, document["machine"]) for name, (subject, document) in sorted(found.items())]
    return "\n".join(lines) + "\n"


def _run_row(name: str, subject: Result, machine: Result) -> str:
    told = f"{machine['cores']} x {machine['cpu']}, {machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}"
    command = f"make bench ARGS='{name} --size {subject['size']}'"
    return f"| `{name}` | `{command}` | {subject['size']:,} | {machine['revision']} | {machine['load_average'][0]} | {told} |"


def _shown(rows: list[Result]) -> tuple[list[Result], int]:
    if len(rows) <= MOST_ROWS:
        return rows, 0
    dearest = sorted(rows[1:], key=lambda row: -row["ratio"])[: MOST_ROWS - 2]
    return [rows[0], *dearest], len(rows) - 1 - len(dearest)


def _table_row(name: str, row: Result, document: Result) -> str:
    ours, floor = (
        f"{figure(row[side]['p50'], row['unit'])}, p99 {figure(row[side]['p99'], row['unit'])}"
        for side in ("ours", "floor")
    )
    machine = document["machine"]
    told = f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    when = f"{machine['date'][:10]}, n={len(row['ours']['samples'])}, others {row['others']:.0%}"
    return f"| `{name}` | {row['what']}: {ours} | {row['floor_name']}: {floor} | **{told}** | {when} |"
