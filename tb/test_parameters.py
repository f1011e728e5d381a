from dataclasses import dataclass, fields

import pytest

from mxforge import parameters


@dataclass(frozen=True, kw_only=True)
class Example(parameters.Parameters):
    colour: str = parameters.choice("red", ("red", "blue"), "Colour.")
    block_size: int = parameters.integer(8, 1, 64, "Size.", power_of_two=True)
    lanes: int = parameters.integer(4, 1, 64, "Lanes.")
    wet: bool = parameters.boolean(False, "Wet or dry.")

    cuts = ("middle", "end")

    def __post_init__(self):
        super().__post_init__()
        self.check_block()
        self.check_stages()


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"colour": "green"}, ValueError, "colour must be one of red, blue, not 'green'"),
    ({"colour": 3}, TypeError, "colour must be a name, not 3"),
    ({"block_size": 65}, ValueError, "block_size must be 1 to 64, not 65"),
    ({"block_size": 24}, ValueError, "block_size must be a power of two, not 24"),
    ({"lanes": "4"}, TypeError, "lanes must be an integer, not '4'"),
    ({"lanes": True}, TypeError, "lanes must be an integer, not True"),
    ({"lanes": 3}, ValueError, r"lanes must divide block_size \(8\), not 3"),
    ({"wet": 1}, TypeError, "wet must be True or False, not 1"),
    ({"stages": 3}, ValueError, r"stages must be 0 to 2 \(middle, end\), not 3"),
    ({"stages": -1}, ValueError, "stages must be 0 to 64, not -1"),
])
def test_refuses(values, error, message):
    with pytest.raises(error, match=message):
        Example(**values)


def test_fields_describe_themselves():
    facts = {f.name: f.metadata for f in fields(Example)}
    assert facts["colour"]["options"] == ("red", "blue")
    assert all(facts[name]["help"] for name in facts)
