"""Forwarding: what may be reached from which side, and how connections and datagrams travel between them."""
