"""ICE (RFC 8445): candidates, pairs, check lists, the agent."""
