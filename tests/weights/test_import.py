"""Others' checkpoints become part folders that compute what the originals compute; what doesn't fit is one line."""

import dataclasses
import json
import os
import shutil

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from quick import quick_jit
from safetensors.torch import save_file

from ragdiff_jax import weights
from ragdiff_jax.errors import UserError
from ragdiff_jax.models.clip_text import CLIPTextModel
from ragdiff_jax.models.clip_vision import CLIPVisionModel
from ragdiff_jax.models.resampler import Resampler
from ragdiff_jax.weights.importing import import_weights
from ragdiff_jax.weights.kinds import KINDS

torch.set_num_threads(1)

UNET = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "transformer_layers_per_block": [1, 2],
    "attention_head_dim": [1, 2],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 12,
    "norm_num_groups": 4,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 12,
    "bos_token_id": 48,
    "eos_token_id": 49,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


def randomise(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.3)
    return module.eval()


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """(diffusers' U-Net, its folder)."""
    folder = tmp_path_factory.mktemp("unet")
    model = randomise(diffusers.UNet2DConditionModel(**UNET))
    model.save_pretrained(folder)
    return model, folder


def load(folder, kind, config):
    return weights.load_part(folder, KINDS[kind].abstract(config))


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    assert np.abs(np.asarray(ours) - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_a_diffusers_unet_comes_in_and_goes_out_bit_for_bit(unet, tmp_path):
    model, folder = unet
    done = import_weights(folder, "unet", tmp_path / "unet")
    assert done.parameters == sum(p.numel() for p in model.parameters()) and done.dtypes == ("float32",)
    assert done.bytes == 4 * done.parameters
    again = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet").state_dict()
    assert set(again) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again[name]), name
    assert os.listdir(tmp_path) == ["unet"]


def test_shards_and_another_dtype(unet, tmp_path):
    model, _ = unet
    model.save_pretrained(tmp_path / "shards", max_shard_size="20kB")
    assert (tmp_path / "shards" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    done = import_weights(tmp_path / "shards", "unet", tmp_path / "half", dtype="bfloat16")
    assert done.dtypes == ("bfloat16",) and done.bytes == 2 * done.parameters
    read = load(tmp_path / "half", "unet", done.config)
    close(read["conv_in"]["kernel"].transpose(3, 2, 0, 1), model.conv_in.weight.bfloat16().float())
    os.remove(sorted((tmp_path / "shards").glob("*-of-*"))[1])  # half a download
    with pytest.raises(UserError, match="no such file"):
        import_weights(tmp_path / "shards", "unet", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_numbers_that_fp16_cannot_hold_are_not_made_infinite(unet, tmp_path):
    model, folder = unet
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors["conv_in.bias"][0] = 1e5
    shutil.copy(folder / "config.json", tmp_path)
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match="conv_in.bias: has numbers beyond float16"):
        import_weights(tmp_path, "unet", tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_a_torch_file_without_config_needs_to_be_told_what_it_is(unet, tmp_path):
    model, folder = unet
    torch.save({"module." + name: tensor for name, tensor in model.state_dict().items()}, tmp_path / "unet.pth")
    with pytest.raises(UserError, match=r"--config NAME \(sd1, sd2, sd2-inpainting, sdxl, fashion-rag"):
        import_weights(tmp_path / "unet.pth", "unet", tmp_path / "a")
    done = import_weights(tmp_path / "unet.pth", "unet", tmp_path / "a", config=str(folder / "config.json"))
    want = load(folder, "unet", done.config)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "a", "unet", done.config), want)


