"""Ports that the gateway opens when it is asked: NAT-PMP (RFC 6886) and PCP (RFC 6887), client side."""
