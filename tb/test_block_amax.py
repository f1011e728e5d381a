# amaranth: UnusedElaboratable=no
import pytest

from mxforge.block_amax import BlockAmax
from mxforge.pipeline import Streamed


@pytest.mark.parametrize("options", [
    {"source": "fp32", "block_size": 32, "lanes": 32, "stages": 2},
    {"source": "bf16", "block_size": 8, "lanes": 8, "nan_policy": "element", "stages": 0},
    {"source": "fp16", "block_size": 16, "lanes": 4, "nan_policy": "element", "stages": 3},
    {"source": "bf16", "block_size": 4, "lanes": 1, "stages": 0},
])
def test_bench(simulate, options):
    simulate(Streamed(BlockAmax(**options)), "block_amax")


@pytest.mark.parametrize("options", [
    {"source": "fp32", "block_size": 32, "lanes": 32, "nan_policy": "element", "stages": 5},
    {"source": "fp16", "block_size": 64, "lanes": 64},
    {"source": "bf16", "block_size": 32, "lanes": 2, "stages": 1},
    {"source": "fp32", "block_size": 16, "lanes": 8},
    {"source": "fp16", "block_size": 8, "lanes": 1, "nan_policy": "element", "stages": 1},
    {"source": "bf16", "block_size": 4, "lanes": 4, "nan_policy": "element", "stages": 2},
])
def test_volume(verify, options):
    verify(BlockAmax(**options), 20_000, stalls=1)
    hits = verify(BlockAmax(**options), 100_000)
    assert all(hits.values()), hits


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"source": "e4m3"}, ValueError, "source must be one of fp32, bf16, fp16, not 'e4m3'"),
    ({"block_size": 24}, ValueError, "block_size must be a power of two, not 24"),
    ({"block_size": 16}, ValueError, r"lanes must divide block_size \(16\), not 32"),
    ({"lanes": 4, "stages": 4}, ValueError, r"stages must be 0 to 3 \(level_2, level_1, result\), not 4"),
    ({"nan_policy": None}, TypeError, "nan_policy must be a name, not None"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        BlockAmax(**values)
