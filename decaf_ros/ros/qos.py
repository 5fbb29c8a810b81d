"""How many requests may be under way at once, from all clients together."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

# Requests and answers that come faster than they are taken wait in queues of DDS, and what finds no room in one is lost without
# a word. rclpy's depth of 10 is for one client that asks one thing at a time; its services of parameters have this one. "Keep
# all" would lose nothing, but wait for a client that is suspended, and with it all others.
SERVICE_QOS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
