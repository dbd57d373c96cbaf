"""Eight virtual CPU devices for every test, and quick compilation: both set before jax looks at its devices.

Most of the suite's time is XLA optimising what runs once or twice, here and in the processes that tests start.
"""

import gc
import os

import checked
import jax
from quick import OPTIONS

checked.install()

FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in OPTIONS.items())
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
jax.config.update("jax_num_cpu_devices", 8)
gc.set_threshold(100_000, 20, 20)  # as `cli.inputs.trace_undisturbed`, whose module is not to be imported yet

# A file is one worker's: those with few and long tests begin, or one worker ends with them while the other is idle.
LONG = ("test_meshes.py", "test_processes.py", "test_objectives.py", "test_fashion_stages.py", "test_examples.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)
