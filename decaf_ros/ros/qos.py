"""Qualities of service that several parts share."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

# Requests and answers that come faster than they are taken wait in queues of DDS, and what finds no room in one is lost without
# a word. rclpy's depth of 10 is for one client that asks one thing at a time; its services of parameters have this one. "Keep
# all" would lose nothing, but wait for a client that is suspended, and with it all others.
SERVICE_QOS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
# The last message is kept for whoever comes later.
LATCHED_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
