"""Random numbers of the `lfsr` unit, which feeds stochastic rounding.

Each lane has its own 32-bit linear feedback shift register of Fibonacci form with the primitive polynomial
x^32 + x^22 + x^2 + x + 1, so its period is 2^32 - 1 steps. One step, bit 0 being the oldest bit of the sequence:

    new  = s[0] ^ s[1] ^ s[2] ^ s[22]            (the exponents of the polynomial below 32)
    s'   = new << 31 | s >> 1

Each transfer delivers `s & 0xFFFF` of the state *before* it (so the first transfer after reset delivers bits of the
initial state, and the register drives the output directly) and then makes 16 steps, so that every bit of the sequence
is used exactly once. The 16 steps at once are cheap, since only the tap at 22 reaches into the new bits:

    n[k] = s[k] ^ s[k+1] ^ s[k+2] ^ s[k+22]      for k = 0...9
    n[k] = s[k] ^ s[k+1] ^ s[k+2] ^ n[k-10]      for k = 10...15
    s'   = n << 16 | s >> 16

Initial state of lane i (i = 0, 1, ...): the high 32 bits of output i of the splitmix64 generator started with `seed`
(0 <= seed < 2^64); a state of 0 is replaced by 1. In full, with all arithmetic modulo 2^64:

    z = seed + (i + 1) * 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z =  z ^ (z >> 31)
    state = z >> 32, or 1 if that is 0

So the lanes start at unrelated places of the cycle whatever the seed.
"""

import numpy as np

__all__ = ["expected", "initial_states", "numbers"]

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def initial_states(seed: int, lanes: int) -> np.ndarray:
    """State of each lane after reset, (lanes,) uint32, never zero."""
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"wanted a seed of 0...2^64 - 1, got {seed}")
    states = []
    for lane in range(lanes):
        z = (seed + (lane + 1) * _GAMMA) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        z ^= z >> 31
        states.append((z >> 32) or 1)
    return np.array(states, np.uint32)


def _step(states):
    new = (states ^ (states >> 1) ^ (states >> 2) ^ (states >> 22)) & 1
    return (new << 31) | (states >> 1)


def _apply(images, states):
    """Linear map given by the images of the 32 unit vectors, by one table for each byte of the state."""
    result = np.zeros_like(states)
    for byte in range(4):
        table = np.zeros(256, np.uint32)
        for bit in range(8):
            table[1 << bit : 2 << bit] = table[: 1 << bit] ^ images[8 * byte + bit]
        result ^= table[(states >> (8 * byte)) & 0xFF]
    return result


def numbers(seed: int, lanes: int, count: int) -> np.ndarray:
    """The first `count` transfers after reset: (count, lanes) uint16."""
    # Transfers 0...n-1 give transfers n...2n-1 through the map of 16 n steps, which is then squared.
    images = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(16):
        images = _step(images)
    states = initial_states(seed, lanes)[None, :]
    while len(states) < count:
        states = np.concatenate([states, _apply(images, states[: count - len(states)])])
        images = _apply(images, images)
    return (states[:count] & 0xFFFF).astype(np.uint16)


def expected(parameters: dict, inputs: dict) -> dict:
    """Values passed through, each with its lane's number: `values`, `random` (N, lanes), counted from reset."""
    values = np.asarray(inputs["values"])
    lanes = parameters["lanes"]
    if values.ndim != 2 or values.shape[1] != lanes:
        raise ValueError(f"wanted values of shape (N, {lanes}), got {values.shape}")
    return {"values": values, "random": numbers(parameters["seed"], lanes, len(values))}
