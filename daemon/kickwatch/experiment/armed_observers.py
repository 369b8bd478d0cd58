"""The armed observers, proved by a positive control."""

from dataclasses import dataclass

from kickwatch.model import Control
from kickwatch.observe.control import positive_control
from kickwatch.observe.observatory import Observatory


@dataclass
class ArmedObservers:
    """The armed observers, and what their newest positive control says of them."""

    observatory: Observatory
    control: Control

    @classmethod
    async def open(cls) -> "ArmedObservers":
        """Arm them and prove them once. `close` disarms."""
        observatory = await Observatory.open()
        try:
            return cls(observatory, await positive_control(observatory))
        except BaseException:
            observatory.close()
            raise

    async def prove(self) -> None:
        """Repeat the positive control; between windows only."""
        self.control = await positive_control(self.observatory)

    def close(self) -> None:
        """Disarm everything."""
        self.observatory.close()
