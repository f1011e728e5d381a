"""Inputs, and what golden expects of them, as hex files that $readmemh reads."""
import sys
from pathlib import Path

import numpy as np

import mxgolden

# As many as in mx_roundtrip_tb.sv.
BLOCKS = 2000


def write(path, rows):
    """A line for each of ``rows``; the first value is the lowest, so it stands at the right."""
    path.write_text("".join(row.astype("<u4").tobytes()[::-1].hex() + "\n" for row in rows))


def main(folder):
    rng = np.random.default_rng(7)
    # Blocks of very different size, some of them with an infinity or a NaN; bits of any kind in the end.
    x = rng.standard_normal((BLOCKS, 32), dtype=np.float32) * np.exp2(rng.integers(-140, 120, (BLOCKS, 1))).astype(np.float32)
    x[3::50, 7] = np.inf
    x[4::50, 9] = np.nan
    bits = x.view(np.uint32)
    bits[BLOCKS // 2:] = rng.integers(0, 1 << 32, (BLOCKS - BLOCKS // 2, 32), np.uint32)
    scales, codes = mxgolden.quantize(bits)
    write(folder / "x.hex", bits)
    write(folder / "y.hex", mxgolden.dequantize(codes, scales))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
