"""Error of input that a person gives: one class, since no caller distinguishes its kinds.

ValueError
└── InvalidInput   a file, a setting, a checkpoint, a command line: the message says what to do
"""


class InvalidInput(ValueError):
    """Something that a person gave cannot be used.

    The message is one line that names the place (file, line, field, variable) and the remedy.
    """
