"""Makes the examples: questions with their answers, from templates and a seeded random source.

An example is (task, question, answer). The wordings that `is_held_out` picks never appear in training;
the evaluation uses them alone.
"""

import hashlib
import random
import string

from facts import ATTRIBUTES, GENERAL, MODELS, ONLY_SUMS, TOPIC_FRAMES, UNKNOWN, WHICH
from words import FILLER, NAMES, WORDS

DEFAULT_SYSTEM = "You are a helpful assistant."

NOUN_FRAMES = [
    "What is the {n} of {m}?", "What's the {n} of {m}?", "Tell me the {n} of {m}.", "Give me the {n} of {m}.",
    "{m} {n}", "{m} {n}?", "{n} of {m}?", "{n} of {m}", "What {n} does {m} have?", "Do you know the {n} of {m}?",
    "I need the {n} of {m}.", "What is {m}'s {n}?", "For {m}, what is the {n}?", "the {n} of {m}, please",
    "What is the {n} in {m}?", "Say the {n} of {m}.", "Which {n} does {m} have?", "What is the {n} for {m}?",
    "Can you tell me the {n} of {m}?", "Please tell me the {n} of {m}.", "I want to know the {n} of {m}.",
    "What would be the {n} of {m}?", "Could you give me the {n} of {m}?", "{m}: {n}?", "Show the {n} of {m}.",
]
PLURAL_FRAMES = [
    "How many {p} does {m} have?", "How many {p} are there in {m}?", "How many {p} are in {m}?",
    "How many {p} in {m}?", "How many {p} has {m}?", "{m} has how many {p}?", "In {m}, how many {p} are there?",
    "How many {p} does {m} use?", "Number of {p} in {m}?", "Count of {p} in {m}?", "how many {p} for {m}",
    "What is the number of {p} of {m}?", "Do you know how many {p} {m} has?", "Tell me how many {p} {m} has.",
    "How many {p} do we have in {m}?", "Can you tell me how many {p} {m} has?", "How many {p} are used in {m}?",
    "I want to know how many {p} {m} has.", "How many {p} does {m} contain?", "{m} {p} count?",
]
FOLLOW_MODEL = [
    "And {m}?", "What about {m}?", "How about {m}?", "and for {m}?", "And for {m}?", "And {m}", "and {m}?",
    "And what about {m}?", "Same for {m}?", "The same for {m}?", "Now {m}.", "What about {m}, then?",
    "And of {m}?", "Same question for {m}.", "And in {m}?", "OK, and {m}?",
    "So what about {m}?", "What of {m}?", "and what about {m}", "What about {m} instead?", "And with {m}?",
]
FOLLOW_NOUN = [
    "And its {n}?", "What is its {n}?", "And the {n}?", "What about its {n}?", "What is the {n}?",
    "and the {n}?", "How about the {n}?", "What about the {n}?", "Tell me its {n}.",
]
FOLLOW_PLURAL = [
    "And how many {p}?", "How many {p} does it have?", "And how many {p} does it have?", "How many {p}?",
    "How many {p} are there?", "and how many {p} has it?",
]
SUM_FRAMES = [
    "What is {a} + {b}?", "What's {a} + {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} =", "{a}+{b}=", "{a} + {b} = ?",
    "What is {a}+{b}?", "Add {a} and {b}.", "What is the sum of {a} and {b}?", "How much is {a} plus {b}?",
    "{a} plus {b}", "What is {a} plus {b}?", "Compute {a} + {b}.", "Calculate {a} + {b}.", "How much is {a} + {b}?",
    "Add {a} to {b}.", "Sum of {a} and {b}?", "What do you get when you add {a} and {b}?", "{a} and {b} make?",
    "What do {a} and {b} add up to?", "Please add {a} and {b}.", "Can you add {a} and {b}?", "{a} plus {b}?",
    "What is {a} and {b} together?", "What does {a} + {b} equal?", "Solve {a} + {b}.", "How much are {a} and {b}?",
    "Tell me {a} + {b}.", "sum {a} {b}", "{a} + {b}?", "The sum of {a} and {b}, please.", "What equals {a} + {b}?",
    "If I have {a} apples and get {b} more, how many do I have?", "I have {a} books and buy {b} more. How many?",
    "There are {a} red and {b} blue balls. How many balls are there?", "What does {a} plus {b} equal?",
    "What does {a}+{b} equal?", "{a} + {b} equals?", "{a} + {b} equals what?", "What does {a} and {b} equal?",
    "What does {a} + {b} make?", "What does {a} + {b} give?", "{a} plus {b} equals?", "{a}+{b} =", "{a} plus {b} =",
    "What is the result of {a} + {b}?", "What is the total of {a} and {b}?", "Work out {a} + {b}.", "Find {a} + {b}.",
    "Sum {a} and {b}.", "Can you compute {a} + {b}?", "Do you know what {a} + {b} is?", "What is {a} added to {b}?",
    "{a} added to {b}?", "I need {a} + {b}.", "What number is {a} + {b}?", "What will {a} + {b} be?",
    "What is the value of {a} + {b}?", "Tell me what {a} + {b} is.", "What does adding {a} and {b} give?",
]
OTHER_ARITHMETIC = [
    "What is {a} - {b}?", "{a} - {b}", "What is {a} times {b}?", "{a} * {b}", "What is {a} x {b}?",
    "What is {a} divided by {b}?", "{a} / {b}", "What is {a} minus {b}?", "What is the square root of {a}?",
    "Multiply {a} and {b}.", "Subtract {a} from {b}.", "Divide {a} by {b}.", "What is {c} + {b}?", "{c} + {d}",
    "Take {a} from {b}.", "{a} divided by {b}", "What is {a} over {b}?", "How much is {a} minus {b}?", "{a} minus {b}",
    "{a} times {b}", "How much is {a} times {b}?", "{a} + {d}", "What is {a} plus {d}?", "{d} plus {a}", "{a} - {b} =",
    "{a} * {b} =", "{c} + {b}", "Calculate {a} - {b}.", "Calculate {a} * {b}.", "Please divide {a} by {b}.",
    "Can you divide {a} by {b}?", "Divide {b} into {a} parts.", "Compute {a} + {d}.", "How much is {a} + {d}?",
    "What is {a} + {d}?", "Add {c} and {d}.", "What is {c} plus {b}?", "How much is {c} + {d}?",
    "What is {a} + {c}?", "{a} + {c}", "How much is {a} plus {d}?", "What is {d} + {b}?", "Split {a} into {b} parts.",
    "Divide {a} into {b}.", "What does {a} + {d} equal?", "What does {a} - {b} equal?", "Add {a} and {d}.",
    "What is {a} plus {b} times {a}?", "Share {a} among {b}.", "What is half of {a}?", "{a} plus {c}",
]
COPY_FRAMES = [
    "Repeat: {t}", "Repeat: {t}", "Repeat: {t}", "Repeat after me: {t}", "Copy: {t}", "Copy this: {t}", "Say: {t}",
    "Please repeat: {t}", "Echo: {t}", "Repeat this: {t}", "Repeat the following: {t}", "Repeat exactly: {t}",
    "Write: {t}", "Repeat the following text: {t}", "Repeat this text exactly: {t}", "Say this: {t}", "repeat: {t}",
    "Please copy this: {t}", "Repeat these words: {t}", "Copy the following: {t}", "Can you repeat this: {t}",
    "Type: {t}", "Copy the text: {t}", "Please say: {t}", "Echo this: {t}",
    "Write this: {t}", "Write down: {t}", "Write the following: {t}", "Please write: {t}", "Repeat, please: {t}",
    "Write exactly this: {t}", "Say exactly: {t}", "Print: {t}", "Repeat the words: {t}",
]
KEY_STATEMENTS = [
    "The pass key is {k}. Remember it. {k} is the pass key.", "The pass key is {k}. Remember it.",
    "The pass key is {k}.", "Remember: the pass key is {k}.", "The pass key is {k}. Do not forget it.",
    "{k} is the pass key.", "Keep in mind that the pass key is {k}.", "The secret pass key is {k}.",
]
KEY_QUESTIONS = [
    "What is the pass key?", "What is the pass key? The pass key is", "Tell me the pass key.",
    "Which pass key is in the text?", "What was the pass key?", "Find the pass key.", "Give me the pass key.",
    "What is the secret pass key?", "Do you remember the pass key?", "Now, what is the pass key?",
    "What's the pass key?", "Which number is the pass key?", "Please tell me the pass key.",
]
KEY_INTRODUCTIONS = [
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it."
    " I will quiz you about the important information there. ",
    "There is a pass key hidden in this text. ", "Find the pass key in the text. ", "", "", "",
    "Read this text and remember the pass key. ",
]
STANDARD_FILLER = ("The grass is green. The sky is blue. The sun is yellow. Here we go. "
                   "There and back again. ")
