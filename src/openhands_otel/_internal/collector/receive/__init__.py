"""The doors: OTLP over HTTP and gRPC, who may come in, how long a peer may take, what a body may weigh.

It knows connections and bytes. It must not know what the points in a request mean; the store takes those.
"""
