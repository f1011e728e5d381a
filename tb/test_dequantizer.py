# amaranth: UnusedElaboratable=no
import pytest

from mxforge.dequantizer import Dequantizer
from mxforge.pipeline import Streamed


@pytest.mark.parametrize(("element", "target", "lanes", "stages", "overflow"), [
    ("e4m3", "fp32", 32, 2, "inf"),
    ("e5m2", "fp16", 4, 4, "saturate"),
    ("mxint8", "bf16", 3, 1, "inf"),
    ("e2m1", "bf16", 1, 0, "saturate"),
])
def test_dequantizer(simulate, element, target, lanes, stages, overflow):
    simulate(Streamed(Dequantizer(element=element, target=target, lanes=lanes, stages=stages, overflow=overflow)), "dequantizer")
