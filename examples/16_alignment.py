"""Make a GPT write shorter lines: preferences (DPO), policy gradient with a KL penalty, and a learned reward.

    python examples/16_alignment.py           three minutes on two cores
    python examples/16_alignment.py --quick   in seconds

The start is a GPT that has learned Shakespeare. The reward of a text of 64 characters is the number of its line ends.
The distance of a model from the start is the KL divergence, measured on the model's own texts. The baseline is the best
of n texts of the start, which needs no training.

The start writes 1.7 line ends. The best of 16 texts has 3.9, at a KL divergence of 1.8 nats per text. DPO reaches
3.4 to 3.7 at about 3 nats, and REINFORCE 6.5 at 7 nats. The best of n has more than DPO at the same divergence: 4.5 to
4.8. The loss on Shakespeare rises by 0.02 and 0.04 nats per character. Without the penalty, texts are line ends alone.
A reward model that was trained on 344 pairs is right about 91 to 94 % of other pairs, and leads to 3.8 at 2.3 nats.
The ranges are those of two runs, with one thread and with two, because the number of threads changes the rounding.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from common import Experiment, shakespeare, train, windows

import tensorlite as tl
import tensorlite.nn.functional as F
from gpt.config import ModelConfig
from gpt.generation import generate_batch
from gpt.model import GPT, eval_mode
from gpt.tokenizer import CharTokenizer
from tensorlite import nn

experiment = Experiment(__doc__)
start_steps, dpo_steps, rl_steps, reward_steps = experiment.pick((1000, 40, 40, 60), (60, 12, 12, 20))
batch_size, samples, checked, measured = experiment.pick((64, 2048, 256, 6), (16, 256, 128, 2))
dpo_lr, rl_lr = experiment.pick((1e-4, 3e-4), (5e-4, 1e-3))
length = experiment.pick(64, 32)  # of a text, in characters
SHAPE: dict[str, Any] = experiment.pick({"n_layer": 3, "n_embd": 96}, {"n_layer": 1, "n_embd": 48})

# ---- The start: a GPT that has learned Shakespeare, and that never changes again ------------------

training, validation = shakespeare()
tokenizer = CharTokenizer.train(training + validation)
newline = int(tokenizer.encode("\n")[0])


def new_model() -> GPT:
    """Return a new GPT for the characters of Shakespeare."""
    shape = ModelConfig(vocab_size=tokenizer.vocab_size, block_size=length, n_head=4, position="rope", **SHAPE)
    return GPT(shape)


tl.manual_seed(0)
rng = np.random.default_rng(0)
start = new_model()
print("The GPT learns Shakespeare:")
train(start, lambda x, y: start(x, y)[1], windows(tokenizer.encode(training), length, 16, rng), start_steps, 4e-3)


def copy(model: GPT) -> GPT:
    """Return a model with the same weights."""
    result = new_model()
    result.load_state_dict(model.state_dict())
    return result


# ---- Texts, their probabilities and their reward ---------------------------------------------------


def write(model: GPT, count: int) -> np.ndarray:
    """Return the ids of new texts of a model, each after a newline: (count, 1 + length)."""
    new = generate_batch(model, [[newline]], length, num_samples=count, seed=int(rng.integers(2**40)))
    return np.array([[newline, *ids] for ids in new])


def log_p(model: GPT, ids: tl.Tensor) -> tl.Tensor:
    """Return ln p of each text (N, 1 + length), without its first character: (N,)."""
    logits, targets = model(ids[:, :-1])[0], ids[:, 1:]
    losses = F.cross_entropy(logits.reshape(-1, tokenizer.vocab_size), targets.reshape(-1), reduction="none")
    return -losses.view(targets.shape).sum(1)


def scored(model: GPT, ids: np.ndarray) -> np.ndarray:
    """Return ln p of each text as `log_p` does, without gradients."""
    with eval_mode(model):
        return log_p(model, tl.tensor(ids)).numpy()


def reward(ids: np.ndarray) -> np.ndarray:
    """Return the number of line ends in each text, (N,): the more there are, the shorter the lines."""
    return (ids[:, 1:] == newline).sum(1).astype(np.float32)


def divergence(model: GPT, ids: np.ndarray) -> float:
    """Return the KL divergence from the start, in nats per text: the mean of ln p - ln p_start of the model's texts."""
    return float((scored(model, ids) - scored(start, ids)).mean())


