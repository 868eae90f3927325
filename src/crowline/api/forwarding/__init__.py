"""Forwards ports between two sides; `Forwarder` is the whole of it."""
