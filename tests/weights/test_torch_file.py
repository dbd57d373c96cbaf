"""Torch files are read as torch reads them, and nothing in them is ever run."""

import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from ragdiff_jax.errors import UserError
from ragdiff_jax.weights.sources import whole
from ragdiff_jax.weights.torch_file import TorchFile

torch.set_num_threads(1)


def everything(source):
    return {name: source.read(name, whole(shape)) for name, shape in source.shapes.items()}


def test_a_state_dict_is_read_as_torch_reads_it(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
    torch.save(module.state_dict(), tmp_path / "a.pth")  # its _metadata is an attribute of the dictionary
    source = TorchFile(tmp_path / "a.pth")
    read = everything(source)
    assert set(read) == set(module.state_dict())
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(read[name], tensor.numpy())
    assert source.dtypes["0.weight"] == "float32" and source.dtypes["1.num_batches_tracked"] == "int64"


def old(value, path):
    torch.save(value, path, _use_new_zipfile_serialization=False)


def test_the_layout_before_torch_1_6_is_read_and_not_run(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    tree = collections.OrderedDict(a=base[1:, 2:5], turned=base.T, b=torch.nn.Parameter(base.half()), n=torch.tensor(3))
    old({"state_dict": tree, "epoch": 3}, tmp_path / "a.pth")
    read = everything(TorchFile(tmp_path / "a.pth"))
    assert set(read) == {f"state_dict.{name}" for name in tree}
    for name, tensor in tree.items():
        np.testing.assert_array_equal(read[f"state_dict.{name}"], tensor.detach().numpy())
    old({"a": torch.ones(2), "b": Evil(f"touch {tmp_path / 'ran'}")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil.pth: .*(posix|nt|os).system"):
        TorchFile(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_a_damaged_old_file_is_one_line(tmp_path):
    old({"a": torch.arange(40.0)}, tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    sizes = data.index((40).to_bytes(8, "little"))
    for change, words in (
        (data[:-8], "ends behind the file"),
        (data[:60], "damaged|version"),
        (data[:sizes] + (41).to_bytes(8, "little") + data[sizes + 8 :], "41 numbers"),
        (data.replace(b"little_endian\x94\x88", b"").replace(b"little_endianq", b"bittle_endianq"), "endian"),
    ):
        (tmp_path / "b.pth").write_bytes(change)
        with pytest.raises(UserError, match=words) as error:
            TorchFile(tmp_path / "b.pth")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", [2, 4])
def test_views_parameters_dtypes_and_nesting(protocol, tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    tree = {
        "step": 3,
        "unet": {"slice": base[1:, 2:5], "turned": base.T, "half": base.half(), "scalar": torch.tensor(2.5)},
        "ema": collections.OrderedDict(b=torch.nn.Parameter(base.bfloat16()), empty=torch.zeros(0, 3)),
    }
    torch.save(tree, tmp_path / "a.pt", pickle_protocol=protocol)
    source = TorchFile(tmp_path / "a.pt")
    read = everything(source)
    assert set(read) == {"unet.slice", "unet.turned", "unet.half", "unet.scalar", "ema.b", "ema.empty"}
    np.testing.assert_array_equal(read["unet.slice"], base[1:, 2:5].numpy())
    np.testing.assert_array_equal(read["unet.turned"], base.T.numpy())
    np.testing.assert_array_equal(source.read("unet.turned", (slice(1, 3), slice(0, 2))), base.T[1:3, :2].numpy())
    assert read["unet.half"].dtype == np.float16 and read["ema.b"].dtype.name == "bfloat16"
    np.testing.assert_array_equal(read["ema.b"].astype(np.float32), base.numpy())
    assert read["unet.scalar"] == 2.5 and read["ema.empty"].shape == (0, 3)


class Evil:
    """What an attacker puts into a checkpoint: a command that runs when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize(
    "wrap", [lambda e: e, lambda e: {"a.weight": torch.ones(2), "b": e}, lambda e: {"_metadata": [e]}]
)
def test_code_in_a_checkpoint_is_named_and_not_run(wrap, tmp_path):
    torch.save(wrap(Evil(f"touch {tmp_path / 'ran'}")), tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil.pth: .*(posix|nt|os).system") as error:
        TorchFile(tmp_path / "evil.pth")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def rewrite(path, changes):
    """The archive again with members replaced (bytes), removed (None) or added."""
    with zipfile.ZipFile(path) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    root = next(iter(members)).split("/")[0]
    members |= {f"{root}/{name}": data for name, data in changes.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for name, data in members.items():
            if data is not None:
                new.writestr(name, data)
    path.write_bytes(buffer.getvalue())


STORAGE = b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


def tensor(offset: bytes, size: bytes, stride: bytes) -> bytes:
    """A pickle of {"a": a tensor with this layout}, on storage 0 of four floats."""
    head = b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n("
    return head + STORAGE[2:] + offset + size + b"\x85" + stride + b"\x85" + b"\x89N" + b"tRs."


def nested_dictionaries() -> bytes:
    """Each of 40 dictionaries holds the one before four times: a few hundred bytes, 4 ** 40 entries."""
    out = b"\x80\x02}q\x00"
    for number in range(40):
        inner = b"".join(b"K%ch%c" % (key, number) for key in range(4))
        out += b"}q%c(" % (number + 1) + inner + b"u"
    return out + b"."


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"data.pkl": b"cbuiltins\neval\n(X\x01\x00\x00\x001tR."}, "builtins.eval"),
        ({"data.pkl": b"\x80\x04\x8c\x02os\x8c\x06system\x93."}, "os.system"),
        ({"data.pkl": b"ctorch\nload\n."}, "torch.load"),
        ({"data.pkl": b"(S'ls'\nios\nsystem\n."}, "INST|STRING"),
        ({"data.pkl": b"\x80\x02\x82\x01."}, "EXT1"),
        ({"data.pkl": b"\x80\x02}R."}, "damaged|calls"),
        ({"data.pkl": b""}, "damaged"),
        ({"data.pkl": b"\x80\x02}"}, "damaged|no end"),
        ({"data.pkl": b"\x80\x02}X\xff\xff\xff\x7fa."}, "damaged"),
        ({"data.pkl": b"\x80\x02]."}, "state_dict"),
        ({"data.pkl": b"\x80\x02K\x01K\x02s."}, "damaged|into a int"),
        ({"data.pkl": tensor(b"K\x00", b"K\x09", b"K\x01")}, "behind its storage"),
        ({"data.pkl": tensor(b"K\x03", b"K\x02", b"K\x01")}, "behind its storage"),
        ({"data.pkl": tensor(b"J\xff\xff\xff\xff", b"K\x02", b"K\x01")}, "cannot be"),
        ({"data.pkl": tensor(b"K\x00", b"J\xff\xff\xff\x7f", b"K\x00")}, "repeats"),
        ({"data.pkl": nested_dictionaries()}, "more than 100000 entries"),
        ({"data.pkl": b"\x80\x02}q\x00K\x01h\x00s."}, "more than 100000 entries"),
        ({"data/0": None}, "missing"),
        ({"data/0": b"1234"}, "too few"),
        ({"byteorder": b"big"}, "little endian"),
        ({"code/__torch__.py": b"x"}, "TorchScript"),
    ],
)
def test_hostile_and_damaged_archives_are_one_line(changes, words, tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(4.0)}, path)
    rewrite(path, changes)
    with pytest.raises(UserError, match=words) as error:
        TorchFile(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_other_formats_are_refused(tmp_path):
    (tmp_path / "raw.pth").write_bytes(pickle.dumps({"a": 1}))
    torch.save({"a": torch.ones(2000)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:4000])
    for name in ("raw", "cut"):
        with pytest.raises(UserError, match="torch 1.6"):
            TorchFile(tmp_path / f"{name}.pth")
    with pytest.raises(UserError, match="no such file"):
        TorchFile(tmp_path / "none.pth")


def test_compressed_data_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(4096)}, path)
    with zipfile.ZipFile(path) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in members.items():
            new.writestr(name, data)
    with pytest.raises(UserError, match="compressed"):
        TorchFile(path)
