"""Agent Canvas: the page inside it, and the agent server's API that puts it there.

Knows how an extension of Canvas is built; must not know what is measured, or how the viewer stores it.
"""
