r"""The tiny world's stem: flat-lays from captions, before any garment-specific part exists.

    ragdiff train --config configs/text_to_image/tiny.py --workdir runs/tiny/text_to_image \
        --set data.folder=runs/tiny/data
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.objective = "text_to_image"
    config.data = ConfigDict(
        {
            "folder": "runs/tiny/data",
            "image_size": 64,
            "cache": True,
            "decoded": "",  # a folder that keeps the decoded pairs for the next stage
            "resident": False,  # the whole data set on the device: for a card, 8 s^2 bytes a pair of s pixels
            "also": "",  # a folder of more pairs (photos/, flats/, masks/), each also_repeat times an epoch
            "also_repeat": 1,
            "encodings": "",  # a folder that keeps what the frozen networks make of each sample
            "encoding_variants": 1,  # nothing is augmented in this stage
            "tokenizer": "runs/tiny/tokenizer",
            "held_out": "validation",
        }
    )
    config.model = ConfigDict(
        {
            "preset": "tiny",
            "changes": {"dtype": "float32"},
            "parts": {"vae": "runs/tiny/autoencoder/model/vae", "text_encoder": "runs/tiny/clip/model/text_encoder"},
            "tokenizer": "runs/tiny/tokenizer",
            "text_dropout": 0.1,
            "noise_start": True,
        }
    )
    config.train = ConfigDict(
        {
            "steps": 700,
            "seconds": 0.0,
            "batch_size": 16,
            "learning_rate": 0.001,
            "weight_decay": 0.01,
            "ema_decay": 0.995,
            "sample_every": 350,
            "validate_every": 350,
            "warmup": 50,
            "schedule": "cosine",
            "checkpoint_seconds": 300.0,
            "log_every": 50,
            "seed": 0,
        }
    )
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    return config
