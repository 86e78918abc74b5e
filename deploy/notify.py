"""Report every scheduled run that fails to a webhook, a chat or a mailbox, by one automation of Prefect.

notify.py https://hooks.example/...     a POST with the run's name, state and message
notify.py TYPE/NAME                     a notification block of Prefect, such as slack-webhook/ops or sendgrid-email/ops
"""

from __future__ import annotations

import sys
from uuid import UUID

from prefect.automations import Automation, EventTrigger
from prefect.blocks.core import Block
from prefect.blocks.webhook import Webhook
from prefect.events.actions import CallWebhook, SendNotification

NAME = "bridgescope: a scheduled run failed"
BLOCK = "bridgescope-failed-run"
ENDS = ("Failed", "Crashed", "TimedOut")
TEXT = "{{ flow_run.name }}: {{ flow_run.state.name }}: {{ flow_run.state.message }}"
PAYLOAD = (
    '{"run": "{{ flow_run.name }}", "state": "{{ flow_run.state.name }}", '
    '"message": {{ flow_run.state.message | tojson }}}'
)


def action(target: str) -> CallWebhook | SendNotification:
    """The action that notifies `target`: a URL, or a notification block that exists on the server."""
    if "://" in target:
        webhook = Webhook(method="POST", url=target, headers={"Content-Type": "application/json"})
        return CallWebhook(block_document_id=webhook.save(BLOCK, overwrite=True), payload=PAYLOAD)
    block = Block.load(target)
    identity: UUID = block._block_document_id
    return SendNotification(block_document_id=identity, subject=NAME, body=TEXT)


def main() -> int:
    """Make the automation. It replaces an earlier automation."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    trigger = EventTrigger(
        expect={f"prefect.flow-run.{end}" for end in ENDS},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.id": "prefect.tag.scheduled", "prefect.resource.role": "tag"},
        threshold=1,
        posture="Reactive",
    )
    automation = Automation(name=NAME, trigger=trigger, actions=[action(sys.argv[1])])
    try:
        Automation.read(name=NAME).delete()
    except ValueError:
        print("made the automation:", NAME)
    else:
        print("replaced the automation:", NAME)
    automation.create()
    return 0


if __name__ == "__main__":
    sys.exit(main())
