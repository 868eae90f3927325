"""STUN (RFC 8489): message codec, integrity, transactions, responder, client, reply budgets."""