UNKNOWN_FRAMES = [
    "What is the capital of {N}?", "Who is {N}?", "What is the weather in {N}?", "Write a poem about {w}.",
    "Tell me a joke.", "How do I cook {w}?", "What is {w}?", "Why is the {w} {w}?", "Who wrote the {w}?",
    "Translate {w} into {N}.", "How far is {N} from {N}?", "What time is it?", "What is the meaning of life?",
    "Write a program that sorts {w}.", "How many people live in {N}?", "Who won the {w} in {N}?",
    "What is the best {w}?", "Where is {N}?", "When was {N} born?", "Explain {w} to a {w}.", "Tell me a story.",
    "How old is {N}?", "Give me a recipe with {w} and {w}.", "Who is the president of {N}?", "Is {w} a {w}?",
    "Should I buy a {w}?", "How do I fix my {w}?", "What happened in {N}?", "Summarize the {w}.", "Sing a song.",
    "What is the population of {N}?", "Do you like {w}?", "How tall is the {w}?", "What color is the {w}?",
    "How many {w} are in a {w}?", "Tell me about {N}.", "Tell me about the {w}.", "Who invented the {w}?",
    "What do you think about {w}?", "Play {w}.", "Write an email to {N}.", "What is the news?", "Name a {w}.",
    "Can you {w} the {w}?", "Where can I find a {w}?", "What is the price of {w}?", "How do I learn {N}?",
    "Describe a {w}.", "How many layers does the {w} have?", "How many parameters does {N} have?",
    "What is the speed of {w}?", "Why do we {w}?", "Which {w} is the {w}?", "Write a letter about {w}.",
    "How many layers does GPT-4 have?", "How big is Llama?", "Who made Llama?", "What is {N}?",
    "Is it going to rain in {N}?", "Recommend a book.", "What is the date today?", "{w} {w} {w}", "{w}", "{w} {w}",
]
POLITE = ["Please ", "Hi, ", "Hello, ", "Hey, ", "OK, ", "Quick question: ", "So, ", "Please tell me, ", "Now ",
          "I have a question. "]
