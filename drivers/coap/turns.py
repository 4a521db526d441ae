"""What the resources of one device know of each other. It gets one request at a time (NSTART is 1; RFC 7252, 4.7), so one
that doesn't answer keeps the others waiting."""

SHARE = 10
"""Of the device's time, resources that don't answer while others do have together one part in so many."""


class Turns:
    def __init__(self) -> None:
        self._answers = 0
        self._silent: dict[object, int] = {}
        """Resources that did not answer, and how many answers the device had given by then."""

    def answered(self, resource: object) -> None:
        self._answers += 1
        self._silent.pop(resource, None)

    def unanswered(self, resource: object, asked_s: float) -> float:
        """For how long `resource` must not be asked again. 0 unless the device answered others since its last failure: a
        device that is gone is asked as before, so that it is soon known to be back."""
        before = self._silent.get(resource)
        self._silent[resource] = self._answers
        if before is None or before == self._answers:
            return 0
        return (SHARE - 1) * asked_s * len(self._silent)
