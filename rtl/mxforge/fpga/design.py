# amaranth: UnusedElaboratable=no
"""What an accelerator is made of, and how it says so to a host."""
import hashlib
import json
import struct
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property

from .. import __version__
from ..catalog import UNITS
from ..emit import manifest_of
from ..errors import MxforgeError
from ..pipeline import Streamed
from . import protocol
from .accelerator import Accelerator, Service
from .protocol import Command

__all__ = ["SERVICES", "Design", "Identity"]

# The unit that serves each command.
SERVICES = {Command.QUANTIZE: "quantizer", Command.DEQUANTIZE: "dequantizer", Command.DOT: "scaled_dot",
            Command.MATMUL: "matmul_tile"}
# Before the text of an identity: hash of the manifest, and when it was built, in seconds since 1970.
_FACTS = struct.Struct("<32sI")


@dataclass(frozen=True, kw_only=True)
class Design:
    """An accelerator: for each command that it has, what differs from the defaults of the unit that serves it.

    ``clock`` in Hz; a bit on the line takes ``divisor`` clocks. ``depth``: bytes of the ring where requests wait.
    """
    board: str
    units: dict = field(default_factory=dict, hash=False)
    clock: int
    divisor: int
    depth: int = 4096
    mxforge: str = __version__

    @property
    def baud(self):
        return round(self.clock / self.divisor)

    @property
    def limit(self):
        """Bytes of the longest packet of a request, and of an answer."""
        return Accelerator.limit(self.depth)

    @cached_property
    def services(self):
        """`Service` of each `Command`. ``MxforgeError`` where a unit has no such parameters, or its beats don't fit."""
        commands = {command.name.lower(): command for command in SERVICES}
        services = {}
        for word, parameters in self.units.items():
            if word not in commands:
                raise MxforgeError(f"{word} must be one of {', '.join(commands)}")
            command = commands[word]
            try:
                service = Service(command, Streamed(UNITS[SERVICES[command]](**parameters)))
                if service.is_tile and {service.core.parameters.pair.a.width, service.core.parameters.pair.b.width} != {8}:
                    raise ValueError("the elements of a tile on a board must have 8 bits")
                needed = sum(service.input_bytes) * service.core.beats[0] + protocol.ASKED + protocol.COUNTS.size
            except (TypeError, ValueError) as error:
                raise MxforgeError(f"{word}: {error}") from error
            needed = max(needed, protocol.least_request(service.output_bytes * service.core.beats[1] + protocol.ANSWERED))
            if needed > self.limit:
                raise MxforgeError(f"{word}: a block takes {needed} bytes on the line, more than the {self.limit} of a frame with "
                                   f"a ring of {self.depth} bytes")
            services[command] = service
        return services

    def check(self):
        """``MxforgeError`` as of `services`."""
        _ = self.services

    @cached_property
    def manifest(self):
        """What a host must know to use the board: limits, and each unit's contract."""
        return {"protocol": protocol.VERSION, "mxforge": self.mxforge, "limit": self.limit, "units": {
            word: manifest_of(service.unit, word) for word, service in zip(self.units, self.services.values(), strict=True)}}

    @property
    def digest(self):
        """SHA-256 of the manifest."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).digest()

    def identity(self, built=0):
        """What the board answers to IDENTIFY."""
        text = json.dumps(asdict(self), separators=(",", ":"))
        return _FACTS.pack(self.digest, built) + text.encode()

    def accelerator(self, built=0, **options):
        """The hardware."""
        return Accelerator(self.services.values(), self.identity(built), divisor=self.divisor, depth=self.depth, **options)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a board said of itself: its `Design`, the SHA-256 of its manifest, and when it was built (0: not known)."""
    design: Design
    digest: bytes
    built: int

    @classmethod
    def parse(cls, body):
        """``ValueError`` if it isn't one."""
        try:
            digest, built = _FACTS.unpack_from(body)
            said = json.loads(body[_FACTS.size:])
            known = {one.name for one in fields(Design)}
            design = Design(**{name: value for name, value in said.items() if name in known})
        except (struct.error, ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"it gives no identity: {error}") from error
        return cls(design=design, digest=digest, built=built)
