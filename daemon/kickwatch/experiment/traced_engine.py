"""An engine whose calls for containers are noted with their times. Everything else is the engine's own."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import Any, TypeVar, cast

from kickwatch.trace.recording import Step
from kickwatch.workload.engine import ContainerSpec, Engine

T = TypeVar("T")


@dataclass
class TracedEngine:
    """`steps`: calls that have ended, failed or not. `ids`: the engine's id of each container, by its index."""

    engine: Engine
    now_ns: Callable[[], int] = monotonic_ns
    steps: list[Step] = field(default_factory=list)
    ids: dict[int, str] = field(default_factory=dict)

    def as_engine(self) -> Engine:
        """Itself; calls that it does not note go to the engine."""
        return cast("Engine", self)

    def __getattr__(self, name: str) -> Any:
        """Any other call of the engine."""
        return getattr(self.engine, name)

    async def create(self, spec: ContainerSpec) -> str:
        """As the engine's."""
        index = int(spec.name.rpartition("-")[2])
        self.ids[index] = container_id = await self._noted(index, "create", self.engine.create(spec))
        return container_id

    async def start(self, container_id: str) -> None:
        """As the engine's."""
        await self._noted(self._index(container_id), "start", self.engine.start(container_id))

    async def wait(self, container_id: str, timeout_s: float) -> int | None:
        """As the engine's."""
        return await self._noted(self._index(container_id), "wait", self.engine.wait(container_id, timeout_s))

    async def remove(self, container_id: str) -> None:
        """As the engine's."""
        await self._noted(self._index(container_id), "remove", self.engine.remove(container_id))

    def _index(self, container_id: str) -> int:
        return next((index for index, known in self.ids.items() if known == container_id), -1)

    async def _noted(self, index: int, name: str, call: Awaitable[T]) -> T:
        began_ns, failed = self.now_ns(), True
        try:
            result = await call
            failed = False
            return result
        finally:
            self.steps.append(Step(index, name, began_ns, self.now_ns(), failed))
