"""The program of docs/robot.md, as it is printed there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filmed_table import EXPRESSION, MUG, STILL
from harness import System, wait_until

SAID = re.compile(r"(\w+) #(\d+): \d+ pixels around \((\d+), (\d+)\)")
PAGE = Path(__file__).parents[2] / "docs" / "robot.md"


def test_it_finds_the_pixels_of_the_object(system: System, tmp_path: Path) -> None:
    [program] = [code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "rclpy.init()" in code]
    log = tmp_path / "picker.log"
    command = [sys.executable, "-c", program]
    with system.camera.filming(table=STILL):
        system.wait_for_mask()
        answer = system.client.query(EXPRESSION)
        assert answer.success, answer.message
        with log.open("wb") as output, subprocess.Popen(command, stdout=output) as picker:
            try:
                said = wait_until(lambda: SAID.search(log.read_text()), "pixels")
            finally:
                picker.kill()
    assert said.group(1, 2) == ("mug", str(answer.objects[0].id))
    rows, columns = np.nonzero(STILL.view(0.0).mask_of(MUG))
    assert (int(said.group(3)), int(said.group(4))) == pytest.approx((columns.mean(), rows.mean()), abs=5)
