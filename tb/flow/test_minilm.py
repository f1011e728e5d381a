"""What a sentence becomes before the projection, against the same computed position by position."""
import math

import numpy as np
import pytest
import small_minilm
from small_minilm import PIECES, WIDTH

from mxforge.errors import MxforgeError
from mxforge.flow import minilm, weights

VOCABULARY = {piece: token for token, piece in enumerate(PIECES)}


@pytest.mark.parametrize(("sentence", "pieces"), [
    ("", []),
    ("Scales a\ttwo", ["scale", "##s", "a", "two"]),
    ("Unscaleable.", ["un", "##scale", "##able", "."]),
    ("two-two", ["two", "-", "two"]),
    ("ab abc scalex", ["a", "##b", "[UNK]", "[UNK]"]),
    ("TWÓ  scále", ["two", "scale"]),
    ("two+a", ["two", "[UNK]", "a"]),
])
def test_tokens(sentence, pieces):
    assert minilm.tokens(sentence, VOCABULARY) == [VOCABULARY[piece] for piece in ["[CLS]", *pieces, "[SEP]"]]


def test_vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    assert minilm.vocabulary_of(path) == VOCABULARY
    path.write_bytes(b"\xff\xfe")
    for wrong in path, tmp_path / "none.txt":
        with pytest.raises(MxforgeError, match="can't be read as a vocabulary"):
            minilm.vocabulary_of(wrong)


def reference(arrays, ids):
    """Position by position and head by head."""
    w = {name: array.astype(np.float64) for name, array in arrays.items()}
    layer = "encoder.layer.0"

    def normalized(vector, name):
        spread = math.sqrt(sum((x - vector.mean()) ** 2 for x in vector) / len(vector) + 1e-12)
        return (vector - vector.mean()) / spread * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"]

    def linear(vector, name):
        return np.array([row @ vector for row in w[f"{layer}.attention.{name}.weight"]]) + w[f"{layer}.attention.{name}.bias"]

    x = [normalized(w["embeddings.word_embeddings.weight"][token] + w["embeddings.position_embeddings.weight"][position]
                    + w["embeddings.token_type_embeddings.weight"][0], "embeddings") for position, token in enumerate(ids)]
    query, key, value = ([linear(vector, f"self.{name}") for vector in x] for name in ("query", "key", "value"))
    size = WIDTH // 12
    outputs = []
    for position, vector in enumerate(x):
        context = []
        for head in range(12):
            part = slice(head * size, (head + 1) * size)
            scores = [math.exp(query[position][part] @ other[part] / math.sqrt(size)) for other in key]
            context.append(sum(score * other[part] for score, other in zip(scores, value, strict=True)) / sum(scores))
        outputs.append(normalized(vector + linear(np.concatenate(context), "output.dense"), f"{layer}.attention.output"))
    return np.array(outputs)


def test_activations(tmp_path):
    arrays = small_minilm.arrays()
    ids = minilm.tokens("Unscaleable two-scales.", VOCABULARY)
    path = small_minilm.write(tmp_path / "m.safetensors", arrays)
    layer = minilm.first_projection(weights.tensors_of(path), ids)
    assert (layer.name, layer.inputs.dtype) == ("encoder.layer.0.intermediate.dense", np.float32)
    np.testing.assert_allclose(layer.inputs, reference(arrays, ids), rtol=1e-6, atol=1e-6)
    assert (layer.weight == arrays[f"{layer.name}.weight"]).all() and (layer.bias == arrays[f"{layer.name}.bias"]).all()
