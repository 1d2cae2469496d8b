"""What each command prints and writes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ckpt.witness import malloc
from tests.cli.running import run

TARGET = """
import numpy as np

def make():
    ws = [np.eye(16) for _ in range(3)]

    def loss(ws, x):
        for w in ws:
            x = np.tanh(x @ w)
        return np.mean(x * x)

    return loss, ws, np.ones((8, 16))
"""


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_profile_of_a_file(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "model.py").write_text(TARGET)
    result = run(capsys, "profile", "model.py:make", "--top", "4", "-o", "a.svg", "-o", "a.csv")
    assert result.code == 0, result.err
    assert "model.py:9" in result.out
    assert "measured" in result.out
    assert "live at the peak" in result.out
    assert result.err.splitlines()[:2] == ["wrote a.svg", "wrote a.csv"]
    assert result.err.splitlines()[-1].startswith("next: ckpt ")
    rows = read_csv(folder / "a.csv")
    assert (
        sum(int(row["forward_flops"]) for row in rows if row["op"] == "matmul") == 3 * 2 * 8 * 256
    )
    assert json.loads((folder / "a.csv.meta.json").read_text())["command"] == "ckpt profile"


def test_profile_groups_sorts_and_cuts_off(capsys: pytest.CaptureFixture[str]) -> None:
    options = "profile mlp --depth 5 --no-measure --by op --sort forward_flops --top 1"
    lines = run(capsys, options).out.splitlines()
    assert lines[0].startswith("One step of mlp peaks at ")
    at = next(n for n, line in enumerate(lines) if line.startswith("op "))
    assert lines[at + 2].startswith("matmul")
    assert lines[at + 3].split()[1] == "more"
    assert lines[at + 4].startswith("total")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    "command",
    [
        "profile mlp --depth 3 --json",
        "sweep --depth 3 --points 2 --no-measure --jobs 1 --json",
        "plan mlp --depth 6 --budget 60% --verify --json",
        "frontier mlp --depth 6 --planners sqrt,chain --points 3 --json",
        "models mlp --json",
        "ops tanh --json",
    ],
)
def test_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str], command: str) -> None:
    result = run(capsys, command)
    assert result.code == 0, result.err
    assert isinstance(json.loads(result.out), dict)


def test_sweep_writes_its_files_and_leaves_no_other(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    result = run(
        capsys,
        "sweep --depth 9 --points 2 --width 16 --batch 64 --jobs 1",
    )
    assert result.code == 0, result.err
    assert sorted(p.name for p in (folder / "plots").iterdir()) == [
        "sweep.csv", "sweep.csv.meta.json", "sweep.png", "sweep.svg",
    ]  # fmt: skip
    rows = read_csv(folder / "plots/sweep.csv")
    assert [(r["depth"], r["strategy"]) for r in rows[:3]] == [
        ("4", "store_all"), ("4", "per_layer"), ("4", "sqrt"),
    ]  # fmt: skip
    run_ones = [row for row in rows if "@" not in row["strategy"]]
    assert {row["gradients_equal"] for row in run_ones} == {"true"}
    assert {row["agrees"] for row in run_ones} == {"true"}
    assert result.out.startswith("residual_mlp, 9 layers: ")
    assert max(map(len, result.out.splitlines())) <= 80
    assert "CPU" not in result.out  # one untraced step is noise
    follow = result.err.splitlines()[-1].removeprefix("next: ckpt ")
    assert follow.startswith("plan residual_mlp --width 16 --batch 64 --depth 9 --budget ")
    assert run(capsys, follow).code == 0
    about = json.loads((folder / "plots/sweep.csv.meta.json").read_text())
    assert about["arguments"]["width"] == 16
    assert about["threads"]["OPENBLAS_NUM_THREADS"] == "1"


def test_a_sweep_of_five_repeats_in_one_process_says_the_cpu_time(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = "--depths 3 --width 16 --batch 32 --strategies store_all,sqrt"
    result = run(capsys, f"sweep {sizes} --jobs 1 --repeats 5 -o times.csv")
    heads = [line.split()[-1] for line in result.out.split("\n\n")[1].splitlines()[:3]]
    assert heads[:2] == ["CPU", "time"]
    assert heads[2] in ("us", "ms")
    assert all(float(row["cpu_seconds"]) > 0 for row in read_csv(folder / "times.csv"))


def test_models_fit_80_columns_and_tell_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "models mlp lstm").out
    assert max(map(len, out.splitlines())) <= 80
    assert "lstm: depth=100 layers=2 width=64 batch=32 vocab=128 dtype=float32" in out


def test_each_model_or_target_has_files_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    from ckpt.cli.outputs import named

    assert run(capsys, "sweep --model mlp --depth 4 --points 1 --no-measure --jobs 1").code == 0
    assert Path("plots/sweep-mlp.png").exists()
    assert [str(path) for path in named("frontier", "../my dir/net.py:make")] == [
        f"plots/frontier-net-make{kind}" for kind in (".png", ".svg", ".csv")
    ]
    assert named("sweep")[0] == Path("plots/sweep.png")


def test_sweep_says_where_checkpointing_a_layer_saves_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = "sweep --model mlp --depth 9 --points 1 --no-measure --jobs 1 -o a.md"
    assert "per_layer saves nothing on mlp" in run(capsys, options).err


def test_a_sweep_that_finds_wrong_gradients_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ckpt.studies import sweep
    from ckpt.studies.points import run_point

    def corrupted(points, **_):  # type: ignore[no-untyped-def]
        rows = [run_point(p) for p in points]
        for row in rows:
            row["gradients_equal"] = row["strategy"] != "sqrt"
        return rows

    monkeypatch.setattr(sweep, "run", corrupted)
    options = "sweep --depth 4 --points 1 --width 8 --batch 16 -o a.csv"
    result = run(capsys, options)
    assert result.code == 4
    assert "sqrt at depth 4: its gradients differ" in result.err
    assert Path("a.csv").exists()


def test_a_plan_is_saved_shown_simulated_and_executed(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    options = "plan mlp --depth 9 --planner sqrt --verify -o plan.json -o plan.svg"
    planned = run(capsys, options)
    assert planned.code == 0, planned.err
    assert "verified" in planned.out
    assert (folder / "plan.svg").exists()
    assert run(capsys, "show", "plan.json").out in planned.out
    text = run(capsys, "show", "plan.json", "--instructions").out
    (folder / "schedule.txt").write_text(text)
    simulated = run(capsys, "simulate", "plan.json", "--json", "-o", "t.json", "-o", "t.svg")
    again = run(capsys, "simulate", "plan.json", "schedule.txt", "--json")
    peak = max(json.loads(simulated.out)["columns"]["high"])
    assert max(json.loads(again.out)["columns"]["high"]) == peak
    assert "peak" in run(capsys, "show", "t.json").out
    executed = run(capsys, "execute plan.json mlp --depth 9 --json")
    assert executed.code == 0, executed.err
    found = json.loads(executed.out)
    assert found["predicted_peak_nbytes"] == peak
    assert found["gradients_equal"] is True


def test_a_plan_for_another_graph_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "plan mlp --depth 9 --planner sqrt -o plan.json")
    result = run(capsys, "execute plan.json mlp --depth 10")
    assert result.code == 2
    assert "another program or other shapes" in result.err


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "cut off"),
        (lambda text: text.replace('"version": 2', '"version": 99'), "version 99"),
        (lambda text: '{"format": "tar"}', "'tar'"),
    ],
)
@pytest.mark.parametrize(
    "command", ["show plan.json", "simulate plan.json", "execute plan.json mlp"]
)
def test_a_damaged_plan(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    damage: Callable[[str], str],
    words: str,
    command: str,
) -> None:
    run(capsys, "plan mlp --depth 4 --planner sqrt -o plan.json")
    path = folder / "plan.json"
    path.write_text(damage(path.read_text().replace('"version":2', '"version": 2')))
    result = run(capsys, command)
    assert result.code == 2
    assert words in result.err


def test_a_schedule_for_a_node_that_is_not_there(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    run(capsys, "plan mlp --depth 4 --planner sqrt -o plan.json")
    (folder / "s.txt").write_text("compute 9999\n")
    result = run(capsys, "simulate", "plan.json", "s.txt")
    assert result.code == 2
    assert "no node 9999" in result.err


def test_frontier_writes_its_files(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    options = "frontier mlp --depth 6 --planners sqrt,chain --budgets 50%,100%"
    result = run(capsys, options)
    assert result.code == 0, result.err
    assert sorted(p.name for p in (folder / "plots").iterdir()) == [
        "frontier-mlp.csv", "frontier-mlp.csv.meta.json", "frontier-mlp.png", "frontier-mlp.svg",
    ]  # fmt: skip
    rows = read_csv(folder / "plots/frontier-mlp.csv")
    assert len(rows) == 4


def test_models_and_ops_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    models = run(capsys, "models", "residual_mlp", "mlp")
    assert "GFLOP" in models.out
    ops = json.loads(run(capsys, "ops", "--json").out)["rows"]
    tanh = next(row for row in ops if row["op"] == "tanh")
    assert tanh == {
        "op": "tanh", "functions": "np.tanh", "residuals": "x: out", "flops": 64 * 64,
        "without_derivative": "",
    }  # fmt: skip
    clip = next(row for row in ops if row["op"] == "clip")
    assert clip["without_derivative"] == "at a bound all to x"
    matmul = next(row for row in ops if row["op"] == "matmul")
    assert matmul["residuals"] == "x: w; w: x"
    assert matmul["flops"] == 2 * 64**3


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from ckpt import __version__

    assert run(capsys, "--version") == (0, f"ckpt {__version__}\n", "")


def test_what_is_run_says_what_malloc_costs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(malloc, "_glibc", lambda: (2, 36))
    for name in malloc.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    large = "mlp --depth 2 --width 256 --batch 8192"
    for command in (f"profile {large}", f"frontier {large} --planners sqrt --points 2"):
        assert "MALLOC_MMAP_THRESHOLD_=" in run(capsys, command).err
    assert "MALLOC" not in run(capsys, f"frontier {large} --planners sqrt --no-measure").err
