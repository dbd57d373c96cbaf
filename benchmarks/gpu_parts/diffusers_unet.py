"""The same U-Net in diffusers under torch.compile, where torch and diffusers are installed."""

import statistics
import time

from gpu_parts.program import Record
from ragdiff_jax.systems.ragdiffusion import RAGDiffusion

TEXT_TOKENS = 77
COMPILING = 120.0  # seconds, about


def measure(preset: str, batch: int, repeats: int, left: float) -> Record:
    """ms of one forward pass of MainNet's architecture, bf16, channels last; or why there is none."""
    name = f"diffusers batch {batch}"
    try:
        import torch
        from diffusers import UNet2DConditionModel
    except ImportError as error:
        return {"name": name, "skipped": f"absent: {error.name} is not installed"}
    if not torch.cuda.is_available():
        return {"name": name, "skipped": "torch sees no CUDA device"}
    if left < COMPILING:
        return {"name": name, "skipped": "budget"}
    model = RAGDiffusion.from_config(preset)
    config, side = model.unet, model.latent_size
    with torch.device("cuda"), torch.no_grad():
        network = UNet2DConditionModel.from_config(config.to_dict()).eval()
        network = network.to(torch.bfloat16, memory_format=torch.channels_last)
        network = torch.compile(network, mode="max-autotune-no-cudagraphs")
        latents = torch.randn(batch, config.in_channels, side, side, dtype=torch.bfloat16)
        text = torch.randn(batch, TEXT_TOKENS, config.cross_attention_dim, dtype=torch.bfloat16)
        added = {
            "text_embeds": torch.randn(batch, config.text_embed_dim, dtype=torch.bfloat16),
            "time_ids": torch.full((batch, 6), float(model.image_size), dtype=torch.bfloat16),
        }
        t = torch.full((batch,), 500)

        def run() -> float:
            start = time.perf_counter()
            network(latents, t, text, added_cond_kwargs=added)
            torch.cuda.synchronize()
            return time.perf_counter() - start

        run(), run()
        seconds = statistics.median(run() for _ in range(repeats))
    return {"name": name, "ms": round(1e3 * seconds, 2), "torch": torch.__version__}
