"""The demo model of a study that is too small for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from storage.dataset import Dataset
from storage.errors import BadInput
from tasks.model import demo_model
from tasks.stage import Runtime


@pytest.mark.parametrize("captions", [0, 1, 3])
def test_a_demo_model_of_one_captioned_image_is_bad_input(tmp_path: Path, captions: int) -> None:
    features = Dataset(path="features", recipe="r", digest="d", rows=1)
    (tmp_path / "features").mkdir()
    arrays = {"image": np.ones((1, 4), np.float32), "text": np.ones((captions, 4), np.float32)}
    owner = np.zeros(captions, np.int64)
    save_file({**arrays, "owner": owner}, tmp_path / "features" / "features.safetensors")
    with pytest.raises(BadInput, match=rf"and there are {min(captions, 1)}: set another pairs\.heldout, or take more"):
        demo_model.body(tmp_path / "out", features, "emoji-clip", 0, Runtime(store=tmp_path))
