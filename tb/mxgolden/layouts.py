"""How MX tensors lie in memory: dense codes, blocks interleaved with their scales, planes apart, Blackwell's scale plane."""

import numpy as np

from .blocks import check_block_size, check_codes
from .formats import element_format

__all__ = [
    "block_bytes",
    "deinterleave",
    "from_planes",
    "interleave",
    "pack_codes",
    "swizzle_scales",
    "swizzled_offset",
    "swizzled_place",
    "to_planes",
    "unpack_codes",
    "unswizzle_scales",
]

# A tile of the swizzled plane: 128 rows by 4 columns of scales, 512 bytes without gaps.
TILE_ROWS, TILE_COLUMNS = 128, 4
TILE = TILE_ROWS * TILE_COLUMNS


def _check_whole_bytes(codes, width, element):
    if codes * width % 8:
        raise ValueError(f"wanted whole bytes of {element} codes of {width} bits, got {codes} codes")


def pack_codes(codes, element: str = "e4m3") -> np.ndarray:
    """Codes along the last axis packed densely, uint8: code k of w bits at bits [k*w +: w], the lowest first."""
    width = element_format(element).width
    codes = check_codes(codes, width, "codes")
    if not codes.ndim:
        raise ValueError("wanted an axis of codes, got a single one")
    _check_whole_bytes(codes.shape[-1], width, element)
    if width == 8:
        return codes.copy()
    bits = np.unpackbits(codes[..., None], axis=-1, count=width, bitorder="little")
    return np.packbits(bits.reshape(*codes.shape[:-1], -1), axis=-1, bitorder="little")


def unpack_codes(packed, element: str = "e4m3") -> np.ndarray:
    """What `pack_codes` packed, one code a uint8."""
    width = element_format(element).width
    packed = check_codes(packed, 8, "packed codes")
    if not packed.ndim:
        raise ValueError("wanted an axis of bytes, got a single one")
    if packed.shape[-1] * 8 % width:
        raise ValueError(f"wanted whole {element} codes of {width} bits, got {packed.shape[-1]} bytes")
    if width == 8:
        return packed.copy()
    bits = np.unpackbits(packed, axis=-1, bitorder="little")
    return np.packbits(bits.reshape(*packed.shape[:-1], -1, width), axis=-1, bitorder="little")[..., 0]


def block_bytes(element: str = "e4m3", block_size: int = 32) -> int:
    """Bytes of a block in the interleaved stream: its scale, and its codes packed densely."""
    width = element_format(element).width
    _check_whole_bytes(check_block_size(block_size), width, element)
    return 1 + block_size * width // 8


def _check_planes(scales, codes):
    scales = check_codes(scales, 8, "scales")
    codes = np.asarray(codes)
    if not codes.ndim or scales.shape[:-1] != codes.shape[:-1] or not scales.ndim or not scales.shape[-1]:
        raise ValueError(f"wanted scales and codes whose last axes hold blocks, got shapes {scales.shape}, {codes.shape}")
    if codes.shape[-1] % scales.shape[-1]:
        raise ValueError(f"wanted as many codes for each of {scales.shape[-1]} scales, got {codes.shape[-1]}")
    return scales, codes, codes.shape[-1] // scales.shape[-1]


def interleave(scales, codes, element: str = "e4m3") -> np.ndarray:
    """The stream [scale, codes][scale, codes]... of blocks in order, flat uint8; blocks run along the last axis of both."""
    scales, codes, block_size = _check_planes(scales, codes)
    block_bytes(element, block_size)
    packed = pack_codes(codes.reshape(scales.size, block_size), element)
    return np.concatenate([scales.reshape(-1, 1), packed], axis=1).reshape(-1)


