"""How values become payloads and back: by pydantic, and no payload makes a whole workflow task fail.

The incident behind this file: a payload may say that its content lies in an external storage. The SDK (temporalio 1.35) refuses
every workflow task that holds one if no such storage is configured, before the workflow sees anything of it. So one signal with
`--input-meta encoding=json/external-storage-reference` failed each task of the run from then on: a kill behind it was accepted
and never carried out. Such a payload is now passed on as it is. `domain/desk/payloads.py` reads what it can of a signal's,
`workflows/calling.py` of an activity's answer.

And a signal takes a million payloads of two bytes each, with which the SDK is busy for 8 s, as long as a workflow task may take
(measured). What nobody reads is dropped before that.
"""

import dataclasses
from collections.abc import Sequence
from typing import cast

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter, DefaultFailureConverter, PayloadConverter
from temporalio.exceptions import ApplicationError

from domain.desk.payloads import MAX_INPUTS


class UndauntedFailureConverter(DefaultFailureConverter):
    """Reads failures whose details cannot be read, without the details: anybody may end an activity with such a failure."""

    def from_failure(self, failure: Failure, payload_converter: PayloadConverter) -> BaseException:
        """The exception that this failure means."""
        try:
            return super().from_failure(failure, payload_converter)
        except Exception:
            return ApplicationError(failure.message, type=failure.application_failure_info.type or None)


@dataclasses.dataclass(frozen=True)
class UndauntedConverter(DataConverter):
    """Passes references to an external storage on: AIS has none. Of more inputs than are read, passes on the first.

    These methods are the SDK's own, for its three ways through all payloads of a task. What they return unchanged is not
    copied. If a later SDK has others, tests/workflows/test_replay.py and test_converter.py fail.
    """

    async def _decode_reference_payload_sequence(self, payloads: Sequence[Payload]) -> list[Payload]:
        return _unchanged(payloads) if len(payloads) <= MAX_INPUTS else list(payloads[:MAX_INPUTS])

    async def _external_retrieve_payload_sequence(self, payloads: Sequence[Payload]) -> list[Payload]:
        return _unchanged(payloads)

    async def _decode_payload_sequence(self, payloads: Sequence[Payload]) -> list[Payload]:
        return _unchanged(payloads) if self.payload_codec is None else await super()._decode_payload_sequence(payloads)


def _unchanged(payloads: Sequence[Payload]) -> list[Payload]:
    # The SDK compares it with what it passed, and copies it if it is another.
    return cast(list[Payload], payloads)


# Every client has this one, workers' and tests' too.
DATA_CONVERTER = UndauntedConverter(
    payload_converter_class=PydanticPayloadConverter, failure_converter_class=UndauntedFailureConverter
)