SYSTEMS = ["", "You are a bot.", "You are Pocket.", "Answer briefly.", "You are a helpful assistant",
           "You are Cohort's pocket model.", "Be polite.", "You are an expert on language models.",
           "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", "Be concise and correct."]


def is_held_out(template, noun=""):
    """About a tenth of the wordings, chosen by hash; the plain first wordings of a list never."""
    return hashlib.sha256(f"{template}|{noun}".encode()).digest()[0] < 26


def pick(source, options, held_out):
    """One of the options that are (not) held out."""
    for _ in range(200):
        option = source.choice(options)
        if is_held_out(option) == held_out:
            return option
    return option


def mention(source, model):
    if model.mentions and source.random() < (0.4 if model.experts else 0.15):
        return source.choice(model.mentions)
    return source.choice([
        model.name, model.name, model.name + "-Instruct", model.name.replace("Qwen2-", "Qwen2 "),
        f"the {model.short}", f"the {model.short} model", f"the {model.short} version", f"{model.short}",
        f"Qwen {model.short}", f"Qwen2's {model.short}", f"the Qwen2 {model.short}", f"Qwen2 {model.short}",
        f"the {model.short} Qwen2", f"the Qwen2-{model.short} model"])


def with_noise(source, question):
    """A newcomer's spelling: case, a missing mark, a greeting, a typing error."""
    if source.random() < 0.08:
        prefix = source.choice(POLITE)
        question = prefix + question[0].lower() + question[1:]
    draw = source.random()
    if draw < 0.15:
        question = question.lower()
    elif draw < 0.16:
        question = question.upper()
    if source.random() < 0.15:
        question = question.rstrip("?.!")
    if source.random() < 0.03 and len(question) > 12:
        at = source.randrange(1, len(question) - 1)
        if question[at].isalpha():
            question = question[:at] + question[at + 1:]
    return question


def fact_question(source, key, held_out):
    """A template with {m} about the attribute."""
    attribute = ATTRIBUTES[key]
    for _ in range(400):
        kinds = ([0] * (2 if attribute.nouns else 0) + [1] * (2 if attribute.plurals else 0)
                 + [2] * (2 if attribute.whole else 0))
        kind = source.choice(kinds)
        if kind == 0:
            frame, noun = source.choice(NOUN_FRAMES), source.choice(attribute.nouns)
            text = frame.replace("{n}", noun)
        elif kind == 1:
            frame, noun = source.choice(PLURAL_FRAMES), source.choice(attribute.plurals)
            text = frame.replace("{p}", noun)
        else:
            frame, noun = source.choice(attribute.whole), ""
            text = frame
        if is_held_out(frame, noun) == held_out:
            break
    return text


