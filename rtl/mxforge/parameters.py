"""Parameters of units: described, checked and documented in one place each."""
from dataclasses import dataclass, field, fields

from .formats import ELEMENTS

__all__ = ["Parameters", "boolean", "choice", "integer"]


def _described(default, help, kind, check, **facts):
    return field(default=default, metadata={"help": help, "kind": kind, "check": check, **facts})


def choice(default, options, help):
    """A field that is one of ``options`` (names)."""
    options = tuple(options)

    def check(name, value):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a name, not {value!r}")
        if value not in options:
            raise ValueError(f"{name} must be one of {', '.join(options)}, not {value!r}")
    return _described(default, help, str, check, options=options)


def integer(default, low, high, help, power_of_two=False):
    """A field that is an integer from ``low`` to ``high``."""
    def check(name, value):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, not {value!r}")
        if not low <= value <= high:
            raise ValueError(f"{name} must be {low} to {high}, not {value!r}")
        if power_of_two and value & (value - 1):
            raise ValueError(f"{name} must be a power of two, not {value!r}")
    return _described(default, help, int, check, low=low, high=high)


def boolean(default, help):
    """A field that is true or false."""
    def check(name, value):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r}")
    return _described(default, help, bool, check)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What makes one configuration of a unit; options, manifest, sweeps and cache keys derive from its fields.

    Raises ``TypeError`` for a value of the wrong kind, ``ValueError`` for one out of range. A subclass adds what ties
    several fields together in its own ``__post_init__``, after this one.
    """
    stages: int = integer(0, 0, 64, "Pipeline cuts taken, of the unit's list of cut points.")

    cuts = ()

    @property
    def latency(self):
        """Cycles from the (last) input beat to the (first) output beat of a core."""
        return self.stages

    def __post_init__(self):
        for f in fields(self):
            f.metadata["check"](f.name, getattr(self, f.name))

    def check_stages(self):
        """To be called last: the cut points may depend on the other fields."""
        if self.stages > len(self.cuts):
            raise ValueError(f"stages must be 0 to {len(self.cuts)} ({', '.join(self.cuts)}), not {self.stages!r}")

    def check_block(self):
        """``lanes`` must divide ``block_size``, so that a block is whole beats."""
        if self.block_size % self.lanes:
            raise ValueError(f"lanes must divide block_size ({self.block_size}), not {self.lanes!r}; set both")

    def check_specials(self):
        """A NaN or Inf can't be asked of an ``element`` that has none."""
        if ELEMENTS[self.element].has_nan:
            return
        for name, only in ("nan_policy", "block"), ("overflow", "saturate"):
            value = getattr(self, name, only)
            if value != only:
                raise ValueError(f"{name} must be {only} for {self.element}, which has no NaN, not {value!r}")
