"""Several processes as one call: the same line on every host."""

import argparse


def add_processes(parser: argparse.ArgumentParser) -> None:
    together = parser.add_argument_group(
        "several processes", "found out by itself under srun, mpirun, Kubernetes and on Cloud TPU; else all three"
    )
    together.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    together.add_argument("--processes", type=int, metavar="N", help="how many there are")
    together.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")


def join(arguments: argparse.Namespace) -> bool:
    """Joins the others if there are any, before any other use of jax; whether this is the process that speaks."""
    import jax

    from ragdiff_jax.parallel import join_processes

    join_processes(arguments.coordinator, arguments.processes, arguments.process)
    return jax.process_index() == 0
