"""With whom workers talk."""

from tacit.topologies.balancing import Balancing
from tacit.topologies.base import Coordinated, Topology
from tacit.topologies.drawing import Drawn
from tacit.topologies.peers import Peers
from tacit.topologies.sampling import Everyone, Sampled

__all__ = ["Balancing", "Coordinated", "Drawn", "Everyone", "Peers", "Sampled", "Topology"]