def deinterleave(stream, element: str = "e4m3", block_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """(scales (N,), codes (N, block_size)) of a stream of N blocks."""
    stream = check_codes(stream, 8, "the stream")
    size = block_bytes(element, block_size)
    if stream.ndim != 1 or stream.size % size:
        raise ValueError(f"wanted a flat stream of whole blocks of {size} bytes, got shape {stream.shape}")
    blocks = stream.reshape(-1, size)
    return blocks[:, 0].copy(), unpack_codes(blocks[:, 1:], element)


def to_planes(scales, codes, element: str = "e4m3") -> tuple[np.ndarray, np.ndarray]:
    """The planar layout, (data plane, scale plane), flat uint8: all codes packed densely, and all scales, each in order."""
    scales, codes, block_size = _check_planes(scales, codes)
    block_bytes(element, block_size)
    return pack_codes(codes, element).reshape(-1), scales.reshape(-1).copy()


def from_planes(data, scales, element: str = "e4m3", block_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """(scales (N,), codes (N, block_size)) of the planes of N blocks."""
    data, scales = check_codes(data, 8, "the data plane"), check_codes(scales, 8, "the scale plane")
    wanted = scales.size * (block_bytes(element, block_size) - 1)
    if data.ndim != 1 or scales.ndim != 1 or data.size != wanted:
        raise ValueError(f"wanted a flat data plane of {wanted} bytes for {scales.size} scales, got shape {data.shape}")
    return scales.copy(), unpack_codes(data, element).reshape(-1, block_size)


def _check_places(values, name):
    values = np.asarray(values)
    if values.dtype.kind not in "ui":
        raise ValueError(f"wanted {name} as integers, got {values.dtype}")
    if values.size and values.min() < 0:
        raise ValueError(f"wanted {name} from 0 up, got {values.min()}")
    return values.astype(np.int64)


def _tiles(count, size, name):
    if not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"wanted {name} of 1 or more, got {count!r}")
    return -(-int(count) // size)


def swizzled_offset(row, column, columns: int) -> np.ndarray:
    """Where the scale of `row` (of the M or N dimension) and `column` (a block along K) lies in the swizzled plane of a matrix of
    so many `columns`; arrays broadcast.

    Tiles of 128 rows by 4 columns follow each other row by row; in a tile, rows r, r + 32, r + 64, r + 96 lie side by side, four
    scales each.
    """
    row, column = _check_places(row, "rows"), _check_places(column, "columns")
    tile = row // 128 * _tiles(columns, TILE_COLUMNS, "columns") + column // 4
    return tile * TILE + row % 32 * 16 + row % 128 // 32 * 4 + column % 4


def swizzled_place(offset, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) of what lies at `offset` of the swizzled plane of a matrix of so many `columns`; beyond the matrix for
    padding.
    """
    offset = _check_places(offset, "offsets")
    tile, byte = offset // TILE, offset % TILE
    down, across = np.divmod(tile, _tiles(columns, TILE_COLUMNS, "columns"))
    return down * TILE_ROWS + byte // 16 + byte % 16 // 4 * 32, across * TILE_COLUMNS + byte % 4


def swizzle_scales(scales) -> np.ndarray:
    """The 128x4 swizzled plane of scales (R, C) that Blackwell's matrix instructions read: flat uint8 of
    512 * ceil(R / 128) * ceil(C / 4), zeros where there is no scale.
    """
    scales = check_codes(scales, 8, "scales")
    if scales.ndim != 2 or not scales.size:
        raise ValueError(f"wanted a matrix of scales, got shape {scales.shape}")
    rows, columns = scales.shape
    plane = np.zeros(_tiles(rows, TILE_ROWS, "rows") * _tiles(columns, TILE_COLUMNS, "columns") * TILE, np.uint8)
    plane[swizzled_offset(np.arange(rows)[:, None], np.arange(columns), columns)] = scales
    return plane


def unswizzle_scales(plane, rows: int, columns: int) -> np.ndarray:
    """The scales (rows, columns) that lie in a swizzled plane; its padding is not looked at."""
    plane = check_codes(plane, 8, "the plane")
    wanted = _tiles(rows, TILE_ROWS, "rows") * _tiles(columns, TILE_COLUMNS, "columns") * TILE
    if plane.shape != (wanted,):
        raise ValueError(f"wanted a flat plane of {wanted} bytes for {rows} x {columns} scales, got shape {plane.shape}")
    return plane[swizzled_offset(np.arange(rows)[:, None], np.arange(columns), columns)]
