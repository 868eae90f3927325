"""One secure channel on one pair: QUIC, or the hub itself (link zero)."""