def test_one_line_lists_everything_that_does_not_fit(unet, tmp_path):
    model, folder = unet
    tensors = dict(model.state_dict())
    tensors["extra.weight"] = torch.ones(2)
    del tensors["conv_out.bias"]
    tensors["conv_in.weight"] = torch.ones(8, 9, 3, 3)
    shutil.copy(folder / "config.json", tmp_path)
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError) as error:
        import_weights(tmp_path, "unet", tmp_path / "out")
    text = str(error.value)
    assert "\n" not in text
    for part in ("missing (1): conv_out.bias", "not expected (1): extra.weight", "conv_in.weight [8, 9, 3, 3]"):
        assert part in text
    tensors = dict(model.state_dict()) | {"conv_in.bias": torch.ones(8, dtype=torch.int8)}
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match=r"conv_in.bias \(I8\)"):
        import_weights(tmp_path, "unet", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"kind": "vae"}, "UNet2DConditionModel, not of kind vae; use --kind unet"),
        ({"kind": "net"}, "no such kind"),
        ({"config": "sdxxl"}, "no unet of that name"),
        ({"dtype": "int8"}, "--dtype int8"),
        ({"embed_dim": 7}, "--embed-dim"),
        ({"revision": "0" * 40}, "is a path"),
        ({"subfolder": "vae"}, "no such folder"),
        ({"variant": "fp16"}, "no weights of --variant fp16"),
        ({"source": "nobody/nothing"}, "pin it"),
        ({"source": "nobody/nothing", "revision": "main"}, "pin it"),
        ({"source": "not there"}, "no such file or folder"),
    ],
)
def test_wrong_calls_are_one_line_and_write_nothing(change, words, unet, tmp_path):
    arguments = {"source": unet[1], "kind": "unet", "to": tmp_path / "out"} | change
    with pytest.raises(UserError, match=words) as error:
        import_weights(**arguments)
    assert "\n" not in str(error.value) and not os.listdir(tmp_path)


def test_what_is_there_already_is_kept_and_a_full_disk_leaves_nothing(unet, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="there already"):
        import_weights(unet[1], "unet", tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="GB left"):
        import_weights(unet[1], "unet", tmp_path / "new")
    assert os.listdir(tmp_path) == ["out"]


def test_old_position_ids_are_passed_over(tmp_path):
    """SD 1's published text encoder has them, as integers."""
    model = randomise(transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT)))
    model.save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs" / "model.safetensors"
    from safetensors.torch import load_file

    ids = {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    save_file(load_file(file) | ids, file, {"format": "pt"})
    import_weights(tmp_path / "theirs", "clip-text", tmp_path / "ours")
    again = transformers.CLIPTextModel.from_pretrained(tmp_path / "ours").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again[name]), name


@pytest.fixture(scope="module")
def clip():
    """A whole CLIP model whose projection is as wide as neither tower says."""
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=10)
    return randomise(transformers.CLIPModel(config))


def open_clip_tensors(model):
    """The same model as OpenCLIP writes it."""
    out = {"logit_scale": torch.tensor(1.0)}
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    names["attn.out_proj"] = "self_attn.out_proj"
    for prefix, tower in (("", model.text_model), ("visual.", model.vision_model)):
        for number, layer in enumerate(tower.encoder.layers):
            state = layer.state_dict()
            base = f"{prefix}transformer.resblocks.{number}."
            for kind in ("weight", "bias"):
                fused = [state[f"self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
                out[f"{base}attn.in_proj_{kind}"] = torch.cat(fused)
                for theirs, ours in names.items():
                    out[f"{base}{theirs}.{kind}"] = state[f"{ours}.{kind}"]
    text, vision = model.text_model, model.vision_model
    out["positional_embedding"] = text.embeddings.position_embedding.weight
    out["token_embedding.weight"] = text.embeddings.token_embedding.weight
    out["text_projection"] = model.text_projection.weight.T
    out["visual.positional_embedding"] = vision.embeddings.position_embedding.weight
    out["visual.class_embedding"] = vision.embeddings.class_embedding
    out["visual.conv1.weight"] = vision.embeddings.patch_embedding.weight
    out["visual.proj"] = model.visual_projection.weight.T
    norms = (("ln_final", text.final_layer_norm), ("visual.ln_pre", vision.pre_layrnorm))
    for name, norm in (*norms, ("visual.ln_post", vision.post_layernorm)):
        out[f"{name}.weight"], out[f"{name}.bias"] = norm.weight, norm.bias
    return {name: tensor.detach().contiguous() for name, tensor in out.items()}


OPEN_CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 10,
        "quick_gelu": True,
        "text_cfg": {
            "context_length": 12, "vocab_size": 50, "width": 16, "heads": 2, "layers": 2, "mlp_ratio": 1.5,
        },
        "vision_cfg": {
            "image_size": 16, "patch_size": 4, "width": 24, "head_width": 12, "layers": 2, "mlp_ratio": 4 / 3,
        },
    },
    "preprocess_cfg": {},
}  # fmt: skip


