"""Makes one conversation of what several processes say of it: the same for all that is read, wherever it comes from.

Knows the series of a conversation and the state that viewers see, and not how either is kept or sent.
"""
