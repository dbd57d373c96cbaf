"""Eight virtual CPU devices for every test: set before jax looks at its devices."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
