"""Sends what is ready: OTLP over HTTP and gRPC, what an answer means, the queue of spans, the spool on disk.

It knows destinations and bytes. It must not know what is in a request, nor when it is time to send one.
"""
