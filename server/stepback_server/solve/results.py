"""Result of a finished search, as its caller gets it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepback_core.schemas import Answer, SolveResult, Status, TreeNode, Usage
from stepback_server.checkpoint import Checkpoint
from stepback_server.search.loop import Searched
from stepback_server.search.ranking import Candidate, Judge, rank
from stepback_server.search.tree import Branch
from stepback_server.solve.events import kept_steps, p_marker, shown_steps
from stepback_server.solve.order import AcceptedRequest
from stepback_server.solve.scoring import ScoringCost


@dataclass(frozen=True, slots=True)
class Results:
    """Results of one order's search."""

    checkpoint: Checkpoint
    order: AcceptedRequest
    judge: Judge
    cost: ScoringCost

    def of(self, searched: Searched, seconds_queued: float) -> SolveResult:
        """Return the result of a search that has ended."""
        order, request = self.order, self.order.request
        ranked = self.rank(searched.tree.answers)
        # Ranked first, then cut: the answer is the best of all, however few are shown.
        candidates = [self._told(candidate) for candidate in ranked[: request.candidates]]
        chosen = candidates[0] if candidates else None
        return SolveResult(
            id=order.id,
            status=_status(chosen),
            stop_reason=searched.stop_reason,
            strategy=request.strategy,
            select=order.select,
            scorer=request.scorer,
            model=self.checkpoint.manifest.name,
            digest=self.checkpoint.digest,
            warning=order.warning,
            prompt_token_ids=[*order.prompt_ids, *order.root.ids] if request.logprobs else None,
            answer=chosen,
            candidates=candidates,
            usage=self._usage(searched, ranked[0] if ranked else None, seconds_queued),
            tree=self._tree_nodes(searched) if request.tree else None,
        )

    def rank(self, answers: Sequence[Branch]) -> list[Candidate]:
        """Return the distinct answers among branches that reached an end, best first."""
        codec = self.checkpoint.codec
        return rank(
            answers,
            self.order.select,
            lambda branch: codec.decode_steps(branch.ids),
            codec.grammar.separator,
            self.judge,
            lambda branch: branch.confidence(codec.tokens),
        )

    def _told(self, candidate: Candidate) -> Answer:
        branch = candidate.branch
        return candidate.answer.model_copy(
            update=self._tokens(branch, branch.state.given, len(branch.ids))
        )

    def _tokens(self, branch: Branch, begin: int, end: int) -> dict[str, Any]:
        """A branch's ids and log-probabilities between two places, where they are wanted."""
        if not self.order.request.logprobs:
            return {}
        return {
            "token_ids": list(branch.ids[begin:end]),
            "logprobs": list(branch.logprobs[begin:end]),
        }

    def _usage(self, searched: Searched, chosen: Candidate | None, seconds_queued: float) -> Usage:
        tree, spent = searched.tree, searched.spent
        # All else was paid for and is in no answer.
        kept = chosen.branch.generated if chosen else 0
        return Usage(
            prompt_tokens=len(self.order.prompt_ids) + len(self.order.root.ids),
            generated_tokens=spent.generated,
            discarded_tokens=spent.generated - kept,
            cached_tokens=spent.cached,
            prefilled_tokens=spent.prefilled,
            # What went through the model; two FLOPs a parameter each (docs/search.md).
            forwarded_tokens=spent.prefilled + spent.generated,
            engine_requests=spent.requests,
            backtracks=tree.backtracks,
            seconds_queued=seconds_queued,
            seconds_searching=searched.seconds,
            seconds_scoring=self.cost.seconds,
            scored=self.cost.scored,
            unscored=self.cost.unscored,
        )

    def _tree_nodes(self, searched: Searched) -> list[TreeNode]:
        given = list(self.order.request.steps)
        root = TreeNode(id=0, parent=None, kept_steps=0, steps=given, outcome=None, score=None)
        # In order of asking: a parent then stands before its children, and the tree of a seed is
        # the same each time.
        branches = sorted(searched.tree.branches, key=lambda branch: branch.number)
        return [root, *map(self._node, branches)]

    def _node(self, branch: Branch) -> TreeNode:
        codec = self.checkpoint.codec
        kept, steps = kept_steps(codec, branch), shown_steps(codec, branch)
        shared = len(branch.state.shared_ids)
        return TreeNode(
            id=branch.node,
            parent=branch.parent_node,
            kept_steps=kept,
            steps=steps[kept:],
            p_marker=p_marker(codec, branch, len(steps))[kept:],
            outcome=branch.outcome,
            score=branch.score,
            kept_tokens=shared - branch.state.given if self.order.request.logprobs else None,
            **self._tokens(branch, shared, len(branch.shown_ids)),
        )


def _status(chosen: Answer | None) -> Status:
    if chosen is None:
        return Status.UNSOLVED
    # Unsolved would say that the answer is wrong, which is not known.
    if chosen.verified is None:
        return Status.UNVERIFIED
    return Status.SOLVED if chosen.verified else Status.UNSOLVED
