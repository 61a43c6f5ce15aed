"""What goes wrong with servers."""


class ServerUnavailable(Exception):
    """No such server can be had here; the text is one line that says what to install or to mend."""
