"""The floors hold, and importing the package stays light: no torch, no TensorFlow, no seconds of waiting."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

FOREIGN = {"torch", "tensorflow", "diffusers", "transformers", "clu"}
SLOW = {"tensorflow_datasets", "scann", "matplotlib", "sklearn"}


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_rooms_import_only_lower_floors():
    linter = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", linter], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_every_module_pulls_in_no_other_framework():
    """Not even transitively."""
    loaded = run_python(
        "import importlib, pkgutil, sys, ragdiff_jax\n"
        "for module in pkgutil.walk_packages(ragdiff_jax.__path__, 'ragdiff_jax.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    assert not FOREIGN & set(loaded.split())


def test_import_is_quick():
    """Slow libraries are imported where they are used."""
    # The package's own import is lazy: what it names is asked for, as a program would.
    *loaded, seconds = run_python(
        "import sys, time, ragdiff_jax\n"
        "for name in ragdiff_jax.__all__: getattr(ragdiff_jax, name)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), time.process_time())"
    ).split()
    assert not (FOREIGN | SLOW) & set(loaded)
    assert float(seconds) < 10, seconds  # 2.6 of a quiet machine


def test_help_needs_no_jax():
    """`ragdiff --help` answers at once because JAX is imported inside the verbs."""
    loaded = run_python(
        "import sys\n"
        "from ragdiff_jax.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('loaded', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    assert "jax" not in loaded.rsplit("loaded", 1)[1].split()


def test_every_benchmark_can_be_imported():
    """They are run by hand: a name that moved would be noticed after an hour of training. gpu* run as scripts."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "benchmarks").rglob("*.py")]
    names = sorted(name for name in names if not name.startswith("benchmarks.gpu"))
    assert len(names) > 20
    run_python(f"import importlib\nfor name in {names!r}: importlib.import_module(name)")
