"""Weights, inputs and the results that golden expects, as hex files that $readmemh reads."""
import argparse
from pathlib import Path

import numpy as np

import mxgolden

BLOCK = 32


def write(path, rows):
    """One line a row of ``rows`` (unsigned integers); the first item is the lowest, so it stands at the right."""
    path.write_text("".join(row.astype(row.dtype.newbyteorder("<")).tobytes()[::-1].hex() + "\n" for row in rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sizes", nargs=3, metavar="NAME=N", help="ROWS, BLOCKS and VECTORS")
    args = parser.parse_args()
    sizes = {name: int(value) for name, value in (size.split("=") for size in args.sizes)}
    rows, columns, vectors = sizes["ROWS"], BLOCK * sizes["BLOCKS"], sizes["VECTORS"]

    rng = np.random.default_rng(7)
    w_scales, w_codes = mxgolden.quantize(rng.standard_normal((rows, columns), dtype=np.float32))
    bias = rng.standard_normal(rows, dtype=np.float32).view(np.uint32)
    # BF16 bits are the upper half of FP32's.
    x = (rng.standard_normal((vectors, columns), dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
    x[1] = 0           # y is c, then
    x[2, 40] = 0x7FC0  # a NaN spoils its block, so each dot product with it
    x_scales, x_codes = mxgolden.quantize(x, "bf16")
    y = mxgolden.dot(w_codes, w_scales, x_codes[:, None], x_scales[:, None], bias, accumulation="fp32_fused")

    write(args.folder / "weights.hex",
          np.concatenate([w_scales.reshape(-1, 1), w_codes.reshape(-1, BLOCK)], axis=1))
    write(args.folder / "bias.hex", bias[:, None])
    write(args.folder / "x.hex", x.reshape(-1, BLOCK))
    write(args.folder / "y.hex", y.reshape(-1, 1))


if __name__ == "__main__":
    main()
