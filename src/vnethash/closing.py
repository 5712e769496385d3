# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The ``with`` block of everything that has to be closed."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """Leaving the ``with`` block calls close()."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held; no error if that was done already."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
