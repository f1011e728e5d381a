"""A model of MiniLM's make, small and random, for the tests that need one."""
import numpy as np

from mxbench.safetensors import write_safetensors

__all__ = ["INNER", "PIECES", "WIDTH", "arrays", "write"]

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "scale", "##s", "un", "##able", "##scale", "-", ".", "a", "##b", "two"]
WIDTH, INNER = 24, 40


def arrays(seed=3):
    """Weights of the tensors that are read, by name."""
    rng = np.random.default_rng(seed)
    layer = "encoder.layer.0"
    shapes = {"embeddings.word_embeddings.weight": (len(PIECES), WIDTH), "embeddings.position_embeddings.weight": (16, WIDTH),
              "embeddings.token_type_embeddings.weight": (2, WIDTH), f"{layer}.intermediate.dense.weight": (INNER, WIDTH),
              f"{layer}.intermediate.dense.bias": (INNER,)}
    for name in "self.query", "self.key", "self.value", "output.dense":
        shapes |= {f"{layer}.attention.{name}.weight": (WIDTH, WIDTH), f"{layer}.attention.{name}.bias": (WIDTH,)}
    for name in "embeddings", f"{layer}.attention.output":
        shapes |= {f"{name}.LayerNorm.weight": (WIDTH,), f"{name}.LayerNorm.bias": (WIDTH,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def write(path, arrays):
    return write_safetensors(path, {name: ("F32", array.shape, array.tobytes()) for name, array in arrays.items()})
