"""TURN (RFC 8656): client and server machines."""
