# amaranth: UnusedElaboratable=no
"""What a board says of itself."""
from dataclasses import replace

import pytest

from mxforge.errors import MxforgeError
from mxforge.fpga.design import Design, Identity
from mxforge.fpga.protocol import Command

SMALL = Design(board="mine", clock=12_000_000, divisor=12, depth=1024,
               units={"quantize": {"lanes": 2, "source": "bf16"}, "dequantize": {"lanes": 8}})


def test_identity_comes_back():
    identity = Identity.parse(SMALL.identity(built=1_700_000_000))
    assert identity == Identity(design=SMALL, digest=SMALL.digest, built=1_700_000_000)
    assert identity.design.services[Command.QUANTIZE].core.parameters.source == "bf16"
    # What a later version adds to it is passed over.
    said = SMALL.identity()
    assert Identity.parse(said[:-1] + b',"more":1}').design == SMALL


@pytest.mark.parametrize("changed", [
    {"units": SMALL.units | {"dequantize": {"lanes": 4}}}, {"units": {"quantize": SMALL.units["quantize"]}}, {"depth": 2048},
    {"mxforge": "9.9"},
])
def test_what_a_host_must_know_is_in_the_digest(changed):
    other = replace(SMALL, **changed)
    assert other.digest != SMALL.digest and other != SMALL


def test_where_it_runs_is_not():
    assert replace(SMALL, board="yours", clock=1_000_000, divisor=8).digest == SMALL.digest


def test_facts():
    assert (SMALL.baud, SMALL.limit) == (1_000_000, 510)
    assert list(SMALL.manifest["units"]) == ["quantize", "dequantize"]
    assert SMALL.manifest["units"]["quantize"]["parameters"]["lanes"] == 2


@pytest.mark.parametrize(("units", "message"), [
    ({"quantize": {"lanes": 7}}, "quantize: .*lanes.*7"),
    ({"quantize": {"width": 7}}, "quantize: .*width"),
    ({"matmul": {"a_element": "e2m1"}}, "matmul: the elements of a tile on a board must have 8 bits"),
    ({"dequantize": {"lanes": 128}}, "dequantize: a block takes .* bytes on the line, more than the 510 of a frame with a ring of "
                                     "1024 bytes"),
    ({"divide": {}}, "divide must be one of quantize, dequantize, dot, matmul"),
])
def test_refuses(units, message):
    with pytest.raises(MxforgeError, match=message):
        _ = replace(SMALL, units=units).services


@pytest.mark.parametrize("body", [b"", bytes(20), *(bytes(36) + text for text in (b"{", b"{}", b"[1]", b"\xff"))])
def test_what_is_no_identity(body):
    with pytest.raises(ValueError, match="identity"):
        Identity.parse(body)
