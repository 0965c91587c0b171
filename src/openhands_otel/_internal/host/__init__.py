"""What the machine says: whose a connection is, proxies and certificates, the state folder, files with tokens.

It knows the operating system and must not know telemetry.
"""
