"""Answer questions that need two facts: read from the context or learned by heart, at once or step by step.

    python examples/10_question_answering.py           two minutes on two cores
    python examples/10_question_answering.py --quick   in seconds: a smaller world by heart, too short to read

"Who is the boss of the mother of Ada?" needs two facts. A model reads them in the context, which is another small world
each time, or it has learned one large world by heart. It answers at once, or it writes the two facts first (a chain of
thought: Wei et al. 2022). The exact match is measured on questions that no training has asked.

Step by step the answers are right in both settings: 99.8% when reading, 100% by heart. At once, with the same number of
steps, the reading model does not beat the commonest person of the facts, 41%. It has not learned to look up one fact
either: only 39% of its questions of one step are right. So this shows that written steps are easier to learn, and not
that two steps cannot be done at once. The model that has learned by heart knows all facts and all questions of its
training, and a third of the others: it has learned answers more than how to combine facts. Wang et al. 2024, "Grokked
Transformers are Implicit Reasoners", find that this comes, if at all, after much longer training. If both facts were
learned alone, and never occurred in a question, then even step by step only a fifth of the answers are right.

When the model that reads step by step writes a person, half of the attention of its first layer is at the fact that it
needs, and 4% at each other fact: first at the one, then at the other.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np
from common import Experiment, train

import tensorlite as tl
from gpt.config import ModelConfig
from gpt.inspect import attention_weights
from gpt.model import GPT

experiment = Experiment(__doc__)

# ---- The world: people, and relations between them ------------------------------------------------

PEOPLE = (
    "Ada Ben Cleo Dan Eva Finn Gus Hana Ida Jon Kim Leo Mia Ned Olga Paul Quin Rosa Sam Tess "
    "Uma Vera Will Xena Yara Zoe Alf Bea Cal Dora Ed Fay Gil Hugo Ivy Jack Kit Lou Max Nina"
).split()[: experiment.pick(40, 10)]
RELATIONS = "mother father friend teacher neighbour boss doctor cousin coach partner".split()[: experiment.pick(10, 4)]
WORDS = [*PEOPLE, *RELATIONS, "?"]
N, R = len(PEOPLE), len(RELATIONS)
ASK = N + R  # the id of the question mark; that of relation r is N + r

# A fact has three words: `mother Ada Cleo` says that the mother of Ada is Cleo. A question has four, and asks for two
# steps: `? boss mother Ada` is "Who is the boss of the mother of Ada?" The answer is one word, a person.
# With `think`, the model writes the two facts first: `mother Ada Cleo boss Cleo Tess`, whose last word is the answer.

Question = tuple[int, int, int]  # the second relation, the first relation, and the person


def asked(question: Question) -> list[int]:
    """Return the words of a question."""
    second, first, person = question
    return [ASK, N + second, N + first, person]


def answer(question: Question, between: int, last: int, think: bool) -> list[int]:
    """Return the words of an answer: the last person alone, or the two facts."""
    second, first, person = question
    return [N + first, person, between, N + second, between, last] if think else [last]


def without_targets(words: list[int]) -> list[tuple[int, int]]:
    """Return words that the model need not predict, each with its target, -1."""
    return [(word, -1) for word in words]


def with_targets(words: list[int]) -> list[tuple[int, int]]:
    """Return words that the model learns to predict, each with itself as the target."""
    return [(word, word) for word in words]


def build(length: int) -> GPT:
    """Return a new model. All have the same shape, except for the length of the context."""
    tl.manual_seed(0)
    return GPT(
        ModelConfig(
            vocab_size=len(WORDS), block_size=length, n_layer=experiment.pick(3, 2), n_head=4,
            n_embd=experiment.pick(64, 32), init_std=0.1, tied=False,
            previous_tokens=2,  # Each word knows the two before it, so a fact needs no layer to be put together.
        )
    )  # fmt: skip


def learn(rows: Callable[[], list[list[tuple[int, int]]]], steps: int) -> GPT:
    """Return a model that was trained on rows of words with their targets, which `rows` draws."""

    def batch() -> tuple[np.ndarray, np.ndarray]:
        pairs = np.array(rows())  # (B, T + 1, 2)
        return pairs[:, :-1, 0], pairs[:, 1:, 1]

    model = build(len(rows()[0]) - 1)
    train(model, lambda x, y: model(x, y)[1], batch, steps, lr=experiment.pick(3e-3, 1e-2))
    return model


def replies(model: GPT, prompts: np.ndarray, count: int) -> np.ndarray:
    """Return the likeliest `count` next words of each prompt (B, T), one after the other: (B, count)."""
    words = prompts
    with tl.no_grad():
        for _ in range(count):
            likeliest = model(tl.tensor(words))[0][:, -1].argmax(dim=-1).numpy()
            words = np.concatenate([words, likeliest[:, None]], axis=1)
    return words[:, prompts.shape[1] :]


# The split is fixed before anything is trained: a fifth of all questions are never asked in any training.
split = np.random.default_rng(10).random((R, R, N))
held_out = split < 0.2

# ---- Reading: the facts are in the context, and each context is another world -----------------------

# A world has 4 people and 3 relations, and a fact for each pair, 12 in all. So a word of the question alone does not
# give the answer away. In training 8 questions follow one another, and half of them ask for one step only.

PEOPLE_HERE, RELATIONS_HERE, QUESTIONS = 4, 3, experiment.pick(8, 4)
FACTS = PEOPLE_HERE * RELATIONS_HERE


class World:
    """A world of a few people: its facts in random order, and the person that each relation leads to."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.people = rng.permutation(N)[:PEOPLE_HERE].tolist()
        self.relations = rng.permutation(R)[:RELATIONS_HERE].tolist()
        values = rng.integers(0, PEOPLE_HERE, size=FACTS).tolist()
        pairs = [(relation, person) for relation in self.relations for person in self.people]
        self.of = {pair: self.people[value] for pair, value in zip(pairs, values, strict=True)}
        self.facts = [pairs[i] for i in rng.permutation(FACTS)]

    def text(self) -> list[int]:
        """Return the words of all facts."""
        return [word for relation, person in self.facts for word in (N + relation, person, self.of[relation, person])]

    def question(self, unseen: bool) -> Question:
        """Return a random question of two steps, one that is held out or one that is not."""
        while True:
            second, first, person = self.rng.integers(0, (RELATIONS_HERE, RELATIONS_HERE, PEOPLE_HERE)).tolist()
            question = self.relations[second], self.relations[first], self.people[person]
            if held_out[question] == unseen:
                return question

    def people_on_the_way(self, question: Question) -> tuple[int, int]:
        """Return the person after the first step, and the answer."""
        second, first, person = question
        between = self.of[first, person]
        return between, self.of[second, between]


