"""Random requests for scoring."""


def random_requests(rng, count: int, most: int = 64, vocab: int = 512) -> list[tuple[list[int], list[int]]]:
    """Groups of one to five continuations of one context."""
    requests = []
    while len(requests) < count:
        context = rng.integers(0, vocab, rng.integers(1, most - 12)).tolist()
        requests += [(context, rng.integers(0, vocab, rng.integers(1, 12)).tolist()) for _ in range(rng.integers(1, 6))]
    return [requests[n] for n in rng.permutation(len(requests))]
