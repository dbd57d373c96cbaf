r"""Large-batch contrastive losses: memory of value and gradient a device, and what a step costs.

    python benchmarks/contrastive.py                        # compiled only: N = 32k, 256k, 1M on 8 virtual devices
    python benchmarks/contrastive.py --devices 8 --sizes 32768 --losses info_nce sigmoid --time 4096

Memory is XLA's own `memory_analysis()` of the compiled program (nothing runs, no array is allocated): temporaries and
the gradients that come out; the embeddings that go in are told beside it. `--time N` runs N rows besides, and the same
by the plain N x N loss.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2**15, 2**18, 2**20], help="rows of the whole batch")
    parser.add_argument("--devices", type=int, default=8, help="virtual CPU devices (default %(default)s)")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--losses", nargs="+", default=["info_nce", "symmetric", "sigmoid"])
    parser.add_argument("--time", type=int, default=0, metavar="N", help="run N rows on one device, five times")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", arguments.devices)
    from ragdiff_jax.parallel import make_mesh

    mesh = make_mesh(devices=jax.devices()[: arguments.devices])
    for n in arguments.sizes:
        for loss in arguments.losses:
            for method in ("gather", "ring"):
                print(json.dumps(compiled(arguments, mesh, n, loss, method)), flush=True)
    if arguments.time:
        for line in timed(arguments):
            print(json.dumps(line), flush=True)


def value_and_gradient(loss: str, method: str, tile: int, mesh):
    """The program that is measured: mean loss and gradients of queries, keys and scale."""
    from ragdiff_jax.training.large_batch import info_nce, sigmoid_loss

    options = {"tile": tile, "method": method, "mesh": mesh}

    def mean(queries, keys, scale, ids):
        options_ = options | {"query_ids": ids, "key_ids": ids[:, :1]}
        if loss == "sigmoid":
            return sigmoid_loss(queries, keys, scale, -10.0, **options_)[0].mean()
        return info_nce(queries, keys, scale, symmetric=loss == "symmetric", **options_)[0].mean()

    return jax.value_and_grad(mean, argnums=(0, 1, 2))


def compiled(arguments, mesh, n: int, loss: str, method: str) -> dict:
    """Memory of the compiled program, in GiB a device."""
    from ragdiff_jax.parallel import batch_sharding, replicated

    rows, whole = batch_sharding(mesh), replicated(mesh)
    vectors = jax.ShapeDtypeStruct((n, arguments.dim), jnp.dtype(arguments.dtype), sharding=rows)
    scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
    ids = jax.ShapeDtypeStruct((n, 2), jnp.int32, sharding=rows)
    program = jax.jit(
        value_and_gradient(loss, method, arguments.tile, mesh), out_shardings=(whole, (rows, rows, whole))
    )
    start = time.perf_counter()
    memory = program.lower(vectors, vectors, scale, ids).compile().memory_analysis()
    return {
        "loss": loss,
        "method": method,
        "N": n,
        "devices": arguments.devices,
        "GiB_temporaries": round(memory.temp_size_in_bytes / GIB, 3),
        "GiB_gradients": round(memory.output_size_in_bytes / GIB, 3),
        "GiB_value_and_gradient": round((memory.temp_size_in_bytes + memory.output_size_in_bytes) / GIB, 3),
        "GiB_embeddings_in": round(memory.argument_size_in_bytes / GIB, 3),
        "seconds_to_compile": round(time.perf_counter() - start, 1),
    }


def timed(arguments):
    """Seconds of one value and gradient of N rows on one device: tiles, and the whole N x N at once."""
    n = arguments.time
    rng = np.random.default_rng(0)
    queries, keys = (
        jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), arguments.dtype)
        for x in rng.normal(size=(2, n, arguments.dim)).astype(np.float32)
    )
    ids = jnp.zeros((n, 2), jnp.int32) - 1

    def plain(queries, keys, scale, ids):
        logits = scale * jnp.einsum("id,jd->ij", queries, keys, preferred_element_type=jnp.float32)
        return (jax.nn.logsumexp(logits, axis=1) - jnp.diagonal(logits)).mean()

    programs = {
        "tiles": value_and_gradient("info_nce", "gather", arguments.tile, None),
        "N x N": jax.value_and_grad(plain, argnums=(0, 1, 2)),
    }
    for name, program in programs.items():
        program = jax.jit(program)
        jax.block_until_ready(program(queries, keys, jnp.float32(14.3), ids))
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(program(queries, keys, jnp.float32(14.3), ids))
            seconds.append(round(time.perf_counter() - start, 3))
        yield {"run": name, "N": n, "device": str(jax.devices()[0]), "seconds": sorted(seconds)}


if __name__ == "__main__":
    main()
