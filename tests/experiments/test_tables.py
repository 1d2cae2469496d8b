"""The README's tables are ones that their experiments print, of what they know."""

from __future__ import annotations

import planner_gaps
import witnesses
from planning import table_written

from ckpt.witness import WITNESSES


def row(model: str, witness: str, measured: int) -> dict[str, object]:
    return {
        "model": model, "witness": witness, "predicted_nbytes": 1 << 20, "off": 0.004,
        "predicted_with_scratch_nbytes": 3 << 20, "measured_nbytes": measured,
    }  # fmt: skip


def test_a_line_a_model_and_what_each_can_not_see() -> None:
    found = witnesses.lines([row("gpt", name, 2 << 20) for name in WITNESSES])
    assert len(found) == 4
    assert found[2].startswith("| `gpt` depth 4, batch 16 | 1 MiB | 2 MiB | 2 MiB (+0.4 %) |")
    assert all(kind.blind in found[3] for kind in WITNESSES.values())


def test_the_readme_has_a_line_for_each_case() -> None:
    table = table_written("witnesses")
    model = "| `{}` {} |"
    options = {n: ", ".join(f"{k} {v}" for k, v in c.items()) for n, c in witnesses.CASES.items()}
    begin = [model.format(name, given) for name, given in options.items()]
    assert [line[: len(b)] for line, b in zip(table[2:-1], begin, strict=True)] == begin
    assert table[-1].startswith("| can't see |")


def test_of_eight_nets_it_has_what_is_recomputed_and_what_is_proven() -> None:
    rows = [
        {"graph": "mlp", "budget_share": 0.5, "planner": planner, "recompute_overhead": recompute,
         "best_overhead": 0.562, "outcome": "fits"}
        for planner, recompute in (("sqrt", 0.9), ("auto", 0.57))
    ]  # fmt: skip
    rows.append({"graph": "mlp", "budget_share": 0.25, "outcome": "impossible"})
    assert planner_gaps.proven(rows)[2] == "| `mlp` depth 16 | 57.0 / 56.2 | impossible |"
    begin = [f"| `{n}` {planner_gaps.graph_options(o)} |" for n, o in planner_gaps.MODELS.values()]
    table = table_written("planner_gaps")[2:]
    assert [line[: len(b)] for line, b in zip(table, begin, strict=True)] == begin
    for line in table:
        for cell in line.split(" | ")[1:]:
            plan, _, bound = cell.strip(" |").partition(" / ")
            assert plan in ("impossible", "none found") or float(plan) >= float(bound), line
