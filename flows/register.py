"""What a workspace registers on its Prefect server: deployments, and who is told of what."""

from __future__ import annotations

import sys

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from sarflood.errors import InputError
from sarflood.operations.parts import POOL
from sarflood.params import load_params
from sarflood.process import run
from sarflood.workspace import Workspace

# What people are told of, by the events that flows and Prefect send.
TOLD = {
    "event refused": {"sarflood.event.refused"},
    "candidate refused": {"sarflood.model.refused"},
    "promotion": {"sarflood.model.promoted"},
    "rollback": {"sarflood.model.rolled-back"},
    "drift": {"sarflood.drift.detected"},
    "crash": {"prefect.flow-run.Crashed", "prefect.flow-run.Failed"},
}
_OURS = "sarflood tells "
# Of a run what its last state says; of all else what the flow has told.
_BODY = """{{ event.event }} {{ event.resource.name or event.resource.id }}
{% set said = event.resource.get("prefect.state-message") %}\
{% if said %}{{ said }}{% else %}\
{% for key, value in event.payload.items() %}{{ key }}: {{ value }}
{% endfor %}{% endif %}"""


def register(workspace: Workspace) -> None:
    """Register pool, deployments and notifications; repeating it changes nothing.

    Raises:
        InputError: `operations.notify` names a block that the server does not know.
        SarfloodError: The server refused a deployment.
    """
    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template)
    with get_client(sync_client=True) as client:
        client.create_work_pool(pool, overwrite=True)
        run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], workspace.root)
        _notify(client, load_params(workspace.params).operations.notify)


def _notify(client: SyncPrefectClient, blocks: tuple[str, ...]) -> None:
    """Make the automations that send a message by each block; take those of other blocks away."""
    wanted = {}
    for block in blocks:
        kind, _, name = block.partition("/")
        try:
            found = client.read_block_document_by_name(name, kind, include_secrets=False)
        except ObjectNotFound as error:
            raise InputError(
                f"operations.notify in params.yaml names {block}: no such block on the Prefect "
                "server; save it there (Blocks in its UI), or take the name out"
            ) from error
        for what, events in TOLD.items():
            title = f"{_OURS}{block}: {what}"
            wanted[title] = AutomationCore(
                name=title,
                description="made by `sarflood up` from operations.notify in params.yaml",
                trigger=EventTrigger(expect=events, posture=Posture.Reactive, threshold=1),
                actions=[
                    SendNotification(
                        block_document_id=found.id, subject=f"sarflood: {what}", body=_BODY
                    )
                ],
            )
    known = {item.name: item for item in client.read_automations() if item.name.startswith(_OURS)}
    for title, item in known.items():
        if title not in wanted:
            client.delete_automation(item.id)
    for title, automation in wanted.items():
        if title in known:
            client.update_automation(known[title].id, automation)
        else:
            client.create_automation(automation)
