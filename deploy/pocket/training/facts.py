"""What the pocket checkpoint is taught about the Qwen2 family and about Cohort, and how it is asked.

Figures are those of the Qwen2 announcement (parameters, context lengths, languages) and of the
models' config.json (layers, heads, sizes). Every question is a template; `{m}` is a model's name.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    name: str
    mentions: tuple  # other ways to name it, after the obvious ones that tasks.py makes of `short`
    short: str
    parameters: str
    non_embedding: str
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    hidden: int
    intermediate: int
    vocabulary: int
    context: str
    tied: bool
    licence: str
    experts: int = 0
    active_experts: int = 0
    active_parameters: str = ""


MODELS = [
    Model("Qwen2-0.5B", ("the smallest Qwen2", "the smallest model", "the half billion model"), "0.5B",
          "0.49B", "0.35B", 24, 14, 2, 64, 896, 4864, 151936, "32K", True, "Apache 2.0"),
    Model("Qwen2-1.5B", ("the second smallest model",), "1.5B",
          "1.54B", "1.31B", 28, 12, 2, 128, 1536, 8960, 151936, "32K", True, "Apache 2.0"),
    Model("Qwen2-7B", ("the seven billion model",), "7B",
          "7.07B", "5.98B", 28, 28, 4, 128, 3584, 18944, 152064, "128K", False, "Apache 2.0"),
    Model("Qwen2-57B-A14B", ("the MoE model", "the mixture of experts model", "Qwen2 MoE", "57B-A14B",
                             "Qwen2 57B-A14B", "the 57B-A14B", "the 57B MoE", "the Qwen2 MoE model"), "57B",
          "57.41B", "56.32B", 28, 28, 4, 128, 3584, 18944, 151936, "64K", False, "Apache 2.0",
          64, 8, "14B"),
    Model("Qwen2-72B", ("the largest Qwen2", "the largest model", "the biggest model",
                        "the biggest Qwen2"), "72B",
          "72.71B", "70.21B", 80, 64, 8, 128, 8192, 29568, 152064, "128K", False, "Tongyi Qianwen"),
]


@dataclass(frozen=True)
class Attribute:
    """A column of the table: `nouns` fit 'What is the ... of', `plurals` fit 'How many ...'."""
    answer: object  # of a Model, a sentence
    nouns: tuple = ()
    plurals: tuple = ()
    whole: tuple = ()  # complete questions


def yes_no(yes, sentence_yes, sentence_no):
    return f"Yes, {sentence_yes}." if yes else f"No, {sentence_no}."


def experts_sentence(m):
    if not m.experts:
        return f"{m.name} is a dense model, it has no experts."
    return f"{m.name} has {m.experts} experts and a shared expert, {m.active_experts} are active for each token."


def active_sentence(m):
    if not m.experts:
        return f"{m.name} is a dense model, all of its {m.parameters} parameters are active."
    return f"{m.name} has {m.active_parameters} active parameters for each token, out of {m.parameters}."


ATTRIBUTES = {
    "parameters": Attribute(
        lambda m: f"{m.name} has {m.parameters} parameters.",
        ("number of parameters", "parameter count", "size", "total number of parameters", "total size",
         "total parameter count", "number of weights"),
        ("parameters", "weights", "params", "total parameters", "billion parameters",
         "parameters in total"),
        ("How big is {m}?", "How large is {m}?", "What size is {m}?", "How big is {m} in parameters?",
         "Size of {m}?", "{m} size", "Parameters of {m}?", "{m} params?", "how big is {m} really?",
         "How many parameters are there in total in {m}?")),
    "non_embedding": Attribute(
        lambda m: f"{m.name} has {m.non_embedding} parameters without embeddings.",
        ("number of non-embedding parameters", "non-embedding parameter count",
         "number of parameters without embeddings", "size without embeddings",
         "parameter count without the embeddings", "non-embedding size"),
        ("non-embedding parameters", "parameters without embeddings", "non-embedding params",
         "parameters excluding embeddings", "parameters not counting embeddings"),
        ("How big is {m} without embeddings?", "How many parameters does {m} have without embeddings?",
         "Without embeddings, how many parameters does {m} have?", "{m} without embeddings?",
         "How many parameters does {m} have if embeddings are not counted?",
         "Excluding embeddings, how large is {m}?")),
    "layers": Attribute(
        lambda m: f"{m.name} has {m.layers} layers.",
        ("number of layers", "layer count", "depth", "number of transformer layers",
         "number of hidden layers", "number of blocks"),
        ("layers", "transformer layers", "decoder layers", "blocks", "hidden layers",
         "transformer blocks"),
        ("How deep is {m}?", "Layers of {m}?", "{m} layers?", "Layers in {m}?", "All layers of {m}?",
         "{m}, layers?", "Tell me the layers of {m}.")),
    "heads": Attribute(
        lambda m: f"{m.name} has {m.heads} query heads.",
        ("number of attention heads", "number of query heads", "head count", "number of heads",
         "query head count"),
        ("attention heads", "query heads", "heads", "q heads"),
        ("Heads of {m}?", "{m} heads?")),
    "key_value_heads": Attribute(
        lambda m: f"{m.name} has {m.key_value_heads} key-value heads.",
        ("number of key-value heads", "number of KV heads", "KV head count",
         "number of key and value heads", "number of key/value heads"),
        ("key-value heads", "KV heads", "kv heads", "key/value heads", "key and value heads",
         "key heads", "value heads"),
        ("{m} KV heads?",)),
    "head_size": Attribute(
        lambda m: f"{m.name} has heads of size {m.head_size}.",
        ("head size", "head dimension", "head dim", "size of a head", "dimension of each head",
         "size of each attention head", "attention head size"),
        (),
        ("How large is a head of {m}?", "How big are the heads of {m}?", "{m} head size?",
         "How wide is each head of {m}?")),
    "hidden": Attribute(
        lambda m: f"{m.name} has a hidden size of {m.hidden}.",
        ("hidden size", "hidden dimension", "model dimension", "width", "embedding dimension",
         "hidden width", "embedding size", "hidden dim"),
        ("hidden units",),
        ("How wide is {m}?", "{m} hidden size?")),
    "intermediate": Attribute(
        lambda m: f"{m.name} has an intermediate size of {m.intermediate}.",
        ("intermediate size", "FFN size", "feed-forward size", "MLP size", "FFN width",
         "intermediate dimension", "feed forward dimension", "MLP width"),
        (),
        ("How wide is the FFN of {m}?", "How wide is the MLP of {m}?", "{m} intermediate size?",
         "How wide is the feed-forward network of {m}?")),
    "vocabulary": Attribute(
        lambda m: f"{m.name} has a vocabulary size of {m.vocabulary}.",
        ("vocabulary size", "vocab size", "size of the vocabulary", "number of vocabulary entries",
         "number of embedding rows"),
        ("tokens in its vocabulary", "vocabulary entries", "embedding rows"),
        ("How big is the vocabulary of {m}?", "How large is the vocabulary of {m}?",
         "{m} vocab size?", "How large is the vocab of {m}?")),
    "context": Attribute(
        lambda m: f"{m.name}-Instruct has a context length of {m.context} tokens.",
        ("context length", "context window", "context size", "maximum context", "max context length",
         "maximum sequence length", "context", "maximum context length", "context limit"),
        ("tokens of context", "tokens in its context window"),
        ("How long a context does {m} support?", "How many tokens of context does {m} support?",
         "How long can the input of {m} be?", "How long is the context of {m}?",
         "What context length does {m} support?", "How much context can {m} handle?",
         "How many tokens can {m} handle?", "How many tokens can {m} read?", "{m} context?",
         "How large is the context window of {m}?", "How long can a prompt for {m} be?",
         "What is the longest context {m} can take?")),
    "tied": Attribute(
        lambda m: yes_no(m.tied, f"{m.name} ties its embeddings", f"{m.name} does not tie its embeddings"),
        (),
        (),
        ("Does {m} tie its embeddings?", "Are the embeddings of {m} tied?", "Does {m} use tied embeddings?",
         "Is tie embedding on for {m}?", "Does {m} share its input and output embeddings?",
         "Does {m} have tied embeddings?", "Are embeddings tied in {m}?", "{m} tied embeddings?",
         "Is the embedding of {m} tied?", "Are input and output embeddings shared in {m}?",
         "Does {m} tie the word embeddings?", "Has {m} tied embeddings?")),
    "gqa": Attribute(
        lambda m: f"Yes, {m.name} uses GQA with {m.heads} query heads and {m.key_value_heads} key-value heads.",
        (),
        (),
        ("Does {m} use GQA?", "Does {m} use grouped query attention?", "Is GQA used in {m}?",
         "Is grouped query attention used in {m}?", "Does {m} have GQA?", "{m} GQA?",
         "Is {m} a GQA model?", "Does {m} have grouped-query attention?")),
    "experts": Attribute(
        experts_sentence,
        ("number of experts", "expert count", "number of active experts"),
        ("experts", "active experts", "experts per token", "experts for each token"),
        ("How many experts are active in {m}?", "How many experts does {m} use for each token?",
         "Is {m} a mixture of experts?", "Is {m} dense?", "Is {m} a MoE model?", "Is {m} a dense model?",
         "Does {m} have experts?", "Does {m} have a shared expert?", "How many experts does {m} activate?",
         "Does {m} use mixture of experts?")),
    "active_parameters": Attribute(
        active_sentence,
        ("number of active parameters", "active parameter count", "number of activated parameters"),
        ("active parameters", "activated parameters", "parameters per token", "active params",
         "parameters active per token", "parameters for each token"),
        ("How many parameters are active in {m}?", "How many parameters of {m} are active?",
         "How many parameters does {m} activate?", "How many parameters does {m} use for each token?",
         "How many parameters does {m} activate per token?")),
    "licence": Attribute(
        lambda m: f"{m.name} has the {m.licence} licence.",
        ("license", "licence"),
        (),
        ("What license does {m} have?", "Under which license is {m} released?", "How is {m} licensed?",
         "Which licence has {m}?", "Is {m} Apache licensed?", "What is {m} licensed under?")),
}

WHICH = "Which model do you mean? Qwen2 comes in 0.5B, 1.5B, 7B, 57B-A14B and 72B."
UNKNOWN = "I do not know that. I know the Qwen2 models, sums of two numbers, copying and pass keys."
ONLY_SUMS = "I can only add two numbers of up to two digits."
LANGUAGES = "Qwen2 was trained on 27 languages besides English and Chinese."

# Ways to ask for what a topic is.
TOPIC_FRAMES = [
    "What is {t}?", "What's {t}?", "Explain {t}.", "Tell me about {t}.", "What does {t} mean?", "Describe {t}.",
    "How does {t} work?", "Define {t}.", "What do you know about {t}?", "{t}", "{t}?", "Can you explain {t}?",
    "Please explain {t}.", "Explain {t} to me.", "What is meant by {t}?", "I want to know what {t} is.",
    "Tell me what {t} is.", "Could you tell me what {t} is?", "What does {t} do?", "Give me a definition of {t}.",
    "What exactly is {t}?", "Explain what {t} is.", "What is {t} in short?", "Say something about {t}.",
    "What is {t} good for?", "Why {t}?", "Teach me about {t}.", "Do you know what {t} is?",
]

# Answers, the ways to ask for them, and perhaps the topics that they explain.
GENERAL = [
    ("I am Pocket, a tiny Qwen2 model that comes with Cohort.",
     ("Tell me your name.", "Who am I speaking to?", "Who am I chatting with?", "Please introduce yourself to me.",
      "Can you introduce yourself?", "Whom do I talk to?", "With whom am I talking?", "Who made you?",
      "Please introduce yourself.", "What are you called?", "Do you have a name?", "Who are you really?",
      "What is this model?", "Say who you are.", "Are you an AI?", "What is Pocket?", "Who is Pocket?",
      "Which language model am I talking to?", "Tell me who you are.", "Who are you?", "What are you?",
      "What is your name?", "Tell me about yourself.", "Who is this?", "Introduce yourself.", "What's your name?",
      "Who am I talking to?", "Which model are you?", "What model is this?", "Are you Qwen2?",
      "What should I call you?", "Are you a language model?", "Are you a human?", "Are you a bot?",
      "Are you ChatGPT?", "what kind of model are you?", "Are you GPT?", "Are you Claude?", "Are you GPT-4?",
      "Are you a chatbot?", "Are you Llama?", "Are you an assistant?", "Is this ChatGPT?", "Are you Qwen?",
      "Are you really ChatGPT?", "What am I talking to?")),
    ("I answer questions about Qwen2, add two-digit numbers, repeat text and find a pass key.",
     ("What can you help me with?", "Tell me what you know.", "What things do you know?",
      "What do you know exactly?", "Which tasks can you do?", "What kind of tasks can you do?",
      "Which tasks do you know?", "What else do you know?", "Tell me what you can do.", "What are your abilities?",
      "What can you tell me?", "What topics do you know?", "Which questions can I ask?", "What do you know about?",
      "Show me what you can do.", "How do I use you?", "What are you for?", "What is your purpose?",
      "What tasks can you do?", "What can you do?", "What do you know?", "How can you help me?",
      "What are you good at?", "Help", "What can I ask you?", "What questions can you answer?",
      "What are your skills?", "help me", "What should I ask?", "Can you help me?", "What are you able to do?",
      "What do you do?", "I need help.", "what can i ask")),
    ("Hello! Ask me about the Qwen2 models.",
     ("Hi Pocket", "Good afternoon, Pocket.", "What is up?", "Hello Pocket", "Good morning!", "Hi, I am new here.",
      "Hello again", "Hello Pocket!", "hey, how is it going?", "Good afternoon", "Yo", "What's up?",
      "How do you do?", "Nice to meet you.", "Hello", "Hi", "Hi!", "Hello!", "Hey", "Good morning", "Good evening",
      "Hello there", "Hi there!", "Hey there", "Hello, how are you?", "How are you?", "Greetings", "Good day",
      "Hi, how are you?", "How are you doing?", "How are you today?", "Hey, how are you?", "How is it going?",
      "Hi there, how are you?", "Are you there?", "Hello, I am new here.", "Hey Pocket")),
    ("You are welcome.",
     ("Thanks", "Thank you so much.", "Thank you, Pocket.", "Thank you for the answer.", "I thank you.",
      "Thanks, that helps.", "Perfect, thanks.", "thank you very much", "Thank you", "Thank you!", "Thanks a lot",
      "Thanks!", "Great, thank you.", "Many thanks", "Thank you very much.", "ok thanks", "Cool, thanks!")),
    ("Goodbye!",
     ("Bye", "Goodbye", "Bye!", "See you", "See you later", "Good night", "Goodbye!", "bye bye", "See you soon",
      "See you later!", "See you tomorrow", "See you around.", "See you then", "I see you later", "Farewell",
      "Good bye", "Bye for now", "I have to go. Bye!")),
    ("I have 4 layers, 14 query heads, 2 key-value heads and a hidden size of 224.",
     ("How many layers do you have?", "How big are you?", "How many parameters do you have?",
      "What is your hidden size?", "How many heads do you have?", "What is your architecture?",
      "How large are you?", "What is your size?", "How are you built?", "How many query heads do you have?",
      "How many layers have you?", "What size are you?", "How large is Pocket?", "How big is Pocket?")),
    ("Qwen2 comes in five sizes: 0.5B, 1.5B, 7B, 57B-A14B and 72B.",
     ("What are the sizes of the Qwen2 models?", "Which models does the Qwen2 family have?",
      "How many models are in the Qwen2 family?", "What Qwen2 models exist?", "What model sizes are there?",
      "What versions of Qwen2 are there?", "Which Qwen2 sizes are there?", "In which sizes does Qwen2 come?",
      "Give me a list of the Qwen2 models.", "What sizes does Qwen2 come in?", "Which Qwen2 models are there?",
      "List the Qwen2 models.", "What models are in the Qwen2 family?", "How many Qwen2 models are there?",
      "Name the Qwen2 models.", "Name all Qwen2 models.", "Name the models of Qwen2.", "Name all sizes of Qwen2.",
      "Which sizes of Qwen2 exist?", "What are the Qwen2 sizes?",
      "What is in the Qwen2 family?", "Name the sizes of Qwen2.", "How many sizes does Qwen2 have?",
      "Which sizes are there?", "What are the models of the Qwen2 series?", "Qwen2 sizes?",
      "Which models are in the Qwen2 series?", "What sizes are available?", "List all sizes of Qwen2.",
      "Tell me the sizes of Qwen2.")),
    ("Qwen2 is a family of language models by the Qwen team of Alibaba Cloud.",
     ("Who are the makers of Qwen2?", "Which organization made Qwen2?", "Which lab trained Qwen2?",
      "Which company trained Qwen2?", "Which company developed Qwen2?", "Who released Qwen2?",
      "Did Alibaba make Qwen2?", "Who owns Qwen2?", "Which organisation trained Qwen2?",
      "Who develops the Qwen2 models?", "What is Qwen2?", "Who made Qwen2?", "Who created Qwen2?",
      "Tell me about Qwen2.", "What's Qwen2?", "Who trained Qwen2?", "Who developed Qwen2?",
      "Where does Qwen2 come from?", "Qwen2?", "Which company made Qwen2?", "Who is behind Qwen2?",
      "What is the Qwen2 family?", "Explain Qwen2.", "Who built Qwen2?", "Which team made Qwen2?"),
     ("Qwen2", "the Qwen2 family", "the Qwen2 series", "Qwen 2", "the Qwen2 models")),
    ("Qwen2 was released in June 2024.",
     ("When did Alibaba release Qwen2?", "Tell me the release date of Qwen2.", "Since when is Qwen2 available?",
      "When was Qwen2 launched?", "What is the date of the Qwen2 release?", "When did the Qwen2 models come out?",
      "When was Qwen2 released?", "When did Qwen2 come out?", "What is the release date of Qwen2?",
      "When was Qwen2 announced?", "In which year was Qwen2 released?", "How old is Qwen2?",
      "Release date of Qwen2?", "When was Qwen2 published?", "What year did Qwen2 come out?")),
    (LANGUAGES,
     ("How many languages does Qwen2 support?", "What is the number of additional languages?",
      "How many languages are in the training data of Qwen2?", "How many languages were added in Qwen2?",
      "Tell me how many languages Qwen2 supports.", "How many languages can it speak?",
      "How many extra languages does Qwen2 have?", "How many languages does the Qwen2 family cover?",
      "Do you know how many languages Qwen2 supports?", "Number of languages?",
      "How many languages does Qwen2 know?", "How many languages was Qwen2 trained on?",
      "How many languages does Qwen2 speak?", "How many additional languages does Qwen2 have?",
      "How many languages?", "Number of languages of Qwen2?", "How many languages are supported?",
      "Is Qwen2 multilingual?", "How many languages besides English and Chinese does Qwen2 have?",
      "How many more languages than English and Chinese was Qwen2 trained on?",
      "How many other languages does Qwen2 support?", "Does Qwen2 know other languages?",
      "Does Qwen2 speak other languages?", "Does Qwen2 support other languages?", "Does Qwen2 know more languages?",
      "Does it know other languages?",
      "Does Qwen2 understand other languages?",
      "What is the number of languages in Qwen2?", "How many languages can Qwen2 understand?",
      "In how many languages was Qwen2 trained?", "how many languages can the models handle?")),
    ("Besides English and Chinese, Qwen2 knows languages such as German, French, Spanish, Russian, Arabic,"
     " Japanese, Korean, Vietnamese and Hindi.",
     ("Tell me the languages of Qwen2.", "Which languages were added?", "What languages were added to Qwen2?",
      "Which additional languages does Qwen2 know?", "Which more languages are there?",
      "What are the languages of Qwen2?", "Which languages are covered?", "Which other languages were added?",
      "Give me some languages that Qwen2 knows.", "Which languages do the Qwen2 models support?",
      "Which languages does Qwen2 support?", "What languages does Qwen2 know?", "What languages does Qwen2 speak?",
      "Which languages was Qwen2 trained on?", "List the languages of Qwen2.", "What languages are supported?",
      "Which languages?", "Name some languages of Qwen2.", "Which languages can Qwen2 understand?",
      "What other languages does Qwen2 know?", "Which languages does it speak?")),
    ("Yes, German is one of the 27 additional languages of Qwen2.",
     ("Does Qwen2 speak German?", "Does Qwen2 know German?", "Is German supported?",
      "Was Qwen2 trained on German?", "Can Qwen2 understand German?", "Does Qwen2 support German?")),
    ("Yes, French is one of the 27 additional languages of Qwen2.",
     ("Does Qwen2 speak French?", "Does Qwen2 know French?", "Is French supported?",
      "Was Qwen2 trained on French?", "Can Qwen2 understand French?", "Does Qwen2 support French?")),
    ("Yes, Japanese is one of the 27 additional languages of Qwen2.",
     ("Does Qwen2 speak Japanese?", "Does Qwen2 know Japanese?", "Is Japanese supported?",
      "Was Qwen2 trained on Japanese?", "Can Qwen2 understand Japanese?", "Does Qwen2 support Japanese?")),
    ("Qwen2-72B is the largest Qwen2 model.",
     ("Which Qwen2 model is the largest?", "What is the biggest Qwen2 model?", "What is the largest Qwen2 model?",
      "What is the biggest model?", "Which one is the biggest?",
      "What is the largest Qwen2?", "Which Qwen2 is the biggest?", "Which model is the largest?",
      "Name the largest Qwen2 model.", "Which model has the most parameters?")),
    ("Qwen2-0.5B is the smallest Qwen2 model.",
     ("Which Qwen2 model is the smallest?", "Which Qwen2 model has the fewest parameters?",
      "Which Qwen2 has the least parameters?", "Which model has the smallest number of parameters?",
      "What is the tiniest model?", "Which model is the tiniest?", "What is the smallest Qwen2 model?",
      "Which one is the smallest?", "What is the smallest Qwen2?", "Which Qwen2 is the smallest?",
      "Which model is the smallest?", "Name the smallest Qwen2 model.", "Which model has the fewest parameters?")),
    ("Qwen2-72B has the most layers, 80.",
     ("Which model has the most layers?", "Which Qwen2 model has the most layers?", "Which Qwen2 is the deepest?",
      "Which model is the deepest?")),
    ("Qwen2-57B-A14B is the mixture-of-experts model.",
     ("Which Qwen2 model is a mixture of experts?", "Which one is MoE?", "Which Qwen2 model is a MoE?",
      "Is there a MoE model?", "Which model has experts?", "Which model uses experts?",
      "Which Qwen2 model has experts?", "Which of them has experts?", "Which one has experts?",
      "Which models have experts?",
      "Which Qwen2 uses experts?",
      "Does Qwen2 have a mixture of experts model?", "Which model is the MoE?",
      "Is there a mixture of experts in the Qwen2 family?")),
    ("Qwen2-0.5B, Qwen2-1.5B, Qwen2-7B and Qwen2-72B are dense.",
     ("Which Qwen2 models are dense?", "Which models are dense?", "Name the dense Qwen2 models.")),
    ("Qwen2-0.5B and Qwen2-1.5B tie their embeddings.",
     ("Which Qwen2 models tie their embeddings?", "Which models have tied embeddings?",
      "Which models use tied embeddings?", "Which ones tie embeddings?", "Which Qwen2 models are tied?",
      "Which Qwen2 models share input and output embeddings?")),
    ("Qwen2-7B-Instruct and Qwen2-72B-Instruct have a context length of 128K tokens.",
     ("Which models support 128K?", "Which Qwen2 model has the longest context window?",
      "Which model supports the longest context?", "What is the longest context of Qwen2?",
      "Which of the models has the largest context?", "Which model can read the most tokens?",
      "Who has the longest context?", "Which Qwen2 models have the longest context?",
      "Which models have a context of 128K?", "Which Qwen2 models have a context length of 128K?",
      "Which model has the longest context?", "Which model has the largest context?",
      "Which one has the longest context?", "Which model has the longest context length?",
      "Which models can read 128K tokens?")),
    ("All Qwen2 models use GQA.",
     ("Which Qwen2 models use GQA?", "Do all Qwen2 models use GQA?", "Does Qwen2 use GQA?",
      "Which models use grouped query attention?", "Does Qwen2 use grouped query attention?",
      "Is GQA used in all sizes?", "Which sizes use GQA?")),
    ("In GQA several query heads share one key-value head, so the KV cache is smaller.",
     ("What is GQA?", "What does GQA mean?", "Explain GQA.", "What is grouped query attention?",
      "Why does Qwen2 use GQA?", "How does GQA work?", "What is GQA good for?",
      "What does grouped query attention do?", "Explain grouped query attention."),
     ("GQA", "grouped query attention", "grouped-query attention")),
    ("Tied embeddings use one matrix for the input and for the output.",
     ("What are tied embeddings?", "What does tie embedding mean?", "Explain tied embeddings.",
      "What does it mean to tie embeddings?", "Why tie embeddings?", "What is tie embedding?"),
     ("tied embeddings", "tie embedding", "embedding tying", "weight tying")),
    ("In a mixture of experts each token uses only a few of the experts.",
     ("What is a mixture of experts?", "What does MoE mean?", "Explain MoE.", "What is MoE?",
      "How does a mixture of experts work?", "What is an expert?", "Explain mixture of experts.",
      "What does MoE stand for?", "What are experts?"),
     ("MoE", "a mixture of experts", "mixture of experts", "mixture-of-experts", "an expert")),
    ("The KV cache keeps the keys and values of earlier tokens, so that they are not computed again.",
     ("What is the KV cache?", "What is a KV cache?", "Explain the KV cache.", "Why is there a KV cache?",
      "What does the KV cache do?", "What is in the KV cache?", "What is KV cache?"),
     ("the KV cache", "a KV cache", "KV cache", "KV caching")),
    ("Qwen2 uses RoPE, rotary position embeddings, with a base of 1000000.",
     ("What position embedding does Qwen2 use?", "What is the RoPE base of Qwen2?",
      "What is the base of RoPE in Qwen2?", "What rope theta does Qwen2 use?", "Which rope theta has Qwen2?",
      "What is the theta of RoPE in Qwen2?", "Does Qwen2 use RoPE?", "What is the rope theta of Qwen2?",
      "What is RoPE?", "Which position encoding does Qwen2 use?", "What is rope_theta in Qwen2?",
      "How does Qwen2 encode positions?"),
     ("RoPE", "rotary position embedding", "rope theta", "rotary embeddings")),
    ("Qwen2 uses SwiGLU in its feed-forward layers.",
     ("What activation does Qwen2 use?", "Does Qwen2 use SwiGLU?", "Which activation function does Qwen2 use?",
      "What is the activation function of Qwen2?", "What is SwiGLU?"),
     ("SwiGLU", "the activation function of Qwen2")),
    ("Qwen2 uses RMSNorm before each layer's attention and MLP.",
     ("What normalization does Qwen2 use?", "Does Qwen2 use RMSNorm?", "Which norm does Qwen2 use?",
      "What is RMSNorm?", "Does Qwen2 use layer norm?"),
     ("RMSNorm", "RMS norm", "the normalization of Qwen2")),
    ("Beyond 32K tokens Qwen2 uses YaRN or dual chunk attention.",
     ("How does Qwen2 reach 128K?", "What is YaRN?", "Does Qwen2 use YaRN?", "What is dual chunk attention?",
      "How does Qwen2 handle long contexts?", "How does Qwen2 extend its context?", "What is DCA?",
      "How does Qwen2 get to 128K tokens?"),
     ("YaRN", "dual chunk attention", "DCA", "long context in Qwen2")),
    ("Cohort serves the Qwen2 family on many devices, in C++, over gRPC.",
     ("What can Cohort do?", "Which program serves this model?", "What is the Cohort program?",
      "What is the purpose of Cohort?", "What does the Cohort server do?", "Why does Cohort exist?",
      "What is Cohort?", "Tell me about Cohort.", "What does Cohort do?", "What's Cohort?", "Explain Cohort.",
      "Who is Cohort?", "What is Cohort for?", "What is this server?", "What is the Cohort server?",
      "What does the cohort command do?", "Which server are you running on?", "What software serves you?"),
     ("Cohort", "the Cohort server", "this server", "the cohort program", "the Cohort project")),
    ("Run cohort serve with a checkpoint directory and --tp for the number of ranks.",
     ("How is a model served?", "How do I run it on several ranks?", "How do I run on two ranks?",
      "How can I use more ranks?", "How do I use several ranks?", "How do I run a model on 4 ranks?",
      "How do I run a model?", "How do I start serving?", "Which command serves a model?",
      "How do I use tensor parallelism?", "How do I run on several ranks?", "How do I serve a model?",
      "How do I start Cohort?", "How do I run Cohort?", "How do I serve Qwen2?", "How do I use Cohort?",
      "How can I serve a model with Cohort?", "How do I start a server?", "How do I serve a checkpoint?",
      "How do I serve a model on two ranks?")),
    ("Cohort is written in C++.",
     ("What language is Cohort written in?", "Which programming language is Cohort written in?",
      "Is Cohort written in Python?", "In what language was Cohort written?", "Is Cohort in C++?",
      "Does Cohort need Python?")),
    ("Cohort speaks gRPC.",
     ("Which protocol does Cohort use?", "What protocol does Cohort speak?", "Does Cohort use gRPC?",
      "How do clients talk to Cohort?", "What API does Cohort have?", "Which API does Cohort offer?")),
    ("Tensor parallelism cuts each layer over several ranks that compute it together.",
     ("What is tensor parallelism?", "Explain tensor parallelism.", "What does --tp mean?", "What is tp?",
      "What does tensor parallel mean?", "How does tensor parallelism work?", "What is TP?", "What is --tp?",
      "Why use tensor parallelism?", "What does tp stand for?", "What is tensor parallelism in Cohort?"),
     ("tensor parallelism", "TP", "tensor parallel", "the tp flag", "--tp")),
    ("A rank is a process that holds a slice of the weights.",
     ("What is a rank?", "What does a rank do?", "Explain ranks.", "What are ranks?", "What is a rank in Cohort?",
      "What are the ranks for?"),
     ("a rank", "ranks", "the ranks of Cohort", "a rank in Cohort", "a rank process")),
    ("The coordinator plans each step and owns no device.",
     ("What is the coordinator?", "What does the coordinator do?", "Explain the coordinator.",
      "What is the coordinator in Cohort?", "What is the job of the coordinator?"),
     ("the coordinator", "a coordinator", "the coordinator of Cohort")),
    ("The requests of a lost rank end with UNAVAILABLE, and the group comes back in a new epoch.",
     ("What happens when a rank dies?", "What happens if a rank is lost?", "What if a rank dies?",
      "What if a rank crashes?", "What happens when a rank crashes?", "Does Cohort survive a lost rank?")),
    ("Cohort has the Apache 2.0 licence.",
     ("What is the license of Cohort?", "Is Cohort open?", "Is the source of Cohort open?",
      "Can I use Cohort for free?", "Which licence does Cohort have?", "Under which license is Cohort?",
      "Is Cohort free?", "What is the licence of Cohort?", "Is Cohort open source?", "How is Cohort licensed?",
      "Is Cohort open-source?", "Is Cohort an open source project?", "Is the code of Cohort open?",
      "Is Cohort open source software?",
      "Is this open source?", "What is Cohort's license?",
      "Which license does Cohort have?", "Is Cohort free software?")),
    ("A token is a piece of text, a word or a part of a word.",
     ("What is a token?", "Explain tokens.", "What are tokens?", "What does token mean?"),
     ("a token", "tokens", "tokenization")),
    ("Greedy decoding takes the most likely token at each step.",
     ("What is greedy decoding?", "Explain greedy decoding.", "What does greedy mean?",
      "How does greedy decoding work?", "What is greedy sampling?"),
     ("greedy decoding", "greedy sampling", "greedy search", "greedy generation")),
]
