"""`ragdiff data dresscode` and `vitonhd`: the layouts in, a data set and its numbers out."""

import drawn_people
import pytest

from ragdiff_jax.data.person_records import TfdsPersons


def test_dresscode_tells_what_it_wrote(tmp_path, ragdiff):
    source = drawn_people.write_dresscode(tmp_path / "in", categories=("dresses",))
    (tmp_path / "x.json").write_text('{"train": {"duplicates": ["001001_0.jpg"]}}')
    call = ("data", "dresscode", "--source", source, "--out", tmp_path / "out", "--categories", "dresses")
    code, out, err = ragdiff(
        *call, "--splits", "train,test", "--height", 32, "--exclude", tmp_path / "x.json", "--json"
    )
    assert code == 0 and not [line for line in err if line.startswith("ragdiff:")]
    assert out[0]["counts"] == {"train": 2, "test": 3} and out[0]["left_out"] == {"listed": 1}
    assert [record.id for record in TfdsPersons(out[0]["folder"], "train")] == ["dresses/001000", "dresses/001002"]
    code, out, _ = ragdiff(*call, "--no-captions")
    assert code == 0 and out[0].endswith("3 train, 3 test, 3 test_unpaired")


def test_vitonhd_drops_same_pictures(tmp_path, ragdiff):
    source = drawn_people.write_vitonhd(tmp_path / "in")
    leaked = source / "test/image/10001_00.jpg"
    leaked.write_bytes((source / "train/image/00000_00.jpg").read_bytes())
    code, out, _ = ragdiff(
        "data", "vitonhd", "--source", source, "--out", tmp_path / "out",
        "--captions", source / "captions.json", "--splits", "train,test", "--drop-same-pictures",
    )  # fmt: skip
    assert code == 0 and out[0].endswith("4 train, 3 test; left out 1 leaked")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--splits", "train,val"), "split 'val'"),
        (("--categories", "hats"), "category 'hats'"),
        (("--source", "nowhere"), "nowhere: no such folder"),
        (("--height", "3"), "--height"),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path, ragdiff, change, words):
    source = drawn_people.write_dresscode(tmp_path / "in", categories=("dresses",), people=2)
    code, out, err = ragdiff("data", "dresscode", "--source", source, "--out", tmp_path / "out", *change)
    assert code == 2 and not out and words in err[-1] and len(err) == 1


def test_people_are_drawn(tmp_path, ragdiff):
    code, out, _ = ragdiff("data", "people", "--out", tmp_path, "--count", 6, "--size", 32, "--seed", 2, "--json")
    assert code == 0 and {name: out[0][name] for name in ("count", "size", "seed")} == {
        "count": 6,
        "size": 32,
        "seed": 2,
    }
    assert TfdsPersons(out[0]["folder"], "test")[0].id == "synth-2-0000004"
