"""Units on a board: gateware, host link, boards, and a virtual board."""
