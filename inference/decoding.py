"""Decoding: marginals and label sets from the decoder's distribution.

All functions take a batch of encoded images (`model.encode`). The result for an image does not
depend on the rest of its batch. They only need `decoder.logits`: the logit z_j of label j given
the labels read so far. With q = sigmoid(z) and r the last label read,

    P(next label is l) = q_l * prod_{r<j<l} (1 - q_j)        P(END) = prod_{j>r} (1 - q_j)

This holds for all decoders, see model.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.quasirandom import SobolEngine

from inference.rules import LabelRules
from inference.set_probabilities import log_probs_of
from model import Encoding, HybridNet

FEW_SETS = 1024  # that keep the rules: then none is sampled. Always so for 10 labels or fewer


@dataclass(frozen=True)
class Samples:
    """K label sets sampled for each image, and estimates from them."""

    label_sets: Tensor  # B×K×C bool
    weights: Tensor  # B×K  of the sets, with sum 1; all 1/K unless labels are known or rules given
    marginals: Tensor  # B×C  P(label in set | image, known labels, rules), averaged over the sets
    # B×C  of the marginals, from their variance over the samples; nan if there is one sample only
    standard_errors: Tensor
    effective_size: Tensor  # B  number of equally weighted samples with the same error; inf: exact
    log_evidence: Tensor  # B  log P(known labels, rules kept | image), estimated; 0 without both


@torch.no_grad()
def sample_label_sets(
    model: HybridNet,
    encoding: Encoding,
    num_samples: int = 32,
    seed: int = 0,
    known: Tensor | None = None,
    rules: LabelRules | None = None,
) -> Samples:
    """Sample label sets label by label; estimate marginals by Rao-Blackwell averaging.

    The average is over each label's probability given the labels sampled before it, not over the
    0/1 outcomes. It is unbiased, in [0, 1] and has a fraction of the variance; for the decoder
    `none` it is exact. All images use the same random numbers, so that a result does not depend on
    the batch. These are a scrambled Sobol sequence, more even than independent numbers, so the
    standard errors, which assume independent samples, are too large rather than too small.

    known: B×C, 1 for labels known to be on the image, -1 for labels known to be absent, else 0.
    Known labels are fixed while sampling, and the weight of a sample is the probability that the
    model gives to what was fixed (likelihood weighting). Labels ranked before a known label, or
    before a label with a rule, are averaged as 0/1 outcomes, with a control variate.

    rules: all sampled sets keep them. A label that must come next, or cannot, is fixed in the same
    way. If at most FEW_SETS or num_samples sets keep the rules, they are all taken instead of
    samples, with their probabilities: then everything is exact, and K is their number.

    Most samples begin alike, which saves most of the work: samples with the same labels so far
    share a decoder state, and those of the same image also share their logits.
    """
    if rules and (sets := rules.all_sets(max(num_samples, FEW_SETS))) is not None:
        return _weigh(model, encoding, sets.to(encoding.cnn_logits.device), known)
    decoder = model.decoder
    (num_images, num_labels), device = encoding.cnn_logits.shape, encoding.cnn_logits.device
    num_rows = num_images * num_samples
    sobol = SobolEngine(min(num_labels, SobolEngine.MAXDIM), scramble=True, seed=seed)
    # logarithms of uniform random numbers, one per step and sample
    uniforms = sobol.draw(num_samples).T.clamp_min(1e-30).log().to(device)
    is_known = known is not None and bool(known.any())
    is_weighted = is_known or rules is not None  # else all weights are equal
    if known is None:
        known = torch.zeros_like(encoding.cnn_logits)

    label_sets = torch.zeros(num_rows, num_labels, dtype=bool, device=device)
    conditionals = torch.zeros(num_rows, num_labels, device=device)  # given the labels before
    log_weights = torch.zeros(num_rows, device=device)
    alive = torch.arange(num_rows, device=device)  # samples that have not ended
    node = alive // num_samples  # of each sample: its (image, labels so far), a row of logits
    node_image = torch.arange(num_images, device=device)
    node_prefix = torch.zeros_like(node_image)  # of each node: its labels so far, a decoder state
    node_last = torch.full_like(node_image, -1)
    prefix_sets = torch.zeros(1, num_labels, dtype=bool, device=device)
    state = decoder.initial_state(1)
    positions = torch.arange(num_labels, device=device)
    for step in range(num_labels + 1):
        z = decoder.logits(
            state[node_prefix],
            encoding.image_embedding[node_image],
            encoding.cnn_logits[node_image],
        )  # M×C
        if is_weighted:
            fact = known[node_image]
            if rules:
                fact = rules.fixed(prefix_sets[node_prefix], fact if is_known else None)
            log_likelihood = torch.where(fact == 0, 0.0, F.logsigmoid(fact * z))
            z = torch.where(fact == 0, z, fact * torch.inf)
        later = positions > node_last[:, None]  # M×C
        survival = torch.where(later, F.logsigmoid(-z), 0.0).cumsum(1)  # log P(none up to j)
        # the first j where survival falls below the uniform number; C is END
        drawn = torch.full_like(node, num_labels)
        if step < num_labels:
            draw = uniforms[step % len(uniforms), alive % num_samples]
            drawn = (survival[node] >= draw[:, None]).sum(1)
        # label j's probability given the labels before it comes from the step that decides on j
        decided = later[node] & (positions <= drawn[:, None])
        conditionals[alive] += torch.where(decided, z.sigmoid()[node], 0.0)
        if is_weighted:
            log_weights[alive] += torch.where(decided, log_likelihood[node], 0.0).sum(1)

        goes_on = drawn < num_labels
        alive, node, drawn = alive[goes_on], node[goes_on], drawn[goes_on]
        if not len(alive):
            break
        label_sets[alive, drawn] = True
        children, node = torch.unique(node * num_labels + drawn, return_inverse=True)
        parent, node_last = children // num_labels, children % num_labels
        prefixes, new_prefix = torch.unique(
            node_prefix[parent] * num_labels + node_last, return_inverse=True
        )
        node_image, node_prefix = node_image[parent], new_prefix
        state = decoder.advance(state[prefixes // num_labels], prefixes % num_labels)
        prefix_sets = prefix_sets[prefixes // num_labels]
        prefix_sets[torch.arange(len(prefixes), device=device), prefixes % num_labels] = True

    bound = known != 0  # B×C
    if rules:
        bound[:, rules.involved] = True
    shape = (num_images, num_samples, num_labels)
    log_weights = log_weights.view(shape[:2]).double()  # sums of thousands of terms
    return _estimate(label_sets.view(shape), conditionals.view(shape), log_weights, bound)


def _estimate(
    label_sets: Tensor, conditionals: Tensor, log_weights: Tensor, bound: Tensor
) -> Samples:
    """Marginals from weighted samples, see `sample_label_sets`.

    label_sets, conditionals: B×K×C, the samples and each label's probability given those before it.
    log_weights: B×K. bound: B×C, the labels of which something is known, or that have a rule.
    """
    weights, num_samples = log_weights.softmax(1), label_sets.shape[1]
    # Knowledge of later labels enters through the weights, which belong to the outcomes, so these
    # are averaged. The control variate is outcome - conditional: its mean is 0 except for chance.
    free = bound.flip(1).cumsum(1).flip(1) == 0  # B×C  nothing known and no rule from here on
    values = torch.where(free[:, None], conditionals, label_sets.float())
    chance = (values - conditionals) / num_samples  # B×K×C
    marginals = (weights[..., None] * values - chance).sum(1)
    errors = weights[..., None] * (values - marginals[:, None]) - chance
    errors = errors.square().sum(1).sqrt() if num_samples > 1 else marginals * torch.nan
    return Samples(
        label_sets,
        weights.float(),
        marginals.clamp(0, 1).float(),
        errors.float(),
        (1 / weights.square().sum(1)).float(),
        (log_weights.logsumexp(1) - math.log(num_samples)).float(),
    )


def _weigh(
    model: HybridNet, encoding: Encoding, label_sets: Tensor, known: Tensor | None
) -> Samples:
    """All label sets that are possible, N×C, with their exact probabilities given `known`."""
    log_probs = log_probs_of(model, encoding, label_sets)
    if known is not None:
        agrees = ((2 * label_sets.float() - 1) * known[:, None] >= 0).all(2)  # B×N
        log_probs = log_probs.where(agrees, -torch.inf)
    weights = log_probs.softmax(1)
    marginals = (weights @ label_sets.double()).clamp(0, 1).float()
    return Samples(
        label_sets.expand(len(weights), -1, -1),
        weights.float(),
        marginals,
        torch.zeros_like(marginals),
        torch.full_like(marginals[:, 0], torch.inf),
        log_probs.logsumexp(1).float(),
    )


def expected_f1_sets(label_sets: Tensor, weights: Tensor) -> Tensor:
    """The set with the highest expected F1 for each image: B×K×C bool, B×K -> B×C bool.

    weights: the probabilities of the sets, from samples or exact. The best prediction of size m has
    the m labels with the highest sum_S P(S) [l in S] 2 / (|S| + m), and the best over all m is the
    optimum over all 2^C sets (Dembczyński et al., NeurIPS 2011). The F1 of two empty sets is 1.
    """
    sets = label_sets.float()
    sizes = sets.sum(2)  # B×K
    most = max(int(sets.any(1).sum(1).max()), 1)  # a label in no set cannot help
    m = torch.arange(1, most + 1, device=sets.device)
    gain = weights[..., None] * 2 / (sizes[..., None] + m)  # B×K×M  per true label predicted
    per_label, order = (sets.transpose(1, 2) @ gain).sort(dim=1, descending=True)  # B×C×M
    expected = per_label.cumsum(1)[:, m - 1, m - 1]  # B×M  of the best prediction of each size
    empty = (weights * (sizes == 0)).sum(1, keepdim=True)  # B×1
    size = torch.cat([empty, expected], dim=1).argmax(1)  # B
    best = order.gather(2, (size - 1).clamp_min(0).view(-1, 1, 1).expand(-1, order.shape[1], 1))
    taken = torch.arange(sets.shape[2], device=sets.device) < size[:, None]  # B×C
    return torch.zeros_like(taken).scatter(1, best.squeeze(2), taken)


@dataclass(frozen=True)
class BestSets:
    """The K most probable label sets found for each image, most probable first."""

    label_sets: Tensor  # B×K×C bool
    log_probs: Tensor  # B×K  exact log P(set | image); -inf where fewer than K sets exist
    certain: Tensor  # B bool  it is proved that no other set is more probable
    lower: Tensor | None  # B×C  proved: lower <= P(label in set | image) <= upper
    upper: Tensor | None  # B×C  both are None if labels are known or rules given

    @property
    def covered(self) -> Tensor:
        """The total probability of these sets, B."""
        return self.log_probs.double().exp().sum(1).float()


@torch.no_grad()
def most_probable_sets(
    model: HybridNet,
    encoding: Encoding,
    num_sets: int = 1,
    max_expansions: int = 64,
    known: Tensor | None = None,
    rules: LabelRules | None = None,
) -> BestSets:
    """The most probable label sets by best-first search, for all images at once.

    A beginning {a, b, …} with last label r stands for all sets that start with these labels and
    have more after r. Its probability is the sum over these sets, an upper bound for each of them.
    The search expands the most probable open beginning: this finishes one set (END comes next) and
    opens a beginning for each next label. It then follows labels of probability above 1/2, to find
    a good set early; for the decoder `none` this finds the most probable set at once.

    Finished sets and open beginnings always have total probability 1, which bounds the marginals.
    The search is exact if no open beginning is more probable than the K-th set (`certain`). It
    also stops after `max_expansions` (at least num_sets), for an image without a set later.

    known, rules: as in `sample_label_sets`; only sets that agree with them are searched. log_probs
    are still log P(set | image): subtract Samples.log_evidence to get log P(set | image, known).
    """
    decoder = model.decoder
    (num_images, num_labels), device = encoding.cnn_logits.shape, encoding.cnn_logits.device
    width = min(max(max_expansions, num_sets), 2 ** min(num_labels, 30))
    positions = torch.arange(num_labels, device=device)
    active = torch.arange(num_images, device=device)

    sets = torch.zeros(num_images, width, num_labels, dtype=bool, device=device)
    finished = torch.full((num_images, width), -torch.inf, device=device)
    opened = torch.full((num_images, width, num_labels), -torch.inf, device=device)
    states = decoder.initial_state(num_images * width).unflatten(0, (num_images, width))
    log_prob = torch.zeros(num_images, device=device)  # of the beginning that is expanded
    last = torch.full((num_images,), -1, device=device)
    state = decoder.initial_state(num_images)
    kth = min(num_sets, width)
    is_known = known is not None and bool(known.any())
    if known is None:
        known = torch.zeros_like(encoding.cnn_logits)
    certain = torch.ones(num_images, dtype=bool, device=device)

    # beyond the width only the last row changes, until every image has a set: after as many labels
    # as are fixed or probable
    for n in range(max(width, num_labels + 1)):
        row, next_row = min(n, width - 1), min(n + 1, width - 1)
        z = decoder.logits(
            state, encoding.image_embedding[active], encoding.cnn_logits[active]
        )  # A×C
        later = positions > last[:, None]
        fact = known[active]
        if rules:
            fact = rules.fixed(sets[active, row], fact if is_known else None)
        yes = torch.where(later & (fact >= 0), F.logsigmoid(z), -torch.inf)
        no = torch.where(fact <= 0, F.logsigmoid(-z), -torch.inf)
        past = torch.where(later, no, 0.0).cumsum(1)  # log P(no label up to and with j)
        before = F.pad(past[:, :-1], (1, 0))
        opened[active, row] = log_prob[:, None] + before + yes
        finished[active, row] = log_prob + past[:, -1]
        states[active, row] = state

        frontier = opened[active, : row + 1].flatten(1)
        best_open, where = frontier.max(1)
        probable = later & (torch.where(fact == 0, z, fact) > 0)
        dive = row * num_labels + probable.int().argmax(1)
        where = torch.where(probable.any(1), dive, where)
        log_prob = frontier.gather(1, where[:, None]).squeeze(1)
        search_on = best_open > finished[active].topk(kth, dim=1).values[:, -1]
        if n + 1 >= width:
            certain[active[search_on]] = False
            search_on &= finished[active].isinf().all(1)
        active, where, log_prob = active[search_on], where[search_on], log_prob[search_on]
        if not len(active):
            break
        parent, last = where // num_labels, where % num_labels
        opened[active, parent, last] = -torch.inf
        sets[active, next_row] = sets[active, parent]
        sets[active, next_row, last] = True
        state = decoder.advance(states[active, parent], last)

    is_constrained = is_known or rules is not None
    bounds = (None, None) if is_constrained else _marginal_bounds(sets, finished, opened)
    log_probs, best = finished.topk(kth, dim=1)
    label_sets = sets.gather(1, best[..., None].expand(-1, -1, num_labels))
    return BestSets(label_sets, log_probs, certain, *bounds)


def _marginal_bounds(sets: Tensor, finished: Tensor, opened: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds B×C of the marginals from sets B×N×C and log-probabilities.

    finished: B×N of the sets. opened: B×N×C; the open beginning (n, l) is sets[n] plus label l. All
    its sets have these labels and no other label before l, but may have any label after l.
    """
    done, open_ = finished.double().exp(), opened.double().exp()
    mass = done + open_.sum(2)  # B×N  probability of all that has the labels of sets[n]
    lower = (sets * mass[..., None]).sum(1) + open_.sum(1)
    undecided = open_.cumsum(2) - open_  # probability of beginnings whose last label is before j
    upper = lower + (undecided * ~sets).sum(1)
    return lower.clamp(0, 1).float(), upper.clamp(0, 1).float()
