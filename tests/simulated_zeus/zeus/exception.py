"""The root of what zeus raises."""


class ZeusBaseError(Exception):
    """Zeus cannot read something."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
