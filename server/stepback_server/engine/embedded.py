"""vLLM in this process's hands: an AsyncLLM, its core in a child process."""

import asyncio
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from vllm import SamplingParams, __version__, envs
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.inputs import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.metrics.loggers import StatLoggerBase

from stepback_server.concurrency import run_all
from stepback_server.engine.base import (
    FINISH_REASONS,
    Alternative,
    EngineError,
    EngineUnavailable,
    OnSample,
    PromptRefused,
    ReloadFailed,
    Sample,
    SampleRequest,
    without_sampled,
)
from stepback_server.engine.core_processes import CoreProcesses
from stepback_server.engine.death import Death, cause_of, failed_cores
from stepback_server.engine.output import Output
from stepback_server.engine.prefix_cache import forget_prefixes
from stepback_server.engine.vllm_dtype import supported_dtype
from stepback_server.engine.vllm_options import engine_options
from stepback_server.settings import Settings

_BETWEEN_ABORTS = 0.02


class _StepCounter(StatLoggerBase):
    """Counts the steps that the engine core reports: while it works, they grow."""

    def __init__(self, vllm_config: VllmConfig, engine_index: int = 0) -> None:
        self.steps = 0

    def record(self, *arguments: Any, **named: Any) -> None:
        self.steps += 1

    def log_engine_initialized(self) -> None:
        """Log nothing."""


