"""What one residual block sends between the chips of a TPU that isn't there: compiled, never run.

  python -m benchmarks.one_layer --topology v5e:8x8 --mesh data=4,fsdp=16 --kind conv
  python -m benchmarks.one_layer --topology v5e:8x8 --mesh data=1,fsdp=64 --kind dense --option xla_tpu_...=true

Two products or two convolutions in bf16, with the repository's layers and rule table, their gradient and an SGD step:
seconds to compile where a whole model takes minutes. The last figure is the bytes that leave a chip over those of the
weights in bf16: 2 (less the chip's own piece) is one gather and one scatter. `--kind scatter` is a `psum_scatter` of a
[width, hidden] array over fsdp alone, written out: 1 is a scatter.
"""

import argparse
import json

from ragdiff_jax.cli.plan import _look_for_no_tpu, _mesh, _quiet_start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:8x8")
    parser.add_argument("--mesh", default="data=4,fsdp=16", metavar="AXIS=N,...")
    parser.add_argument("--kind", choices=("dense", "conv", "scatter"), default="dense")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--hidden", type=int, default=1280, help="between the two layers")
    parser.add_argument("--side", type=int, default=24, help="a row is side x side tokens")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the compiler")
    parser.add_argument("--exact", action="store_true", help="the compiler's full effort")
    arguments = parser.parse_args()
    _look_for_no_tpu()
    for row in measured(arguments):
        print(json.dumps(row), flush=True)


def measured(arguments: argparse.Namespace) -> list[dict]:
    """A row a kind of traffic, and one of the whole."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from ragdiff_jax.models.layers import Conv, Dense
    from ragdiff_jax.parallel import batch_sharding, make_mesh, mesh_context, shardings_for, unboxed
    from ragdiff_jax.parallel.collectives import collectives
    from ragdiff_jax.training.plan import _effort, target_devices

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            if arguments.kind != "conv":
                y = nn.gelu(Dense(arguments.hidden, dtype=jnp.bfloat16, name="one")(x))
                y = Dense(arguments.width, axes=("mlp", "embed"), dtype=jnp.bfloat16, name="two")(y)
            else:
                y = nn.silu(Conv(arguments.hidden, dtype=jnp.bfloat16, name="one")(x))
                y = Conv(arguments.width, dtype=jnp.bfloat16, name="two")(y)
            return x + y

    with _quiet_start():
        devices, _ = target_devices(arguments.topology)
    mesh, net, side = make_mesh(**_mesh(arguments.mesh), devices=devices), Block(), arguments.side
    row = (side, side, arguments.width) if arguments.kind == "conv" else (side * side, arguments.width)
    boxed = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *row), jnp.bfloat16))
    places = shardings_for(boxed, mesh)
    params = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), unboxed(boxed), places)
    batch = jax.ShapeDtypeStruct((mesh.size, *row), jnp.bfloat16, sharding=batch_sharding(mesh))

    def step(params, x):
        loss, gradient = jax.value_and_grad(lambda p: jnp.square(net.apply(p, x).astype(jnp.float32)).mean())(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), loss

    def scatter(x):
        return jax.lax.psum_scatter(x[0], "fsdp", scatter_dimension=0, tiled=True)

    with mesh_context(mesh):
        if arguments.kind == "scatter":
            rows, pieces = batch_sharding(mesh), jax.NamedSharding(mesh, jax.P("fsdp"))
            whole = (arguments.width, arguments.hidden)
            params = [jax.ShapeDtypeStruct(whole, jnp.bfloat16, sharding=pieces)]
            batch = jax.ShapeDtypeStruct((mesh.size, *whole), jnp.bfloat16, sharding=rows)
            scattered = jax.shard_map(scatter, in_specs=rows.spec, out_specs=pieces.spec, check_vma=False)
            lowered = jax.jit(scattered).lower(batch)
        else:
            lowered = jax.jit(step, donate_argnums=0, out_shardings=(places, None)).lower(params, batch)
    options = {name: _value(value) for name, _, value in (text.partition("=") for text in arguments.option)}
    with _effort("UNKNOWN" if arguments.exact else "O0"):
        compiled = lowered.compile(compiler_options=options or None)
    rows = collectives(compiled.as_text(), jax.tree.leaves(params))
    weights = 2 * sum(leaf.size for leaf in jax.tree.leaves(params))
    total = sum(row.bytes for row in rows)
    found = [{"kind": row.kind, "purpose": row.purpose, "count": row.count, "MB": row.bytes / 1e6} for row in rows]
    return [*found, {"sent_MB": total / 1e6, "weights_MB": weights / 1e6, "times": round(total / weights, 2)}]


def _value(text: str) -> bool | int | str:
    return {"true": True, "false": False}.get(text, int(text) if text.isdigit() else text)


if __name__ == "__main__":
    main()
