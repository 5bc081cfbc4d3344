"""The answers of a model with one output, for tests that know that it has one."""


def only(answers):
    """Return the only array of a mapping; anything else as it is."""
    if not isinstance(answers, dict):
        return answers
    [values] = answers.values()
    return values