def test_towers_of_a_whole_clip_model_in_each_layout(clip, tmp_path):
    """transformers' layout and OpenCLIP's, safetensors and torch: one result, which computes what transformers does."""
    for layout in ("transformers", "open_clip", "torch"):
        (tmp_path / layout).mkdir()
        (tmp_path / layout / "open_clip_config.json").write_text(json.dumps(OPEN_CLIP_CONFIG))
    os.remove(tmp_path / "transformers" / "open_clip_config.json")
    clip.save_pretrained(tmp_path / "transformers")
    save_file(open_clip_tensors(clip), tmp_path / "open_clip" / "open_clip_model.safetensors")
    torch.save(open_clip_tensors(clip), tmp_path / "torch" / "open_clip_pytorch_model.bin")
    read = {}
    for kind in ("clip-text", "clip-vision"):
        for layout in ("transformers", "open_clip", "torch"):
            done = import_weights(tmp_path / layout, kind, tmp_path / f"{kind}-{layout}")
            params = load(tmp_path / f"{kind}-{layout}", kind, done.config)
            config, first = read.setdefault(kind, (done.config, params))
            assert done.config == dataclasses.replace(config, **special_ids(done.config))
            jax.tree.map(np.testing.assert_array_equal, first, params)
    ids = np.array([[48, 3, 4, 49, 0, 0, 0, 0, 0, 0, 0, 0]], np.int32)
    pixels = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    with torch.no_grad():
        hidden = clip.text_model(torch.from_numpy(ids).long()).pooler_output
        features = clip.vision_model(torch.from_numpy(pixels.transpose(0, 3, 1, 2))).pooler_output
        theirs = clip.text_projection(hidden), clip.visual_projection(features)
    config, params = read["clip-text"]
    close(quick_jit(CLIPTextModel(config).apply)({"params": params}, ids).text_embeds, theirs[0])
    config, params = read["clip-vision"]
    close(quick_jit(CLIPVisionModel(config).apply)({"params": params}, pixels).image_embeds, theirs[1])


def special_ids(config):
    """OpenCLIP's files don't say the first and the padding token."""
    return {name: getattr(config, name) for name in ("bos_token_id", "pad_token_id") if hasattr(config, name)}


def test_open_clips_with_more_than_two_plain_transformers_are_refused(tmp_path):
    config = json.loads(json.dumps(OPEN_CLIP_CONFIG))
    config["model_cfg"]["text_cfg"]["hf_model_name"] = "roberta-base"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="hf_model_name"):
        import_weights(tmp_path, "clip-text", tmp_path / "out")


def f_theta_module():
    layer = transformers.models.clip.modeling_clip.CLIPEncoderLayer
    config = transformers.CLIPVisionConfig(hidden_size=16, intermediate_size=24, num_attention_heads=2)
    module = torch.nn.Module()
    module.encoder_layers = torch.nn.ModuleList([layer(config)])
    module.post_layernorm = torch.nn.LayerNorm(16)
    parts = [(16, 24), (24, 24), (24, 4 * 12)]
    linear = [torch.nn.Linear(*sizes) for sizes in parts]
    module.layers = torch.nn.Sequential(
        linear[0], torch.nn.GELU(), torch.nn.Dropout(), linear[1], torch.nn.GELU(), torch.nn.Dropout(), linear[2]
    )
    return randomise(module)


