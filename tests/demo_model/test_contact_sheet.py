import json
from pathlib import Path

import numpy as np

from ddit_batch.phases.mp4 import encode_mp4
from demo_model.contact_sheet import page, videos_in


def test_page_shows_every_video_with_its_prompt(tmp_path: Path) -> None:
    frames = np.zeros((9, 64, 96, 3), dtype=np.uint8)
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(encode_mp4(frames, 8))
        manifest = {"request": {"prompt": f"<{name}> & more"}}
        (tmp_path / f"{name}.json").write_text(json.dumps(manifest))
    (tmp_path / "alone.mp4").write_bytes(b"no manifest")

    shown = page(videos_in(tmp_path), title="2 videos")

    assert shown.count("data:image/png;base64,") == 2
    assert "&lt;a&gt; &amp; more" in shown
    assert "<a>" not in shown
    assert "64x96x9" in shown
