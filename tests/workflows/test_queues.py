"""Which queue an activity goes to: one of the desk's own, so that no worker of another desk or mode ever draws it."""

from temporalio.client import Client

from domain.desk.states import Mode
from tests.workflows.parts import Agents
from tests.workflows.world import Desk, World, running_desk
from workflows import names


async def queues(desk: Desk) -> dict[str, set[str]]:
    """The task queues of each run's activities, by run id."""
    found: dict[str, set[str]] = {}
    async for run in desk.client.list_workflows(f'WorkflowId="{desk.handle.id}"'):
        handle = desk.client.get_workflow_handle(desk.handle.id, run_id=run.run_id)
        async for event in handle.fetch_history_events():
            if event.HasField("activity_task_scheduled_event_attributes"):
                name = event.activity_task_scheduled_event_attributes.task_queue.name
                found.setdefault(run.run_id, set()).add(name)
    return found


async def test_every_activity_goes_to_the_queue_of_its_desk_and_mode(temporal: Client) -> None:
    async with running_desk(temporal, World(Agents(propose=True)), mode=Mode.SHADOW) as desk:
        await desk.until(lambda s: s.cycle_number >= 2)
        await desk.signal("kill")
        await desk.until(lambda s: s.kill is not None and s.kill.latched and s.kill.row_written)
        (found,) = (await queues(desk)).values()
        assert found == {names.activity_queue(desk.desk, "shadow")}
