# amaranth: UnusedElaboratable=no
import itertools

import numpy as np
import pytest

from mxforge.pipeline import Streamed
from mxforge.scale_address import ScaleAddress
from mxgolden import scale_address as golden
from mxgolden import swizzle_scales

ORDERS = "planar", "swizzled"


@pytest.mark.parametrize(("order", "stages"), [("planar", 0), ("swizzled", 1)])
def test_bench(simulate, order, stages):
    simulate(Streamed(ScaleAddress(order=order, stages=stages)), "scale_address")


@pytest.mark.parametrize("order", ORDERS)
def test_volume(verify, order):
    hits = verify(ScaleAddress(order=order), 400_000)
    assert all(hits.values()), hits


@pytest.mark.parametrize("stages", range(3))
@pytest.mark.parametrize("order", ORDERS)
def test_every_depth(verify, order, stages):
    verify(ScaleAddress(order=order, stages=stages), 40_000, stalls=stages)
    verify(ScaleAddress(order=order, stages=stages), 40_000, streamed=False)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_whole_walks(verify, order):
    for part in range(4):
        verify(ScaleAddress(order=order, stages=1), 10_000_000 + part)


SIZES = [*itertools.product([1, 127, 128, 129, 256], [1, 3, 4, 5, 8]), (1, 300), (300, 1), (33, 2), (257, 9)]


def tokens(sizes, lengths):
    """A walk of each size, so many beats long; what other beats tell doesn't matter."""
    count = sum(lengths)
    inputs = {"first": np.zeros(count, np.uint8), "rows": np.full(count, 7, np.uint16), "columns": np.full(count, 9, np.uint16)}
    for start, (rows, columns) in zip(np.cumsum([0, *lengths[:-1]]), sizes, strict=True):
        inputs["first"][start], inputs["rows"][start], inputs["columns"][start] = 1, rows, columns
    return inputs


def test_it_swizzles(play):
    """Scales written where it says, in the order of a planar layout, give golden's plane, and read back, the scales."""
    planar, swizzled = (lambda inputs, order=order: play(Streamed(ScaleAddress(order=order)), "scale_address", inputs)
                        for order in ORDERS)
    matrices = [np.random.default_rng(n).integers(1, 256, size, dtype=np.uint8) for n, size in enumerate(SIZES)]
    planes = [swizzle_scales(matrix) for matrix in matrices]
    there = planar(tokens(SIZES, [matrix.size for matrix in matrices]))
    back = swizzled(tokens(SIZES, [plane.size for plane in planes]))
    assert not there["is_padding"].any() and there["last"].sum() == back["last"].sum() == len(SIZES)
    at = from_ = 0
    for matrix, plane in zip(matrices, planes, strict=True):
        rows = slice(at, at + matrix.size)
        written = np.zeros_like(plane)
        written[there["offset"][rows]] = matrix.reshape(-1)
        np.testing.assert_array_equal(written, plane)
        assert there["last"][rows.stop - 1]
        at = rows.stop

        rows = slice(from_, from_ + plane.size)
        assert (back["offset"][rows] == np.arange(plane.size)).all() and back["last"][rows.stop - 1]
        is_scale = back["is_padding"][rows] == 0
        assert is_scale.sum() == matrix.size and not plane[~is_scale].any()
        np.testing.assert_array_equal(plane[is_scale], matrix[back["row"][rows][is_scale], back["column"][rows][is_scale]])
        from_ = rows.stop


def test_before_the_first_walk(play):
    """One row and one column until told."""
    inputs = {"first": np.zeros(600, np.uint8), "rows": np.full(600, 5, np.uint16), "columns": np.full(600, 5, np.uint16)}
    for order, size in ("planar", 1), ("swizzled", 512):
        got = play(Streamed(ScaleAddress(order=order)), "scale_address", inputs)
        for name, array in golden.expected({"order": order}, inputs).items():
            np.testing.assert_array_equal(got[name], array)
        assert got["offset"].tolist() == [n % size for n in range(600)]


@pytest.mark.parametrize(("order", "rows", "columns"), [
    ("planar", 0, 4), ("planar", 3, 0), ("swizzled", 0, 4),
    *(pytest.param(*size, marks=pytest.mark.slow) for size in (("swizzled", 1, 0), ("planar", 257, 0), ("swizzled", 129, 65535)))])
def test_largest_sizes(play, order, rows, columns):
    """0 stands for 65,536: the whole walk, and a few beats of the next."""
    whole = (rows or 1 << 16) * (columns or 1 << 16)
    if order == "swizzled":
        whole = 512 * -(-(rows or 1 << 16) // 128) * -(-(columns or 1 << 16) // 4)
    inputs = tokens([(rows, columns)], [whole + 100])
    got = play(Streamed(ScaleAddress(order=order)), "scale_address", inputs)
    for name, array in golden.expected({"order": order}, inputs).items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
    assert np.flatnonzero(got["last"]).tolist() == [whole - 1]


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"order": "blocked"}, ValueError, "order must be one of planar, swizzled, not 'blocked'"),
    ({"stages": 3}, ValueError, r"stages must be 0 to 2 \(address, beat\), not 3"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        ScaleAddress(**values)
