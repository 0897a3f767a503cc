"""Checkers of plug-ins, kept out of the process that needs their verdicts.

A worker process loads the plug-in and forks for every call. The fork has limits of time and memory,
no network and no processes of its own, and ends with its answer: nothing that a text makes it do
outlives the call.
"""

from stepback_core.isolation.checker import IsolatedChecker
from stepback_core.isolation.failures import CheckerFailure, FailureKind
from stepback_core.isolation.worker import Limits, Worker

__all__ = ["CheckerFailure", "FailureKind", "IsolatedChecker", "Limits", "Worker"]
