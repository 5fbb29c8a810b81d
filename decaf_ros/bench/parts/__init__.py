"""One file a part. They are listed here, without what they import."""

from __future__ import annotations

from decaf_ros.bench.part import Option, Part

PARTS = (
    Part(
        "held-out",
        "how well sentences become masks, by kind",
        (Option("queries", 30, "for each kind of sentence", quick=1),),
    ),
    Part(
        "presence",
        "whether the language model can tell that nothing fits a sentence",
        (Option("presence-queries", 200, "true of something, and as many true of nothing", quick=8),),
    ),
    Part(
        "objects-3d",
        "how far off objects are in space",
        (Option("scenes", 30, "in which objects are measured in space", quick=2),),
    ),
    Part(
        "ablation",
        "the method with one part changed at a time, and other methods",
        (Option("ablation-queries", 60, "for each variant", quick=4),),
    ),
    Part(
        "grounders",
        "points where the language model looks, beside boxes that it answers with",
        (Option("grounder-queries", 60, "by each grounder", quick=2),),
    ),
    Part(
        "tracking",
        "what becomes of objects that go out of sight, or meet their doubles",
        (
            Option("episodes", 8, "of loss and return, for each kind", quick=1),
            Option("doubles", 50, "that pass an object", quick=2),
        ),
    ),
    Part(
        "live",
        "how sentences fare that are asked while the camera films, in simulated time",
        (Option("live-queries", 32, "asked live, of all kinds alike", quick=2),),
    ),
    Part(
        "standing",
        "how soon a thing is tracked that was asked for before it came, and what waiting for several costs",
        (
            Option("arrivals", 40, "of things that were asked for", quick=1),
            Option("waits", 4, "whose cost is measured, with one sentence and with several", quick=1),
        ),
    ),
    Part(
        "query",
        "a query by stage, with nothing read, read ahead, and asked again, and a refresh; on one core",
        (Option("query-repetitions", 8, "of each row", quick=1),),
    ),
    Part(
        "node",
        "how late masks are, also while queries run, how long these take, memory, and what a slow subscriber does",
        (
            Option("node-frames", 3000, "to watch the node's memory for", quick=500),
            Option("node-seconds", 300.0, "to watch the node beside a slow subscriber", quick=20.0),
            Option("node-queries", 10, "asked with each setting of read_ahead", quick=1),
        ),
    ),
    Part(
        "ros",
        "what ROS adds to each frame",
        (Option("ros-frames", 300, "to publish for each set of subscribers", quick=60),),
    ),
    Part(
        "rollout",
        "the rollout and its shared visual prefix against the method written down plainly; on one core",
        (Option("repetitions", 3, "of each timing", quick=1),),
        by_default=False,
        pictures=("rollout-memory.png",),
    ),
    Part(
        "tracker",
        "many objects against sam2's predictor, a stream without end, and the tracklets of a query",
        (
            Option("tracker-frames", 80, "for each number of objects, of which 16 are warm-up", quick=20, least=18),
            Option("soak-frames", 20_000, "to watch the memory for", quick=200, least=20),
            Option("tracker-queries", 8, "whose tracklets are timed", quick=1),
        ),
        by_default=False,
    ),
    Part(
        "full-size",
        "published models at their full size, with random weights: a query by stage, a tracked frame beside it, and memory",
        (
            Option("minutes", 6.0, "for all of it; what would take longer is left out"),
            Option("mllms", None, "language models, by hub id", many=True, quick=("Qwen/Qwen2-VL-2B-Instruct",)),
            Option("trackers", None, "SAM 2, by hub id", many=True, quick=("facebook/sam2.1-hiera-tiny",)),
            Option("key-frames", 16, "that a query reads", quick=2),
            Option("full-size-queries", 3, "timed of each condition, after one of warm-up", quick=1, least=0),
            Option("layers", None, "that language models and their vision towers are cut to", quick=2),
            Option("batch-tokens", None, "the node's batch_tokens"),
            Option("image-size", 1024, "side that trackers work at", quick=256),
            Option("full-size-frames", 30, "tracked for each row", quick=2),
        ),
        by_default=False,
    ),
)
"""In the order in which they run."""