def reading_row(rng: np.random.Generator, think: bool) -> list[tuple[int, int]]:
    """Return a world and its questions, with targets for the answers."""
    world = World(rng)
    row = without_targets(world.text())
    for number in rng.permutation(QUESTIONS):
        question = world.question(unseen=False)
        if number % 2 == 0:
            _, first, person = question
            row += without_targets([ASK, N + first, person]) + with_targets([world.of[first, person]])
        else:
            row += without_targets(asked(question))
            row += with_targets(answer(question, *world.people_on_the_way(question), think))
    return row


def reader(think: bool) -> GPT:
    """Return a model that was trained to read."""
    print(f"\nreading, {'step by step' if think else 'at once'}:")
    rng = np.random.default_rng(0)
    size = experiment.pick(32, 8)
    return learn(lambda: [reading_row(rng, think) for _ in range(size)], experiment.pick(600, 10))


readers = {think: reader(think) for think in (False, True)}

rng = np.random.default_rng(1)
worlds: list[World] = []
while len(worlds) < experiment.pick(1000, 100):
    world = World(rng)
    if any(held_out[b, a, person] for b in world.relations for a in world.relations for person in world.people):
        worlds.append(world)
questions = [world.question(unseen=True) for world in worlds]
prompts = np.array([world.text() + asked(question) for world, question in zip(worlds, questions, strict=True)])
ways = np.array([world.people_on_the_way(question) for world, question in zip(worlds, questions, strict=True)])
commonest = np.array([Counter(world.of.values()).most_common(1)[0][0] for world in worlds])
first_words = np.array([(N + first, person) for _, first, person in questions])
one_step = np.concatenate([prompts[:, :-3], first_words], axis=1)  # `? mother Ada`, the first step alone
read = {think: replies(model, prompts, 6 if think else 1) for think, model in readers.items()}


