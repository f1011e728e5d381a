"""Packets of bytes in transfers of one size, cut anew into transfers of another."""

import numpy as np

__all__ = ["cut_anew"]


def cut_anew(data: np.ndarray, amounts, last, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(data (M, size), amounts (M,), last (M,), completing (M,)) of packets in rows of bytes (N, any).

    Of each row so many `amounts` of bytes count, from its first on; a row with `last` ends a packet. A packet's bytes come in
    their order, `size` a row, the last row filled with zeros. If its last row brings no byte and all before it is whole rows,
    it ends with a row of none. A packet that nothing ends gives its whole rows. `completing`: the input row after which an
    output row is known.
    """
    last = np.asarray(last).astype(bool)
    amounts = np.asarray(amounts, np.int64)
    count = len(amounts)
    packet = np.cumsum(last) - last
    packets = int(packet[-1]) + 1 if count else 0
    counts = np.bincount(packet, amounts, packets).astype(np.int64)
    is_ended = np.bincount(packet, last, packets) > 0
    final = np.flatnonzero(last)

    whole, rest = np.divmod(counts, size)
    ends_empty = np.zeros(packets, bool)
    ends_empty[: len(final)] = (amounts[final] == 0) & (rest[: len(final)] == 0)
    rows = whole + (is_ended & (rest > 0)) + ends_empty

    # Each byte that counts to its place in its packet's rows.
    counted = np.arange(data.shape[1]) < amounts[:, None] if count else np.zeros((0, data.shape[1]), bool)
    stream = data[counted]
    packet_of = np.repeat(np.arange(packets), counts)
    start = np.cumsum(counts) - counts
    place = np.arange(len(stream)) - start[packet_of]
    first_row = np.cumsum(rows) - rows
    is_out = place < (rows * size)[packet_of]
    out = np.zeros((int(rows.sum()), size), np.uint8)
    out.reshape(-1)[(first_row[packet_of] * size + place)[is_out]] = stream[is_out]

    row_packet = np.repeat(np.arange(packets), rows)
    row = np.arange(len(out)) - first_row[row_packet]
    out_last = is_ended[row_packet] & (row == rows[row_packet] - 1)
    out_amounts = np.clip(counts[row_packet] - row * size, 0, size)
    ends = start[row_packet] + row * size + out_amounts
    completing = np.searchsorted(np.cumsum(amounts), ends, side="left")
    completing[out_last] = final[row_packet[out_last]]
    return out, out_amounts, out_last, completing
