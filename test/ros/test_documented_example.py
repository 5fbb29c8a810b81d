"""The program of docs/robot.md, as it is printed there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from harness import BODY_INDEX, SCENE, System, wait_until

SAID = re.compile(r"(\w+) #(\d+): \d+ pixels around \(\d+, (\d+)\)")
PAGE = Path(__file__).parents[2] / "docs" / "robot.md"


def test_it_finds_the_pixels_of_the_object(system: System, tmp_path: Path) -> None:
    [program] = [code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "rclpy.init()" in code]
    log = tmp_path / "picker.log"
    answer = system.ask()
    command = [sys.executable, "-c", program]
    with system.camera.filming(), log.open("wb") as output, subprocess.Popen(command, stdout=output) as picker:
        try:
            said = wait_until(lambda: SAID.search(log.read_text()), "pixels")
        finally:
            picker.kill()
    assert said.group(1, 2) == ("ball", str(answer.objects[0].id))
    _, y = SCENE.bodies[BODY_INDEX].motion.position_at(0.0)  # it moves from side to side
    assert abs(int(said.group(3)) - y * SCENE.size_hw[0]) < 10
