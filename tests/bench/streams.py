"""Token streams with their arrival times, whichever server they come from."""

import dataclasses
import queue
import random
import threading
import time

VOCABULARY = 151643  # ids below are ordinary tokens of Qwen2


@dataclasses.dataclass
class Stream:
    """One generation as its client saw it; times are of time.monotonic()."""
    started: float
    arrivals: list = dataclasses.field(default_factory=list)  # (time, tokens that came then)
    ids: list = dataclasses.field(default_factory=list)
    cached_tokens: int = 0

    @property
    def tokens(self):
        return sum(count for _, count in self.arrivals)

    @property
    def seconds_to_first_token(self):
        return self.arrivals[0][0] - self.started


def random_prompt(generator: random.Random, tokens):
    return [generator.randrange(VOCABULARY) for _ in range(tokens)]


def closed_loop(generate, prompts, concurrency):
    """Calls generate(prompt) for every prompt, `concurrency` at a time, and returns the streams in order of prompts
    and the seconds from the first call to the last return. An exception of any call is raised."""
    waiting = queue.SimpleQueue()
    for index, prompt in enumerate(prompts):
        waiting.put((index, prompt))
    streams, errors = [None] * len(prompts), []

    def work():
        while not errors:
            try:
                index, prompt = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                streams[index] = generate(prompt)
            except Exception as error:  # raised below, in the caller's thread
                errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(concurrency)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - started
    if errors:
        raise errors[0]
    return streams, seconds


def steady_rate(streams):
    """Tokens per second of all streams together while every one of them decodes: from the last first token to the
    first last token."""
    begin = max(stream.arrivals[0][0] for stream in streams)
    end = min(stream.arrivals[-1][0] for stream in streams)
    tokens = sum(count for stream in streams for when, count in stream.arrivals if begin < when <= end)
    if end <= begin or tokens == 0:
        raise ValueError(f"{len(streams)} streams never decode at the same time: generate more tokens")
    return tokens / (end - begin)


def mean_seconds_to_first_token(streams):
    return sum(stream.seconds_to_first_token for stream in streams) / len(streams)