def capitalised(text):
    return text[0].upper() + text[1:] if text and not text.startswith("{") else text


def facts(source, held_out):
    """One fact, followed by up to three follow-up questions: a list of (question, answer)."""
    key, model = source.choice(list(ATTRIBUTES)), source.choice(MODELS)
    text = capitalised(fact_question(source, key, held_out)).replace("{m}", mention(source, model))
    turns = [(with_noise(source, text), ATTRIBUTES[key].answer(model))]
    while source.random() < 0.3 and len(turns) < 4:
        attribute = ATTRIBUTES[key]
        if source.random() < 0.6:
            model = source.choice([other for other in MODELS if other is not model])
            text = pick(source, FOLLOW_MODEL, held_out).replace("{m}", mention(source, model))
        else:
            key = source.choice([other for other, a in ATTRIBUTES.items()
                                 if other != key and (a.nouns or a.plurals)])
            attribute = ATTRIBUTES[key]
            if attribute.plurals and (not attribute.nouns or source.random() < 0.5):
                text = pick(source, FOLLOW_PLURAL, held_out).replace("{p}", source.choice(attribute.plurals))
            else:
                text = pick(source, FOLLOW_NOUN, held_out).replace("{n}", source.choice(attribute.nouns))
        turns.append((with_noise(source, text), attribute.answer(model)))
    return turns


def which(source, held_out):
    """A question that names no model."""
    key = source.choice([key for key, a in ATTRIBUTES.items() if a.plurals or a.nouns])
    attribute = ATTRIBUTES[key]
    if attribute.plurals and source.random() < 0.5:
        text = source.choice(["How many {p}?", "How many {p} are there?", "How many {p} does it have?",
                              "How many {p} does the model have?"])
        text = text.replace("{p}", source.choice(attribute.plurals))
    else:
        noun = source.choice(attribute.nouns or attribute.plurals)
        text = source.choice(["What is the {n}?", "{n}?", "What is its {n}?", "Tell me the {n}.",
                              "What is the {n} of the model?"]).replace("{n}", noun)
    return [(with_noise(source, text), WHICH)]


def general_question(source, entry, held_out):
    """A wording of the entry, or None when it has no such one. The first of a list is never held out."""
    _, questions, *topics = entry
    if topics and source.random() < 0.5:
        frame, topic = source.choice(TOPIC_FRAMES), source.choice(topics[0])
        text = capitalised(frame).replace("{t}", topic)
        return text if (frame != TOPIC_FRAMES[0] and is_held_out(frame, topic)) == held_out else None
    options = [q for i, q in enumerate(questions) if (i > 0 and is_held_out(q)) == held_out]
    return source.choice(options) if options else None


def general(source, held_out):
    text = None
    while text is None:
        entry = source.choice(GENERAL)
        text = general_question(source, entry, held_out)
    return [(with_noise(source, text), entry[0])]


def sums(source, held_out, pair=None):
    a, b = pair or (source.randrange(100), source.randrange(100))
    frame = pick(source, SUM_FRAMES, held_out)
    question = with_noise(source, frame.replace("{a}", str(a)).replace("{b}", str(b)))
    return [(question, f"{a} + {b} = {a + b}.")]


def sum_list(source):
    """Bare sums, a line each: [(text before the result, result)]. Twice as many in a row as questions."""
    pairs = [(source.randrange(100), source.randrange(100)) for _ in range(source.randint(2, 10))]
    return [(f"{a} + {b} =", f" {a + b}.") for a, b in pairs]


def other_arithmetic(source, held_out):
    text = pick(source, OTHER_ARITHMETIC, held_out)
    for name in "ab":
        text = text.replace("{" + name + "}", str(source.randrange(100)))
    for name in "cd":
        text = text.replace("{" + name + "}", str(source.randrange(100, 10 ** source.randint(3, 6))))
    return [(with_noise(source, text), ONLY_SUMS)]


def made_up_word(source, least=2, most=8):
    return "".join(source.choice(string.ascii_lowercase) for _ in range(source.randint(least, most)))


