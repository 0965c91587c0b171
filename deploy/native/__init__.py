"""The stack without Docker: the real servers, built from pinned Go modules and run as processes of this machine."""
