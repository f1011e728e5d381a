"""What the tests of whole runs share."""
import pytest
from emitted import emitted

from mxforge.flow import checked, run, synth


@pytest.fixture(scope="module", autouse=True)
def units_are_emitted_once():
    """Commands get the Verilog that the process's tests have made already: emitting a unit takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for module in checked, run, synth:
            patch.setattr(module, "emit", emitted)
        yield
