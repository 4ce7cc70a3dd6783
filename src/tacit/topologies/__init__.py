"""With whom workers talk."""

from tacit.topologies.sampling import Everyone, Sampled, Topology

__all__ = ["Everyone", "Sampled", "Topology"]
