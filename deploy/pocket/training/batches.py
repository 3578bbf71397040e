"""Packs conversations into rows of a fixed length."""

import random

import tasks
import torch


LISTS = {"sum_list": tasks.sum_list, "copy_list": tasks.copy_list}  # tasks without a conversation around them


class Example:
    """Token ids of one conversation; `answers` are the positions whose token the model must predict."""

    def __init__(self, task, ids, spans):
        self.task, self.ids, self.spans = task, ids, spans


class Conversations:
    """Draws conversations of the mixture {task: weight}; seeded, without end."""

    def __init__(self, tokenizer, seed, mixture, held_out=False, follow=0.6):
        self.tokenizer, self.source, self.held_out, self.follow = tokenizer, random.Random(seed), held_out, follow
        self.names, self.weights = list(mixture), list(mixture.values())
        texts = [tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size() - 3)]
        self.vocabulary = [text for text in texts if text and "�" not in text]
        self.cache = {}
        self.newline = tokenizer.encode("\n").ids

    def count(self, text):
        if text not in self.cache:
            self.cache[text] = len(self.tokenizer.encode(text).ids)
        return self.cache[text]

    def turns(self, task, room):
        source = self.source
        if task == "copying":
            return tasks.copying(source, self.held_out, self.vocabulary)
        if task == "pass_key":
            budget = room - 50
            if source.random() < 0.6:
                budget = source.randint(30, max(31, budget))
            return tasks.pass_key(source, self.held_out, budget, source.random(), self.count)
        return getattr(tasks, task)(source, self.held_out)

    def draw(self, room, task=None):
        """A conversation of at most `room` tokens, several tasks long in a part of the cases."""
        source = self.source
        fixed = task
        while True:
            task = fixed or source.choices(self.names, self.weights)[0]
            if task in LISTS:
                return self.encode_list(task, LISTS[task](source), room)
            system = tasks.system_message(source) if not self.held_out else tasks.DEFAULT_SYSTEM
            text = [f"<|im_start|>system\n{system}<|im_end|>\n"]
            turns = self.turns(task, room)
            while task != "pass_key" and not self.held_out and source.random() < self.follow and len(turns) < 8:
                others = [name for name in self.names if name != "pass_key" and name not in LISTS]
                turns = turns + self.turns(source.choices(others, [self.weights[self.names.index(n)] for n in others])[0],
                                           room)
            example = self.encode(task, text, turns)
            if len(example.ids) <= room:
                return example

    def encode_list(self, task, lines, room):
        ids, spans = [], []
        for text, result in lines:
            before, after = (self.tokenizer.encode(part).ids for part in (text, result))
            if len(ids) + len(before) + len(after) + 1 > room:
                break
            ids = ids + before
            spans.append((len(ids), len(ids) + len(after)))
            ids = ids + after + self.newline
        return Example(task, ids, spans)

    def encode(self, task, text, turns):
        ids = self.tokenizer.encode(text[0]).ids
        spans = []
        for question, answer in turns:
            ids = ids + self.tokenizer.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n").ids
            start = len(ids)
            ids = ids + self.tokenizer.encode(f"{answer}<|im_end|>").ids
            spans.append((start, len(ids)))
            ids = ids + self.tokenizer.encode("\n").ids
        return Example(task, ids, spans)


def stretch(source, positions, documents, most):
    """Positions [rows, T] with random jumps inside each document, so that it ends anywhere below `most`.

    Distances far beyond the row's length are trained so at the cost of that length (PoSE, arXiv 2309.10400).
    """
    positions = positions.clone()
    for row, numbers in zip(positions, documents):
        for number in range(1, int(numbers.max()) + 1):
            places = (numbers == number).nonzero()[:, 0].tolist()
            room = source.randint(0, most - len(places))
            for cut in source.choices(places, k=3):
                jump = source.randint(0, room)
                row[cut:places[-1] + 1] += jump
                room -= jump
    return positions


def pack(conversations, rows, length, buffer):
    """Rows filled from a buffer of conversations, the longest that fits first. Returns tensors:

    ids, positions, documents [rows, length]; at and targets [rows, Q] (target -1: padding).
    """
    ids = torch.zeros(rows, length, dtype=torch.long)
    positions = torch.zeros(rows, length, dtype=torch.long)
    documents = torch.zeros(rows, length, dtype=torch.long)
    wanted = []
    for row in range(rows):
        used, number, answers = 0, 0, []
        while True:
            while len(buffer) < 96:
                buffer.append(conversations.draw(length))
            # The first is the oldest: it opens the row, so that nothing waits for ever.
            fitting = [i for i, e in enumerate(buffer) if len(e.ids) <= length - used]
            if not fitting:
                break
            chosen = fitting[0] if used == 0 else max(fitting, key=lambda i: len(buffer[i].ids))
            example = buffer.pop(chosen)
            size = len(example.ids)
            number += 1
            ids[row, used:used + size] = torch.tensor(example.ids)
            positions[row, used:used + size] = torch.arange(size)
            documents[row, used:used + size] = number
            for start, end in example.spans:
                answers += [(used + i - 1, example.ids[i]) for i in range(start, end)]
            used += size
        wanted.append(answers)
    most = -(-max(len(answers) for answers in wanted) // 16) * 16
    at = torch.zeros(rows, most, dtype=torch.long)
    targets = torch.full((rows, most), -1, dtype=torch.long)
    for row, answers in enumerate(wanted):
        if answers:
            at[row, :len(answers)], targets[row, :len(answers)] = torch.tensor(answers).T
    return ids, positions, documents, at, targets
