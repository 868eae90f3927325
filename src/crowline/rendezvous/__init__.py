"""How two sides meet: code words, PAKE, sealed signals, the mailbox and the hub."""