def shakespeare_loss(model: GPT) -> float:
    """Return the loss on the validation text, in nats per character."""
    ids = tokenizer.encode(validation)
    rows = ids[: len(ids) // (length + 1) * (length + 1)].reshape(-1, length + 1)[:: experiment.pick(4, 40)]
    return float(-scored(model, rows).mean() / length)


class Curve:
    """How far a model is from the start, and the reward of its texts, at some steps of its training."""

    def __init__(self, model: GPT, every: int) -> None:
        self.model, self.every, self.step = model, every, 0
        self.points: list[tuple[float, float]] = []

    def __call__(self) -> None:
        """Count a step, and measure the model each `every` steps."""
        if self.step % self.every == 0:
            self.measure()
        self.step += 1

    def measure(self) -> np.ndarray:
        """Measure the model, and return the texts of the measurement."""
        ids = write(self.model, checked)
        self.points.append((divergence(self.model, ids), float(reward(ids).mean())))
        print(f"step {self.step:5}   KL {self.points[-1][0]:.2f} nats a text   reward {self.points[-1][1]:.2f}")
        return ids


# ---- Best of n: the baseline, without any training -------------------------------------------------

own = write(start, samples)  # the texts of the start, for all that follows
own_rewards = reward(own)


def best_of(n: int) -> tuple[float, float]:
    """Return the KL divergence of the best of n texts from one text, at most, and its expected reward.

    KL <= ln n - (n - 1) / n (Beirami et al. 2024, "Theoretical guarantees on the best-of-n alignment policy"). Of the
    sorted rewards r_1 <= ... <= r_N, r_i is the largest of n draws with the probability (i / N)^n - ((i - 1) / N)^n.
    """
    at_most = (np.arange(samples + 1) / samples) ** n
    return float(np.log(n) - (n - 1) / n), float(np.diff(at_most) @ np.sort(own_rewards))


# ---- DPO: from pairs of texts, of which one is preferred -------------------------------------------


def pairs(ids: np.ndarray, rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the better and the worse text of each pair of neighbours with different rewards."""
    one, two = ids[::2], ids[1::2]
    better = rewards[::2] > rewards[1::2]
    different = rewards[::2] != rewards[1::2]
    chosen, rejected = np.where(better[:, None], one, two), np.where(better[:, None], two, one)
    return chosen[different], rejected[different]


def dpo_loss(
    chosen: tl.Tensor, rejected: tl.Tensor, start_chosen: tl.Tensor, start_rejected: tl.Tensor, beta: float
) -> tl.Tensor:
    """Return the loss of direct preference optimization from four ln p of texts, (N,) each.

    -ln sigmoid(beta (ln p(chosen) / p_start(chosen) - ln p(rejected) / p_start(rejected))), the mean over the pairs
    (Rafailov et al. 2023, "Direct Preference Optimization", equation 7).
    """
    margin = (chosen - start_chosen) - (rejected - start_rejected)
    return F.softplus(-beta * margin).mean()


def direct(beta: float) -> tuple[GPT, Curve]:
    """Return a model that was trained with DPO on pairs of the start's own texts."""
    model = copy(start)
    curve = Curve(model, dpo_steps // measured)
    chosen, rejected = pairs(own, own_rewards)
    arrays = chosen, rejected, scored(start, chosen), scored(start, rejected)

    def batch() -> tuple[np.ndarray, ...]:
        curve()
        picked = rng.integers(0, len(chosen), batch_size // 2)
        return tuple(array[picked] for array in arrays)

    def loss(chosen: tl.Tensor, rejected: tl.Tensor, one: tl.Tensor, two: tl.Tensor) -> tl.Tensor:
        return dpo_loss(log_p(model, chosen), log_p(model, rejected), one, two, beta)

    train(model, loss, batch, dpo_steps, dpo_lr, weight_decay=0)
    return model, curve


# ---- Policy gradient, with a penalty for the distance from the start -------------------------------


def policy_gradient(beta: float, reward_of: Callable[[np.ndarray], np.ndarray] = reward) -> tuple[GPT, Curve]:
    """Return a model that was trained with REINFORCE on its own texts.

    The gradient is the mean of A grad ln p(text), where A is R - beta (ln p(text) - ln p_start(text)) minus its mean
    over the batch (Williams 1992, "Simple statistical gradient-following algorithms"; the penalty is that of Ziegler
    et al. 2019, "Fine-Tuning Language Models from Human Preferences", equation 2). Each batch is used for one step, so
    the ratio that PPO clips is 1.
    """
    model = copy(start)
    curve = Curve(model, rl_steps // measured)

    def batch() -> tuple[np.ndarray, ...]:
        curve()
        ids = write(model, batch_size)
        gain = reward_of(ids) - beta * (scored(model, ids) - scored(start, ids))
        return ids, (gain - gain.mean()).astype(np.float32)

    def loss(ids: tl.Tensor, advantage: tl.Tensor) -> tl.Tensor:
        return -(advantage * log_p(model, ids)).mean() / length

    train(model, loss, batch, rl_steps, rl_lr, weight_decay=0)
    return model, curve


# ---- A learned reward: the start with another head -------------------------------------------------


class RewardModel(nn.Module):
    """A GPT that gives a text one number, from the mean of its hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.body = copy(start)
        self.head = nn.Linear(SHAPE["n_embd"], 1)

    def forward(self, ids: tl.Tensor) -> tl.Tensor:
        """Return a reward for each text (N, 1 + length): (N,)."""
        return self.head(self.body.hidden_states(ids[:, 1:]).mean(1)).squeeze(1)

    def rewards(self, ids: np.ndarray) -> np.ndarray:
        """Return the rewards without gradients."""
        with tl.no_grad():
            return self(tl.tensor(ids)).numpy()


def reward_model(chosen: np.ndarray, rejected: np.ndarray) -> RewardModel:
    """Return a model of the reward that was trained on pairs alone.

    The loss is -ln sigmoid(r(chosen) - r(rejected)), of the model of Bradley and Terry (Christiano et al. 2017, "Deep
    Reinforcement Learning from Human Preferences", section 2.2.3).
    """
    model = RewardModel()

    def loss(chosen: tl.Tensor, rejected: tl.Tensor) -> tl.Tensor:
        return F.softplus(model(rejected) - model(chosen)).mean()

    def batch() -> tuple[np.ndarray, np.ndarray]:
        picked = rng.integers(0, len(chosen), batch_size // 2)
        return chosen[picked], rejected[picked]

    train(model, loss, batch, reward_steps, 1e-3)
    return model


# ---- Training ------------------------------------------------------------------------------------------

better, worse = pairs(own, own_rewards)
half = len(better) // 2
print(f"\nA reward model, from {half} pairs:")
learned = reward_model(better[:half], worse[:half])
accuracy = float((learned.rewards(better[half:]) > learned.rewards(worse[half:])).mean())
scale = own_rewards.std() / learned.rewards(own).std()


def learned_reward(ids: np.ndarray) -> np.ndarray:
    """Return the learned reward with the spread of the real one, because pairs say nothing about its unit."""
    return learned.rewards(ids) * scale


runs: dict[str, Callable[[], tuple[GPT, Curve]]] = {
    "DPO": lambda: direct(beta=0.3),
    "REINFORCE": lambda: policy_gradient(beta=0.5),
    "REINFORCE, learned reward": lambda: policy_gradient(0.5, learned_reward),
    "REINFORCE, no penalty": lambda: policy_gradient(beta=0),
}
ends: dict[str, tuple[float, float, float, float]] = {}
curves: dict[str, list[tuple[float, float]]] = {}
for name in runs if not experiment.quick else ("DPO", "REINFORCE, no penalty"):
    print(f"\n{name}:")
    model, curve = runs[name]()
    texts = curve.measure()
    kl, gained = curve.points[-1]
    letters = np.mean([character.isalpha() for row in texts for character in tokenizer.decode(row[1:])])
    ends[name] = kl, gained, float(letters), shakespeare_loss(model)
    curves[name] = curve.points
    print("".join(f"  | {line}\n" for line in tokenizer.decode(texts[0]).splitlines()[:12]), end="")

# ---- Reward against KL ---------------------------------------------------------------------------------

# The most that is possible at a divergence is the reward of p_start(text) exp(reward / beta), for any beta.
limit = [(0.0, float(own_rewards.mean()))]
for beta in np.geomspace(10, 0.2, 60):
    weights = np.exp((own_rewards - own_rewards.max()) / beta, dtype=np.float64)
    weights /= weights.sum()
    limit.append((float(weights[weights > 0] @ np.log(weights[weights > 0] * samples)), float(weights @ own_rewards)))
choices = [best_of(n) for n in range(1, samples // 2)]  # With a larger n, too few texts decide.
farthest = choices[-1][0]


def at(kl: float, curve: list[tuple[float, float]]) -> float:
    """Return the reward at a divergence on a curve, between its two nearest points."""
    places, rewards = zip(*sorted(curve), strict=True)
    return float(np.interp(kl, places, rewards))


print("\nReward against KL in nats per text, best of n and the limit at the same KL:")
for name, points in curves.items():
    for kl, gained in points:
        bar = "#" * round(4 * min(gained, 16))
        known = f"{at(kl, choices):7.2f} {at(kl, limit):7.2f}" if kl < farthest else f"{'-':>7} {'-':>7}"
        print(f"{name:26} {kl:8.2f} {gained:7.2f} {known}  {bar}")

# ---- Results -------------------------------------------------------------------------------------------

ids = tokenizer.encode(validation)
natural = float((ids == newline).mean() * length)
experiment.result("reward of the start", own_rewards.mean(), "line ends", natural, "Shakespeare")
for n in (4, 16, 64):
    kl, gained = best_of(n)
    experiment.result(f"reward, best of {n}", gained, f"at {kl:.2f} nats", own_rewards.mean(), "start")
start_loss = shakespeare_loss(start)
for name, (kl, gained, _, _) in ends.items():
    best = at(kl, choices) if kl < farthest else None
    experiment.result(f"reward, {name}", gained, f"at {kl:.2f} nats", best, "best of n at this KL")
for name, (kl, _, _, _) in ends.items():
    experiment.result(f"KL, {name}", kl / length, "nats per character")
for name, (_, _, _, loss) in ends.items():
    experiment.result(f"loss on Shakespeare, {name}", loss, "nats per character", start_loss, "start")
for name, (_, _, share, _) in ends.items():
    experiment.result(f"share of letters, {name}", share)
experiment.result("accuracy of the reward model", accuracy, f"on {len(better) - half} other pairs", 0.5, "guessing")
experiment.finish()
