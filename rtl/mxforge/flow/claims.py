"""What MXFP8 is claimed to do, on real weights: the data that units are given, and what the formats keep of them."""
import statistics

import numpy as np

import mxgolden
from mxgolden import tensor_quantizer

from ..errors import MxforgeError
from . import minilm, weights
from .demo import BLOCK_SIZE, SENTENCE

__all__ = ["Source", "accuracy", "outliers", "streams"]

# Blocks of each matrix that units are given, in their order.
BLOCKS = 128
# Octaves that one value of a matrix is raised by.
RAISED = 0, 4, 8, 12, 16
# Differences below this many dB are called equal.
EQUAL = 0.1
_RAISED_MATRIX = "encoder.layer.0.intermediate.dense.weight"


class Source:
    """The weights that figures are of: all-MiniLM-L6-v2's, or where that can't be had (offline) a matrix of normal values, seed 0.

    ``words`` says which; ``tensors`` are those with values.
    """
    def __init__(self, build_dir, say):
        try:
            self.model = weights.fetch_model(build_dir, say)
        except MxforgeError as error:
            say(str(error))
            self.model, self.words = None, "a matrix of normal values, seed 0"
            values = np.random.default_rng(0).standard_normal((1536, 384), dtype=np.float32)
            self.tensors = [weights.Tensor("normal", "F32", values.shape, values)]
        else:
            self.words = weights.MODEL_NAME
            self.tensors = weights.choose(weights.tensors_of(self.model))[0]

    @property
    def matrices(self):
        """Those with `BLOCKS` whole blocks."""
        return [tensor for tensor in self.tensors
                if len(tensor.shape) > 1 and not tensor.width % BLOCK_SIZE and tensor.size >= BLOCKS * BLOCK_SIZE]


def _amax(values):
    return np.abs(values).max(initial=np.float32(0), where=np.isfinite(values))


def _blocks(values):
    """Rows of values as blocks, each row filled up with zeros."""
    return np.pad(values, ((0, 0), (0, -values.shape[1] % BLOCK_SIZE))).reshape(-1, BLOCK_SIZE)


def streams(unit, lanes, source):
    """``{scales: inputs}`` of a unit that dequantizes ``lanes`` a row: blocks of each matrix, one matrix after the other.

    ``e8m0``: a scale for each block, rceil; ``fp32``: an FP32 scale for each block, its largest magnitude over 448; ``tensor``:
    one FP32 scale for each matrix. The multiplier is given the elements as FP32 numbers.
    """
    taken = {"e8m0": [], "fp32": [], "tensor": []}
    for tensor in source.matrices:
        values = tensor.fp32()
        amax = _amax(values)
        blocks = values.reshape(-1, BLOCK_SIZE)[:BLOCKS]
        taken["e8m0"].append(mxgolden.quantize(blocks))
        for name, amaxes in ("fp32", [_amax(block) for block in blocks]), ("tensor", [amax] * BLOCKS):
            factors = np.array([tensor_quantizer.tensor_factor(one) for one in amaxes], np.float32)
            codes = tensor_quantizer.expected(
                {"source": "fp32", "element": "e4m3", "overflow": "saturate", "lanes": BLOCK_SIZE},
                {"values": blocks.view(np.uint32), "scale": factors.view(np.uint32), "first": np.zeros(BLOCKS, np.uint8)})
            taken[name].append(((np.float32(1) / factors).view(np.uint32), codes["elements"]))
    result = {}
    for name in ("e8m0",) if unit == "dequantizer" else ("fp32", "tensor"):
        scales, codes = (np.concatenate(parts) for parts in zip(*taken[name], strict=True))
        scales = np.repeat(scales.ravel(), BLOCK_SIZE // lanes)
        codes = codes.reshape(-1, lanes)
        if unit == "fp32_multiplier":
            result[name] = {"a": mxgolden.dequantize_tensor(codes, np.float32(1)),
                            "b": np.repeat(scales[:, None], lanes, axis=1)}
        else:
            result[name] = {"scale": scales, "elements": codes}
    return result


def _both(values, amax):
    """What blocks become under E8M0 scales and under one FP32 scale."""
    scales, codes = mxgolden.quantize(values)
    scale, tensor_codes = mxgolden.quantize_tensor(values, amax=amax)
    return {"mx": mxgolden.dequantize(codes, scales).view(np.float32),
            "fp8": mxgolden.dequantize_tensor(tensor_codes, scale).view(np.float32)}


def accuracy(source):
    """What MXFP8 (``mx``) and E4M3 under one FP32 scale a tensor (``fp8``) keep of all tensors: the median SQNR of the matrices in
    dB, in how many each is the better by more than `EQUAL`, nonzero values that became zero, and bytes of scales.
    """
    medians, zeroed = {"mx": [], "fp8": []}, {"mx": 0, "fp8": 0}
    values = nonzero = blocks = blocks_of_128 = 0
    for tensor in source.tensors:
        real = _blocks(tensor.fp32())
        values += tensor.size
        nonzero += np.count_nonzero(real)
        blocks += len(real)
        blocks_of_128 += tensor.rows * -(-tensor.width // 128)
        for scheme, became in _both(real, _amax(real)).items():
            zeroed[scheme] += np.count_nonzero((real != 0) & (became == 0))
            if tensor in source.matrices:
                medians[scheme].append(float(mxgolden.sqnr(real, became)))
    gains = np.subtract(medians["mx"], medians["fp8"])
    found = {"source": source.words, "tensors": len(source.tensors), "matrices": len(gains), "values": int(values),
             "nonzero": int(nonzero), "blocks": int(blocks),
             "equal": EQUAL, "better": {"mx": int((gains > EQUAL).sum()), "fp8": int((gains < -EQUAL).sum())},
             "scale_bytes": {"e8m0_32": int(blocks), "fp32_32": 4 * int(blocks), "fp32_128": 4 * int(blocks_of_128),
                             "fp32_tensor": 4 * len(source.tensors)}}
    for scheme in "mx", "fp8":
        found[scheme] = {"sqnr": round(statistics.median(medians[scheme]), 3), "zeroed": int(zeroed[scheme])}
    return found


def outliers(source):
    """What both keep of a matrix whose largest value is raised by powers of two, of all but that value; and of activations."""
    tensor = next((tensor for tensor in source.matrices if tensor.name == _RAISED_MATRIX), source.matrices[0])
    values = _blocks(tensor.fp32())
    place = np.unravel_index(np.abs(values).argmax(), values.shape)
    others = np.ones(values.shape, bool)
    others[place] = False
    rows = []
    for octaves in RAISED:
        raised = values.copy()
        raised[place] *= np.float32(2) ** octaves
        rows.append({"octaves": octaves} | _kept(raised, others))
    found = {"source": source.words, "matrix": tensor.name, "rows": rows, "activations": None}
    if source.model is not None:
        ids = minilm.tokens(SENTENCE, minilm.vocabulary_of(weights.vocabulary_beside(source.model)))
        inputs = minilm.first_projection(source.tensors, ids).inputs
        found["activations"] = {"sentence": SENTENCE, "spread": float(_amax(inputs) / np.sqrt(np.square(inputs).mean()))}
        blocks = _blocks(inputs)
        found["activations"] |= _kept(blocks, np.ones(blocks.shape, bool))
    return found


def _kept(values, counted):
    kept = {}
    for scheme, became in _both(values, _amax(values)).items():
        real, close = values[counted], became[counted]
        kept[scheme] = {"sqnr": round(float(mxgolden.sqnr(real, close)), 3),
                        "zeroed": 100 * float(mxgolden.flushed_share(real, close))}
    return kept
