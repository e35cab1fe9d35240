from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from trip import data_bytes, dumped, trip, trip_one

FIELDS = np.dtype([("a", "<i4"), ("b", ">f8", (2, 3)), ("c", [("d", "S3"), ("e", "<U2")])])
DTYPES = [
    "?", "i1", "u1", "<i2", ">i2", "<u4", ">i8", "<f2", "<f4", ">f4", "<f8", ">f8", "<c8", ">c16", "S5", "<U4", ">U4",
    "V7", "<M8[ns]", ">M8[D]", "<m8[25s]", "<M8", "longdouble", "clongdouble",
    FIELDS,
    np.dtype([("a", "i1"), ("b", "<f8")], align=True),
    np.dtype({"names": ["x", "y"], "formats": ["<i4", "<i2"], "offsets": [4, 1], "itemsize": 16}),
    np.dtype([(("Title", "t"), "<i4"), ("u", "<f4")]),
    np.dtype([("", "<i4"), ("", "<f4")]),
]  # fmt: skip


def filled(dtype: Any, shape: tuple[int, ...] = (3, 4)) -> np.ndarray[Any, Any]:
    """Return an array with different bytes everywhere (bools and text stay legal)."""
    dtype = np.dtype(dtype)
    raw = np.random.default_rng(7).integers(0, 2, size=(*shape, dtype.itemsize)).astype("u1")
    if dtype.kind == "U":
        raw[...] = 0
        raw[..., 0 if dtype.str[0] != ">" else 3 :: 4] = 65
    return raw.view(dtype).reshape(shape) if dtype.itemsize else np.zeros(shape, dtype)


def check(back: Any, array: Any) -> None:
    """Both arrays are the same in all that can be seen."""
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    assert back.dtype.fields == array.dtype.fields
    assert back.dtype.isalignedstruct == array.dtype.isalignedstruct
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable == array.flags.writeable


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_exactly(dtype: Any) -> None:
    array = filled(dtype)
    check(trip_one(array), array)
    assert dumped({"v": array})["v"].kind == "tree"
    scalar = array[0, 0]
    back = trip_one(scalar)
    assert type(back) is type(scalar)
    assert back.dtype == scalar.dtype
    assert back.tobytes() == scalar.tobytes()
    assert trip_one(array.dtype) == array.dtype


BASE = np.arange(2 * 3 * 4, dtype="<i4").reshape(2, 3, 4)
LAYOUTS = {
    "0-d": np.array(5.0),
    "empty": np.empty((0, 3), ">f4"),
    "empty inside": np.empty((3, 0, 2), "<i2"),
    "fortran": np.asfortranarray(BASE),
    "transposed": BASE.transpose(1, 0, 2),
    "negative": BASE[::-1, :, ::-1],
    "gaps": BASE[:, ::2, 1:3],
    "column": BASE[:, 0, 0],
    "broadcast": np.broadcast_to(BASE[0, 0], (5, 4)),
    "broadcast scalar": np.broadcast_to(np.float32(3), (2, 2)),
    "unaligned": np.frombuffer(bytearray(33), "u1")[1:].view("<f8"),
    "read-only": np.frombuffer(b"abcdefgh", "<i4"),
    "huge broadcast": np.broadcast_to(np.uint8(1), (2**20, 2**20)),
    "64 dims": np.zeros((1,) * 64),
}