def test_f_theta_of_ladi_vton_and_fashion_rag(tmp_path):
    module = f_theta_module()
    torch.save(module.state_dict(), tmp_path / "inversion_adapter.pth")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "mlp_dim": 24}
    config = {"_class_name": "InversionAdapter", "num_tokens": 4, "token_dim": 12} | sizes
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = import_weights(tmp_path / "inversion_adapter.pth", "f-theta", tmp_path / "f_theta")
    params = load(tmp_path / "f_theta", "f-theta", done.config)
    state = module.state_dict()
    assert done.parameters == sum(tensor.numel() for tensor in state.values())
    keys = params["encoder"]["layers"]["self_attn"]["k_proj"]["kernel"][0]
    close(keys.T, state["encoder_layers.0.self_attn.k_proj.weight"])
    close(params["layers_6"]["kernel"].T, state["layers.6.weight"])
    close(params["post_layernorm"]["scale"], state["post_layernorm.weight"])
    # Under the published architecture it does not fit.
    os.remove(tmp_path / "config.json")
    with pytest.raises(UserError, match="wrong shape"):
        import_weights(tmp_path / "inversion_adapter.pth", "f-theta", tmp_path / "other")


ADAPTER = {"embed_dim": 20, "dim": 16, "depth": 2, "heads": 2, "dim_head": 8, "num_queries": 4, "ff_mult": 2}


@pytest.fixture(scope="module")
def ip_adapter(unet, tmp_path_factory):
    """(file, config file, diffusers' processors by name, its Resampler): an IP-Adapter-plus of the small U-Net."""
    folder = tmp_path_factory.mktemp("ip")
    model, _ = unet
    generator = torch.Generator().manual_seed(0)
    resampler = randomise(
        diffusers.models.embeddings.IPAdapterPlusImageProjection(
            embed_dims=20, output_dims=12, hidden_dims=16, depth=2, dim_head=8, heads=2, num_queries=4, ffn_ratio=2
        )
    )
    tensors = {"image_proj.latents": resampler.latents}
    tensors["image_proj.proj_in.weight"] = resampler.proj_in.weight
    tensors["image_proj.proj_in.bias"] = resampler.proj_in.bias
    for name, module in (("proj_out", resampler.proj_out), ("norm_out", resampler.norm_out)):
        for kind in ("weight", "bias"):
            tensors[f"image_proj.{name}.{kind}"] = getattr(module, kind)
    for number, block in enumerate(resampler.layers):
        base = f"image_proj.layers.{number}."
        for kind in ("weight", "bias"):
            tensors[f"{base}0.norm1.{kind}"] = getattr(block.ln0, kind)
            tensors[f"{base}0.norm2.{kind}"] = getattr(block.ln1, kind)
            tensors[f"{base}1.0.{kind}"] = getattr(block.ff[0], kind)
        attention, inner = block.attn, block.ff[1].net
        tensors[f"{base}0.to_q.weight"] = attention.to_q.weight
        tensors[f"{base}0.to_kv.weight"] = torch.cat([attention.to_k.weight, attention.to_v.weight])
        tensors[f"{base}0.to_out.weight"] = attention.to_out[0].weight
        tensors[f"{base}1.1.weight"], tensors[f"{base}1.3.weight"] = inner[0].proj.weight, inner[2].weight
    number, theirs = 1, {}
    for name in model.attn_processors:  # as diffusers itself counts them
        if name.endswith("attn2.processor"):
            width = model.get_submodule(name.removesuffix(".processor")).to_q.out_features
            for kind in ("k", "v"):
                weight = torch.randn(width, 12, generator=generator)
                theirs[f"{name.removesuffix('.processor')}.{kind}"] = weight
                tensors[f"ip_adapter.{number}.to_{kind}_ip.weight"] = weight
            number += 2
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / "plus.safetensors")
    config = ADAPTER | {"_class_name": "EPAdapter", "unet": UNET | {"_class_name": "UNet2DConditionModel"}}
    (folder / "adapter.json").write_text(json.dumps(config))
    return folder / "plus.safetensors", folder / "adapter.json", theirs, resampler


