"""What a report of tokens comes to, whose classes are parts of a prompt and a completion: disjoint classes, or nothing.

What was read from a cache or written to one is told apart from what is sound or picture, but not how the two overlap. They are
taken to overlap only where they must, and such tokens stay cached. That is exact where sound and pictures have no price of their
own, and elsewhere errs towards their own, which is the dearer.
"""

from domain.facts import Usage


def usage_told(
    prompt: int,
    completion: int,
    *,
    cached: int = 0,
    written: int = 0,
    audio: int = 0,
    image: int = 0,
    reasoning: int = 0,
    spoken: int = 0,
) -> Usage | None:
    """None for what cannot be true: a count below zero, or parts that are more than their whole. `audio` came in, `spoken` went
    out."""
    fresh, output = prompt - cached - written, completion - reasoning - spoken
    if min(cached, written, fresh, audio, image, reasoning, spoken, output) < 0 or audio + image > prompt:
        return None
    audio = min(audio, fresh)
    image = min(image, fresh - audio)
    return Usage(
        input=fresh - audio - image,
        cached_input=cached,
        cache_write=written,
        output=output,
        reasoning=reasoning,
        audio_input=audio,
        image_input=image,
        audio_output=spoken,
    )


def latest(told: Usage | None, before: Usage | None) -> Usage | None:
    """What a stream has reported: the last report that was one. Zeros take nothing back of what was counted before."""
    return before if told is None or (before is not None and not told.total) else told
