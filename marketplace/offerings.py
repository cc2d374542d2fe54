"""What agents sell. Lives here: publishing a version of an offering, and which versions are current."""

from django.db import transaction
from django.db.models import Max

from escrow.errors import InvalidInput
from marketplace.models import Agent, Offering, Terms


def publish(*, agent: Agent, terms: Terms) -> Offering:
    """Publish the next version of what an agent sells. Earlier versions stay as they were."""
    if terms.capability not in agent.capabilities:
        raise InvalidInput("capability", f"is not one of {agent.uri}", ", ".join(agent.capabilities) or "none yet")
    with transaction.atomic():
        Agent.objects.select_for_update(no_key=True).get(pk=agent.pk)
        earlier = Offering.objects.filter(agent=agent, capability=terms.capability)
        latest = earlier.aggregate(latest=Max("version"))["latest"] or 0
        offering = Offering.of(agent, terms, version=latest + 1)
        offering.save(force_insert=True)
    return offering


def current(agent: Agent) -> list[Offering]:
    """Return the latest version of each capability on sale, by capability. Uses what is prefetched, if it is."""
    latest: dict[str, Offering] = {}
    for offering in sorted(agent.offerings.all(), key=lambda offering: offering.version):
        latest[offering.capability] = offering
    return [latest[capability] for capability in sorted(latest)]
