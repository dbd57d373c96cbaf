"""The benchmark of one card runs tiny on a CPU, and what it compiled beforehand it doesn't compile again."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*words):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_a_second_run_compiles_nothing(tmp_path):
    words = ("--only", "peak,attention,convolution,linear", "--cache", str(tmp_path / "cache"))
    first = run(*words, "--compile-only")
    assert first[-1]["compilation_cache"]["misses"] > 0 and all("error" not in record for record in first)
    second = run(*words, "--markdown", str(tmp_path / "table.md"))
    assert second[-1]["compilation_cache"]["misses"] == 0
    measured = [record for record in second if "group" in record]
    assert {record["name"] for record in measured} == {record["name"] for record in first[1:-1]}
    assert all(record["ms"] > 0 for record in measured)
    assert len((tmp_path / "table.md").read_text().splitlines()) == 2 + len(measured)


def test_a_spent_budget_skips_and_says_so():
    records = run("--only", "peak,step", "--budget", "0")
    assert [record["skipped"] for record in records if "group" in record] == ["budget"] * 3
