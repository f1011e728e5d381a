"""Layouts of the golden model against other ways of saying them, and literals."""
import itertools

import numpy as np
import pytest

import mxgolden
from mxgolden.formats import ELEMENTS

SHAPES = [*itertools.product([1, 31, 32, 33, 127, 128, 129, 300, 512], [1, 3, 4, 5, 8, 13]), (1, 257), (1000, 1), (640, 96)]


def blocked(scales):
    """The swizzled plane by pads, reshapes and transposes, as GPU libraries make it, and without an index formula."""
    rows, columns = scales.shape
    padded = np.pad(scales, ((0, -rows % 128), (0, -columns % 4)))
    tiles = padded.reshape(len(padded) // 128, 128, -1, 4).transpose(0, 2, 1, 3)
    return tiles.reshape(-1, 4, 32, 4).transpose(0, 2, 1, 3).reshape(-1)


@pytest.mark.parametrize("shape", SHAPES)
def test_swizzled_plane_by_reshapes(shape):
    scales = np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)
    plane = mxgolden.swizzle_scales(scales)
    np.testing.assert_array_equal(plane, blocked(scales))
    np.testing.assert_array_equal(mxgolden.unswizzle_scales(plane, *shape), scales)


@pytest.mark.parametrize("columns", [1, 4, 5, 9])
def test_swizzled_offsets_by_strides(columns):
    """The tile as shapes and strides, as CUTLASS writes it: rows (32, 4) by (16, 4), columns 4 by 1."""
    for row, column in itertools.product(range(0, 260, 3), range(columns)):
        digits = [(row % 32, 16), (row // 32 % 4, 4), (column % 4, 1), (column // 4, 512), (row // 128, 512 * -(-columns // 4))]
        assert mxgolden.swizzled_offset(row, column, columns) == sum(digit * stride for digit, stride in digits)


def test_swizzled_literals():
    """A tile is a column of 32 rows of 16 bytes, in which rows 0, 32, 64 and 96 lie side by side; tiles go row by row."""
    for (row, column, columns), offset in {
            (0, 0, 4): 0, (0, 3, 4): 3, (1, 0, 4): 16, (31, 3, 4): 499, (32, 0, 4): 4, (64, 0, 4): 8, (96, 0, 4): 12,
            (127, 3, 4): 511, (0, 4, 8): 512, (128, 0, 8): 1024, (128, 0, 9): 1536, (129, 5, 8): 1024 + 512 + 16 + 1}.items():
        assert mxgolden.swizzled_offset(row, column, columns) == offset
        assert [int(n) for n in mxgolden.swizzled_place(offset, columns)] == [row, column]
    assert mxgolden.swizzled_offset(65535, 65535, 65536) == 2**32 - 1


def test_places_are_the_inverse():
    """Every byte of a plane has a place; each scale's is its own, and the others lie beyond the matrix."""
    for rows, columns in (1, 1), (128, 4), (129, 5), (300, 9), (5, 130):
        plane = np.arange(512 * -(-rows // 128) * -(-columns // 4))
        row, column = mxgolden.swizzled_place(plane, columns)
        np.testing.assert_array_equal(mxgolden.swizzled_offset(row, column, columns), plane)
        assert ((row < rows) & (column < columns)).sum() == rows * columns


def test_padding_is_zero():
    plane = mxgolden.swizzle_scales(np.full((5, 3), 255, np.uint8))
    assert plane.shape == (512,) and (plane == 255).sum() == 15 and (plane == 0).sum() == 497


@pytest.mark.parametrize("element", ELEMENTS)
def test_dense_codes(element):
    """The packed bytes are one integer in which code k stands at bit k * width."""
    width = ELEMENTS[element].width
    codes = np.random.default_rng(width).integers(0, 1 << width, (7, 24), dtype=np.uint8)
    packed = mxgolden.pack_codes(codes, element)
    assert packed.shape == (7, 3 * width)
    for row, line in zip(codes, packed, strict=True):
        assert int.from_bytes(line.tobytes(), "little") == sum(int(code) << width * k for k, code in enumerate(row))
    np.testing.assert_array_equal(mxgolden.unpack_codes(packed, element), codes)


def test_dense_literals():
    assert mxgolden.pack_codes(np.uint8([0x1, 0x2, 0xF, 0x8]), "e2m1").tolist() == [0x21, 0x8F]
    assert mxgolden.pack_codes(np.uint8([0x3F, 0, 0x3F, 0]), "e3m2").tolist() == [0x3F, 0xF0, 0x03]
    assert mxgolden.pack_codes(np.uint8([1, 2]), "e4m3").tolist() == [1, 2]


@pytest.mark.parametrize(("element", "block_bytes"), [("e4m3", 33), ("mxint8", 33), ("e2m3", 25), ("e2m1", 17)])
def test_interleaved_and_planar(element, block_bytes):
    rng = np.random.default_rng(9)
    scales = rng.integers(0, 256, (5, 3), dtype=np.uint8)
    codes = rng.integers(0, 1 << ELEMENTS[element].width, (5, 96), dtype=np.uint8)
    stream = mxgolden.interleave(scales, codes, element)
    assert stream.shape == (15 * block_bytes,)
    by_hand = b"".join(bytes([scale]) + mxgolden.pack_codes(block, element).tobytes()
                       for scale, block in zip(scales.reshape(-1), codes.reshape(-1, 32), strict=True))
    assert stream.tobytes() == by_hand
    data, plane = mxgolden.to_planes(scales, codes, element)
    assert data.tobytes() == b"".join(by_hand[n + 1:n + block_bytes] for n in range(0, len(by_hand), block_bytes))
    assert plane.tobytes() == by_hand[::block_bytes]
    for back in mxgolden.deinterleave(stream, element), mxgolden.from_planes(data, plane, element):
        np.testing.assert_array_equal(back[0], scales.reshape(-1))
        np.testing.assert_array_equal(back[1], codes.reshape(-1, 32))


def test_where_an_element_lies():
    """Element i of FP8 at byte 33 * (i >> 5) + 1 + (i & 31), its scale at 33 * (i >> 5)."""
    codes = np.random.default_rng(1).integers(0, 256, 128, dtype=np.uint8)
    stream = mxgolden.interleave(np.uint8([9, 8, 7, 6]), codes)
    assert all(stream[33 * (i >> 5) + 1 + (i & 31)] == codes[i] for i in range(128))
    assert stream[::33].tolist() == [9, 8, 7, 6]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: mxgolden.pack_codes(np.uint8([1, 2, 3]), "e2m1"), "wanted whole bytes of e2m1 codes of 4 bits, got 3 codes"),
    (lambda: mxgolden.pack_codes(np.uint8([16, 0]), "e2m1"), "wanted codes of 4 bits, got 0x10"),
    (lambda: mxgolden.pack_codes(np.uint8(1)), "wanted an axis of codes"),
    (lambda: mxgolden.unpack_codes(np.uint8(1)), "wanted an axis of bytes"),
    (lambda: mxgolden.unpack_codes(np.uint8([1, 2]), "e3m2"), "wanted whole e3m2 codes of 6 bits, got 2 bytes"),
    (lambda: mxgolden.interleave(np.uint8([1, 2]), np.zeros(33, np.uint8)), "wanted as many codes for each of 2 scales, got 33"),
    (lambda: mxgolden.interleave(np.zeros((2, 1), np.uint8), np.zeros((3, 32), np.uint8)), "whose last axes hold blocks"),
    (lambda: mxgolden.interleave(np.int64([1]), np.zeros(32, np.uint8)), "wanted scales as uint8, got int64"),
    (lambda: mxgolden.deinterleave(np.zeros(34, np.uint8)), "wanted a flat stream of whole blocks of 33 bytes"),
    (lambda: mxgolden.deinterleave(np.zeros(33, np.uint8), block_size=0), "wanted a block_size of 1 or more, got 0"),
    (lambda: mxgolden.from_planes(np.zeros(31, np.uint8), np.zeros(1, np.uint8)), "wanted a flat data plane of 32 bytes"),
    (lambda: mxgolden.swizzle_scales(np.zeros(4, np.uint8)), r"wanted a matrix of scales, got shape \(4,\)"),
    (lambda: mxgolden.unswizzle_scales(np.zeros(512, np.uint8), 129, 4), "wanted a flat plane of 1024 bytes for 129 x 4"),
    (lambda: mxgolden.unswizzle_scales(np.zeros(512, np.uint8), 0, 4), "wanted rows of 1 or more, got 0"),
    (lambda: mxgolden.swizzled_offset(-1, 0, 4), "wanted rows from 0 up, got -1"),
    (lambda: mxgolden.swizzled_offset(0, 0.5, 4), "wanted columns as integers, got float64"),
    (lambda: mxgolden.swizzled_place(0, 0), "wanted columns of 1 or more, got 0"),
])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
