"""Composes everything below into what an application imports."""
