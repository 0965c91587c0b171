"""How a viewer, or a Prometheus, is asked over HTTP, whoever waits for the answer, a thread or an event loop.

Knows what is asked, what the answers mean and what went wrong, in words; and not who sends the requests.
"""
