"""What the units of the quantizer find hard: largest magnitudes, and values where roundings change."""
import numpy as np

from mxgolden import encode
from mxgolden.elements import values_as_fp32
from mxgolden.formats import element_format, wide_format

__all__ = ["amaxes", "finite_blocks", "ladder", "rounding_classes", "scaled_magnitudes", "with_signs"]


def amaxes(source):
    """Magnitudes at and next to every rule's threshold, at the exponents where a scale or a subnormal begins or ends, for
    every element format; Inf; NaNs, of one bit too."""
    wide = wide_format(source)
    width = wide.mantissa_width
    top = wide.inf_code >> width
    exponents = sorted({*range(min(top, 20)), *range(top - 4, top), top // 2})
    # Runs of ones from the top: powers of two, the thresholds of all rules, the last before the next power of two.
    runs = [((1 << n) - 1) << (width - n) for n in range(min(8, width) + 1)]
    mantissas = np.array(sorted({(run + near) % (1 << width) for run in runs for near in (-1, 0, 1)}))
    finite = (np.array(exponents)[:, None] << width | mantissas).ravel()
    # 2^-127 is halfway in the subnormals of FP32 and BF16; the other two are where NVIDIA's arithmetic leaves the rule.
    extra = [1 << (width - 1), *([0x04600001, 0x07E00001] * 4 if source == "fp32" else [])]
    specials = [wide.inf_code, wide.inf_code + 1, wide.nan_code, wide.inf_code | 1 << (width - 1)]
    return np.concatenate([finite, extra, specials]).astype(wide.dtype)


def ladder(element):
    """``(magnitudes, midpoints)``: the format's magnitudes, and what lies halfway to each next one, up to the step beyond
    the largest."""
    magnitudes = np.array(element_format(element).magnitudes)
    following = np.append(magnitudes[1:], 2 * magnitudes[-1] - magnitudes[-2])
    return magnitudes, (magnitudes + following) / 2


def scaled_magnitudes(values, scales, source):
    """``|value| * 2**(127 - scale)`` exactly (NaN under a NaN scale), ``scales`` broadcasting to the values."""
    with np.errstate(invalid="ignore"):     # signalling NaNs
        magnitudes = np.abs(values_as_fp32(values, source).astype(np.float64))
    scales = np.asarray(scales).astype(np.int64)
    return np.where(scales == 255, np.nan, np.ldexp(magnitudes, 127 - scales))


def near_ties(element, source, scales, rng, lanes):
    """Magnitudes (N, lanes) next to, and on, what rounds one way or the other under ``scales`` (N,), as far as the source
    has them; often in the lowest and highest binades of the element."""
    wide = wide_format(source)
    magnitudes, midpoints = ladder(element)
    points = np.concatenate([midpoints, magnitudes])
    ends = np.concatenate([midpoints[:3], midpoints[-3:], magnitudes[:2], magnitudes[-1:]])
    shape = (len(scales), lanes)
    chosen = np.where(rng.random(shape) < 0.6, rng.choice(points, shape), rng.choice(ends, shape))
    exact = np.ldexp(chosen, np.minimum(scales, 254).astype(np.int64)[:, None] - 127)
    bits = encode(exact, source, "saturate").astype(np.int64)
    near = bits + rng.choice([0, 0, 0, -1, 1, -2, 2], shape)
    return np.clip(near, 0, wide.max_code).astype(wide.dtype)


def with_signs(magnitudes, source, rng):
    wide = wide_format(source)
    return magnitudes | (rng.integers(0, 2, magnitudes.shape).astype(wide.dtype) * wide.dtype(wide.sign_code))


def finite_blocks(amax, scales, element, source, block_size, rng):
    """Blocks whose largest magnitudes are ``amax``, in a random lane, among values near where roundings change under
    ``scales``."""
    values = np.minimum(near_ties(element, source, scales, rng, block_size), amax[:, None])
    values[np.arange(len(amax)), rng.integers(0, block_size, len(amax))] = amax
    return values


def rounding_classes(parameters, values, scales, codes):
    """How often a value under its scale (N,) was rounded in each way that is possible."""
    element, source = parameters["element"], parameters["source"]
    to = element_format(element)
    magnitudes, midpoints = ladder(element)
    scaled = scaled_magnitudes(values, scales[:, None], source)
    finite = np.isfinite(scaled)
    scaled = np.where(finite, scaled, 0.0)
    # The code at or below, and how far above it the value is.
    below = np.minimum(np.searchsorted(magnitudes, scaled, side="right") - 1, to.max_code)
    is_tie = finite & (scaled == midpoints[below])
    sign = 1 << (to.width - 1)
    magnitude_codes = codes & (sign - 1)
    if to.is_integer:
        magnitude_codes = np.where(codes >= sign, -codes.astype(np.int64) & 0xFF, codes)
    is_number = finite & (magnitude_codes <= to.max_code)
    value = magnitudes[np.minimum(magnitude_codes, to.max_code)]
    is_power = np.log2(np.where(value > 0, value, 1.5)) % 1 == 0
    is_up = is_number & (value > scaled)
    hits = {
        "exact": is_number & (value == scaled) & (scaled > 0),
        "rounded up": is_up,
        "rounded down": is_number & (value < scaled) & (scaled <= magnitudes[-1]),
        "tie, even below": is_tie & (below % 2 == 0),
        "tie, odd below": is_tie & (below % 2 == 1),
        "carry into the next binade": is_up & is_power,
        "rounded up to the smallest": is_up & (magnitude_codes == 1),
        "underflow to zero": is_number & (scaled > 0) & (magnitude_codes == 0),
        "tie between zero and the smallest": is_tie & (below == 0),
        "largest": is_number & (magnitude_codes == to.max_code),
        "subnormal source": finite & (values & (wide_format(source).inf_code) == 0) & (scaled > 0),
        "positive zero": finite & (values == 0),
        "negative zero": finite & (values == wide_format(source).sign_code),
    }
    if not to.is_integer:
        hits["subnormal element"] = is_number & (magnitude_codes > 0) & (value < 2.0 ** (to.lsb + to.mantissa_width))
    return {name: int(np.sum(hit)) for name, hit in hits.items()}
