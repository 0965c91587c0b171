"""What goes wrong with a source, for a person to mend."""


class SourceError(Exception):
    """A source cannot answer; the message is one line that says what to do."""