class EmbeddedEngine:
    """The engine seam over an AsyncLLM. Make it with `start`."""

    version = __version__

    def __init__(
        self, llm: AsyncLLM, steps: "list[_StepCounter]", cores: CoreProcesses, output: Output
    ) -> None:
        self._llm = llm
        self._steps = steps
        self._cores = cores
        self._output = output
        # Requests are aborted by these names.
        self._names = itertools.count()

    @classmethod
    def start(
        cls, checkpoint: Path, settings: Settings, *, context_tokens: int
    ) -> "EmbeddedEngine":
        """Load a checkpoint; blocks for seconds. `prepare_environment` must have been called."""
        options = engine_options(checkpoint, settings, context_tokens=context_tokens)
        # Here and not in engine_options, which imports no vLLM.
        options["dtype"] = supported_dtype(options["dtype"])
        counters: list[_StepCounter] = []

        def count_steps(config: VllmConfig, engine_index: int = 0) -> _StepCounter:
            counters.append(_StepCounter(config, engine_index))
            return counters[-1]

        # vLLM looks at its variables for every sample: after the start at a copy.
        envs.disable_envs_cache()
        cores, output = CoreProcesses(), Output()
        with output.capture():
            try:
                llm = AsyncLLM.from_engine_args(_arguments(options), stat_loggers=[count_steps])
            except RuntimeError as error:
                if (death := _death_at_start(str(error), cores, output)) is None:
                    raise
                raise EngineUnavailable.of_death(death) from error
            finally:
                cores.stop()
        envs.enable_envs_cache()
        return cls(llm, counters, cores, output)

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        names = [f"sample-{next(self._names)}" for _ in range(request.n)]
        # A task of its own: generate() does not look at our event.
        aborter = asyncio.create_task(self._abort_on(stop, names))
        try:
            # One request a sample: in process they cost the same as n in one, and each can end and
            # be aborted alone. Over HTTP they cost three times as much.
            await run_all(
                self._one(name, index, request, deliver) for index, name in enumerate(names)
            )
        finally:
            aborter.cancel()

    async def _one(self, name: str, index: int, request: SampleRequest, deliver: OnSample) -> None:
        params = SamplingParams(
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            seed=None if request.seeds is None else request.seeds[index],
            stop_token_ids=list(request.stop_ids),
            ignore_eos=True,
            # Of the model's own distribution, before temperature. Even 0 of them costs about 7 per
            # cent of the throughput, for the sampled token's own.
            logprobs=request.alternatives,
            # There is no tokenizer in the engine, and the search works on ids.
            detokenize=False,
            # One output a sample: each one more crosses the boundary between the processes.
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt = tokens_input(list(request.ids), cache_salt=request.salt or None)
        try:
            async for output in self._llm.generate(prompt, params, name):
                deliver(_to_sample(index, request.alternatives, output))
        except EngineDeadError as error:
            raise await self._died() from error
        # The engine is well after it: too long, empty, or an id out of the vocabulary.
        except VLLMValidationError as error:
            raise PromptRefused(str(error)) from error
        except EngineGenerateError as error:
            failed = "the engine failed at a request"
            raise EngineUnavailable(failed, public=failed) from error

    async def _abort_on(self, stop: asyncio.Event, names: list[str]) -> None:
        await stop.wait()
        while True:
            # Again and again: vLLM ignores names that are still on their way in.
            await self._llm.abort(names)
            await asyncio.sleep(_BETWEEN_ABORTS)

    async def running(self) -> int:
        return self._llm.get_num_unfinished_requests()

    async def progress(self) -> int:
        return sum(counter.steps for counter in self._steps)

    async def check(self) -> None:
        try:
            # Sees a dead core, never one that hangs: the supervisor's canary is for that.
            await self._llm.check_health()
        except EngineDeadError as error:
            raise await self._died() from error

    async def _died(self) -> EngineUnavailable:
        """The error for a core that vLLM gave up, once it is known how its process ended."""
        status = await asyncio.to_thread(self._cores.final_status)
        if status is None:
            return EngineUnavailable("the engine has died")
        lines = await asyncio.to_thread(self._output.last_lines)
        return EngineUnavailable.of_death(Death(cause_of(status), lines))

    async def reload(self, checkpoint: Path) -> bool:
        llm: Any = self._llm
        try:
            # vLLM does not say whether it changed anything, so the sums are compared.
            before = await llm.compute_weight_checksums()
            await llm.collective_rpc("reload_weights", kwargs={"weights_path": str(checkpoint)})
            after = await llm.compute_weight_checksums()
            await forget_prefixes("the engine", self._llm.reset_prefix_cache)
        except EngineDeadError as error:
            raise await self._died() from error
        except ReloadFailed:
            raise
        except Exception as error:  # a bare one: vLLM's word on whatever its core met
            raise ReloadFailed(str(error)) from error
        return before != after

    async def close(self, *, kill: bool) -> None:
        if kill:
            # A stopped process takes no SIGTERM, and vLLM would wait for it.
            self._cores.kill()
        # On the event loop's own thread: from another, vLLM's reader would see its core vanish
        # and log a death before it is told to stop.
        self._llm.shutdown()


def _arguments(options: dict[str, Any]) -> AsyncEngineArgs:
    known = {field.name for field in fields(AsyncEngineArgs)}
    # The dataclass's own TypeError would name neither the setting nor vLLM's version.
    if unknown := ", ".join(sorted(options.keys() - known)):
        raise EngineError(f"STEPBACK_VLLM_ARGS: vLLM {__version__} has no argument {unknown}")
    return AsyncEngineArgs(**options)


def _death_at_start(error: str, cores: CoreProcesses, output: Output) -> Death | None:
    """Tell how a core ended that vLLM says has failed; None if the failure is another one."""
    if (said := failed_cores(error)) is None:
        return None
    # vLLM looks as the core's connection closes, when it may have no status yet.
    status = cores.final_status()
    return Death(said if status is None else cause_of(status), output.last_lines())


def _to_sample(index: int, alternatives: int, output: Any) -> Sample:
    completion = output.outputs[0]
    ids = tuple(completion.token_ids)
    logprobs = completion.logprobs or ()
    return Sample(
        index=index,
        ids=ids,
        logprobs=tuple(at[token].logprob for token, at in zip(ids, logprobs, strict=True)),
        finish=FINISH_REASONS[completion.finish_reason],
        cached_tokens=output.num_cached_tokens or 0,
        alternatives=tuple(
            without_sampled(token, _likeliest(at)) for token, at in zip(ids, logprobs, strict=True)
        )
        if alternatives
        else (),
    )


def _likeliest(at: Mapping[int, Any]) -> Iterator[Alternative]:
    return ((token, entry.logprob) for token, entry in at.items())
