"""The nodes of a micro-batch's prefix tree, found by a dictionary of prefixes."""


def inputs_of(sequence):
    """All tokens but the last, which predicts none."""
    return (*sequence.prompt_ids, *sequence.response_ids)[:-1]


def nodes(sequences):
    """Number of each distinct prefix, counted by sequence, in sorted order, and position."""
    number = {}
    for sequence in sorted(sequences, key=lambda s: (*s.prompt_ids, *s.response_ids)):
        for end in range(len(inputs_of(sequence))):
            number.setdefault(inputs_of(sequence)[: end + 1], len(number))
    return number
