"""A sentence's activations in MiniLM: tokens, embeddings and the first layer's attention, in NumPy."""
import unicodedata
from dataclasses import dataclass

import numpy as np

from ..errors import MxforgeError

__all__ = ["Projection", "first_projection", "tokens", "vocabulary_of"]

HEADS = 12
EPSILON = 1e-12
_LAYER = "encoder.layer.0"


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A linear layer and what it is given: ``inputs`` (tokens, K), ``weight`` (N, K), ``bias`` (N,), all FP32."""
    name: str
    inputs: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


def vocabulary_of(path):
    """The word pieces of a vocab.txt, one a line: piece -> token."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MxforgeError(f"{path} can't be read as a vocabulary: {error}") from error
    return {piece: token for token, piece in enumerate(lines)}


def _words(sentence):
    """Lower case without accents, split at spaces and round each punctuation mark."""
    word = ""
    for character in unicodedata.normalize("NFD", sentence.lower()):
        if unicodedata.category(character) == "Mn":
            continue
        is_mark = unicodedata.category(character).startswith("P") or character in "$+<=>^`|~"
        if (is_mark or character.isspace()) and word:
            yield word
            word = ""
        if is_mark:
            yield character
        elif not character.isspace():
            word += character
    if word:
        yield word


def _pieces(word, vocabulary):
    """The longest pieces of the vocabulary from the left; of what has none, [UNK]."""
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                break
        else:
            return ["[UNK]"]
        pieces.append(piece)
        start = end
    return pieces


def tokens(sentence, vocabulary):
    """WordPiece tokens, as BERT's uncased models have them."""
    pieces = [piece for word in _words(sentence) for piece in _pieces(word, vocabulary)]
    return [vocabulary[piece] for piece in ("[CLS]", *pieces, "[SEP]")]


def _normalized(x, read, name):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + EPSILON)
    return x * read(f"{name}.LayerNorm.weight") + read(f"{name}.LayerNorm.bias")


def _linear(x, read, name):
    return x @ read(f"{name}.weight").T + read(f"{name}.bias")


def _attended(x, read):
    """The first layer's attention, with its residual."""
    def heads(name):
        return _linear(x, read, f"{_LAYER}.attention.self.{name}").reshape(len(x), HEADS, -1).swapaxes(0, 1)

    query, key, value = heads("query"), heads("key"), heads("value")
    scores = query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    context = (weights @ value).swapaxes(0, 1).reshape(x.shape)
    return _normalized(x + _linear(context, read, f"{_LAYER}.attention.output.dense"), read, f"{_LAYER}.attention.output")


def first_projection(tensors, ids):
    """The `Projection` of the first layer's feed-forward part, its widest, for the tokens ``ids``.

    ``tensors``: the model's, as :func:`.weights.tensors_of` gives them. Up to there all is computed in float64.
    """
    by_name = {tensor.name: tensor for tensor in tensors}

    def read(name, rows=slice(None)):
        return by_name[name].fp32(rows).reshape(-1, *by_name[name].shape[1:]).astype(np.float64)

    x = read("embeddings.word_embeddings.weight", ids)
    x = x + read("embeddings.position_embeddings.weight", slice(len(ids))) + read("embeddings.token_type_embeddings.weight", [0])
    x = _attended(_normalized(x, read, "embeddings"), read)
    name = f"{_LAYER}.intermediate.dense"
    return Projection(name=name, inputs=x.astype(np.float32), weight=by_name[f"{name}.weight"].fp32(),
                      bias=by_name[f"{name}.bias"].fp32().ravel())
