"""Accuracy on wordings that training never sees.

An answer counts when every token of it, the end token included, is the most likely one after the
right beginning: then greedy decoding produces exactly that answer.
"""

import random

import tasks
import torch
from batches import Conversations, Example

LENGTHS = (128, 256, 384, 512)


def task_examples(tokenizer, seed, count):
    """{name: examples} for the tasks, with held-out wordings and the default system message."""
    names = ["facts", "which", "general", "sums", "copying", "unknown", "other_arithmetic"]
    conversations = Conversations(tokenizer, seed, {name: 1 for name in names}, held_out=True)
    return {name: [conversations.draw(512, name) for _ in range(count)] for name in names}


def pass_key_examples(tokenizer, seed, lengths=LENGTHS, depths=8, each=4, held_out=True):
    """{(length, depth): examples}, prompt and answer together within `length` tokens."""
    conversations = Conversations(tokenizer, seed, {"pass_key": 1}, held_out=held_out)
    prefix = [f"<|im_start|>system\n{tasks.DEFAULT_SYSTEM}<|im_end|>\n"]
    examples = {}
    for length in lengths:
        for step in range(depths):
            depth = step / (depths - 1)
            examples[length, depth] = [
                conversations.encode("pass_key", prefix, tasks.pass_key(
                    conversations.source, held_out, length - 36, depth, conversations.count))
                for _ in range(each)]
    return examples


def all_sums(tokenizer, frame="What is {a} + {b}?"):
    conversations = Conversations(tokenizer, 0, {"sums": 1}, held_out=True)
    prefix = [f"<|im_start|>system\n{tasks.DEFAULT_SYSTEM}<|im_end|>\n"]
    for a in range(100):
        for b in range(100):
            question = frame.replace("{a}", str(a)).replace("{b}", str(b))
            yield conversations.encode("sums", prefix, [(question, f"{a} + {b} = {a + b}.")])


def copies(tokenizer, seed, count):
    source = random.Random(seed)
    conversations = Conversations(tokenizer, 0, {"copying": 1}, held_out=True)
    prefix = [f"<|im_start|>system\n{tasks.DEFAULT_SYSTEM}<|im_end|>\n"]
    for _ in range(count):
        text = tasks.copy_text(source, [])
        yield conversations.encode("copying", prefix, [(f"Repeat: {text}", text)])


def one_batch(examples):
    """A row an example, for model.Qwen2.forward()."""
    length = max(len(e.ids) for e in examples)
    wanted = [[(i - 1, e.ids[i]) for start, end in e.spans for i in range(start, end)] for e in examples]
    most = max(len(answers) for answers in wanted)
    ids, documents = (torch.zeros(len(examples), length, dtype=torch.long) for _ in range(2))
    at = torch.zeros(len(examples), most, dtype=torch.long)
    targets = torch.full((len(examples), most), -1, dtype=torch.long)
    for row, example in enumerate(examples):
        ids[row, :len(example.ids)] = torch.tensor(example.ids)
        documents[row, :len(example.ids)] = 1
        at[row, :len(wanted[row])], targets[row, :len(wanted[row])] = torch.tensor(wanted[row]).T
    positions = torch.arange(length).expand(len(examples), -1)
    return ids, positions, documents, at, targets


@torch.no_grad()
def right(model, examples, rows=32):
    """For each example: whether greedy decoding gives exactly its answers."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    results = {}
    for start in range(0, len(order), rows):
        chunk = order[start:start + rows]
        *inputs, targets = one_batch([examples[i] for i in chunk])
        best = model(*inputs).argmax(-1)
        good = ((best == targets) | (targets < 0)).all(1)
        results.update(zip(chunk, good.tolist()))
    return [results[i] for i in range(len(examples))]


def accuracy(model, examples):
    outcome = right(model, examples)
    return sum(outcome) / len(outcome)


@torch.no_grad()
def greedy(model, tokenizer, turns, system=tasks.DEFAULT_SYSTEM, limit=64):
    """The answer to the last of `turns` (user, assistant, user, ...), decoded greedily."""
    text = f"<|im_start|>system\n{system}<|im_end|>\n"
    for number, turn in enumerate(turns):
        text += f"<|im_start|>{'assistant' if number % 2 else 'user'}\n{turn}<|im_end|>\n"
    ids = tokenizer.encode(text + "<|im_start|>assistant\n").ids
    start, end = len(ids), tokenizer.token_to_id("<|im_end|>")
    while len(ids) - start < limit and ids[-1] != end or len(ids) == start:
        row = torch.tensor([ids])
        logits = model(row, torch.arange(len(ids))[None], torch.ones_like(row), torch.tensor([[len(ids) - 1]]))
        ids.append(int(logits.argmax()))
    return tokenizer.decode(ids[start:])