def right(given: np.ndarray, wanted: np.ndarray) -> float:
    """Return the share of right answers, in percent."""
    return 100 * float((given == wanted).mean())


frequent = right(commonest, ways[:, 1])
at_once, by_steps = (right(read[think][:, -1], ways[:, 1]) for think in (False, True))
experiment.result("reading, at once", at_once, "%", frequent, "the commonest person of the facts")
experiment.result("reading, step by step", by_steps, "%", frequent, "the commonest person of the facts")
for think, how in ((False, "at once"), (True, "step by step")):
    first_step = right(replies(readers[think], one_step, 1)[:, 0], ways[:, 0])
    experiment.result(f"reading, {how}: questions of one step", first_step, "%")
experiment.result("reading, the person of the first step", right(ways[:, 0], ways[:, 1]), "%")

# ---- By heart: the facts are in the weights ---------------------------------------------------------

# Now there is one world of 40 people with 10 relations, 400 facts. The model learns all of them, and the answers of
# questions about them. A fifth of the facts never occur in a question. So there are two kinds of unseen questions:
# those whose facts occur in other questions, and those whose facts were both learned alone.

rng = np.random.default_rng(2)
target_of = rng.integers(0, N, size=(R, N))  # of each relation and person
alone = rng.random((R, N)) < 0.2
every = [(b, a, person) for b in range(R) for a in range(R) for person in range(N)]


def steps_of(question: Question) -> tuple[int, int]:
    """Return the person after the first step of a question, and the answer."""
    second, first, person = question
    between = int(target_of[first, person])
    return between, int(target_of[second, between])


def facts_alone(question: Question) -> int:
    """Return how many of the two facts of a question occur in no question of the training."""
    second, first, person = question
    return int(alone[first, person]) + int(alone[second, steps_of(question)[0]])


trained = [question for question in every if facts_alone(question) == 0 and not held_out[question]]
unseen = [question for question in every if facts_alone(question) == 0 and held_out[question]]
apart = [question for question in every if facts_alone(question) == 2]


def rows_by_heart(rng: np.random.Generator, think: bool) -> list[list[tuple[int, int]]]:
    """Return a batch of facts and of questions, each with targets for its answer."""
    size, length = experiment.pick(128, 32), 10 if think else 5
    rows = []
    for relation, person in zip(rng.integers(0, R, size).tolist(), rng.integers(0, N, size).tolist(), strict=True):
        rows.append(without_targets([N + relation, person]) + with_targets([int(target_of[relation, person])]))
    for i in rng.integers(0, len(trained), size).tolist():
        rows.append(without_targets(asked(trained[i])) + with_targets(answer(trained[i], *steps_of(trained[i]), think)))
    return [row + without_targets([ASK] * (length - len(row))) for row in rows]


def learner(think: bool) -> GPT:
    """Return a model that has learned the world by heart."""
    print(f"\nby heart, {'step by step' if think else 'at once'}:")
    rng = np.random.default_rng(0)
    return learn(lambda: rows_by_heart(rng, think), experiment.pick(600, 60))


def exact(model: GPT, chosen: list[Question], think: bool) -> float:
    """Return the share of questions that a model answers right, in percent."""
    given = replies(model, np.array([asked(question) for question in chosen]), 6 if think else 1)[:, -1]
    return right(given, np.array([steps_of(question)[1] for question in chosen]))


def nearest(question: Question) -> int:
    """Return the answer of the first question of the training that has the most words in common, place by place."""
    same = (np.array(trained) == np.array(question)).sum(axis=1)
    return steps_of(trained[int(same.argmax())])[1]


