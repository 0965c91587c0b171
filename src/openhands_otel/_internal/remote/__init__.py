"""The client's side of an agent server: shows a ``RemoteConversation`` what a viewer knows of its spend.

Off unless ``OPENHANDS_OTEL_REMOTE_STATS`` names a viewer. Nothing is counted here, and nothing is sent.
"""
