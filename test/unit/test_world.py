"""The procedural world: same seed, same world; ground truth that fits the image; sentences that fit one body only."""

import numpy as np
import pytest

from decaf_ros.synthetic.expressions import KINDS, expressions_of, vocabulary
from decaf_ros.synthetic.world import BACKGROUNDS, Body, Motion, Path, Scene, Screen, sample_scene

TIMES_S = [0.25 * index for index in range(16)]


def scene_of(*bodies: Body, screens: tuple[Screen, ...] = (), noise: float = 0.0) -> Scene:
    return Scene(seed=0, size_hw=(100, 100), background="sand", bodies=bodies, screens=screens, noise=noise)


def ball(x: float = 0.5, y: float = 0.5, radius: float = 0.2, colour: str = "red", **kwargs) -> Body:
    return Body("ball", colour, radius, Motion((x, y), **kwargs))


def spoken_of(scene: Scene, kind: str) -> dict[str, int]:
    """Body index by sentence."""
    found = expressions_of(scene, TIMES_S, np.random.default_rng(0))
    return {each.text: each.body_index for each in found if each.kind == kind}


def test_a_scene_depends_on_its_seed_alone_and_a_view_on_its_time_alone():
    early, late = sample_scene(7), sample_scene(7)
    early.render(3.0)
    view, again = early.render(1.3), late.render(1.3)
    assert np.array_equal(view.image_rgb, again.image_rgb)
    assert np.array_equal(view.instances_hw, again.instances_hw)
    assert not np.array_equal(view.image_rgb, sample_scene(8).render(1.3).image_rgb)


def test_seeds_give_every_background_and_two_to_four_bodies():
    scenes = [sample_scene(seed) for seed in range(60)]
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {len(scene.bodies) for scene in scenes} == {2, 3, 4}
    assert any(scene.screens for scene in scenes)


def test_the_mask_of_a_ball_is_its_disc():
    view = scene_of(ball(radius=0.2)).render(0.0)
    rows, columns = np.nonzero(view.mask_of(0))
    assert np.pi * 20**2 <= view.mask_of(0).sum() <= np.pi * 21**2  # OpenCV fills polygons with their outline
    assert (rows.mean(), columns.mean()) == pytest.approx((50, 50), abs=0.5)


def test_pixels_of_a_mask_have_the_bodys_colour():
    view = scene_of(ball(colour="blue")).render(0.0)
    red, green, blue = view.image_rgb[view.mask_of(0)].mean(axis=0)
    assert blue > 1.5 * max(red, green)


def test_the_body_in_front_hides_the_one_behind():
    view = scene_of(ball(radius=0.3), ball(radius=0.1, colour="blue")).render(0.0)
    assert view.instances_hw[50, 50] == 2
    assert view.instances_hw[50, 28] == 1
    assert not (view.mask_of(0) & view.mask_of(1)).any()


def test_behind_a_screen_nothing_is_seen_and_the_fraction_says_so():
    screen = Screen((0.5, 1.0), Path(((0.0, 0.25, 0.5),)))  # covers the left half
    scene = scene_of(ball(x=0.25), ball(x=0.5, colour="blue"), screens=(screen,))
    hidden, half = scene.visible_fractions([0.0])[0]
    assert hidden == 0.0
    assert half == pytest.approx(0.5, abs=0.03)
    assert not scene.render(0.0).mask_of(0).any()


def test_fractions_agree_with_what_is_rendered():
    scene = sample_scene(12)
    fractions = scene.visible_fractions([0.0, 2.0])
    for row, time_s in zip(fractions, (0.0, 2.0), strict=True):
        view = scene.render(time_s)
        for index, body in enumerate(scene.bodies):
            alone = Scene(0, scene.size_hw, "sand", (body,)).render(time_s).mask_of(0).sum()
            assert row[index] == pytest.approx(view.mask_of(index).sum() / max(alone, 1))


def test_motion_is_reflected_at_its_margins():
    motion = Motion((0.5, 0.5), velocity_xy=(0.2, 0.0), margin_xy=(0.1, 0.1))
    assert motion.position_at(2.0) == pytest.approx((0.9, 0.5))
    assert motion.position_at(3.0) == pytest.approx((0.7, 0.5))
    assert motion.position_at(6.5) == pytest.approx((0.2, 0.5))


def test_a_path_is_straight_between_waypoints_and_holds_before_and_after():
    path = Path(((1.0, 0.0, 0.2), (3.0, 1.0, 0.4)))
    assert [path.position_at(time_s) for time_s in (0.0, 2.0, 9.0)] == [(0.0, 0.2), (0.5, pytest.approx(0.3)), (1.0, 0.4)]


def test_unknown_bodies_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"beige ball.*mug.*cyan"):
        Body("ball", "beige", 0.1, Motion((0.5, 0.5)))


def test_a_shared_colour_or_shape_is_not_used_alone():
    scene = scene_of(
        Body("ball", "red", 0.1, Motion((0.2, 0.5))),
        Body("box", "red", 0.1, Motion((0.5, 0.5))),
        Body("box", "blue", 0.1, Motion((0.8, 0.5))),
    )
    assert set(spoken_of(scene, "colour").values()) == {2}
    assert set(spoken_of(scene, "shape").values()) == {0}
    assert set(spoken_of(scene, "colour_shape").values()) == {0, 1, 2}


def test_sizes_are_compared_only_by_a_clear_margin():
    clear = scene_of(ball(0.2, radius=0.05), ball(0.5, radius=0.1, colour="blue"), ball(0.8, radius=0.2, colour="green"))
    assert sorted(spoken_of(clear, "size").values()) == [0, 2]
    assert not spoken_of(scene_of(ball(0.2, radius=0.10), ball(0.8, radius=0.11, colour="blue")), "size")


def test_positions_are_those_of_the_image():
    texts = spoken_of(scene_of(ball(0.2, 0.8), ball(0.8, 0.2, colour="blue")), "position")
    means = {word: index for text, index in texts.items() for word in ("left", "right", "top", "bottom", "low") if word in text}
    assert means["left"] == 0
    assert means["right"] == 1
    assert means["top"] == 1
    assert means.get("bottom", means.get("low")) == 0


def test_motion_is_told_by_direction_and_against_what_stands_still():
    scene = scene_of(ball(0.2, 0.2, 0.1, velocity_xy=(0.15, 0.0)), ball(0.5, 0.8, 0.1, colour="blue"))
    texts = spoken_of(scene, "motion")
    assert any("right" in text and index == 0 for text, index in texts.items())
    assert any(("still" in text or "not move" in text) and index == 1 for text, index in texts.items())
    assert not any("left" in text for text in texts)


def test_a_hidden_body_is_not_spoken_of_but_counts_as_a_rival():
    screen = Screen((0.5, 1.0), Path(((0.0, 0.25, 0.5),)))
    scene = scene_of(ball(0.25, radius=0.1), ball(0.8, radius=0.1), screens=(screen,))
    assert not spoken_of(scene, "colour")


def test_every_sentence_of_many_scenes_is_in_the_vocabulary_and_names_the_right_shape():
    words, kinds = set(vocabulary()), set()
    for seed in range(40):
        scene = sample_scene(seed)
        for found in expressions_of(scene, TIMES_S, np.random.default_rng(seed)):
            kinds.add(found.kind)
            assert set(found.text.split()) <= words
            assert found.answer == scene.bodies[found.body_index].shape
    assert kinds == set(KINDS)