learners = {think: learner(think) for think in (False, True)}
facts = np.array([(N + relation, person) for relation in range(R) for person in range(N)])
wanted = np.array([steps_of(question)[1] for question in unseen])
most = Counter(steps_of(question)[1] for question in trained).most_common(1)[0][0]
betweens = np.array([steps_of(question)[0] for question in unseen])
neighbours = right(np.array([nearest(question) for question in unseen]), wanted)
for think, how in ((False, "at once"), (True, "step by step")):
    known = right(replies(learners[think], facts, 1)[:, -1], target_of.ravel())
    experiment.result(f"by heart, {how}: facts", known, "%")
    experiment.result(f"by heart, {how}: questions of the training", exact(learners[think], trained, think), "%")
    own = exact(learners[think], unseen, think)
    experiment.result(f"by heart, {how}: unseen questions", own, "%", neighbours, "nearest question of the training")
    experiment.result(f"by heart, {how}: of facts learned alone", exact(learners[think], apart, think), "%")
experiment.result("by heart, the commonest answer of the training", right(np.full(len(unseen), most), wanted), "%")
experiment.result("by heart, the person of the first step", right(betweens, wanted), "%")

# ---- What the reading models attend to ---------------------------------------------------------------

# When a model answers, how much of its attention does it give to the three words of a fact? The mean over the heads of
# a layer, for right answers alone. A fact that is not needed is the baseline.


def attention_to_facts(model: GPT, words: np.ndarray, place: int) -> np.ndarray:
    """Return the attention (layers, facts) that a place of a text gives to each fact, averaged over heads."""
    weights = attention_weights(model, words)[:, :, place, : 3 * FACTS].mean(axis=1)
    return weights.reshape(-1, FACTS, 3).sum(axis=2)


def shares(think: bool) -> np.ndarray:
    """Return the attention (steps, layers, 3) to the first fact, the second, and the mean of the others.

    A step is where a person of the way is predicted: two step by step, one at once.
    """
    found = []
    solved = np.flatnonzero(read[think][:, -1] == ways[:, 1])[:200]
    for i in solved:
        world, (second, first, person) = worlds[i], questions[i]
        words = np.concatenate([prompts[i], read[think][i]])
        needed = [world.facts.index((first, person)), world.facts.index((second, int(ways[i, 0])))]
        if needed[0] == needed[1]:
            continue
        others = [fact for fact in range(FACTS) if fact not in needed]
        places = [prompts.shape[1] + 1, prompts.shape[1] + 4] if think else [prompts.shape[1] - 1]
        rows = np.stack([attention_to_facts(readers[think], words, place) for place in places])
        found.append(np.stack([rows[..., needed[0]], rows[..., needed[1]], rows[..., others].mean(axis=2)], axis=-1))
    return np.mean(found, axis=0)


print("\nattention to a fact, by layer                first fact   second fact   each other one")
for think, names in ((False, ["at once"]), (True, ["step by step, first", "step by step, second"])):
    table = shares(think)
    for name, layers in zip(names, table, strict=True):
        for layer, (one, two, other) in enumerate(layers):
            print(f"{name:25} layer {layer}   {one:19.1%}   {two:11.1%}   {other:14.1%}")
        if think:
            place = names.index(name)
            best = int(layers[:, place].argmax())
            needed, other = 100 * layers[best, [place, 2]]
            step = "second" if place else "first"
            unit = f"% (layer {best})"
            experiment.result(f"attention to the needed fact, {step} step", needed, unit, other, "another fact")

# The facts of one world, with the attention of the layer that gives most to any of them, at the two steps.
i = int(np.flatnonzero(read[True][:, -1] == ways[:, 1])[0]) if (read[True][:, -1] == ways[:, 1]).any() else 0
text = " ".join(WORDS[word] for word in prompts[i, -4:])
print(f"\n{text} -> {' '.join(WORDS[word] for word in read[True][i])}\n")
words = np.concatenate([prompts[i], read[True][i]])
columns = [attention_to_facts(readers[True], words, prompts.shape[1] + offset) for offset in (1, 4)]
columns = [column[column.max(axis=1).argmax()] for column in columns]
for number, (relation, person) in enumerate(worlds[i].facts):
    bars = "   ".join(f"{'#' * round(20 * column[number]):20}" for column in columns)
    print(f"{RELATIONS[relation]:>9} {PEOPLE[person]:4} {PEOPLE[worlds[i].of[relation, person]]:4}   {bars}".rstrip())

experiment.finish()