@pytest.mark.parametrize("array", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout_comes_back(array: Any) -> None:
    back = trip_one(array)
    if array.size > 10**6:
        assert back.shape == array.shape
        assert back[-1, -1] == 1
        assert back.strides == (0, 0)
        return
    check(back, array)
    if array.flags.f_contiguous:
        assert back.flags.f_contiguous


def test_blocks_are_views_of_the_arrays_own_memory() -> None:
    array = np.zeros(1000)
    block = dumped({"v": array})["v"].blocks[0]
    assert not block.private
    assert block.itemsize == 8
    array[3] = 1
    assert np.frombuffer(block.view, "f8")[3] == 1
    view = block.view
    del array, block
    assert np.frombuffer(view, "f8")[3] == 1


@pytest.mark.parametrize(
    ("dtype", "width"),
    [("f8", 8), ("f4", 4), ("i2", 2), ("c16", 8), ("c8", 4), ("U3", 4), ("S3", 1), (FIELDS, 1)],
)
def test_blocks_tell_the_width_of_the_numbers_inside(dtype: Any, width: int) -> None:
    assert dumped({"v": np.zeros(10, dtype)})["v"].blocks[0].itemsize == width


def test_restored_arrays_use_the_given_memory_and_can_be_written() -> None:
    from trip import loaded, planned

    fields = dumped({"v": np.arange(10.0)})
    plan = planned(fields, ["v"])
    blocks = loaded(fields, plan)
    back = plan.build(blocks)["v"]
    back[0] = 42
    assert np.frombuffer(blocks["v", 0], "f8")[0] == 42


def test_views_of_one_array_share_memory_again() -> None:
    base = np.arange(20.0)
    values = {"a": {"whole": base, "evens": base[::2]}, "b": base[5:8], "c": base.reshape(4, 5)[:, 1]}
    fields = dumped(values)
    assert [data_bytes(field) for field in fields.values()] == [160, 0, 0]
    back = trip(values)
    back["b"][0] = -1
    assert back["a"]["whole"][5] == -1
    back["c"][0] = -2
    assert back["a"]["whole"][1] == -2
    back["a"]["evens"][5] = -3
    assert back["a"]["whole"][10] == -3


def test_views_that_only_touch_are_blocks_of_their_own() -> None:
    base = np.arange(20.0)
    assert [b.view.nbytes for b in dumped({"v": [base[:10], base[10:]]})["v"].blocks] == [80, 80]


def test_a_small_view_saves_only_its_own_range() -> None:
    base = np.zeros((1000, 1000))
    assert data_bytes(dumped({"v": base[500, 10:20]})["v"]) == 80
    field = dumped({"v": base[:, 0]})["v"]
    assert data_bytes(field) == 8000
    assert field.blocks[0].private


def test_views_that_overlap_keep_their_strides() -> None:
    base = np.arange(100.0).reshape(10, 10)
    back = trip_one([base[:, :6], base[:, 4:]])
    assert back[0].strides == (80, 8)
    back[0][3, 5] = -1
    assert back[1][3, 1] == -1


def test_the_same_array_in_two_fields_is_one_object_again() -> None:
    array = np.arange(3)
    back = trip({"a": array, "b": [array]})
    assert back["b"][0] is back["a"]
    alone = trip({"a": array, "b": [array]}, roots=["b"])
    assert alone["b"][0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "array",
    [
        np.array([1, "a", None, [2]], dtype=object),
        np.array([{"k": np.arange(3)}], dtype=object),
        np.ma.masked_array([1.0, 2.0], mask=[True, False]),
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.zeros(2, np.dtype((np.record, [("a", "i4")]))),
        np.zeros(3, "V0"),
        np.zeros(2, np.dtype("i4", metadata={"m": 1})),
        np.array([(1, None)], dtype=[("a", "i4"), ("o", object)]),
    ],
    ids=lambda array: f"{type(array).__name__}-{array.dtype}",
)
def test_what_is_more_than_bytes_goes_through_pickle(array: Any) -> None:
    field = dumped({"v": array})["v"]
    assert field.kind == "pickle"
    back = trip_one(array)
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    assert repr(back) == repr(array)


def test_big_array_subclasses_leave_their_bytes_outside_the_pickle() -> None:
    array = np.zeros(10_000).view(np.recarray)
    masked = np.ma.masked_array(np.zeros(10_000), mask=np.zeros(10_000, bool))
    for value in (array, masked):
        field = dumped({"v": value})["v"]
        assert len(field.graph) < 1500
        assert np.asarray(trip_one(value)).shape == (10_000,)


def test_a_memmap_comes_back_as_data(tmp_path: Any) -> None:
    mapped = np.memmap(tmp_path / "m", "f4", "w+", shape=(1000,))
    mapped[:] = 3
    back = trip_one(mapped)
    assert np.asarray(back).tolist() == [3.0] * 1000


def test_arrays_of_random_generators_come_back() -> None:
    one, two = np.random.default_rng(1), np.random.RandomState(2)
    back = trip({"one": one, "two": two})
    assert back["one"].random() == one.random()
    assert back["two"].rand() == two.rand()


def test_text_scalars_with_trailing_zeros_are_not_cut() -> None:
    for value in (
        np.str_("a\0"),
        np.bytes_(b"a\0"),
        np.str_(""),
        np.bytes_(b"ab"),
        np.str_("\ud800"),
        np.str_("x" * 999),
    ):
        back = trip_one(value)
        assert type(back) is type(value)
        assert back == value


def test_a_structured_scalar_can_be_written() -> None:
    back = trip_one(np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])[0])
    back["a"] = 5
    assert back["a"] == 5


def test_a_pandas_frame_comes_back_with_its_columns_outside_the_pickle() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "x": np.arange(5000.0),
            "s": ["text"] * 5000,
            "t": pd.date_range("2020-01-01", periods=5000),
            "c": pd.Categorical(["a", "b"] * 2500),
        }
    )
    field = dumped({"v": frame})["v"]
    assert len(field.graph) < 10_000
    back = trip_one(frame)
    pd.testing.assert_frame_equal(back, frame)
    back.loc[0, "x"] = 7.0


def test_a_pyarrow_table_comes_back_with_its_buffers_outside_the_pickle() -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"x": list(range(5000)), "s": ["text", None] * 2500})
    field = dumped({"v": table})["v"]
    assert len(field.graph) < 5000
    assert trip_one(table).equals(table)
    assert trip_one(table.slice(10, 20)).equals(table.slice(10, 20))


def test_a_scikit_learn_model_predicts_the_same() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    x = np.random.default_rng(0).random((60, 3))
    model = ensemble.RandomForestRegressor(n_estimators=5, random_state=0).fit(x, x.sum(axis=1))
    assert trip_one(model).predict(x).tolist() == model.predict(x).tolist()
