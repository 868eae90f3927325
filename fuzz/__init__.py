"""Bytes that nobody would send on purpose, against everything that reads what a peer or a user gave.

`python -m fuzz` lists the harnesses; `python -m fuzz stun-message --seconds 60 --seed 7` runs one. A harness
names the exceptions that its codec promises; everything else that escapes is a finding, and is kept in
`fuzz/findings/` until it has a fix and a place in `fuzz/corpus/`.
"""
