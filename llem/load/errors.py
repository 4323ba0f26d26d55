"""The one error of an answer."""


class AnswerError(Exception):
    """An answer that cannot be used; its text, a line, becomes that of the request."""
