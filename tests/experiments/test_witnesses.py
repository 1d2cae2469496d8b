"""The README's table of witnesses is one that its experiment prints, of what it knows."""

from __future__ import annotations

from pathlib import Path

import witnesses

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
    text = Path(witnesses.README).read_text()
    table = text.partition(witnesses.MARKS[0])[2].partition(witnesses.MARKS[1])[0].splitlines()
    model = "| `{}` {} |"
    options = {n: ", ".join(f"{k} {v}" for k, v in c.items()) for n, c in witnesses.CASES.items()}
    begin = [model.format(name, given) for name, given in options.items()]
    assert [line[: len(b)] for line, b in zip(table[2:-1], begin, strict=True)] == begin
    assert table[-1].startswith("| can't see |")
