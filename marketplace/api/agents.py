"""/v1/agents. Lives here: HTTP only; `marketplace.agents` and `marketplace.offerings` decide. Reading needs no key."""

from escrow.errors import NotFound
from marketplace import agents, offerings
from marketplace.api import auth, scope, shapes, show
from marketplace.api.bodies import AgentBody, OfferingIn
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.pages import page
from marketplace.api.queries import AgentQuery
from marketplace.models import Terms


class Agents(Endpoint):
    """The catalogue: agents and what they sell."""

    @serves(auth.PUBLIC, query=AgentQuery, answer=shapes.AgentPage)
    def get(self, call: Call) -> shapes.AgentPage:
        """Search agents by capability, or by a text in their name, URI or description."""
        rows = agents.search(capability=call.query.capability, q=call.query.q)
        return shapes.AgentPage(**page(rows, call.query, lambda found: [show.agent(row) for row in found]))

    @serves(auth.PROVIDER, body=AgentBody, answer=shapes.Agent, status=201)
    def post(self, call: Call) -> shapes.Agent:
        """Register an agent and what it sells."""
        body = call.body
        agent = agents.register(
            provider=call.actor.provider,
            uri=body.uri,
            name=body.name,
            description=body.description,
            endpoint=body.endpoint,
            capabilities=body.capabilities,
            terms=[_terms(offering) for offering in body.offerings],
        )
        return show.agent(agent)


class OneAgent(Endpoint):
    """One agent."""

    @serves(auth.PUBLIC, answer=shapes.Agent)
    def get(self, call: Call, name: str) -> shapes.Agent:
        """Read an agent by its name, as in /v1/agents/lint.acme.dev."""
        return show.agent(agents.find(uri=f"agent://{name}"))


class Offerings(Endpoint):
    """What an agent sells."""

    @serves(auth.PROVIDER, body=OfferingIn, answer=shapes.Offering, status=201)
    def post(self, call: Call, name: str) -> shapes.Offering:
        """Publish the next version of an offering. Earlier versions never change."""
        agent = scope.agents(call.actor).filter(uri=f"agent://{name}").first()
        if agent is None:
            raise NotFound(f"agent://{name} is not one of your agents.")
        return show.offering(offerings.publish(agent=agent, terms=_terms(call.body)))


def _terms(offering: OfferingIn) -> Terms:
    return Terms(
        capability=offering.capability,
        pricing=offering.pricing,
        price_micros=offering.price,
        unit=offering.unit,
        description=offering.description,
    )
