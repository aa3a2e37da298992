"""What the SDK takes of a signal's inputs, before the workflow sees any."""

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.bridge.proto.workflow_activation import (
    DoUpdate,
    QueryWorkflow,
    SignalWorkflow,
    WorkflowActivation,
    WorkflowActivationJob,
)
from temporalio.bridge.worker import decode_activation

from domain.desk.payloads import MAX_INPUTS
from workflows.converter import DATA_CONVERTER

MANY = [Payload()] * 100_000


@pytest.mark.parametrize(
    "job",
    [
        WorkflowActivationJob(signal_workflow=SignalWorkflow(signal_name="pause", input=MANY)),
        WorkflowActivationJob(do_update=DoUpdate(name="pause", input=MANY)),
        WorkflowActivationJob(query_workflow=QueryWorkflow(query_type="status", arguments=MANY)),
    ],
    ids=["signal", "update", "query"],
)
async def test_of_a_hundred_thousand_inputs_those_that_are_read_are_left(job: WorkflowActivationJob) -> None:
    """With all of them, one signal of 2 MB took longer than a workflow task may, and so did every later task of the run."""
    activation = WorkflowActivation(run_id="r", jobs=[job])
    await decode_activation(activation, DATA_CONVERTER, decode_headers=False, storage_concurrency_limit=1)
    (left,) = activation.jobs
    inputs = (left.signal_workflow.input, left.do_update.input, left.query_workflow.arguments)
    assert sorted(map(len, inputs)) == [0, 0, MAX_INPUTS]