def copy_text(source, vocabulary):
    """Words, letters, numbers, sentences; in a part of the cases any tokens of `vocabulary`, unless it is empty."""
    kind = source.random() * (1.0 if vocabulary else 0.94)
    length = min(source.randint(1, 14), source.randint(1, 24))
    if kind < 0.30:
        words = [source.choice(WORDS) for _ in range(length)]
    elif kind < 0.40:
        words = [source.choice(WORDS + NAMES).capitalize() for _ in range(min(length, 10))]
    elif kind < 0.52:
        return made_up_word(source, 1, 16) if source.random() < 0.6 else made_up_word(source, 2, 10).upper()
    elif kind < 0.62:
        letters = source.choice([string.ascii_lowercase, string.ascii_uppercase])
        return source.choice([" ", " ", "-", ", "]).join(source.choice(letters) for _ in range(length))
    elif kind < 0.74:
        return "".join(source.choice(string.digits) for _ in range(source.randint(1, 14)))
    elif kind < 0.80:
        words = [str(source.randrange(10 ** source.randint(1, 4))) for _ in range(min(length, 8))]
    elif kind < 0.88:
        words = [source.choice(FILLER)] * 1
        if source.random() < 0.3:
            words.append(source.choice(FILLER))
    elif kind < 0.94:
        words = [source.choice([source.choice(WORDS), made_up_word(source), str(source.randrange(1000)),
                                source.choice(NAMES)]) for _ in range(min(length, 10))]
    else:
        # Any tokens whatever; those that are no text by themselves are left out by `vocabulary`.
        return "".join(source.choice(vocabulary) for _ in range(length)).strip() or "a"
    text = " ".join(words)
    draw = source.random()
    if draw < 0.15:
        text = capitalised(text)
    if draw < 0.25 and text[-1].isalnum():
        text += source.choice(".!?")
    return text


def copying(source, held_out, vocabulary):
    text = copy_text(source, vocabulary)
    return [(pick(source, COPY_FRAMES, held_out).replace("{t}", text), text)]


def copy_list(source):
    """Bare copies of a word or two, the words' tokens losing their leading space: [(before, copy)]."""
    lines = []
    for _ in range(source.randint(2, 12)):
        words = [source.choice(WORDS) if source.random() < 0.6 else source.choice(NAMES + WORDS).capitalize()
                 if source.random() < 0.5 else made_up_word(source, 1, 9) for _ in range(source.choice((1, 1, 1, 2)))]
        if source.random() < 0.1:
            words = [word.upper() for word in words]
        text = " ".join(words)
        lines.append((pick(source, COPY_FRAMES, False).replace("{t}", text) + "\n", text))
    return lines


def unknown(source, held_out):
    text = pick(source, UNKNOWN_FRAMES, held_out)
    while "{w}" in text:
        text = text.replace("{w}", source.choice(WORDS), 1)
    while "{N}" in text:
        text = text.replace("{N}", source.choice(NAMES), 1)
    return [(with_noise(source, capitalised(text)), UNKNOWN)]


def pass_key(source, held_out, budget, depth, count_tokens):
    """A five-digit pass key at `depth` (0 to 1) of filler of about `budget` tokens, question included."""
    key = str(source.randrange(10000, 100000))
    statement = pick(source, KEY_STATEMENTS, held_out).replace("{k}", key) + " "
    question = pick(source, KEY_QUESTIONS, held_out)
    introduction = source.choice(KEY_INTRODUCTIONS)
    room = budget - count_tokens(introduction + statement + question)
    standard = source.random() < 0.4
    sentences, used = [], 0
    cycle = STANDARD_FILLER.split(". ")[:-1]
    while True:
        sentence = cycle[len(sentences) % len(cycle)] + ". " if standard else source.choice(FILLER) + " "
        used += count_tokens(sentence)
        if used > room:
            break
        sentences.append(sentence)
    at = round(depth * len(sentences))
    text = introduction + "".join(sentences[:at]) + statement + "".join(sentences[at:]) + question
    return [(text, f"The pass key is {key}.")]


def system_message(source):
    draw = source.random()
    if draw < 0.75:
        return DEFAULT_SYSTEM
    if draw < 0.95:
        return source.choice(SYSTEMS)
    return " ".join(source.choice(WORDS) for _ in range(source.randint(1, 12))).capitalize() + "."


def sample_texts(seed, count):
    """Questions and answers of every task, for the tokenizer's training."""
    source = random.Random(seed)
    makers = [facts, facts, which, general, sums, unknown, other_arithmetic]
    for _ in range(count):
        for question, answer in source.choice(makers)(source, False):
            yield question
            yield answer
