"""The golden random numbers against a register stepped bit by bit, and the polynomial's period."""

import numpy as np
import pytest

from mxgolden import lfsr


def test_splitmix64_states_are_the_published_ones():
    # The first outputs of splitmix64 from seed 1234567 (its author's reference program).
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    published += [4593380528125082431, 16408922859458223821]
    assert lfsr.initial_states(1234567, 5).tolist() == [value >> 32 for value in published]


def test_numbers_are_those_of_a_register_stepped_bit_by_bit():
    count, lanes, seed = 300, 3, 0xDEADBEEF12345678
    states = [int(state) for state in lfsr.initial_states(seed, lanes)]
    rows = []
    for _ in range(count):
        rows.append([state & 0xFFFF for state in states])
        for _ in range(16):
            states = [(s >> 1) | ((s ^ (s >> 1) ^ (s >> 2) ^ (s >> 22)) & 1) << 31 for s in states]
    assert lfsr.numbers(seed, lanes, count).tolist() == rows
    assert lfsr.numbers(seed, lanes, 7).tolist() == rows[:7]
    assert lfsr.numbers(seed, lanes, 0).shape == (0, lanes)


def test_sixteen_steps_at_once_as_documented():
    state = int(lfsr.initial_states(5, 1)[0])
    new = []
    for k in range(16):
        tap = (state >> (k + 22)) & 1 if k < 10 else new[k - 10]
        new.append(((state >> k) ^ (state >> (k + 1)) ^ (state >> (k + 2)) ^ tap) & 1)
    after = sum(bit << k for k, bit in enumerate(new)) << 16 | state >> 16
    assert lfsr.numbers(5, 1, 3)[1:, 0].tolist()[0] == after & 0xFFFF
    assert lfsr.numbers(5, 1, 3)[2, 0] == after >> 16


def test_period_is_maximal():
    modulus = 1 << 32 | 1 << 22 | 1 << 2 | 1 << 1 | 1

    def multiply(a, b):
        product = 0
        while b:
            if b & 1:
                product ^= a
            b >>= 1
            a <<= 1
            if a >> 32:
                a ^= modulus
        return product

    def power(exponent):
        result, base = 1, 2
        while exponent:
            if exponent & 1:
                result = multiply(result, base)
            base = multiply(base, base)
            exponent >>= 1
        return result

    assert power(2**32 - 1) == 1
    for prime in (3, 5, 17, 257, 65537):
        assert power((2**32 - 1) // prime) != 1


def test_lanes_differ_and_are_even():
    numbers = lfsr.numbers(0, 32, 20_000)
    assert len(np.unique(numbers[:64].reshape(-1))) > 1900
    means = numbers.mean(axis=0)
    assert (np.abs(means - 32767.5) < 700).all()
    assert np.abs(np.corrcoef(numbers.T.astype(float)) - np.eye(32)).max() < 0.05


def test_expected_passes_values_through():
    values = np.arange(64, dtype=np.uint16).reshape(16, 4)
    out = lfsr.expected({"width": 16, "lanes": 4, "seed": 9, "stages": 0}, {"values": values})
    assert np.array_equal(out["values"], values)
    assert out["random"].dtype == np.uint16
    assert np.array_equal(out["random"], lfsr.numbers(9, 4, 16))
    with pytest.raises(ValueError, match=r"wanted values of shape \(N, 4\), got \(16, 3\)"):
        lfsr.expected({"width": 16, "lanes": 4, "seed": 9}, {"values": values[:, :3]})
    with pytest.raises(ValueError, match="wanted a seed of 0"):
        lfsr.initial_states(-1, 2)
