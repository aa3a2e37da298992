"""Which version of the worker a desk needs, and which are up (docs/operations.md, Upgrading workers).

The hazard behind this file: where workers have versions, Temporal hands a workflow task only to workers of one version. If
none of those is up, the desk stalls, and so does its kill, although workers of other versions poll the same queue.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio.api.deployment.v1 import WorkerDeploymentOptions
from temporalio.api.deployment.v1 import WorkerDeploymentVersion as DeploymentVersion
from temporalio.api.enums.v1 import TaskQueueType, VersioningBehavior
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import WorkflowExecutionVersioningInfo
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeTaskQueueResponse
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion

from workflows import names
from workflows.listing import described

# A worker polls again after 60 s at the latest. Temporal still lists pollers for minutes after they are gone.
POLLED_WITHIN = timedelta(seconds=90)
ASK_TIMEOUT = timedelta(seconds=3)


@dataclass(frozen=True)
class Serving:
    """Which version gets the desk's next workflow task, and which versions poll. None stands for workers without a version."""

    desk: str
    needed: WorkerDeploymentVersion | None
    is_pinned: bool
    polling: tuple[WorkerDeploymentVersion | None, ...]
    # A version that gets a share of the runs in place of the current one, and the share in per cent.
    ramping: WorkerDeploymentVersion | None = None
    ramping_percent: float = 0.0

    @property
    def is_versioned(self) -> bool:
        """Whether worker versions play any part here."""
        return self.needed is not None or any(self.polling) or self.ramping is not None

    @property
    def text(self) -> str:
        """Who is needed and who polls, for a person."""
        polled = ", ".join(sorted(map(shown, self.polling))) or "nobody"
        within, pinned = POLLED_WITHIN.total_seconds(), " (pinned)" if self.is_pinned else ""
        ramping = (
            f", or {shown(self.ramping)}, which gets {self.ramping_percent:g} % of the runs" if self.ramping else ""
        )
        return f"the desk needs a worker {shown(self.needed)}{pinned}{ramping}; polled within {within:g} s: {polled}"

    @property
    def remedies(self) -> tuple[str, ...]:
        """The commands that hand the desk to another version that polls, one command per version. First the one that takes the
        desk from a ramping version that does not."""
        stop = (_stopping(self.ramping),) if self.ramping and self.ramping not in self.polling else ()
        return stop + tuple(self._remedy(version) for version in self.polling if version != self.needed)

    def _remedy(self, version: WorkerDeploymentVersion | None) -> str:
        if not self.is_pinned:
            return making_current(version, self.needed.deployment_name if self.needed else "")
        move = f"{_UPDATE} {names.workflow_id(self.desk)} --versioning-override-behavior"
        if version is None:
            return f"{move} auto_upgrade"
        name, build = version.deployment_name, version.build_id
        return f"{move} one_time --versioning-override-build-id {build} --versioning-override-deployment-name {name}"


_UPDATE = "temporal workflow update-options --workflow-id"
_CURRENT = "temporal worker deployment set-current-version"
_RAMPING = "temporal worker deployment set-ramping-version"


def shown(version: WorkerDeploymentVersion | None) -> str:
    """A worker version for people, such as `ais:1.4` as Temporal's lists write it."""
    return f"of version {version.deployment_name}:{version.build_id}" if version else "without a version"


def making_current(version: WorkerDeploymentVersion | None, deployment: str) -> str:
    """The command that makes a version current: it gets all new runs, and the desks that are not pinned."""
    if version is None:
        return f"{_CURRENT} --unversioned --deployment-name {deployment}"
    return f"{_CURRENT} --build-id {version.build_id} --deployment-name {version.deployment_name}"


def _stopping(version: WorkerDeploymentVersion) -> str:
    return f"{_RAMPING} --deployment-name {version.deployment_name} --build-id {version.build_id} --delete"


async def current_version(client: Client, queue: str = names.TASK_QUEUE) -> WorkerDeploymentVersion | None:
    """The version that is current for a queue; None for workers without one. Raises RPCError."""
    return _current(await _described(client, queue))


async def serving(client: Client, desk: str) -> Serving:
    """Looks at a desk's coordinator and at its queue. Raises RPCError."""
    found = await described(client, names.workflow_id(desk), ASK_TIMEOUT)
    queue = await _described(client, found.execution_config.task_queue.name)
    pinned = _pinned(found.workflow_execution_info.versioning_info)
    if pinned is not None:
        return Serving(desk, pinned, True, _polling(queue))
    info = queue.versioning_info
    percent, version = info.ramping_version_percentage, _version(info.ramping_deployment_version)
    return Serving(desk, _current(queue), False, _polling(queue), version if percent > 0 else None, percent)


def _pinned(info: WorkflowExecutionVersioningInfo) -> WorkerDeploymentVersion | None:
    """The version that a run is pinned to. A person's override comes before the worker's own setting."""
    override = info.versioning_override
    if override.HasField("pinned"):
        return _version(override.pinned.version)
    if override.HasField("one_time"):
        return _version(override.one_time.target_deployment_version)
    if override.auto_upgrade or info.behavior != VersioningBehavior.VERSIONING_BEHAVIOR_PINNED:
        return None
    return _version(info.deployment_version)


def _current(described: DescribeTaskQueueResponse) -> WorkerDeploymentVersion | None:
    return _version(described.versioning_info.current_deployment_version)


def _polling(described: DescribeTaskQueueResponse) -> tuple[WorkerDeploymentVersion | None, ...]:
    """Each version that polled recently, once."""
    since = datetime.now(UTC) - POLLED_WITHIN
    polled = [each for each in described.pollers if each.last_access_time.ToDatetime(UTC) >= since]
    return tuple(dict.fromkeys(_version(each.deployment_options) for each in polled))


async def _described(client: Client, queue: str) -> DescribeTaskQueueResponse:
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    return await client.workflow_service.describe_task_queue(request, retry=False, timeout=ASK_TIMEOUT)


def _version(version: DeploymentVersion | WorkerDeploymentOptions) -> WorkerDeploymentVersion | None:
    return WorkerDeploymentVersion(version.deployment_name, version.build_id) if version.deployment_name else None
