# amaranth: UnusedElaboratable=no
import pytest

from mxforge.lfsr import Lfsr, initial_states
from mxforge.pipeline import Streamed


@pytest.mark.parametrize("options", [{"width": 16, "lanes": 4, "seed": 2**64 - 1}, {"width": 32, "lanes": 1}])
def test_bench(simulate, options):
    simulate(Streamed(Lfsr(**options)), "lfsr")


@pytest.mark.parametrize("seed", [0, 1, 0x123456789ABCDEF0])
def test_volume(verify, seed):
    unit = Lfsr(width=16, lanes=8, seed=seed)
    verify(unit, 20_000, stalls=seed % 1000)
    hits = verify(unit, 100_000)
    assert all(hits.values()), hits


def test_first_numbers():
    # splitmix64 from seed 0 gives 0xE220A8397B1DCDAF first (its author's reference).
    assert initial_states(0, 1) == [0xE220A839]


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"seed": -1}, ValueError, "seed must be 0 to 18446744073709551615, not -1"),
    ({"seed": 1.0}, TypeError, "seed must be an integer, not 1.0"),
    ({"width": 65}, ValueError, "width must be 1 to 64, not 65"),
    ({"stages": 1}, ValueError, "stages must be 0"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        Lfsr(**values)
