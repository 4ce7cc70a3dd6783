"""Three lines in an existing training loop."""

from tacit.attached.attach import attach
from tacit.attached.attached import Attached

__all__ = ["Attached", "attach"]
