"""The crowline server: hub, STUN and TURN in one process."""
