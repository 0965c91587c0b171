"""What OpenHands left on disk: its conversations' own files, read as rows of spend.

This room never imports OpenHands and writes nothing. What it reads is a lower bound, and foreign text. The others call
``reading.read`` with folders; ``finding.default_roots`` are those of this machine.
"""
