"""What the collector knows now: processes and whether they live, conversations, sums over all of them.

It lives in memory and is changed by points alone. It must not know how points arrive, nor where they are archived.
"""
