"""The viewer in a terminal: ``openhands-otel watch``.

What is shown, and in which order, is worked out without a screen: ``live`` (what the stream told), ``listing`` (which
conversations, in which order), ``columns`` and ``layout`` (how a row reads), ``headline``, ``parts``, ``waterfall``.
The widgets draw it: ``overview``, ``detail`` and ``help`` are screens, ``app`` is the application.
"""