def test_ip_adapter_plus_lies_where_diffusers_puts_it(ip_adapter, tmp_path):
    file, config, theirs, resampler = ip_adapter
    done = import_weights(file, "ip-adapter", tmp_path / "ep_adapter", config=str(config))
    params = load(tmp_path / "ep_adapter", "ip-adapter", done.config)
    seen = 0
    for site, depth, *_ in done.config.unet.sites():
        disk = site.replace("blocks_", "blocks.").replace("attentions_", "attentions.").replace("/", ".")
        for layer in range(depth):
            for kind in ("k", "v"):
                ours = params[site.replace("/", "_")][f"to_{kind}"][layer]
                np.testing.assert_array_equal(ours.T, theirs[f"{disk}.transformer_blocks.{layer}.attn2.{kind}"])
                seen += 1
    assert seen == len(theirs)
    embedding = np.random.default_rng(0).normal(size=(2, 1, 20)).astype(np.float32)
    sizes = {name: value for name, value in ADAPTER.items() if name != "embed_dim"}
    model = Resampler(**sizes, output_dim=12)
    ours = quick_jit(model.apply)({"params": params["resampler"]}, embedding)
    with torch.no_grad():
        close(ours, resampler(torch.from_numpy(embedding)))


def test_ip_adapter_for_another_embedding_keeps_all_but_its_first_projection(ip_adapter, tmp_path):
    file, config, *_ = ip_adapter
    same = import_weights(file, "ip-adapter", tmp_path / "same", config=str(config))
    new = import_weights(file, "ip-adapter", tmp_path / "new", config=str(config), embed_dim=6)
    assert new.config.adapter.embed_dim == 6
    a, b = load(tmp_path / "same", "ip-adapter", same.config), load(tmp_path / "new", "ip-adapter", new.config)
    first = b["resampler"].pop("proj_in"), a["resampler"].pop("proj_in")
    assert first[0]["kernel"].shape == (6, 16) and 0.1 < float(jnp.std(first[0]["kernel"])) < 0.5
    np.testing.assert_array_equal(first[0]["bias"], first[1]["bias"])
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_ip_adapters_that_do_not_fit_are_refused(ip_adapter, tmp_path):
    from safetensors.torch import load_file

    file, config, *_ = ip_adapter
    tensors = load_file(file)
    del tensors["ip_adapter.3.to_v_ip.weight"]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match=r"missing \(1\): .*to_v"):
        import_weights(tmp_path / "less.safetensors", "ip-adapter", tmp_path / "out", config=str(config))
    save_file({"image_proj.proj.weight": torch.ones(2, 2)}, tmp_path / "base.safetensors")
    with pytest.raises(UserError, match="plus"):
        import_weights(tmp_path / "base.safetensors", "ip-adapter", tmp_path / "out")


def test_the_hub_is_read_at_a_pinned_revision_from_its_cache(unet, tmp_path, monkeypatch):
    """A cache as huggingface_hub leaves it, and its own code without network."""
    import huggingface_hub.constants

    revision = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "hub" / "models--someone--sdxl" / "snapshots" / revision
    shutil.copytree(unet[1], snapshot / "unet")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    call = {"kind": "unet", "to": tmp_path / "out", "revision": revision, "subfolder": "unet"}
    done = import_weights("someone/sdxl", **call)
    assert done.parameters == sum(p.numel() for p in unet[0].parameters())
    for change, words in (
        ({"revision": revision[::-1]}, "someone/sdxl@76543210fedc: cannot be fetched"),
        ({"subfolder": "vae"}, "vae: there is no such folder"),
        ({"file": "x.pth"}, "x.pth: there is no such file"),
    ):
        with pytest.raises(UserError, match=words):
            import_weights("someone/sdxl", **call | {"to": tmp_path / "none"} | change)


def test_a_pipeline_names_its_parts(unet, tmp_path):
    index = {"_class_name": "P", "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"--subfolder \(unet\)"):
        import_weights(tmp_path, "unet", tmp_path / "out")
