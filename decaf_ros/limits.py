"""How much may be asked for at once: every bound on the texts, lists and numbers that come from outside, in one table.

What exceeds a bound is refused before anything is done with it, under the bound's name. Most of them are parameters; the others
are fixed here, as no use needs more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """One bound.

    Attributes:
        name: as refusals have it.
        of: what it bounds, for the documentation.
        unit: what is counted.
        most: how many are allowed; ``None`` where the parameter of the same name tells.
    """

    name: str
    of: str
    unit: str
    most: int | None = None

    def require(self, count: int, owner: str, most: int | None = None) -> None:
        """Raise ``ValueError``, with all there is to know, if there is too much of something.

        Args:
            count: of what came.
            owner: who has it, as in "the request".
            most: the parameter's value, where it is one.
        """
        allowed = most if self.most is None else self.most
        if allowed is not None and count > allowed:
            kind = "parameter" if self.most is None else "limit"
            raise ValueError(f"{owner} has {count} {self.unit}, at most {allowed} are allowed ({kind} {self.name})")


EXPRESSION = Limit(
    "max_expression_length",
    "`expression` of `~/query` and `~/track_by_language`, `label` of `~/add_object`; one line that can be printed",
    "characters",
)
POINTS = Limit(
    "max_points", "`on_points` and `off_points` of `~/add_object` together; within the image, as its box is", "points", 64
)
PIXELS = Limit("max_image_pixels", "images, and `mask` of `~/add_object`, which has the size of the camera's images", "pixels")
WINDOW = Limit("window_seconds", "`window_seconds` of `~/query` and `~/track_by_language`; above 0, or 0 for all", "seconds")
STAMP = Limit("max_nanosec", "`nanosec` of the stamp of `~/add_object`, with `sec` from 0 on", "nanoseconds", 999_999_999)
WAIT = Limit("max_wait_seconds", "`wait_seconds` of `~/query` and `~/track_by_language`; from 0 on", "seconds", 86_400)
PENDING = Limit("max_pending_queries", "queries and pointed-out objects that wait for the models", "queries")
STANDING = Limit("max_standing_queries", "queries that look for what is not there yet (`wait_seconds`)", "queries")
QUERIES = Limit("max_queries", "queries that are active, or wait and will be", "queries")
OBJECTS = Limit("max_objects", "objects that are followed; of more that are found the best are kept", "objects")
TEXT = Limit("max_text_length", "parameters that are text; one line that can be printed", "characters", 1024)
PARAMETERS = Limit("max_parameters", "parameters that are named in one call of the services for parameters", "parameters", 256)
SEEDS = Limit("max_seeds", "worlds of `decaf_sim_camera`, its parameter `seeds`", "seeds", 1000)

LIMITS = (EXPRESSION, POINTS, PIXELS, WINDOW, STAMP, WAIT, PENDING, STANDING, QUERIES, OBJECTS, TEXT, PARAMETERS, SEEDS)
