r"""StructureNet of the paper's size: CLIP ViT-L/14 towers at 224 px (R 3.1, 4.1; batch 128).

    ragdiff data partners --dataset stgarment --out partners.jsonl
    ragdiff train --config configs/structure_net/vit_l14.py --workdir runs/structure_net \
        --set data.folder=stgarment --set data.partners=partners.jsonl --set model.vision=weights/clip_vision
    ragdiff train --config configs/structure_net/vit_l14.py:32768 ... --set mesh.data=4 --set mesh.fsdp=16
    ragdiff train --config configs/structure_net/vit_l14.py:32768/8 ...   # the same batch on 8 devices

On v5e 8x8 the second takes 5.2 of 16 GiB a chip and at least 4.0 s a step (`ragdiff plan`, compiled, not run).
"""

from ml_collections import ConfigDict


def get_config(arg: str = "128") -> ConfigDict:
    """`arg`: pairs of a step over all devices, or PAIRS/DEVICES.

    Above 512 pairs the towers see at most 64 a device at a time (GradCache), of 64 devices where nothing else is said:
    each micro-batch gathers the weights anew and sums their gradients, so fewer pairs at a time only cost traffic.
    """
    pairs, _, devices = arg.partition("/")
    batch = int(pairs)
    config = ConfigDict()
    config.objective = "structure_net"
    config.data = ConfigDict(
        {
            "folder": "",
            "image_size": 224,
            "cache": False,
            "decoded": "",
            "resident": False,
            "also": "",
            "also_repeat": 1,
            "partners": "",  # of `ragdiff data partners`; empty: the records' own
            "categories": (),
            "tokenizer": "",
            "held_out": "validation",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "sdxl_flux",
            "vision": "",  # a CLIP vision folder, or the model of a `dino` stage
            "init_from": "",
            "temperature": 0.07,
            "learn_temperature": False,
            "symmetric": False,
            "partner_share": 0.5,
            "recolour": False,
            "shape_temperature": 0.0,
            "paste_share": 0.0,
            "twins": False,
            "attribute_dropout": (0.5, 0.2),
            "export_dtype": "bfloat16",
            "dtype": "bfloat16",
            "remat": True,
            "contrast": "info_nce",
            "micro_batches": max(1, batch // (64 * int(devices or 64))) if batch > 512 else 1,
            "tile": 1024,
            "method": "auto",
        }
    )
    config.train = ConfigDict(
        {
            "steps": 20_000,
            "seconds": 0.0,
            "batch_size": batch,
            "learning_rate": 1e-5,
            "weight_decay": 0.05,
            "ema_decay": 0.999,
            "sample_every": 0,
            "validate_every": 1000,
            "warmup": 500,
            "schedule": "cosine",
            "checkpoint_seconds": 900.0,
            "log_every": 50,
            "seed": 0,
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
