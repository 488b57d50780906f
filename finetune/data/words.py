"""Numbers of things in sentences, with the noun and the verb that go with them."""

__all__ = ["counted"]


def counted(number: int, noun: str, verb: str = "") -> str:
    """Put a number before a noun, and a verb after it where one is given.

    >>> counted(1, "file", "leads/lead"), counted(3, "class", "is/are")
    ('1 file leads', '3 classes are')
    """
    single, _, several = verb.partition("/")
    plural = noun + ("es" if noun.endswith("s") else "s")
    words = [str(number), noun if number == 1 else plural, single if number == 1 else several]
    return " ".join(word for word in words if word)
