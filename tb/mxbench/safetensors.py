"""Files of weights for tests."""
import json
import struct

__all__ = ["write_safetensors"]


def write_safetensors(path, tensors):
    """``tensors``: name -> (format, shape, bytes). Written from the format's description, not by its library."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))
    return path
